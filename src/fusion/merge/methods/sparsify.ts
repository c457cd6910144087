import { InputError } from '../../../errors.js';
import {
  bernoulliMask,
  type MagnitudeCut,
  type MaskKey,
  measureTaskVector,
  type RankedMask,
  rankedMask,
  type Sparsity,
  type TaskVector,
  taskVectorCuts,
} from '../../../kernels/merge-sparse.js';
import type { MergeVariant } from '../types.js';

/** A task vector that is to be made sparse. */
export interface SparsifyTarget {
  readonly vector: TaskVector;
  /** Elements of these rows of the tensor. */
  readonly count: number;
  /** Length of the last axis. */
  readonly columns: number;
  /** For messages: names tensor and model. */
  readonly owner: string;
  readonly variant: MergeVariant;
  readonly threads: number;
  /** Index of the first element in the whole tensor. */
  readonly firstElement: number;
  /** Key of the model's random numbers in this tensor. */
  readonly key: MaskKey;
}

/** What is left of a task vector: the kept elements (over their probabilities, where there are any) times `scale`. */
export interface Sparsified {
  readonly sparsity: Sparsity;
  readonly scale: number;
  readonly warnings: readonly string[];
}

/**
 * What makes up for dropped elements: nothing; the sum of |delta| stays what it was (`l1`, mergekit); every kept element
 * over its probability to be kept (`inverse`, the papers).
 */
export type Rescale = 'none' | 'l1' | 'inverse';

/** Sums of magnitudes below it are not matched. */
const LEAST_NORM = 1e-7;

const NONE: MagnitudeCut = { magnitude: Number.POSITIVE_INFINITY, end: 0 };

/** Everything stays. */
export const UNTOUCHED: Sparsified = { sparsity: {}, scale: 1, warnings: [] };

function nothing(warnings: readonly string[] = []): Sparsified {
  return { sparsity: { keep: NONE }, scale: 1, warnings };
}

/** |delta|_1 over the kept |delta|_1; 1 where one of them is next to nothing. */
function l1Scale(target: SparsifyTarget, sparsity: Sparsity): number {
  const { wholeAbsolute, absolute } = measureTaskVector(target.vector, target.count, sparsity, target.threads);
  return wholeAbsolute < LEAST_NORM || absolute < LEAST_NORM ? 1 : wholeAbsolute / absolute;
}

/**
 * Elements kept of `count`: floor(density * count) in double precision, so 0.29 of 100 are 28.
 * @throws InputError when that is none, naming tensor, model and density
 */
function keptCount(target: SparsifyTarget, density: number): number {
  const kept = Math.floor(density * target.count);
  if (kept > 0) return kept;
  throw new InputError(
    `${target.owner}: density ${density} keeps none of its ${target.count} elements; ` +
      'raise the density, or filter this tensor out',
  );
}

/**
 * Trimming by magnitude (TIES, Yadav et al. 2023): the floor(density n) largest |delta| of the whole tensor stay, equal
 * ones by index. Variant `mergekit` keeps one element of a positive density that keeps none, and nothing of density 0.
 * @throws InputError when no element would be kept
 */
export function byMagnitude(target: SparsifyTarget, density: number, rescale: Rescale): Sparsified {
  if (density >= 1) return UNTOUCHED;
  const mergekit = target.variant === 'mergekit';
  if (mergekit && density <= 0) return nothing();
  const rank = mergekit ? Math.max(1, Math.floor(density * target.count)) : keptCount(target, density);
  const { cuts } = taskVectorCuts(target.vector, target.count, [rank], target.threads);
  const sparsity = { keep: cuts[0] };
  return { sparsity, scale: rescale === 'none' ? 1 : l1Scale(target, sparsity), warnings: [] };
}

/**
 * Model breadcrumbs (Davari & Belilovsky 2023): of the elements by magnitude the floor(gamma n) largest are dropped and the
 * floor(density n) next stay. Where density and gamma leave too little, fewer of the largest are dropped. Variant
 * `mergekit` keeps nothing where floor(gamma n) is 0, as its slices do.
 */
