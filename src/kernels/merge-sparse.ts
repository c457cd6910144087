import { DTYPE_BYTES } from '../formats/tensor.js';
import { DTYPE_CODES } from './dtypes.js';
import type { StoredElements } from './merge-dense-reference.js';
import { bernoulliMaskReference, type MaskKey } from './merge-masks-reference.js';
import { type MagnitudeCut, NOTHING, selectKthReference } from './merge-selection-reference.js';
import {
  type ActiveCounts,
  activeCountsReference,
  type MixedVector,
  type MixFigures,
  type MixSettings,
  measureTaskVectorReference,
  mixActiveReference,
  mixByVariationReference,
  mixTaskVectorsReference,
  type RankedMask,
  rankedMaskReference,
  type Sparsity,
  type TaskVector,
  type TaskVectorFigures,
  taskVectorCutsReference,
  type VariationMeasure,
  varianceCutReference,
  varianceMaskReference,
} from './merge-sparse-reference.js';
import { kernelThreads, nativeKernels } from './native.js';

export type { StoredElements } from './merge-dense-reference.js';
export type { MaskKey } from './merge-masks-reference.js';
export type { MagnitudeCut } from './merge-selection-reference.js';
export type {
  ActiveCounts,
  MixedVector,
  MixFigures,
  MixSettings,
  RankedMask,
  Sparsity,
  TaskVector,
  TaskVectorFigures,
  VariationMeasure,
} from './merge-sparse-reference.js';
export { electedSign } from './merge-sparse-reference.js';

/** Task vectors of several models on one base. */
export interface TaskVectors {
  readonly base: StoredElements;
  readonly models: readonly StoredElements[];
  /** Differences are doubles, not floats: an input is F64. */
  readonly wide: boolean;
}

const EVERYTHING: MagnitudeCut = { magnitude: -1, end: 0 };

const maskBytes = (count: number): number => Math.ceil(count / 8);

/** @throws RangeError when a tensor has other than `count` elements */
function requireElements(count: number, tensors: readonly (StoredElements | undefined)[]): void {
  for (const tensor of tensors) {
    if (tensor === undefined || tensor.bytes.length === count * DTYPE_BYTES[tensor.dtype]) continue;
    throw new RangeError(`${tensor.bytes.length} bytes of ${tensor.dtype} are not ${count} elements`);
  }
}

/** @throws RangeError when a mask or probabilities do not fit `count` elements of the compute type */
function requireSparsity(count: number, wide: boolean, sparsity: Sparsity): void {
  const { mask, probabilities } = sparsity;
  if (mask !== undefined && mask.length < maskBytes(count)) throw new RangeError(`a mask of ${mask.length} bytes`);
  if (probabilities === undefined) return;
  if (probabilities.length !== count || probabilities instanceof Float64Array !== wide) {
    throw new RangeError('probabilities of another length or type');
  }
}

const code = (tensor: StoredElements | undefined): number =>
  tensor === undefined ? 0 : DTYPE_CODES.indexOf(tensor.dtype);

const codes = (tensors: readonly StoredElements[]): Int32Array => Int32Array.from(tensors, code);

function vectorArguments(vector: TaskVector): readonly [Uint8Array | null, number, Uint8Array, number, number] {
  const { base, model, wide } = vector;
  return [base?.bytes ?? null, code(base), model.bytes, code(model), Number(wide)];
}

function vectorsArguments(
  vectors: TaskVectors,
): readonly [Uint8Array, number, readonly Uint8Array[], Int32Array, number] {
  const { base, models, wide } = vectors;
  return [base.bytes, code(base), models.map((model) => model.bytes), codes(models), Number(wide)];
}

/**
 * The elements of largest magnitude of a task vector: for each rank the cut with exactly so many elements inside, equal
 * magnitudes by rising index. Selection without sorting. NaN count as 0 here and
 * in all that follows, and are counted.
 * @throws RangeError for a rank outside 0 to `count`
 */
