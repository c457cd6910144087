import { InputError } from '../errors.js';
import type { EngineHost, JobReference } from '../models/engine-host.js';
import { gatherRows } from '../models/gather-rows.js';
import type { LanguageModel, PositionRange } from '../models/language-model.js';
import type { Floats } from '../models/layer-runner.js';
import { addToPool, createPoolState, finishPool, type Pooling, type PoolState } from './pooling.js';

/** Layer 0 holds the embeddings, layer l the residual stream after block l; `final` is layer L after the final norm. */
export type FeatureLayer = number | 'final';

export interface FeatureArguments {
  readonly windows: readonly Int32Array[];
  /** Positions of each window that count (a prefix token does not). */
  readonly wanted: readonly PositionRange[];
  readonly layers: readonly FeatureLayer[];
  readonly pool: Pooling;
  /** Name of the document of each window, for errors. */
  readonly documents: readonly string[];
}

/** For each layer: `[positions, width]` for `tokens`, else the row that each window leaves in its pool, `[windows, width]`. */
export type FeatureBatch = readonly Floats[];

function requireFinite(rows: Floats, width: number, layer: FeatureLayer, args: FeatureArguments): void {
  const bad = rows.findIndex((value) => !Number.isFinite(value));
  if (bad < 0) return;
  let row = Math.floor(bad / width);
  let window = 0;
  while (row >= args.wanted[window][1] - args.wanted[window][0]) {
    row -= args.wanted[window][1] - args.wanted[window][0];
    window++;
  }
  throw new InputError(
    `document ${args.documents[window]}: the residual stream at layer ${layer} is not finite at position ` +
      `${args.wanted[window][0] + row} of a window; look at the weights, or try --precision f64`,
  );
}

/** Sums for the means, so that windows of a text can be put together. */
function pooled(rows: Floats, width: number, { pool, wanted }: FeatureArguments): Floats {
  if (pool === 'tokens') return rows;
  const result = new Float64Array(wanted.length * width);
  let first = 0;
  wanted.forEach(([from, to], w) => {
    const state = createPoolState(width);
    addToPool(state, rows.subarray(first * width, (first + to - from) * width), pool);
    result.set(state.row, w * width);
    first += to - from;
  });
  return result;
}

/**
 * Runs beside the engine: features of a batch of windows at some layers. Layers above the last one that is asked for are
 * not run.
 * @throws InputError when the layers cannot be reached, or a residual stream is not finite
 */
export async function extractFeatures({ engine, info }: LanguageModel, args: FeatureArguments): Promise<FeatureBatch> {
  if (!engine) throw new InputError(`${info.path}: layers are not reachable in an ONNX export; pass the model itself`);
  const width = engine.model.hiddenSize;
  const depth = engine.model.layers.length;
  const deepest = Math.max(...args.layers.map((layer) => (layer === 'final' ? depth : layer)));
  const found = new Map<FeatureLayer, Floats>();
  const take = (layer: FeatureLayer, rows: Floats): void => {
    requireFinite(rows, width, layer, args);
    found.set(layer, pooled(rows, width, args));
  };
  await engine.forward({
    windows: args.windows,
    ...(deepest > 0 && deepest < depth && { layers: [0, deepest] as const }),
    onResidual: async (layer, groups) => {
      if (args.layers.includes(layer)) take(layer, gatherRows(groups, width, args.wanted));
      if (layer === depth && args.layers.includes('final')) {
        const rows = gatherRows(groups, width, args.wanted);
        await engine.normalize(rows);
        take('final', rows);
      }
    },
  });
  return args.layers.map((layer) => found.get(layer) ?? new Float32Array(0));
}

export const EXTRACT_FEATURES: JobReference<FeatureArguments, FeatureBatch> = {
  module: import.meta.url,
  job: extractFeatures,
};

/** A text as token ids. */
export interface FeatureDocument {
  readonly id: string;
  readonly tokens: Int32Array;
}

/** Features of all documents at one layer, `[rows, width]`. */
export interface LayerFeatures {
  readonly layer: FeatureLayer;
  readonly data: Float32Array;
  readonly rows: number;
  readonly width: number;
}

export interface ExtractedFeatures {
  readonly layers: readonly LayerFeatures[];
  /** Index of the document of each row. */
  readonly documentOfRow: Int32Array;
  readonly ids: readonly string[];
  readonly tokens: number;
}

export interface ExtractionSettings {
  readonly layers: readonly FeatureLayer[];
  readonly pool: Pooling;
  /** Tokens of a window, the prefix included. */
  readonly context: number;
  /** Token before every window that does not count. */
  readonly prefixToken: number | undefined;
  readonly hiddenSize: number;
  readonly maxBytes: number;
  onTokens?(tokens: number): void;
}

