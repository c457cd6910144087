import { InputError } from '../errors.js';
import type { RegulariserReduction } from '../training/attention-entropy.js';
import { CODE_EPSILON } from './attention.js';

/** Attention probabilities of a whole model, `[layers, batch, heads, queries, keys]`. */
export interface AttentionStack {
  readonly probabilities: Float32Array | Float64Array;
  readonly layers: number;
  readonly batch: number;
  readonly heads: number;
  readonly queries: number;
  readonly keys: number;
}

export interface RegulariserOptions {
  readonly reduction: RegulariserReduction;
  /** Tolerance as a share of log(context): deviations up to it are free. */
  readonly gamma: number;
  /** T of `E_max = log T` (default: the key length). */
  readonly contextSize?: number;
  /** Multiplies loss and gradients (default 1). */
  readonly coefficient?: number;
  /** One `[heads]` vector for every layer, as the released module takes, instead of `[layers, heads]`. */
  readonly sharedThresholds?: boolean;
  readonly epsilon?: number;
}

export interface RegulariserResult {
  readonly loss: number;
  /** `[layers, heads]`, or `[heads]` for shared thresholds. */
  readonly thresholdGradient: Float64Array;
  /** Weight of each row's entropy in the loss: d loss / d e, `[layers, batch, heads, queries]`. */
  readonly entropyGradient: Float64Array;
  /** Rows left out because of NaN. The released code hides them with a nansum. */
  readonly nanRows: number;
}

/** `-sum a log(a + epsilon)` of every row, `[layers, batch, heads, queries]`; NaN rows stay NaN. */
function stackEntropies(stack: AttentionStack, epsilon: number): Float64Array {
  const { keys, probabilities } = stack;
  const rows = stack.layers * stack.batch * stack.heads * stack.queries;
  if (probabilities.length !== rows * keys) {
    throw new InputError(
      `attention: expected [${stack.layers},${stack.batch},${stack.heads},${stack.queries},${keys}], ` +
        `got ${probabilities.length} values`,
    );
  }
  const entropies = new Float64Array(rows);
  for (let row = 0; row < rows; row++) {
    let entropy = 0;
    for (let j = row * keys; j < (row + 1) * keys; j++) {
      const a = probabilities[j];
      if (a !== 0) entropy -= a * Math.log(a + epsilon);
    }
    entropies[row] = entropy;
  }
  return entropies;
}

/** Rows of a whole model: `[layers, batch, heads, queries]`. */
export interface RowShape {
  readonly layers: number;
  readonly batch: number;
  readonly heads: number;
  readonly queries: number;
}

/** As `attentionRegulariser`, from row entropies `[layers, batch, heads, queries]` in nats, however they were found. */
export function entropyRegulariser(
  entropies: Float64Array,
  shape: RowShape,
  thresholds: Float32Array | Float64Array,
  options: Omit<RegulariserOptions, 'epsilon'> & { readonly contextSize: number },
): RegulariserResult {
  const { layers, batch, heads, queries } = shape;
  const { reduction, gamma, coefficient = 1, sharedThresholds = false } = options;
  if (thresholds.length !== (sharedThresholds ? heads : layers * heads)) {
    throw new InputError(
      `attention thresholds: ${thresholds.length} values for ${sharedThresholds ? '' : `${layers} layers of `}${heads} heads`,
    );
  }
  const maximum = Math.log(options.contextSize);
  const tolerance = gamma * maximum;
  const thresholdGradient = new Float64Array(thresholds.length);
  const entropyGradient = new Float64Array(entropies.length);
  const scale = coefficient / (layers * heads);
  let loss = 0;
  let nanRows = 0;
  for (let layer = 0; layer < layers; layer++) {
    for (let head = 0; head < heads; head++) {
      const at = sharedThresholds ? head : layer * heads + head;
      const wanted = thresholds[at] * maximum;
      const rowOf = (b: number, q: number): number => ((layer * batch + b) * heads + head) * queries + q;
      let mean = 0;
      let proper = 0;
      for (let b = 0; b < batch; b++) {
        for (let q = 0; q < queries; q++) {
          const row = rowOf(b, q);
          if (Number.isNaN(entropies[row])) {
            nanRows++;
            continue;
          }
          proper++;
          mean += entropies[row];
          if (reduction === 'algorithm1') continue;
          const delta = entropies[row] - wanted;
          if (!isPenalised(delta, tolerance)) continue;
          loss += scale * delta * delta;
          thresholdGradient[at] -= scale * 2 * maximum * delta;
          entropyGradient[row] = scale * 2 * delta;
        }
      }
      if (reduction === 'code' || proper === 0) continue;
      const delta = mean / proper - wanted;
      if (!isPenalised(delta, tolerance)) continue;
      loss += scale * delta * delta;
      thresholdGradient[at] -= scale * 2 * maximum * delta;
      for (let b = 0; b < batch; b++) {
        for (let q = 0; q < queries; q++) {
          const row = rowOf(b, q);
          if (!Number.isNaN(entropies[row])) entropyGradient[row] = (scale * 2 * delta) / proper;
        }
      }
    }
  }
  return { loss, thresholdGradient, entropyGradient, nanRows };
}

/** Whether a deviation from the wanted entropy costs: strictly above the tolerance, on either side. */
export function isPenalised(delta: number, tolerance: number): boolean {
  return Math.abs(delta) > tolerance;
}

/**
 * Entropy regulariser of Jha & Reagen 2025: with `E_max = log T`, `delta = e - theta * E_max`, the penalty is `delta^2`
 * where `|delta| > gamma * E_max`, strictly; two-sided. Gradients are of the loss with its coefficient.
 * @param thresholds `[layers, heads]`, or `[heads]` when shared
 */
export function attentionRegulariser(
  stack: AttentionStack,
  thresholds: Float32Array | Float64Array,
  options: RegulariserOptions,
): RegulariserResult {
  const { epsilon = CODE_EPSILON, contextSize = stack.keys, ...rest } = options;
  return entropyRegulariser(stackEntropies(stack, epsilon), stack, thresholds, { ...rest, contextSize });
}

/**
 * Gradient of the loss by the probabilities of one head, `[queries, keys]`:
 * `d e / d a = -(log(a + epsilon) + a / (a + epsilon))` times the row's weight.
 */
export function attentionGradient(
  stack: AttentionStack,
  result: RegulariserResult,
  place: { readonly layer: number; readonly batch: number; readonly head: number },
  epsilon = CODE_EPSILON,
): Float64Array {
  const { queries, keys } = stack;
  const firstRow = ((place.layer * stack.batch + place.batch) * stack.heads + place.head) * queries;
  const gradient = new Float64Array(queries * keys);
  for (let q = 0; q < queries; q++) {
    const weight = result.entropyGradient[firstRow + q];
    for (let j = 0; j < keys; j++) {
      const a = stack.probabilities[(firstRow + q) * keys + j];
      gradient[q * keys + j] = -weight * (Math.log(a + epsilon) + a / (a + epsilon));
    }
  }
  return gradient;
}