export function taskVectorCuts(
  vector: TaskVector,
  count: number,
  ranks: readonly number[],
  threads?: number,
): { readonly cuts: readonly MagnitudeCut[]; readonly nans: number } {
  requireElements(count, [vector.base, vector.model]);
  for (const rank of ranks) {
    if (!(Number.isInteger(rank) && rank >= 0 && rank <= count)) throw new RangeError(`rank ${rank} of ${count}`);
  }
  const native = nativeKernels();
  if (native === undefined) return taskVectorCutsReference(vector, count, ranks);
  const cuts = new Float64Array(2 * ranks.length);
  const wanted = Float64Array.from(ranks);
  const nans = native.taskVectorCuts(...vectorArguments(vector), count, wanted, cuts, kernelThreads(threads));
  const found = ranks.map((_, k) => ({ magnitude: cuts[2 * k], end: cuts[2 * k + 1] }));
  return { cuts: found, nans };
}

function cutNumbers(sparsity: Sparsity): readonly [number, number, number, number] {
  const keep = sparsity.keep ?? EVERYTHING;
  const drop = sparsity.drop ?? NOTHING;
  return [keep.magnitude, keep.end, drop.magnitude, drop.end];
}

/**
 * Sums over a task vector and over what stays of it, in f64, in an order that does not depend on threads: eight lanes
 * within blocks of 1,024 elements, blocks in order.
 * @throws RangeError when lengths disagree
 */
export function measureTaskVector(
  vector: TaskVector,
  count: number,
  sparsity: Sparsity,
  threads?: number,
): TaskVectorFigures {
  requireElements(count, [vector.base, vector.model]);
  requireSparsity(count, vector.wide, sparsity);
  const native = nativeKernels();
  if (native === undefined) return measureTaskVectorReference(vector, count, sparsity);
  const figures = new Float64Array(6);
  native.measureTaskVector(
    ...vectorArguments(vector),
    count,
    Float64Array.from(cutNumbers(sparsity)),
    sparsity.mask ?? null,
    sparsity.probabilities ?? null,
    figures,
    kernelThreads(threads),
  );
  const [kept, nans, wholeAbsolute, sum, absolute, squares] = figures;
  return { kept, nans, wholeAbsolute, sum, absolute, squares };
}

/**
 * A mask whose bits are set with probability `density`: bit i is a function of the key and of firstElement + i alone
 * (Philox4x32-10), so neither threads nor the cutting of a tensor into pieces change it.
 */
export function bernoulliMask(
  key: MaskKey,
  firstElement: number,
  count: number,
  density: number,
  threads?: number,
): Uint8Array {
  const mask = new Uint8Array(maskBytes(count));
  const native = nativeKernels();
  if (native === undefined) bernoulliMaskReference(key, firstElement, count, density, mask);
  else native.bernoulliMask(Uint32Array.from(key), firstElement, count, density, mask, kernelThreads(threads));
  return mask;
}

/**
 * MagPrune (DELLA, Deep et al. 2024): in every row of `columns` entries the entry of rank r by rising magnitude (equal
 * ones by rising index) stays with probability low + step r. `probabilities`, where wanted, are in the compute type.
 * @throws RangeError when sizes disagree
 */
export function rankedMask(
  vector: TaskVector,
  count: number,
  settings: RankedMask & { readonly wantProbabilities: boolean },
  threads?: number,
): { readonly mask: Uint8Array; readonly probabilities?: Float32Array | Float64Array; readonly nans: number } {
  requireElements(count, [vector.base, vector.model]);
  const { columns, low, step } = settings.rows;
  if (!(columns > 0) || count % columns !== 0) throw new RangeError(`${count} elements in rows of ${columns}`);
  const { uniforms } = settings;
  if (uniforms instanceof Float64Array && uniforms.length !== count) {
    throw new RangeError(`${uniforms.length} uniform numbers of ${count} elements`);
  }
  const mask = new Uint8Array(maskBytes(count));
  const Reals = vector.wide ? Float64Array : Float32Array;
  const probabilities = settings.wantProbabilities ? new Reals(count) : undefined;
  const native = nativeKernels();
  if (native === undefined) {
    return { mask, probabilities, nans: rankedMaskReference(vector, count, settings, mask, probabilities) };
  }
  const given = uniforms instanceof Float64Array;
  const nans = native.rankedMask(
    ...vectorArguments(vector),
    count,
    columns,
    low,
    step,
    given ? uniforms : null,
    given ? null : Uint32Array.from(uniforms.key),
    given ? 0 : uniforms.firstElement,
    mask,
    probabilities ?? null,
    kernelThreads(threads),
  );
  return { mask, probabilities, nans };
}

