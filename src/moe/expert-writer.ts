import { quoted } from '../formats/files.js';
import type { ShardFiles } from '../formats/safetensors-shards.js';
import type { TensorInfo } from '../formats/tensor.js';
import { COPY_BYTES } from '../models/model-directory.js';
import { CHUNK_VALUES, encodeValues, stageF32 } from './expert-encoding.js';
import type { ExpertLayer, ExpertModel } from './expert-model.js';
import {
  BAND_VALUES,
  type ExpertPart,
  expertParts,
  expertSlices,
  type RouterTensors,
  turnBlock,
} from './expert-reader.js';
import type { ExpertMatrices } from './types.js';

/**
 * Rows of a new router: rows of the old one by number (bit-identical, biases with them), or new values; a layer with biases
 * needs theirs too.
 */
export type NewRouter = { readonly rows: Int32Array } | RouterTensors;

/** Bytes of a source expert at another place. */
export function copyExpert(source: ExpertModel, layer: ExpertLayer, e: number, place: number, files: ShardFiles): void {
  if (!(Number.isSafeInteger(e) && e >= 0 && e < layer.experts))
    throw new RangeError(`${layer.name}: no expert ${e} of ${layer.experts} to copy`);
  const to = expertSlices(layer, place);
  const buffer = new Uint8Array(COPY_BYTES);
  for (const [i, from] of expertSlices(layer, e).entries()) {
    const info = source.store.tensors.get(from.tensor);
    if (info === undefined) throw new RangeError(`${source.path}: no tensor ${quoted(from.tensor)}`);
    for (let at = 0; at < from.byteLength; at += buffer.length) {
      const piece = buffer.subarray(0, Math.min(buffer.length, from.byteLength - at));
      source.store.readInto(info, from.start + at, piece.length, piece);
      files.write(to[i].tensor, to[i].start + at, piece);
    }
  }
}

/** Rounds an expert and writes it as the source stores experts. */
export function encodeExpert(
  source: ExpertModel,
  layer: ExpertLayer,
  expert: ExpertMatrices,
  place: number,
  files: ShardFiles,
  threads: number | undefined,
): void {
  const where = (role: string): string => `${source.path}: ${layer.name}, merged expert ${place}, ${role}`;
  const parts = expertParts(layer, source.layout, place);
  for (const part of parts) {
    const values = expert[part.role];
    if (values?.length !== part.rows * part.columns)
      throw new RangeError(`${where(part.role)}: ${values?.length ?? 'no'} values for [${part.rows}, ${part.columns}]`);
    if (part.turned) continue;
    for (let at = 0; at < values.length; at += CHUNK_VALUES) {
      const staged = stageF32(values, at, Math.min(CHUNK_VALUES, values.length - at), layer.dtype);
      const bytes = encodeValues(staged, layer.dtype, where(part.role), threads);
      files.write(part.tensor, part.start + at * (part.strideBytes / part.columns), bytes);
    }
  }
  const turned = parts.filter((part) => part.turned);
  for (const name of new Set(turned.map(({ tensor }) => tensor))) {
    const own = turned.filter(({ tensor }) => tensor === name);
    encodeTurned(own, expert, layer, files, where(own.map(({ role }) => role).join(' and ')), threads);
  }
}

/** Matrices that lie turned, side by side in the rows of one tensor. */
function encodeTurned(
  parts: readonly ExpertPart[],
  expert: ExpertMatrices,
  layer: ExpertLayer,
  files: ShardFiles,
  where: string,
  threads: number | undefined,
): void {
  const [{ tensor, strideBytes, columns: height, start }] = parts;
  const stride = parts.reduce((sum, { rows }) => sum + rows, 0);
  const bandRows = Math.max(1, Math.min(height, Math.floor(BAND_VALUES / stride)));
  for (let first = 0; first < height; first += bandRows) {
    const count = Math.min(bandRows, height - first);
    const band =
      expert.up instanceof Float64Array ? new Float64Array(count * stride) : new Float32Array(count * stride);
    let at = 0;
    for (const { role, rows } of parts) {
      turnBlock(expert[role] ?? band, { stride: height, from: first, rows, columns: count }, band, stride, at);
      at += rows;
    }
    const staged = stageF32(band, 0, band.length, layer.dtype);
    files.write(tensor, start + first * strideBytes, encodeValues(staged, layer.dtype, where, threads));
  }
}

/** New rows of the router and of its biases. */
export function writeRouterRows(
  source: ExpertModel,
  layer: ExpertLayer,
  rows: number,
  router: NewRouter | Float32Array,
  files: ShardFiles,
): void {
  const given: NewRouter = router instanceof Float32Array ? { rows: router } : router;
  const gathered = given.rows instanceof Int32Array ? given.rows : undefined;
  const values = given as Partial<RouterTensors>;
  const tensors = [
    { name: layer.router, width: layer.shape.hidden, what: 'rows', values: values.rows },
    { name: layer.routerBias, width: 1, what: 'bias', values: values.bias },
    { name: layer.correctionBias, width: 1, what: 'correction bias', values: values.correctionBias },
  ];
  for (const { name, width, what, values: fresh } of tensors) {
    if (name === undefined) continue;
    const info = source.store.tensors.get(name);
    if (info === undefined) throw new RangeError(`${source.path}: no tensor ${quoted(name)}`);
    if (gathered !== undefined) {
      if (gathered.length !== rows) throw new RangeError(`${layer.name}: ${gathered.length} router rows for ${rows}`);
      gatherRows(source, info, gathered, layer, files);
    } else {
      if (fresh?.length !== rows * width)
        throw new RangeError(`${layer.name}: router ${what}: ${fresh?.length ?? 'no'} values for [${rows}, ${width}]`);
      const dtype = info.dtype as ExpertLayer['dtype'];
      files.write(name, 0, encodeValues(fresh, dtype, `${source.path}: ${layer.name}, router ${what}`));
    }
  }
}

function gatherRows(
  source: ExpertModel,
  info: TensorInfo,
  rows: Int32Array,
  layer: ExpertLayer,
  files: ShardFiles,
): void {
  const rowBytes = info.byteLength / layer.routerRows;
  const bytes = new Uint8Array(rowBytes);
  for (const [i, row] of rows.entries()) {
    if (!(row >= 0 && row < layer.routerRows)) throw new RangeError(`${layer.name}: no router row ${row}`);
    source.store.readInto(info, row * rowBytes, rowBytes, bytes);
    files.write(info.name, i * rowBytes, bytes);
  }
}
