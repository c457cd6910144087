import { multiply } from '../kernels/gemm.js';
import type { Floats } from '../models/layer-runner.js';
import { CORRELATION_FLOOR } from './activation-matching.js';
import { checkExpert } from './neurons.js';
import type { ExpertMatrices, ExpertShape } from './types.js';

/**
 * Correlations of the weights of the neurons of two experts, each the list of its entries in gate, up and down: [I, I],
 * reference by target, cov / (std std + 1e-7). HC-SMoE (2025) calls it the ingredient "weight".
 * @throws RangeError when an expert does not have this shape
 */
export function weightCorrelation(
  reference: ExpertMatrices,
  target: ExpertMatrices,
  shape: ExpertShape,
  options: { readonly threads?: number } = {},
): Float64Array {
  const { width: I } = shape;
  const [left, right] = [reference, target].map((expert) => centredNeurons(expert, shape));
  const matrix = new Float64Array(I * I);
  const k = left.length;
  multiply(
    left.entries,
    right.entries,
    matrix,
    { m: I, n: I, k },
    { transposeB: true, alpha: 1 / (k - 1), ...options },
  );
  for (let i = 0; i < I; i++) {
    for (let j = 0; j < I; j++) matrix[i * I + j] /= left.deviations[i] * right.deviations[j] + CORRELATION_FLOOR;
  }
  return matrix;
}

/** Entries of every neuron less their mean, [I, length], and their sample standard deviation. */
function centredNeurons(
  expert: ExpertMatrices,
  shape: ExpertShape,
): { entries: Floats; deviations: Float64Array; length: number } {
  checkExpert('an expert', expert, shape);
  const { hidden: H, width: I } = shape;
  const readers = expert.gate === undefined ? [expert.up] : [expert.gate, expert.up];
  const length = (readers.length + 1) * H;
  const size = I * length;
  const entries: Floats = expert.up instanceof Float32Array ? new Float32Array(size) : new Float64Array(size);
  const deviations = new Float64Array(I);
  const last = readers.length * H;
  for (let h = 0; h < H; h++) for (let i = 0; i < I; i++) entries[i * length + last + h] = expert.down[h * I + i];
  for (let i = 0; i < I; i++) {
    const row = entries.subarray(i * length, (i + 1) * length);
    readers.forEach((matrix, part) => {
      row.set(matrix.subarray(i * H, (i + 1) * H), part * H);
    });
    let mean = 0;
    for (let k = 0; k < length; k++) mean += row[k] / length;
    let squares = 0;
    for (let k = 0; k < length; k++) {
      row[k] -= mean;
      squares += row[k] * row[k];
    }
    deviations[i] = Math.sqrt(squares / (length - 1));
  }
  return { entries, deviations, length };
}

/** The neuron of the dominant that every neuron of the other is most like, [I]: the first row of each column's maximum. */
export function nearestNeurons(correlation: Float64Array, width: number): Int32Array {
  const nearest = new Int32Array(width);
  for (let i = 1; i < width; i++) {
    for (let j = 0; j < width; j++) {
      if (correlation[i * width + j] > correlation[nearest[j] * width + j]) nearest[j] = i;
    }
  }
  return nearest;
}

/** The merge of a group into the neurons of its dominant, member after member; see {@link createFixedDominant}. */
export interface FixedDominantMerge {
  /** @param nearest neuron of the dominant that each neuron joins, [I]; several may join one, and none another */
  add(expert: ExpertMatrices, weight: number, nearest: Int32Array): void;
  finish(): ExpertMatrices;
}

/**
 * Fixed-dominant merge (HC-SMoE, 2025, Fix-Dom): the dominant's neurons stay where they are, every neuron of another member
 * joins the one it is most like, and each place gets the weighted mean of the neurons that met there, in all matrices.
 * @param weight of the dominant's neurons, positive
 * @throws RangeError for a weight that is not positive, or an expert of another shape
 */
export function createFixedDominant(shape: ExpertShape, dominant: ExpertMatrices, weight: number): FixedDominantMerge {
  const { hidden: H, width: I } = shape;
  const make = (): Float64Array => new Float64Array(I * H);
  const sums = { gate: make(), up: make(), down: make() };
  const totals = new Float64Array(I);
  let single = true;
  const add = (expert: ExpertMatrices, share: number, nearest?: Int32Array): void => {
    checkExpert('a member', expert, shape);
    if (!(share >= 0 && share < Number.POSITIVE_INFINITY)) throw new RangeError(`a member's weight is ${share}`);
    single &&= expert.up instanceof Float32Array;
    const { gate, up, down } = expert;
    for (let i = 0; i < I; i++) {
      const to = nearest?.[i] ?? i;
      totals[to] += share;
      for (let h = 0; h < H; h++) sums.up[to * H + h] += share * up[i * H + h];
      if (gate !== undefined) for (let h = 0; h < H; h++) sums.gate[to * H + h] += share * gate[i * H + h];
    }
    for (let h = 0; h < H; h++) {
      for (let i = 0; i < I; i++) sums.down[h * I + (nearest?.[i] ?? i)] += share * down[h * I + i];
    }
  };
  if (!(weight > 0)) throw new RangeError(`the dominant's weight is ${weight}`);
  // Relative to the dominant, whose neurons come back unchanged where none joins them.
  add(dominant, 1);
  return {
    add: (expert, share, nearest) => add(expert, share / weight, nearest),
    finish() {
      const rounded = (sum: Float64Array): Floats => (single ? Float32Array.from(sum) : sum);
      for (let i = 0; i < I; i++) {
        for (let at = i * H; at < (i + 1) * H; at++) {
          sums.gate[at] /= totals[i];
          sums.up[at] /= totals[i];
        }
      }
      for (let h = 0; h < H; h++) for (let i = 0; i < I; i++) sums.down[h * I + i] /= totals[i];
      const up = rounded(sums.up);
      const down = rounded(sums.down);
      return shape.gated ? { gate: rounded(sums.gate), up, down } : { up, down };
    },
  };
}
