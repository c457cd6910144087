import { InputError } from '../errors.js';
import { layerParameterCount, type ModelDescription } from './description.js';

/** How a model is run within a limit of resident memory. */
export interface MemoryPlan {
  /** All layers stay widened in memory; otherwise each is read, used over a batch of windows, and released. */
  readonly layersResident: boolean;
  /** All head blocks stay widened in memory; otherwise each is read per batch. */
  readonly headResident: boolean;
  /** Rows (tokens) that one run of a layer takes. */
  readonly rowsPerRun: number;
  /** Rows that a caller should hand over at once. */
  readonly rowsPerBatch: number;
  /** Rows of the head matrix per block; a function of the model alone, so that figures do not depend on memory. */
  readonly headBlock: number;
  /** Estimated peak resident memory in bytes. */
  readonly peakBytes: number;
  /** Smallest limit under which this request can run. */
  readonly minimumBytes: number;
}

export interface PlanRequest {
  readonly model: ModelDescription;
  readonly maxBytes: number;
  /** Longest window in tokens. */
  readonly context: number;
  readonly precision: 'f32' | 'f64';
  /** Activations are quantised in the layers' graphs, which takes copies of them. */
  readonly quantizedActivations?: boolean;
  /** Resident bytes of the process before the model is opened. */
  readonly processBytes: number;
}

/** Rows of one run: enough to keep matrix products busy (more is no faster). Bits do not depend on the choice. */
const RUN_ROWS = [512, 256, 128] as const;
/** Rows whose target logits the head multiplies at once: the product is square, so small pieces cost less. */
export const TARGET_ROWS = 128;
/** Rows of one product of the head: its logits stay in the processor's cache until they are reduced. */
export const HEAD_ROWS = 256;
const MAX_BATCH_ROWS = 1 << 16;
/** What the process holds before the model is opened differs by a few MiB from run to run: the named minimum covers it. */
const START_BYTES = 8 << 20;
const RESIDENT_BATCH_ROWS = 4096;
/**
 * Code of ONNX Runtime, sessions, thread stacks, the JavaScript heaps of both threads, and freed buffers that wait for
 * the garbage collector or lie in the allocator: what bench/peak-memory.mjs measures beyond the rest of the estimate.
 */
const RUNTIME_BYTES = 144 << 20;
/** Chunk of stored weights that is read and widened at once. */
const STAGING_BYTES = 4 << 20;
/** Copies of the widest activation that its quantisation holds at once, ranks of int64 among them. */
const QUANTIZER_COPIES = 16;
/** Accumulators and results per scored row: of the batch that runs, and of the one that is being written. */
const BYTES_PER_SCORED_ROW = 1536;

/** Rows of the head matrix per block: 2^22 elements at most, between 1,024 and 4,096. */
export function headBlockRows(hiddenSize: number): number {
  let rows = 4096;
  while (rows > 1024 && rows * hiddenSize > 1 << 22) rows /= 2;
  return rows;
}

/**
 * Chooses what stays in memory and how many rows go at once.
 * @throws InputError with the smallest limit that would do.
 */
export function planMemory(request: PlanRequest): MemoryPlan {
  const { model, maxBytes, context, precision, processBytes, quantizedActivations = false } = request;
  const width = precision === 'f32' ? 4 : 8;
  const layerBytes = model.layers.map((layer) => layerParameterCount(layer, model.hiddenSize) * width);
  const allLayers = layerBytes.reduce((sum, bytes) => sum + bytes, 0);
  const largestLayer = Math.max(...layerBytes);
  const headBlock = Math.min(headBlockRows(model.hiddenSize), model.vocabularySize);
  const allHead = model.vocabularySize * model.hiddenSize * width;
  const oneBlock = headBlock * model.hiddenSize * width;
  const fixed = processBytes + RUNTIME_BYTES + STAGING_BYTES;
  // A token's residual stream, and its copy in the order of the windows.
  const rowBytes = 2 * model.hiddenSize * width + BYTES_PER_SCORED_ROW;

  const need = (rowsPerRun: number, rowsPerBatch: number, layers: number, head: number): number =>
    fixed +
    layers +
    head +
    rowsPerBatch * rowBytes +
    Math.max(
      layerWork(model, rowsPerRun, context, width, quantizedActivations),
      headWork(model, rowsPerRun, headBlock, width),
    );

  const batch = Math.max(context, RESIDENT_BATCH_ROWS);
  const smallest = RUN_ROWS[RUN_ROWS.length - 1];
  const minimumBytes = need(smallest, context, Math.min(largestLayer, allLayers), oneBlock);
  for (const layersResident of [true, false]) {
    for (const headResident of layersResident ? [true, false] : [false]) {
      const layers = layersResident ? allLayers : largestLayer;
      const head = headResident ? allHead : oneBlock;
      for (const rowsPerRun of RUN_ROWS) {
        const wanted = layersResident ? batch : context;
        if (need(rowsPerRun, wanted, layers, head) > maxBytes) continue;
        const spare = maxBytes - need(rowsPerRun, 0, layers, head);
        const affordable = Math.floor((0.9 * spare) / rowBytes);
        const streaming = !layersResident || !headResident;
        const rowsPerBatch = streaming ? Math.max(wanted, Math.min(affordable, MAX_BATCH_ROWS)) : wanted;
        const peakBytes = need(rowsPerRun, rowsPerBatch, layers, head);
        return { layersResident, headResident, rowsPerRun, rowsPerBatch, headBlock, peakBytes, minimumBytes };
      }
    }
  }
  const mib = (bytes: number): string => `${Math.ceil(bytes / (1 << 20))}MiB`;
  throw new InputError(
    `--max-memory ${mib(maxBytes)} is too small for this model at context ${context}: ` +
      `at least ${mib(minimumBytes + START_BYTES)} is needed; raise --max-memory or lower --context`,
  );
}

/** Activations of one run of the widest layer, with its keys and values and what the runtime makes of them. */
function layerWork(
  model: ModelDescription,
  rows: number,
  context: number,
  width: number,
  quantizedActivations: boolean,
): number {
  let largest = 0;
  for (const { attention: a, mlp } of model.layers) {
    const projections = (a.heads + 2 * a.kvHeads) * a.headDim;
    const mlpWidth =
      mlp.kind === 'dense' ? mlp.width : mlp.width * mlp.expertsPerToken + model.hiddenSize * mlp.expertsPerToken;
    const widest = Math.max(model.hiddenSize, a.heads * a.headDim, mlpWidth);
    const copies = quantizedActivations ? QUANTIZER_COPIES * widest : 0;
    const perRow = 6 * model.hiddenSize + 3 * projections + 4 * mlpWidth + copies;
    const longest = Math.max(rows, context);
    const keysAndValues = 2 * longest * a.kvHeads * a.headDim;
    const tables = a.rope === undefined ? 0 : longest * model.ropes[a.rope].dims;
    const scratch = a.heads * rows * 64;
    largest = Math.max(largest, rows * perRow + 2 * keysAndValues + tables + scratch);
  }
  return largest * width;
}

/** A block of logits with the copies of it that wait for the garbage collector, and a square of target rows. */
function headWork(model: ModelDescription, rows: number, headBlock: number, width: number): number {
  const logits = Math.min(rows, HEAD_ROWS) * headBlock;
  return (3 * logits + TARGET_ROWS * (model.hiddenSize + TARGET_ROWS)) * width;
}