/** f32 rows that grow by doubling. */
function growingRows(width: number): { rows(): number; append(values: Floats): void; take(): Float32Array } {
  let data = new Float32Array(width * 64);
  let length = 0;
  return {
    rows: () => length / width,
    append(values) {
      if (length + values.length > data.length) {
        const larger = new Float32Array(Math.max(2 * data.length, length + values.length));
        larger.set(data.subarray(0, length));
        data = larger;
      }
      data.set(values, length);
      length += values.length;
    },
    take: () => data.slice(0, length),
  };
}

interface PlacedChunk {
  readonly document: number;
  readonly input: Int32Array;
  readonly wanted: PositionRange;
  readonly last: boolean;
}

/** Cuts a document into windows that follow each other without overlap. */
function chunksOf(document: FeatureDocument, index: number, settings: ExtractionSettings): PlacedChunk[] {
  const { context, prefixToken } = settings;
  const lead = prefixToken === undefined ? 0 : 1;
  const step = context - lead;
  const chunks: PlacedChunk[] = [];
  for (let at = 0; at < document.tokens.length; at += step) {
    const body = document.tokens.subarray(at, at + step);
    const input = new Int32Array(lead + body.length);
    if (prefixToken !== undefined) input[0] = prefixToken;
    input.set(body, lead);
    const last = at + step >= document.tokens.length;
    chunks.push({ document: index, input, wanted: [lead, input.length], last });
  }
  return chunks;
}

/** Puts what one window left in its pool to that of the windows before it. */
function joinWindow(state: PoolState, row: Floats, count: number, pool: Exclude<Pooling, 'tokens'>): void {
  const positions = state.positions + count;
  addToPool(state, row, pool);
  state.positions = positions;
}

/**
 * Features of texts: windows follow each other without overlap, each with the prefix token if there is one. Pooling is over all
 * tokens of a document.
 * @throws InputError for a document without tokens, for more features than `maxBytes` hold
 */
export async function featuresOfDocuments(
  documents: AsyncIterable<FeatureDocument>,
  host: EngineHost,
  settings: ExtractionSettings,
): Promise<ExtractedFeatures> {
  const { layers, pool, hiddenSize: width } = settings;
  const stores = layers.map(() => growingRows(width));
  const documentOfRow: number[] = [];
  const ids: string[] = [];
  let tokens = 0;
  let states = layers.map(() => createPoolState(width));

  const fold = (chunks: readonly PlacedChunk[], batch: FeatureBatch): void => {
    let row = 0;
    for (const [w, { document, wanted, last }] of chunks.entries()) {
      const count = wanted[1] - wanted[0];
      if (pool === 'tokens') {
        layers.forEach((_, l) => {
          stores[l].append(batch[l].subarray(row * width, (row + count) * width));
        });
        for (let i = 0; i < count; i++) documentOfRow.push(document);
        row += count;
        continue;
      }
      states.forEach((state, l) => {
        joinWindow(state, batch[l].subarray(w * width, (w + 1) * width), count, pool);
      });
      if (!last) continue;
      states.forEach((state, l) => {
        stores[l].append(finishPool(state, pool));
      });
      states = layers.map(() => createPoolState(width));
      documentOfRow.push(document);
    }
    const held = 4 * width * documentOfRow.length * layers.length;
    if (2 * held > settings.maxBytes) {
      throw new InputError(
        `features of ${documentOfRow.length} rows at ${layers.length} layers take ${Math.ceil(held / 2 ** 20)} MiB, more than ` +
          '--max-memory leaves; name fewer layers with --layer, fewer texts with --limit, or --pool mean',
      );
    }
  };
  const measure = async (chunks: readonly PlacedChunk[]): Promise<void> => {
    const batch = await host.run(EXTRACT_FEATURES, {
      windows: chunks.map(({ input }) => input),
      wanted: chunks.map(({ wanted }) => wanted),
      layers,
      pool,
      documents: chunks.map(({ document }) => ids[document]),
    });
    fold(chunks, batch);
    tokens += chunks.reduce((sum, { wanted }) => sum + wanted[1] - wanted[0], 0);
    settings.onTokens?.(tokens);
  };

  let pending: PlacedChunk[] = [];
  let rows = 0;
  for await (const document of documents) {
    if (document.tokens.length === 0) {
      throw new InputError(`document ${document.id}: has no token, so there is nothing to take features from`);
    }
    ids.push(document.id);
    for (const chunk of chunksOf(document, ids.length - 1, settings)) {
      if (pending.length > 0 && rows + chunk.input.length > host.info.rowsPerBatch) {
        await measure(pending);
        pending = [];
        rows = 0;
      }
      pending.push(chunk);
      rows += chunk.input.length;
    }
  }
  if (pending.length > 0) await measure(pending);
  return {
    layers: layers.map((layer, l) => ({ layer, data: stores[l].take(), rows: stores[l].rows(), width })),
    documentOfRow: Int32Array.from(documentOfRow),
    ids,
    tokens,
  };
}
