import { multiply } from '../kernels/gemm.js';
import { type AssignmentMode, checkAssignmentMemory, solveAssignment } from '../kernels/linear-assignment.js';
import { squaredDistance } from '../kernels/permuted-sums.js';
import type { Floats } from '../models/layer-runner.js';
import { checkExpert, checkPermutation } from './neurons.js';

import type { ExpertMatrices, ExpertShape } from './types.js';

/** What a pair of neurons gains by lying in one place. */
export interface GainOptions {
  /** Columns of the down projection count beside the rows that read the input. Default true. */
  readonly includeDown?: boolean;
  /** Every matrix's term is divided by the product of the two Frobenius norms, so that none outweighs the others. */
  readonly balance?: boolean;
  /** Receives the gains, [I, I]: pairs that follow each other need not each have new memory. */
  readonly gains?: Floats;
  readonly threads?: number;
}

export interface AlignmentOptions extends GainOptions {
  /** How the assignment is solved; default `exact`. */
  readonly mode?: AssignmentMode;
  /** Most bytes of the matrix of gains and the work on it. */
  readonly maxBytes?: number;
}

/** How the neurons of a target expert go to the places of a reference. */
export interface Alignment {
  /** Neuron of the target for every place of the reference, [I]. */
  readonly permutation: Int32Array;
  /** Sum of the gains of the neurons as they lie, and as the permutation puts them. */
  readonly gainBefore: number;
  readonly gain: number;
  /** No permutation gains more than this (sum of the duals); gap = bound - gain. */
  readonly bound: number;
  readonly gap: number;
  /** Squared distance to the reference, summed over the matrices, before and after. */
  readonly distanceBefore: number;
  readonly distanceAfter: number;
}

/** The matrices whose rows are neurons, [I, H] each: gate and up, or up alone. */
const readers = ({ gate, up }: ExpertMatrices): Floats[] => (gate === undefined ? [up] : [gate, up]);

/** Sum of squares in double. */
function squaredNorm(values: Floats): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i] * values[i];
  return sum;
}

/** 1, or one over the product of the norms; 0 where a matrix is zero, since it has nothing to say. */
function termFactor(a: Floats, b: Floats, balance: boolean): number {
  if (!balance) return 1;
  const product = Math.sqrt(squaredNorm(a)) * Math.sqrt(squaredNorm(b));
  return product > 0 ? 1 / product : 0;
}

/**
 * S [I, I]: entry (i, j) is what neuron j of the target gains at place i of the reference,
 * S = G_r G_t^T + U_r U_t^T + D_r^T D_t (ReLU experts: without G; M-SMoE, 2023, weight matching). The permutation with the
 * largest sum is also the one with the least squared distance. Single for single matrices, double for double ones.
 * @throws RangeError when an expert does not have this shape
 */
export function alignmentGains(
  reference: ExpertMatrices,
  target: ExpertMatrices,
  shape: ExpertShape,
  options: GainOptions = {},
): Floats {
  checkExpert('the reference', reference, shape);
  checkExpert('the target', target, shape);
  const { hidden: H, width: I } = shape;
  const { includeDown = true, balance = false, threads } = options;
  const gains =
    options.gains ?? (reference.up instanceof Float32Array ? new Float32Array(I * I) : new Float64Array(I * I));
  const sizes = { m: I, n: I, k: H };
  const others = readers(target);
  readers(reference).forEach((matrix, i) => {
    const alpha = termFactor(matrix, others[i], balance);
    multiply(matrix, others[i], gains, sizes, { transposeB: true, alpha, beta: i === 0 ? 0 : 1, threads });
  });
  if (includeDown) {
    const alpha = termFactor(reference.down, target.down, balance);
    multiply(reference.down, target.down, gains, sizes, { transposeA: true, alpha, beta: 1, threads });
  }
  return gains;
}

/**
 * Squared distance of two experts with the target's neurons permuted, sum over its matrices; without a permutation as
 * they lie.
 * @throws RangeError when an expert does not have this shape
 */