export function betweenMagnitudes(
  target: SparsifyTarget,
  density: number,
  gamma: number,
  rescale: Rescale,
): Sparsified {
  if (density >= 1) return UNTOUCHED;
  const { count } = target;
  const kept = Math.max(0, Math.floor(density * count));
  const top = Math.min(Math.max(0, Math.floor(gamma * count)), count - kept);
  const warnings =
    top === 0 && gamma > 0
      ? ['fewer than 1/gamma elements: none of the largest is dropped (mergekit keeps nothing)']
      : [];
  if (kept === 0) return nothing([`density ${density} keeps none of the elements of a task vector`]);
  if (top === 0 && target.variant === 'mergekit') {
    return nothing(['fewer than 1/gamma elements: nothing is kept, as in mergekit']);
  }
  const { cuts } = taskVectorCuts(target.vector, count, [top + kept, top], target.threads);
  const sparsity = { keep: cuts[0], drop: cuts[1] };
  return { sparsity, scale: rescale === 'none' ? 1 : l1Scale(target, sparsity), warnings };
}

/** A given mask, whose elements were kept with probability `density`. */
export function byMask(target: SparsifyTarget, mask: Uint8Array, density: number, rescale: Rescale): Sparsified {
  const sparsity = { mask };
  if (rescale === 'none') return { sparsity, scale: 1, warnings: [] };
  if (rescale === 'inverse') return { sparsity, scale: density > 0 ? 1 / density : 1, warnings: [] };
  return { sparsity, scale: l1Scale(target, sparsity), warnings: [] };
}

/** DARE (Yu et al. 2024): every element stays with probability `density`, for itself. */
export function byChance(target: SparsifyTarget, density: number, rescale: Rescale): Sparsified {
  if (density >= 1) return UNTOUCHED;
  if (density <= 0) return nothing();
  const { key, firstElement, count, threads } = target;
  return byMask(target, bernoulliMask(key, firstElement, count, density, threads), density, rescale);
}

/** What {@link byRank} found beside the sparsity. */
export interface RankedSparsified extends Sparsified {
  /** Of each element, where they were asked for. */
  readonly probabilities?: Float32Array | Float64Array;
}

/**
 * MagPrune (DELLA, Deep et al. 2024): the element of rank r by rising magnitude in its row of c stays with probability
 * density - epsilon + 2 epsilon r / (c - 1); `density` in a row of one. `uniforms` replace the random numbers.
 * @throws InputError unless 0 < density - epsilon and density + epsilon < 1, naming tensor and model
 */
export function byRank(
  target: SparsifyTarget,
  density: number,
  epsilon: number,
  rescale: Rescale,
  uniforms?: Float64Array,
): RankedSparsified {
  if (density >= 1) return UNTOUCHED;
  if (density <= 0) return nothing();
  if (!(density - epsilon > 0 && density + epsilon < 1)) {
    throw new InputError(
      `${target.owner}: density ${density} with epsilon ${epsilon} gives probabilities from ${density - epsilon} to ` +
        `${density + epsilon}; both must lie between 0 and 1`,
    );
  }
  const { columns, key, firstElement } = target;
  const rows =
    columns > 1
      ? { columns, low: density - epsilon, step: (2 * epsilon) / (columns - 1) }
      : { columns, low: density, step: 0 };
  const settings: RankedMask = { rows, uniforms: uniforms ?? { key, firstElement } };
  const wantProbabilities = rescale === 'inverse' || uniforms !== undefined;
  const { mask, probabilities } = rankedMask(
    target.vector,
    target.count,
    { ...settings, wantProbabilities },
    target.threads,
  );
  if (rescale === 'inverse') return { sparsity: { mask, probabilities }, scale: 1, warnings: [], probabilities };
  const scale = rescale === 'none' ? 1 : l1Scale(target, { mask });
  return { sparsity: { mask }, scale, warnings: [], probabilities };
}