const CONSENSUS = ['none', 'sum', 'count'] as const;

/**
 * Generalised task arithmetic in one pass over stored bytes: forms each task vector (in floats, or doubles where an input
 * is F64), zeros what its sparsity drops, elects a sign for every element, adds up coefficient * delta of the models
 * that agree with it, divides, multiplies by the factor and adds the base; f64 from the products on, one rounding to
 * f32 and from there to the output's type. (Yadav et al., TIES-Merging, 2023; Wan et al., FuseChat, 2024.)
 * @throws RangeError when lengths disagree
 */
export function mixTaskVectors(
  base: StoredElements | undefined,
  models: readonly MixedVector[],
  settings: MixSettings,
  output: StoredElements,
  count: number,
  threads?: number,
): MixFigures {
  const tensors = models.map((model) => model.tensor);
  requireElements(count, [base, output, ...tensors]);
  if (models.length === 0) throw new RangeError('no models');
  for (const { sparsity } of models) requireSparsity(count, settings.wide, sparsity);
  const native = nativeKernels();
  if (native === undefined) return mixTaskVectorsReference(base, models, settings, output, count);
  const numbers = models.flatMap(({ weight, coefficient, election, sparsity }) => [
    weight,
    coefficient,
    election,
    ...cutNumbers(sparsity),
  ]);
  const { consensus, divideByAgreeing, leastDivisor, smallDivisor, divisor, factor, ontoBase } = settings;
  const scalars = [
    CONSENSUS.indexOf(consensus),
    Number(divideByAgreeing),
    leastDivisor ?? Number.NaN,
    smallDivisor,
    divisor,
    factor,
    Number(ontoBase),
  ];
  const figures = new Float64Array(2 * models.length + 2);
  native.mixTaskVectors(
    base?.bytes ?? null,
    code(base),
    tensors.map((tensor) => tensor.bytes),
    codes(tensors),
    models.map(({ sparsity }) => sparsity.mask ?? null),
    models.map(({ sparsity }) => sparsity.probabilities ?? null),
    Float64Array.from(numbers),
    Float64Array.from(scalars),
    Number(settings.wide),
    count,
    output.bytes,
    code(output),
    figures,
    kernelThreads(threads),
  );
  const [smallestDivisor, smallDivisors] = figures.subarray(2 * models.length);
  return {
    kept: figures.slice(0, models.length),
    nans: figures.slice(models.length, 2 * models.length),
    smallestDivisor,
    smallDivisors,
  };
}

/**
 * The elements whose task vectors vary most between the models (population variance, f64): floor(share * number of
 * elements with a variance other than 0) of them.
 * @throws RangeError when lengths disagree
 */
export function varianceCut(
  vectors: TaskVectors,
  count: number,
  share: number,
  threads?: number,
): { readonly cut: MagnitudeCut; readonly selected: number; readonly nans: Float64Array } {
  const { base, models, wide } = vectors;
  requireElements(count, [base, ...models]);
  const native = nativeKernels();
  if (native === undefined) return varianceCutReference(base, models, wide, count, share);
  const result = new Float64Array(3 + models.length);
  native.varianceCut(...vectorsArguments(vectors), count, share, result, kernelThreads(threads));
  const [magnitude, end, selected] = result;
  return { cut: { magnitude, end }, selected, nans: result.slice(3) };
}

/**
 * Marks the elements whose variance is inside a cut; `squares` holds each model's sum of delta^2 over them.
 * @throws RangeError when lengths disagree
 */
