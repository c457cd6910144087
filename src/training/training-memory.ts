import { InputError } from '../errors.js';
import { elementCount } from '../formats/tensor.js';
import type { LayerDescription } from '../models/description.js';
import type { ModelFiles } from '../models/model-files.js';

/** How a decoder is trained within a limit of resident memory. */
export interface TrainingPlan {
  /** Layers, from the first, that compute their forward pass again in the backward pass. */
  readonly recomputedLayers: number;
  /** Rows of logits that exist at once. */
  readonly blockRows: number;
  readonly batch: number;
  readonly length: number;
  /** Largest batch of this length that the limit allows. */
  readonly largestBatch: number;
  /** Estimated bytes by what takes them, and their sum. */
  readonly estimate: TrainingMemory;
}

export interface TrainingMemory {
  /** Weights, their gradients, and what the optimiser keeps. */
  readonly weights: number;
  readonly gradients: number;
  readonly optimizer: number;
  /** What the backward pass needs of the forward pass. */
  readonly activations: number;
  /** Buffers of one layer at work. */
  readonly working: number;
  /** Logits of one block with their gradient, the normed rows, and the gradient of the head. */
  readonly head: number;
  /** The process and the runtime. */
  readonly runtime: number;
  readonly total: number;
}

export interface TrainingPlanRequest {
  readonly files: ModelFiles;
  /** Elements that are trained. */
  readonly trainedElements: number;
  readonly precision: 'f32' | 'f64';
  readonly batch: number;
  readonly length: number;
  readonly maxBytes?: number;
  /** Buffers that the optimiser keeps for every trained element: 2 for AdamW, 1 for momentum and Lion. */
  readonly optimizerSlots: number;
  /** Bytes that the process held before. */
  readonly processBytes: number;
  /** All rows of the logits are one block. */
  readonly wholeBatch?: boolean;
  /** Tensors [heads, S, S] that the attention of a layer keeps: 0 for the native kernel. */
  readonly keptScores: number;
  /** At least so many; for measurements. */
  readonly recomputedLayers?: number;
}

/** Bytes of logits, with their gradient, that a block may take where memory allows. */
const BLOCK_BYTES = 128 << 20;
const RUNTIME_BYTES = 144 << 20;
/**
 * What the runtime holds of whole layers at work: each session keeps memory that grew by doubling, and arrays that were
 * given back wait for the garbage collector. Measured with bench/training.mjs at 1024 and 2048 tokens (7.4), and where
 * layers are recomputed, whose backward graphs hold both passes (10.6).
 */
const WORKING_LAYERS = 8;
const RECOMPUTING_LAYERS = 11;

/** Floats of a token that stay between the passes, when its layer is recomputed and when it is not. */
export function activationFloats(
  layer: LayerDescription,
  hidden: number,
  length: number,
  kept: { readonly recomputed: boolean; readonly keptScores: number },
): number {
  const { heads, kvHeads, headDim } = layer.attention;
  const [queries, keys] = [heads * headDim, kvHeads * headDim];
  // Stream, queries, keys, values and mixed heads are kept in either case.
  const boundary = hidden + 2 * queries + 2 * keys;
  if (kept.recomputed) return boundary;
  const attention = kept.keptScores > 0 ? kept.keptScores * heads * length + 2 * queries + 3 * keys : 0;
  return boundary + attention + 4 * hidden + mlpFloats(layer) + (layer.branchNorms ? 4 * hidden : 0);
}

function mlpFloats({ mlp }: LayerDescription): number {
  if (mlp.kind === 'dense') return mlp.width * (mlp.gated ? 5 : 4);
  const shared = mlp.shared ? 5 * mlp.shared.width : 0;
  return mlp.expertsPerToken * 5 * mlp.width + 2 * mlp.experts + shared;
}

/**
 * Chooses how many layers are recomputed and how many rows of logits exist at once, so that the estimate stays below
 * `maxBytes`: recomputing costs about a third more time, so as few layers as possible.
 * @throws InputError naming the largest batch that fits, or the memory that one window needs
 */
