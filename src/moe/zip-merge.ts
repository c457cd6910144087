import { InputError } from '../errors.js';
import { symmetricRankK } from '../kernels/gemm.js';
import type { Floats } from '../models/layer-runner.js';
import { checkExpert } from './neurons.js';
import type { ExpertMatrices, ExpertShape } from './types.js';

/** Share of the smaller correlation that a merged neuron keeps, in the released code. */
export const REPEATED_MERGE_SHARE = 0.1;

export interface ZipOptions {
  /**
   * Weight of the neurons of every member, [M]; they add up as neurons merge. The released code gives usage frequencies
   * where it matches weights, ones where it matches activations.
   */
  readonly coefficients: ArrayLike<number>;
  /** Added to the sum of two coefficients. Default 0; 1e-7 in the released code. */
  readonly epsilon?: number;
  /** Most bytes of the similarities of all neurons with all. */
  readonly maxBytes?: number;
  readonly threads?: number;
}

/** Neurons of all members, one below the other. */
interface NeuronStack {
  /** M I neurons. */
  readonly count: number;
  /** Entries of a neuron: its rows of gate and up, its column of down. */
  readonly length: number;
  /** [count, length]. */
  readonly rows: Float64Array;
  /** [count]. */
  readonly coefficients: Float64Array;
  /** 0 for a neuron that has gone into another. */
  readonly alive: Uint8Array;
}

/** Similarities [count, count] and the largest of every row among the living, the lowest index of equal ones. */
interface PairSearch {
  readonly similarity: Float64Array;
  readonly best: Int32Array;
}

function stackNeurons(members: readonly ExpertMatrices[], shape: ExpertShape, options: ZipOptions): NeuronStack {
  const { hidden: H, width: I, gated } = shape;
  if (members.length !== options.coefficients.length) {
    throw new RangeError(`${options.coefficients.length} coefficients of ${members.length} experts`);
  }
  const length = (gated ? 3 : 2) * H;
  const count = members.length * I;
  const { maxBytes = Number.POSITIVE_INFINITY } = options;
  const bytes = 8 * count * (count + length);
  if (bytes > maxBytes) {
    throw new InputError(
      `merging ${count} neurons pair by pair takes ${bytes} bytes, more than ${maxBytes}; merge by permutations instead`,
    );
  }
  const rows = new Float64Array(count * length);
  const coefficients = new Float64Array(count);
  members.forEach((member, m) => {
    checkExpert(`member ${m}`, member, shape);
    const readers = member.gate === undefined ? [member.up] : [member.gate, member.up];
    for (let i = 0; i < I; i++) {
      const at = (m * I + i) * length;
      readers.forEach((matrix, part) => {
        rows.set(matrix.subarray(i * H, (i + 1) * H), at + part * H);
      });
      for (let h = 0; h < H; h++) rows[at + readers.length * H + h] = member.down[h * I + i];
      coefficients[m * I + i] = options.coefficients[m];
    }
  });
  return { count, length, rows, coefficients, alive: new Uint8Array(count).fill(1) };
}

function findBest({ similarity, best }: PairSearch, alive: Uint8Array, row: number): void {
  const n = alive.length;
  let found = -1;
  for (let j = 0; j < n; j++) {
    if (alive[j] === 1 && j !== row && (found < 0 || similarity[row * n + j] > similarity[row * n + found])) found = j;
  }
  best[row] = found;
}

/** The living pair with the largest similarity, in the order of rows and columns. */
function largestPair({ similarity, best }: PairSearch, alive: Uint8Array): [number, number] {
  const n = alive.length;
  let row = -1;
  for (let i = 0; i < n; i++) {
    if (alive[i] === 0) continue;
    if (row < 0 || similarity[i * n + best[i]] > similarity[row * n + best[row]]) row = i;
  }
  return [row, best[row]];
}

/** Row `kept` has new similarities, in row and column, and `gone` is dead: the largest of the rows that this touches. */
function updateBest(search: PairSearch, alive: Uint8Array, kept: number, gone: number): void {
  const { similarity, best } = search;
  const n = alive.length;
  findBest(search, alive, kept);
  for (let i = 0; i < n; i++) {
    if (alive[i] === 0 || i === kept) continue;
    if (best[i] === kept || best[i] === gone) findBest(search, alive, i);
    else {
      const now = similarity[i * n + kept];
      const held = similarity[i * n + best[i]];
      if (now > held || (now === held && kept < best[i])) best[i] = kept;
    }
  }
}

/** Two neurons and their shares in the one that takes the place of the first. */
interface MergedPair {
  readonly kept: number;
  readonly gone: number;
  readonly share: number;
  readonly otherShare: number;
}

