import { InputError } from '../errors.js';
import { type AssignmentMode, assignmentBytes, solveAssignment } from '../kernels/linear-assignment.js';
import type { Floats } from '../models/layer-runner.js';
import { type Correlation, type CorrelationSums, createCorrelation } from './activation-matching.js';
import { floatsLike, runExpert, runInner } from './expert-function.js';
import { gatherRows, type Routing } from './layer-function.js';
import type { SimilarityBasis } from './similarity.js';
import type { ExpertMatrices, ExpertShape } from './types.js';

/** Bases that compare experts pair by pair on the text, in a pass of their own over a layer. */
export type PairBasis = Extract<SimilarityBasis, `activation-correlation.${string}` | 'mse'>;

export const isPairBasis = (basis: SimilarityBasis): basis is PairBasis =>
  basis === 'mse' || basis.startsWith('activation-correlation.');

export interface ExpertPair {
  readonly a: number;
  readonly b: number;
}

export interface PairOptions {
  readonly threads?: number;
  /** How neurons are assigned under `activation-correlation.lsa`. */
  readonly assignment?: AssignmentMode;
  readonly maxBytes?: number;
}

/** Sums over the tokens of a layer for some pairs of its experts. */
export interface PairSums {
  /** Adds inputs of the layer x [rows, H], of the precision of the experts, and what the router chose for them. */
  add(x: Floats, rows: number, routing: Pick<Routing, 'chosen' | 'topK'>): void;
  /** Similarity of each pair. */
  finish(): Float64Array;
}

/** All pairs a < b. */
export function expertPairs(experts: number): ExpertPair[] {
  const pairs: ExpertPair[] = [];
  for (let a = 0; a < experts; a++) for (let b = a + 1; b < experts; b++) pairs.push({ a, b });
  return pairs;
}

/** Bytes that the sums of one pair hold. */
export function pairBytes(basis: PairBasis, { width }: ExpertShape, assignment: AssignmentMode = 'exact'): number {
  if (basis === 'mse') return 8;
  const sums = 8 * (width * width + 6 * width);
  // The matrix of correlations lies beside its sums, and is what the assignment works on.
  return sums + (basis === 'activation-correlation.lsa' ? assignmentBytes(width, assignment, 8) : sums);
}

/**
 * Pairs that are summed in one pass over the layer, pass after pass.
 * @throws InputError when a single pair takes more than `maxBytes`
 */
export function pairPasses(
  basis: PairBasis,
  experts: number,
  shape: ExpertShape,
  maxBytes: number,
  assignment?: AssignmentMode,
): ExpertPair[][] {
  const bytes = pairBytes(basis, shape, assignment);
  if (bytes > maxBytes) {
    throw new InputError(
      `similarity "${basis}" of experts with ${shape.width} neurons takes ${bytes} bytes a pair, more than ${maxBytes}; raise --max-memory or choose another basis`,
    );
  }
  const pairs = expertPairs(experts);
  const count = Math.floor(maxBytes / bytes);
  return Array.from({ length: Math.ceil(pairs.length / count) }, (_, i) => pairs.slice(i * count, (i + 1) * count));
}

/** Rows that chose one of these experts, ascending. */
function rowsOf(
  { chosen, topK }: Pick<Routing, 'chosen' | 'topK'>,
  from: number,
  to: number,
  ...experts: number[]
): Int32Array {
  const rows: number[] = [];
  for (let row = from; row < to; row++) {
    for (let i = row * topK; i < (row + 1) * topK; i++) {
      if (experts.includes(chosen[i])) {
        rows.push(row - from);
        break;
      }
    }
  }
  return Int32Array.from(rows);
}

const distinctExperts = (pairs: readonly ExpertPair[]): number[] =>
  [...new Set(pairs.flatMap(({ a, b }) => [a, b]))].sort((x, y) => x - y);

/** Rows whose inner activations are held for all experts of the pairs. */
const BLOCK_ROWS = 256;

/** Mean of the largest correlation of each neuron of the second expert. */
function meanOfColumnMaxima(matrix: Float64Array, width: number): number {
  const largest = new Float64Array(width).fill(Number.NEGATIVE_INFINITY);
  for (let at = 0; at < matrix.length; at++) largest[at % width] = Math.max(largest[at % width], matrix[at]);
  return largest.reduce((sum, value) => sum + value, 0) / width;
}

function correlationSimilarity(
  basis: PairBasis,
  { tokens, matrix }: Correlation,
  width: number,
  options: PairOptions,
): number {
  if (tokens < 2) return 1;
  if (basis === 'activation-correlation.max') return (meanOfColumnMaxima(matrix, width) + 1) / 2;
  const { assignment: mode, threads, maxBytes } = options;
  return (solveAssignment(matrix, width, { mode, threads, maxBytes }).gain / width + 1) / 2;
}

