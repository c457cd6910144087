import { multiply } from '../kernels/gemm.js';
import { solveAssignment } from '../kernels/linear-assignment.js';
import type { Floats } from '../models/layer-runner.js';
import { type Alignment, type AlignmentOptions, unaligned } from './alignment.js';

/** Added to the product of the standard deviations, as the released code does: a neuron that never changes correlates 0. */
export const CORRELATION_FLOOR = 1e-7;

/** Rows whose shifted copies are held at a time. */
const BLOCK_ROWS = 512;

/** Pearson correlations of the inner activations of two experts over the same tokens. */
export interface Correlation {
  readonly tokens: number;
  /** [I, I]: neuron of the reference by neuron of the target. All zero with fewer than two tokens. */
  readonly matrix: Float64Array;
}

/** Sums of a {@link Correlation}, batch after batch; no token is kept. */
export interface CorrelationSums {
  /**
   * Adds the tokens of a batch: inner activations (input of the down projection) of reference and target, both [rows, I],
   * of one precision. They may be one array: correlations among its own neurons.
   * @throws RangeError when an array is too short
   */
  add(reference: Floats, target: Floats, rows: number): void;
  finish(): Correlation;
}

interface Side {
  /** About the mean: moments about it lose no digits to their difference. */
  readonly shift: Float64Array;
  readonly sum: Float64Array;
  readonly squareSum: Float64Array;
}

const sideOf = (width: number): Side => ({
  shift: new Float64Array(width),
  sum: new Float64Array(width),
  squareSum: new Float64Array(width),
});

/** Means of the columns of the first tokens. */
function setShift({ shift }: Side, x: Floats, rows: number): void {
  const width = shift.length;
  for (let t = 0; t < rows; t++) for (let i = 0; i < width; i++) shift[i] += x[t * width + i] / rows;
  // A value of the same precision as the activations: those of a neuron that never changes are then exactly zero.
  for (let i = 0; i < width; i++) shift[i] = constantColumn(x, rows, width, i) ? x[i] : shift[i];
  if (x instanceof Float32Array) for (let i = 0; i < width; i++) shift[i] = Math.fround(shift[i]);
}

function constantColumn(x: Floats, rows: number, width: number, column: number): boolean {
  for (let t = 1; t < rows; t++) if (x[t * width + column] !== x[column]) return false;
  return true;
}

/** Rows less the shift, and their sums. @returns [rows, width] */
function shifted({ shift, sum, squareSum }: Side, x: Floats, from: number, rows: number): Floats {
  const width = shift.length;
  const result: Floats = x instanceof Float32Array ? new Float32Array(rows * width) : new Float64Array(rows * width);
  for (let t = 0; t < rows; t++) {
    for (let i = 0; i < width; i++) {
      result[t * width + i] = x[(from + t) * width + i] - shift[i];
      const value = result[t * width + i];
      sum[i] += value;
      squareSum[i] += value * value;
    }
  }
  return result;
}

/** Sample standard deviations (n - 1). */
function deviations({ sum, squareSum }: Side, tokens: number): Float64Array {
  return sum.map((total, i) => Math.sqrt(Math.max(0, (squareSum[i] - (total * total) / tokens) / (tokens - 1))));
}

/**
 * Streaming Pearson correlation of inner activations, cov / (std std + 1e-7) with sample covariance and deviations
 * (activation matching of M-SMoE, 2023). The rows are the tokens that are routed to either expert. Products are summed in
 * double; results do not depend on threads, and only in rounding on how the rows are cut into batches.
 * @param width I, neurons of an expert
 */
export function createCorrelation(width: number, options: { readonly threads?: number } = {}): CorrelationSums {
  const cross = new Float64Array(width * width);
  const sides: [Side, Side] = [sideOf(width), sideOf(width)];
  let tokens = 0;
  return {
    add(reference, target, rows) {
      if (rows * width > Math.min(reference.length, target.length)) {
        throw new RangeError(`inner activations: [${rows}, ${width}] needs more than ${reference.length} entries`);
      }
      if (tokens === 0 && rows > 0) {
        setShift(sides[0], reference, Math.min(rows, BLOCK_ROWS));
        setShift(sides[1], target, Math.min(rows, BLOCK_ROWS));
      }
      for (let from = 0; from < rows; from += BLOCK_ROWS) {
        const count = Math.min(BLOCK_ROWS, rows - from);
        const left = shifted(sides[0], reference, from, count);
        const right = shifted(sides[1], target, from, count);
        multiply(left, right, cross, { m: width, n: width, k: count }, { transposeA: true, beta: 1, ...options });
      }
      tokens += rows;
    },
    finish() {
      const matrix = new Float64Array(width * width);
      if (tokens < 2) return { tokens, matrix };
      const [reference, target] = sides;
      const left = deviations(reference, tokens);
      const right = deviations(target, tokens);
      for (let i = 0; i < width; i++) {
        for (let j = 0; j < width; j++) {
          const covariance = (cross[i * width + j] - (reference.sum[i] * target.sum[j]) / tokens) / (tokens - 1);
          matrix[i * width + j] = covariance / (left[i] * right[j] + CORRELATION_FLOOR);
        }
      }
      return { tokens, matrix };
    },
  };
}

/**
 * Activation matching: the permutation of the target's neurons with the largest sum of correlations. The identity with at
 * most one token, which correlates nothing.
 * @throws InputError when the matrix exceeds `maxBytes`
 */
export function alignByActivations(
  { tokens, matrix }: Correlation,
  options: Pick<AlignmentOptions, 'mode' | 'threads' | 'maxBytes'> = {},
): Omit<Alignment, 'distanceBefore' | 'distanceAfter'> {
  const I = Math.sqrt(matrix.length);
  if (tokens < 2) {
    const { permutation, gain, bound, gap } = unaligned(I);
    return { permutation, gainBefore: 0, gain, bound, gap };
  }
  const { permutation, gain, bound, gap } = solveAssignment(matrix, I, options);
  let gainBefore = 0;
  for (let i = 0; i < I; i++) gainBefore += matrix[i * I + i];
  return { permutation, gainBefore, gain, bound, gap };
}