export function planTraining(request: TrainingPlanRequest): TrainingPlan {
  const { files, batch, length, maxBytes = Number.POSITIVE_INFINITY } = request;
  const layers = files.description.layers.length;
  const need = (windows: number, recomputed: number): number =>
    estimateTraining(request, windows, recomputed, blockRowsOf(request, windows)).total;
  // Few layers take less when none is recomputed, many when all are.
  const least = (windows: number): number => Math.min(need(windows, 0), need(windows, layers));
  let largestBatch = 0;
  if (Number.isFinite(maxBytes)) {
    while (largestBatch < 1 << 16 && least(largestBatch + 1) <= maxBytes) largestBatch++;
  } else {
    largestBatch = batch;
  }
  if (largestBatch < batch) {
    const mib = (bytes: number): string => `${Math.ceil(bytes / 2 ** 20)} MiB`;
    const needed = least(batch);
    const way = largestBatch > 0 ? `; a batch of ${largestBatch} fits` : '; a shorter --context needs less';
    throw new InputError(
      `training on ${batch} windows of ${length} tokens takes about ${mib(needed)}, more than ${mib(maxBytes)}${way}`,
    );
  }
  let recomputedLayers = request.recomputedLayers ?? 0;
  while (recomputedLayers < layers && need(batch, recomputedLayers) > maxBytes) recomputedLayers++;
  const blockRows = blockRowsOf(request, batch);
  const estimate = estimateTraining(request, batch, recomputedLayers, blockRows);
  return { recomputedLayers, blockRows, batch, length, largestBatch, estimate };
}

function blockRowsOf(request: TrainingPlanRequest, windows: number): number {
  const rows = windows * request.length;
  if (request.wholeBatch) return rows;
  const width = request.precision === 'f32' ? 4 : 8;
  const { maxBytes } = request;
  const bytes = maxBytes === undefined ? BLOCK_BYTES : Math.min(BLOCK_BYTES, maxBytes / 16);
  const most = Math.max(8, Math.floor(bytes / (2 * width * request.files.description.vocabularySize)));
  // Blocks of nearly equal size.
  return Math.ceil(rows / Math.ceil(rows / most));
}

/** The estimate for a choice. */
export function estimateTraining(
  request: TrainingPlanRequest,
  windows: number,
  recomputedLayers: number,
  blockRows: number,
): TrainingMemory {
  const { files, length, precision, trainedElements, optimizerSlots, keptScores } = request;
  const model = files.description;
  const width = precision === 'f32' ? 4 : 8;
  const tokens = windows * length;
  const { hiddenSize, vocabularySize } = model;
  const kept = model.layers.reduce(
    (sum, layer, l) =>
      sum + activationFloats(layer, hiddenSize, length, { recomputed: l < recomputedLayers, keptScores }),
    0,
  );
  const whole = Math.max(
    ...model.layers.map((layer) => activationFloats(layer, hiddenSize, length, { recomputed: false, keptScores })),
  );
  const weights = width * allElements(files);
  const gradients = width * trainedElements;
  const optimizer = width * optimizerSlots * trainedElements;
  const activations = width * tokens * kept;
  const arenas = recomputedLayers > 0 ? RECOMPUTING_LAYERS : WORKING_LAYERS;
  const working = arenas * width * tokens * whole + width * Math.max(...layerElements(files));
  const head = width * (2 * blockRows * vocabularySize + 3 * tokens * hiddenSize + vocabularySize * hiddenSize);
  const runtime = RUNTIME_BYTES + request.processBytes;
  const total = weights + gradients + optimizer + activations + working + head + runtime;
  return { weights, gradients, optimizer, activations, working, head, runtime, total };
}

function layerElements(files: ModelFiles): number[] {
  return files.weights.layers.map((layer) =>
    [...layer.values()].reduce((sum, weight) => sum + elementCount(weight.shape), 0),
  );
}

function allElements(files: ModelFiles): number {
  const { embedding, head, positions, finalNorm } = files.weights;
  const single = [embedding, finalNorm, ...(head === embedding ? [] : [head]), ...(positions ? [positions] : [])];
  const others = single.reduce((sum, weight) => sum + elementCount(weight.shape), 0);
  return layerElements(files).reduce((sum, count) => sum + count, others);
}