/** Merges pairs until `left` neurons remain; `renew` gives the similarities of the merged neuron. */
function mergePairs(
  stack: NeuronStack,
  similarity: Float64Array,
  left: number,
  epsilon: number,
  renew: (pair: MergedPair) => Float64Array,
): void {
  const { count, length, rows, coefficients, alive } = stack;
  const search = { similarity, best: new Int32Array(count) };
  for (let i = 0; i < count; i++) findBest(search, alive, i);
  for (let living = count; living > left; living--) {
    const [kept, gone] = largestPair(search, alive);
    const [a, b] = [coefficients[kept], coefficients[gone]];
    const divisor = a + b + epsilon;
    // Two neurons of no weight: their plain mean.
    const [share, otherShare] = divisor > 0 ? [a / divisor, b / divisor] : [0.5, 0.5];
    for (let k = 0; k < length; k++) {
      rows[kept * length + k] = share * rows[kept * length + k] + otherShare * rows[gone * length + k];
    }
    const renewed = renew({ kept, gone, share, otherShare });
    alive[gone] = 0;
    coefficients[kept] += coefficients[gone];
    for (let i = 0; i < count; i++) {
      similarity[kept * count + i] = renewed[i];
      similarity[i * count + kept] = renewed[i];
    }
    updateBest(search, alive, kept, gone);
  }
}

/** Copies the lower triangle to the upper one: a pair has one similarity, to the last bit. */
function mirrorLower(matrix: Float64Array, n: number): void {
  for (let i = 0; i < n; i++) for (let j = 0; j < i; j++) matrix[j * n + i] = matrix[i * n + j];
}

/** The living neurons, in their order, as an expert of the precision of `like`. */
function expertOf({ count, length, rows, alive }: NeuronStack, shape: ExpertShape, like: Floats): ExpertMatrices {
  const { hidden: H, width: I, gated } = shape;
  const make = (): Floats => (like instanceof Float32Array ? new Float32Array(I * H) : new Float64Array(I * H));
  const readers = gated ? [make(), make()] : [make()];
  const down = make();
  let place = 0;
  for (let i = 0; i < count; i++) {
    if (alive[i] === 0) continue;
    const at = i * length;
    readers.forEach((matrix, part) => {
      matrix.set(rows.subarray(at + part * H, at + (part + 1) * H), place * H);
    });
    for (let h = 0; h < H; h++) down[h * I + place] = rows[at + readers.length * H + h];
    place++;
  }
  return gated ? { gate: readers[0], up: readers[1], down } : { up: readers[0], down };
}

/**
 * Merge of experts within and across (ZipIt, as M-SMoE's code has it), by weights: the neurons of all members are one
 * list; the pair with the largest inner product of [gate; up; down] rows becomes one neuron, the mean weighted by the
 * coefficients, which add up, until I neurons are left. Of equal pairs the first in the order of the list.
 * O((M I)^2) memory; (M I)^2 products of neurons and about as many comparisons.
 * @returns an expert of the precision of the members
 * @throws InputError when the similarities exceed `maxBytes`; RangeError for members of another shape
 */
export function zipByWeights(
  members: readonly ExpertMatrices[],
  shape: ExpertShape,
  options: ZipOptions & { readonly includeDown?: boolean },
): ExpertMatrices {
  const { epsilon = 0, threads, includeDown = true } = options;
  const stack = stackNeurons(members, shape, options);
  const { count, length, rows } = stack;
  // Without down, inner products stop before its part of a row.
  const k = includeDown ? length : length - shape.hidden;
  const similarity = new Float64Array(count * count);
  symmetricRankK(rows, similarity, { n: count, k }, { strideX: length, threads });
  mirrorLower(similarity, count);
  const renewed = new Float64Array(count);
  // Inner products are linear: those of a weighted mean are the weighted mean of the two rows.
  mergePairs(stack, similarity, shape.width, epsilon, ({ kept, gone, share, otherShare }) => {
    for (let i = 0; i < count; i++) {
      renewed[i] = share * similarity[kept * count + i] + otherShare * similarity[gone * count + i];
    }
    return renewed;
  });
  return expertOf(stack, shape, members[0].up);
}

/**
 * As {@link zipByWeights}, by activations: pairs are chosen by the correlations of inner activations over the same tokens;
 * a merged neuron's correlation with another is `repeatedShare` (0.1 in the released code) of the smaller of its two.
 * @param correlation [M I, M I] of the neurons of all members in their order; the lower triangle counts; changed. With at most one token
 *   there is none, and the first member is returned, as in the released code
 */
export function zipByActivations(
  members: readonly ExpertMatrices[],
  shape: ExpertShape,
  correlation: { readonly tokens: number; readonly matrix: Float64Array },
  options: ZipOptions & { readonly repeatedShare?: number },
): ExpertMatrices {
  const { epsilon = 0, repeatedShare = REPEATED_MERGE_SHARE } = options;
  if (correlation.tokens < 2) return members[0];
  const stack = stackNeurons(members, shape, options);
  const { count } = stack;
  const { matrix } = correlation;
  if (matrix.length !== count * count) {
    throw new RangeError(`correlations of ${Math.sqrt(matrix.length)} neurons, not ${count}`);
  }
  mirrorLower(matrix, count);
  const renewed = new Float64Array(count);
  mergePairs(stack, matrix, shape.width, epsilon, ({ kept, gone }) => {
    for (let i = 0; i < count; i++) {
      renewed[i] = repeatedShare * Math.min(matrix[kept * count + i], matrix[gone * count + i]);
    }
    return renewed;
  });
  return expertOf(stack, shape, members[0].up);
}
