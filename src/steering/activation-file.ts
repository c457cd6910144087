import { InputError } from '../errors.js';
import { openSafetensors } from '../formats/safetensors.js';
import { createSafetensorsWriter, type SafetensorsWriter } from '../formats/safetensors-writer.js';
import type { TensorInfo, TensorStore } from '../formats/tensor.js';
import type { ActivationStore } from './activation-store.js';

/** One row of a file of activations: a step of a run, or a member of a pair. */
export interface ActivationRow {
  /** Place among all rows of the data, shards together: united files are ordered by it. */
  readonly index: number;
  /** Of steps. */
  readonly run?: string;
  readonly step?: string;
  readonly entropyNats?: number;
  readonly counts?: readonly number[];
}

/** What a file of activations says of itself. Files that are united must agree in it. */
export interface ActivationHeader {
  /** `steps` with entropies, or `pairs`: positive and negative rows alternating. */
  readonly kind: 'steps' | 'pairs';
  readonly modelType: string;
  readonly modelLayers: number;
  readonly modelSha256: string;
  /** `--read-token` */
  readonly read: string;
  readonly precision: string;
  /** How entropies were found. */
  readonly entropy: string;
}

const FORMAT = 'surprisal/activations';
const NAME = /^residual\.(-1|\d+)$/;
/** Rows that are copied at a time. */
const CHUNK_ROWS = 256;

/** Opens the file that {@link writeActivations} fills, so that what is wrong with its name is said before the long work. */
export function openActivationWriter(
  path: string,
  store: Pick<ActivationStore, 'layers' | 'rows' | 'width'>,
  header: ActivationHeader,
  rows: readonly ActivationRow[],
  force: boolean,
): SafetensorsWriter {
  return createSafetensorsWriter(path, {
    force,
    plan: store.layers.map((layer) => ({ name: `residual.${layer}`, dtype: 'F32', shape: [store.rows, store.width] })),
    metadata: { format: FORMAT, version: '1', header: JSON.stringify(header), rows: JSON.stringify(rows) },
  });
}

/** Copies a store: tensors `residual.N` `[rows, width]` of 0-based block N (-1 the embeddings), f32. */
export function writeActivations(writer: SafetensorsWriter, store: ActivationStore): void {
  store.layers.forEach((layer, place) => {
    for (let row = 0; row < store.rows; row += CHUNK_ROWS) {
      const count = Math.min(CHUNK_ROWS, store.rows - row);
      const values = store.read(
        place,
        Array.from({ length: count }, (_, i) => row + i),
      );
      writer.write(`residual.${layer}`, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    }
  });
}

/** Activations from files: their rows in the order of the data. */
export interface StoredActivations {
  readonly header: ActivationHeader;
  readonly rows: readonly ActivationRow[];
  readonly store: ActivationStore;
}

interface OpenFile {
  readonly path: string;
  readonly store: TensorStore;
  readonly header: ActivationHeader;
  readonly rows: readonly ActivationRow[];
  readonly tensors: ReadonlyMap<number, TensorInfo>;
  readonly width: number;
}

function openFile(path: string): OpenFile {
  const store = openSafetensors(path);
  const { metadata } = store;
  if (metadata.format !== FORMAT || metadata.version !== '1') {
    store.close();
    throw new InputError(`${path}: is no file of activations; write one with steer compute --activations-out`);
  }
  let header: ActivationHeader;
  let rows: readonly ActivationRow[];
  try {
    header = JSON.parse(metadata.header) as ActivationHeader;
    rows = JSON.parse(metadata.rows) as ActivationRow[];
  } catch {
    throw new InputError(`${path}: its metadata is damaged; write it anew with steer compute --activations-out`);
  }
  const tensors = new Map<number, TensorInfo>();
  let width = 0;
  for (const info of store.tensors.values()) {
    const layer = NAME.exec(info.name)?.[1];
    if (layer === undefined || info.dtype !== 'F32' || info.shape.length !== 2 || info.shape[0] !== rows.length) {
      throw new InputError(
        `${path}: tensor "${info.name}" is ${info.dtype} [${info.shape.join(', ')}]; expected residual.N, F32 [${rows.length}, hidden]`,
      );
    }
    width = info.shape[1];
    tensors.set(Number(layer), info);
  }
  return { path, store, header, rows, tensors, width };
}

function checkAgree(first: OpenFile, other: OpenFile): void {
  const differing = (Object.keys(first.header) as (keyof ActivationHeader)[]).find(
    (key) => first.header[key] !== other.header[key],
  );
  if (differing !== undefined) {
    throw new InputError(
      `${other.path}: ${differing} is ${other.header[differing]}, in ${first.path} ${first.header[differing]}; only parts of one run can be united`,
    );
  }
  const layers = (file: OpenFile): string => [...file.tensors.keys()].sort((a, b) => a - b).join(', ');
  if (layers(first) !== layers(other) || first.width !== other.width) {
    throw new InputError(
      `${other.path}: holds layers ${layers(other)} of width ${other.width}, ${first.path} layers ${layers(first)} of width ${first.width}`,
    );
  }
}

/**
 * Opens one file of activations, or the parts of one run, in any order.
 * @throws InputError for files of another kind, that disagree, or that hold a row twice
 */
export function readActivations(paths: readonly string[]): StoredActivations {
  const files = paths.map(openFile);
  for (const other of files.slice(1)) checkAgree(files[0], other);
  const places = files.flatMap((file) => file.rows.map((row, at) => ({ file, row, at })));
  places.sort((a, b) => a.row.index - b.row.index);
  places.slice(1).forEach(({ file, row }, i) => {
    if (row.index === places[i].row.index) {
      throw new InputError(`${file.path}: row ${row.index} of the data is also in ${places[i].file.path}`);
    }
  });
  const layers = [...files[0].tensors.keys()].sort((a, b) => a - b);
  const { width } = files[0];
  return {
    header: files[0].header,
    rows: places.map(({ row }) => row),
    store: {
      layers,
      width,
      rows: places.length,
      read(place, which) {
        const result = new Float32Array(which.length * width);
        const bytes = new Uint8Array(result.buffer);
        for (let i = 0; i < which.length; i++) {
          const { file, at } = places[which[i]];
          const info = file.tensors.get(layers[place]);
          if (!info) throw new RangeError(`layer ${layers[place]} is not in ${file.path}`);
          file.store.readInto(info, at * width * 4, width * 4, bytes.subarray(i * width * 4, (i + 1) * width * 4));
        }
        return result;
      },
      close() {
        for (const file of files) file.store.close();
      },
    },
  };
}