export function expertDistance(
  reference: ExpertMatrices,
  target: ExpertMatrices,
  shape: ExpertShape,
  permutation?: Int32Array,
  threads?: number,
): number {
  checkExpert('the reference', reference, shape);
  checkExpert('the target', target, shape);
  const { hidden: H, width: I } = shape;
  const others = readers(target);
  const sums = readers(reference).map((matrix, part) =>
    squaredDistance(matrix, others[part], { rows: I, columns: H, rowOrder: permutation }, threads),
  );
  const byColumns = { rows: H, columns: I, columnOrder: permutation };
  return sums.reduce((sum, part) => sum + part, squaredDistance(reference.down, target.down, byColumns, threads));
}

/**
 * Weight matching: the permutation of the target's neurons that brings its weights closest to the reference's.
 * Ties, such as those of dead neurons (zero rows), go to the lowest index.
 * @throws RangeError when an expert does not have this shape; InputError for NaN, or when the gains exceed `maxBytes`
 */
export function alignExpert(
  reference: ExpertMatrices,
  target: ExpertMatrices,
  shape: ExpertShape,
  options: AlignmentOptions = {},
): Alignment {
  const { width: I } = shape;
  const { mode = 'exact', threads, maxBytes } = options;
  if (maxBytes !== undefined) checkAssignmentMemory(I, mode, maxBytes, reference.up.BYTES_PER_ELEMENT);
  const gains = alignmentGains(reference, target, shape, options);
  const { permutation, gain, bound, gap } = solveAssignment(gains, I, { mode, threads, maxBytes });
  let gainBefore = 0;
  for (let i = 0; i < I; i++) gainBefore += gains[i * I + i];
  return {
    permutation,
    gainBefore,
    gain,
    bound,
    gap,
    distanceBefore: expertDistance(reference, target, shape, undefined, threads),
    distanceAfter: expertDistance(reference, target, shape, permutation, threads),
  };
}

/**
 * The expert with its neurons in another order: row i of gate and up, and column i of down, are neuron permutation[i]. It
 * computes the same function, (PG, PU, DP^T).
 * @throws RangeError when the permutation is none, or the expert does not have this shape
 */
export function permuteNeurons(expert: ExpertMatrices, shape: ExpertShape, permutation: Int32Array): ExpertMatrices {
  checkExpert('the expert', expert, shape);
  const { hidden: H, width: I } = shape;
  checkPermutation(permutation, I);
  const rows = (matrix: Floats): Floats => {
    const result = matrix.slice();
    for (let i = 0; i < I; i++) {
      result.set(matrix.subarray(permutation[i] * H, (permutation[i] + 1) * H), i * H);
    }
    return result;
  };
  const down = expert.down.slice();
  for (let h = 0; h < H; h++) {
    const at = h * I;
    for (let i = 0; i < I; i++) down[at + i] = expert.down[at + permutation[i]];
  }
  const up = rows(expert.up);
  return expert.gate === undefined ? { up, down } : { gate: rows(expert.gate), up, down };
}

/**
 * Weight matching of the experts of a group to one of them, one {@link Alignment} an expert. That of the reference itself is
 * the identity, with zeros: it was not aligned to anything.
 * @param reference its place among the experts
 */
export function alignGroup(
  experts: readonly ExpertMatrices[],
  reference: number,
  shape: ExpertShape,
  options: AlignmentOptions = {},
): Alignment[] {
  return experts.map((expert, e) =>
    e === reference ? unaligned(shape.width) : alignExpert(experts[reference], expert, shape, options),
  );
}

/** The alignment of an expert with itself: every neuron stays. */
export function unaligned(width: number): Alignment {
  const permutation = Int32Array.from({ length: width }, (_, i) => i);
  return { permutation, gainBefore: 0, gain: 0, bound: 0, gap: 0, distanceBefore: 0, distanceAfter: 0 };
}