function createCorrelations(
  basis: PairBasis,
  pairs: readonly ExpertPair[],
  read: (expert: number) => ExpertMatrices,
  shape: ExpertShape,
  options: PairOptions,
): PairSums {
  const { width, hidden } = shape;
  const sums: CorrelationSums[] = pairs.map(() => createCorrelation(width, { threads: options.threads }));
  const experts = distinctExperts(pairs);
  return {
    add(x, rows, routing) {
      for (let from = 0; from < rows; from += BLOCK_ROWS) {
        const to = Math.min(rows, from + BLOCK_ROWS);
        const block = x.subarray(from * hidden, to * hidden);
        const inner = new Map<number, Floats>();
        for (const expert of experts) {
          const activations = floatsLike(x, (to - from) * width);
          runInner(read(expert), shape, block, to - from, activations, { threads: options.threads });
          inner.set(expert, activations);
        }
        pairs.forEach(({ a, b }, i) => {
          const [left, right] = [inner.get(a), inner.get(b)];
          if (left === undefined || right === undefined) return;
          const own = rowsOf(routing, from, to, a, b);
          sums[i].add(gatherRows(left, width, own), gatherRows(right, width, own), own.length);
        });
      }
    },
    finish: () => Float64Array.from(sums, (sum) => correlationSimilarity(basis, sum.finish(), width, options)),
  };
}

/** The plain mean of two experts, of their precision. */
function meanOfTwo(a: ExpertMatrices, b: ExpertMatrices): ExpertMatrices {
  const mean = (x: Floats, y: Floats): Floats => {
    const result = floatsLike(x, x.length);
    for (let i = 0; i < x.length; i++) result[i] = (x[i] + y[i]) / 2;
    return result;
  };
  return {
    ...(a.gate !== undefined && b.gate !== undefined && { gate: mean(a.gate, b.gate) }),
    up: mean(a.up, b.up),
    down: mean(a.down, b.down),
  };
}

/**
 * 1 / (1 + 0.1 ln SSE), as released: above 1 where the error is below 1. Where the formula has its pole (an error of e^-10) and
 * beyond it, Infinity, so that a smaller error is never less similar.
 */
export function errorSimilarity(squaredError: number): number {
  const divisor = 1 + 0.1 * Math.log(squaredError);
  return divisor > 0 ? 1 / divisor : Number.POSITIVE_INFINITY;
}

function createAverageErrors(
  pairs: readonly ExpertPair[],
  read: (expert: number) => ExpertMatrices,
  shape: ExpertShape,
  options: PairOptions,
): PairSums {
  const errors = new Float64Array(pairs.length);
  const tokens = new Float64Array(pairs.length);
  const experts = distinctExperts(pairs);
  return {
    add(x, rows, routing) {
      const own = new Map<number, { inputs: Floats; outputs: Floats; count: number }>();
      for (const expert of experts) {
        const list = rowsOf(routing, 0, rows, expert);
        const inputs = gatherRows(x, shape.hidden, list);
        own.set(expert, {
          inputs,
          outputs: runExpert(read(expert), shape, inputs, list.length, options),
          count: list.length,
        });
      }
      pairs.forEach(({ a, b }, i) => {
        let mean: ExpertMatrices | undefined;
        for (const side of [own.get(a), own.get(b)]) {
          if (side === undefined || side.count === 0) continue;
          mean ??= meanOfTwo(read(a), read(b));
          const given = runExpert(mean, shape, side.inputs, side.count, options);
          for (let at = 0; at < given.length; at++) errors[i] += (given[at] - side.outputs[at]) ** 2;
          tokens[i] += side.count;
        }
      });
    },
    finish: () => errors.map((error, i) => (tokens[i] === 0 ? 1 : errorSimilarity(error))),
  };
}

/**
 * Opens the sums of some pairs (M-SMoE 2023, its code). `activation-correlation`: Pearson correlation of inner activations over
 * the tokens routed to either expert, c = its mean over the best assignment of neurons (`lsa`) or over the maxima of its
 * columns (`max`), similarity (c + 1) / 2, and 1 with at most one token. `mse`: {@link errorSimilarity} of the summed squared
 * differences between the outputs of the plain mean of both experts and of each on its own tokens, 1 when both have none.
 * @param read gives an expert whenever it is needed
 */
export function createPairSums(
  basis: PairBasis,
  pairs: readonly ExpertPair[],
  read: (expert: number) => ExpertMatrices,
  shape: ExpertShape,
  options: PairOptions = {},
): PairSums {
  return basis === 'mse'
    ? createAverageErrors(pairs, read, shape, options)
    : createCorrelations(basis, pairs, read, shape, options);
}

/** Similarity matrix [E, E] of values of pairs, the diagonal 1: what `SimilaritySources.pairs` holds. */
export function similarityOfPairs(
  experts: number,
  pairs: readonly ExpertPair[],
  values: ArrayLike<number>,
): Float64Array {
  const similarity = new Float64Array(experts * experts);
  for (let e = 0; e < experts; e++) similarity[e * experts + e] = 1;
  pairs.forEach(({ a, b }, i) => {
    similarity[a * experts + b] = values[i];
    similarity[b * experts + a] = values[i];
  });
  return similarity;
}