export function varianceMask(
  vectors: TaskVectors,
  count: number,
  cut: MagnitudeCut,
  threads?: number,
): { readonly mask: Uint8Array; readonly squares: Float64Array } {
  const { base, models, wide } = vectors;
  requireElements(count, [base, ...models]);
  const mask = new Uint8Array(maskBytes(count));
  const native = nativeKernels();
  if (native === undefined) {
    return { mask, squares: varianceMaskReference(base, models, wide, count, cut, mask) };
  }
  const squares = new Float64Array(models.length);
  const { magnitude, end } = cut;
  native.varianceMask(...vectorsArguments(vectors), count, magnitude, end, mask, squares, kernelThreads(threads));
  return { mask, squares };
}

/**
 * How many elements of each model are active, |delta| > epsilon, there together with another model's or alone.
 * @throws RangeError when lengths disagree
 */
export function activeCounts(vectors: TaskVectors, count: number, epsilon: number, threads?: number): ActiveCounts {
  const { base, models, wide } = vectors;
  requireElements(count, [base, ...models]);
  const native = nativeKernels();
  if (native === undefined) return activeCountsReference(base, models, wide, count, epsilon);
  const figures = new Float64Array(3 * models.length);
  native.activeCounts(...vectorsArguments(vectors), count, epsilon, figures, kernelThreads(threads));
  const [shared, unique, nans] = [0, 1, 2].map((k) => figures.slice(k * models.length, (k + 1) * models.length));
  return { shared, unique, nans };
}

/**
 * Base plus the mean of the active entries where several models have one, plus factor * entry where one alone has
 * (Reinforced Agent Merging, 2026).
 * @throws RangeError when lengths disagree
 */
export function mixActive(
  vectors: TaskVectors,
  count: number,
  epsilon: number,
  factors: Float64Array,
  output: StoredElements,
  threads?: number,
): void {
  const { base, models, wide } = vectors;
  requireElements(count, [base, ...models, output]);
  if (factors.length !== models.length) throw new RangeError(`${factors.length} factors of ${models.length} models`);
  const native = nativeKernels();
  if (native === undefined) {
    mixActiveReference(base, models, wide, count, epsilon, factors, output);
    return;
  }
  native.mixActive(
    ...vectorsArguments(vectors),
    count,
    epsilon,
    factors,
    output.bytes,
    code(output),
    kernelThreads(threads),
  );
}

/**
 * Every element a mean of the models' in proportion to how far each has moved it: delta^2 or |delta|. Where none has
 * moved it the base stays; with a `floor` the sum of variations is raised to it instead, as the code of FuseChat does,
 * and what hardly moves shrinks. Gives each model's number of NaN.
 * @throws RangeError when lengths disagree
 */
export function mixByVariation(
  vectors: TaskVectors,
  count: number,
  settings: { readonly measure: VariationMeasure; readonly floor?: number },
  output: StoredElements,
  threads?: number,
): Float64Array {
  const { base, models, wide } = vectors;
  requireElements(count, [base, ...models, output]);
  const { measure, floor } = settings;
  const native = nativeKernels();
  if (native === undefined) {
    return mixByVariationReference(base, models, wide, count, measure, floor, output);
  }
  const nans = new Float64Array(models.length);
  native.mixByVariation(
    ...vectorsArguments(vectors),
    count,
    Number(measure === 'square'),
    floor ?? Number.NaN,
    output.bytes,
    code(output),
    nans,
    kernelThreads(threads),
  );
  return nans;
}

/**
 * The value of ascending rank k (from 0) among values without NaN, which stay as they are: an order statistic without
 * sorting.
 * @throws RangeError for a rank outside
 */
export function selectKth(values: Float32Array | Float64Array, k: number, threads?: number): number {
  if (!(Number.isInteger(k) && k >= 0 && k < values.length)) throw new RangeError(`rank ${k} of ${values.length}`);
  const native = nativeKernels();
  return native === undefined ? selectKthReference(values, k) : native.selectKth(values, k, kernelThreads(threads));
}
