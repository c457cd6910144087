import { elementCount } from '../../../formats/tensor.js';
import {
  electedSign,
  type MixedVector,
  type MixFigures,
  mixTaskVectors,
  type TaskVectors,
} from '../../../kernels/merge-sparse.js';
import type { MergeInput, MergeMethod, MergeOutcome, MergeTask, ParameterDeclaration } from '../types.js';
import { numberParameter, requireBase, taskBoolean, taskNumber, taskString } from './method-inputs.js';
import { copyTensor } from './passthrough.js';
import { maskKey } from './random-mask.js';
import { type Sparsified, type SparsifyTarget, UNTOUCHED } from './sparsify.js';

/** Sums of weights below it divide nothing. */
const LEAST_DIVISOR = 1e-8;
/** A divisor below this share of the sum of |weights| is said to be small. */
const SMALL_DIVISOR = 0.1;

/** Makes one model's task vector sparse, by the parameters of model and task. */
export type Sparsify = (target: SparsifyTarget, input: MergeInput, task: MergeTask) => Sparsified;

/** What tells one kind of generalised task arithmetic from another. */
export interface TaskArithmetic {
  readonly sparsify: Sparsify;
  /** Whether only the models that agree with the elected sign of an element take part in it. */
  readonly consensus: boolean;
}

/** Whether differences are doubles: an input is F64. */
export function isWide(inputs: readonly MergeInput[]): boolean {
  return inputs.some((input) => input.tensor.dtype === 'F64');
}

/** The task vectors of a task, as kernels take them. */
export function taskVectorsOf(task: MergeTask): TaskVectors & { readonly others: readonly MergeInput[] } {
  const { base, others } = requireBase(task);
  return { base: base.tensor, models: others.map((input) => input.tensor), wide: isWide(task.inputs), others };
}

/** The base as it is, where no other model has the tensor or there is nothing in it. */
export function keepBase(task: MergeTask): MergeOutcome | undefined {
  const { base, others } = requireBase(task);
  if (others.length > 0 && elementCount(task.output.shape) > 0) return undefined;
  copyTensor(base.tensor, task.output, task.threads);
  return {};
}

/** One number for each input of the task: that of its model, or `base` for the base. */
export function perInput(task: MergeTask, ofModels: ArrayLike<number>, base: number): number[] {
  let next = 0;
  return task.inputs.map((input) => (input.isBase ? base : ofModels[next++]));
}

/** What is to be said of entries that are NaN. */
export function nanWarnings(others: readonly MergeInput[], nans: ArrayLike<number>): string[] {
  return others.flatMap((input, j) =>
    nans[j] > 0 ? [`differences of ${input.model} from the base that are NaN count as 0`] : [],
  );
}

/** What {@link others} of a task are to a sparsifier. */
function targetOf(task: MergeTask, vectors: TaskVectors, others: readonly MergeInput[], j: number): SparsifyTarget {
  const { shape } = task.output;
  const { model } = others[j];
  const occurrence = others.slice(0, j).filter((input) => input.model === model).length;
  return {
    vector: { base: vectors.base, model: vectors.models[j], wide: vectors.wide },
    count: elementCount(shape),
    columns: shape.at(-1) ?? 1,
    owner: `tensor ${task.name}, model ${model}`,
    variant: task.variant,
    threads: task.threads,
    firstElement: task.firstElement,
    key: maskKey(task.seed, task.name, model, occurrence),
  };
}

/** The task vectors of a task made sparse, in the order of the models. */
export function sparsifyModels(task: MergeTask, sparsify: Sparsify): Sparsified[] {
  const { others, ...vectors } = taskVectorsOf(task);
  return others.map((input, j) => sparsify(targetOf(task, vectors, others, j), input, task));
}

/** The task vectors of a task as they are merged, before weights: f64, one of the tensor's elements for each model. */
export function sparseTaskVectors(task: MergeTask, sparsify: Sparsify): Float64Array[] {
  const { base, models, wide } = taskVectorsOf(task);
  const count = elementCount(task.output.shape);
  return sparsifyModels(task, sparsify).map(({ sparsity, scale }, j) => {
    const values = new Float64Array(count);
    mixTaskVectors(
      base,
      [{ tensor: models[j], sparsity, weight: 1, coefficient: scale, election: 1 }],
      { wide, consensus: 'none', divideByAgreeing: false, smallDivisor: 0, divisor: 1, factor: 1, ontoBase: false },
      { dtype: 'F64', bytes: new Uint8Array(values.buffer) },
      count,
      task.threads,
    );
    return values;
  });
}

/** Of each model, 1 where its weighted task vector has the elected sign of the element, else 0. */
export function agreement(
  vectors: readonly Float64Array[],
  weights: readonly number[],
  consensus: 'sum' | 'count',
): Uint8Array[] {
  const agrees = vectors.map((values) => new Uint8Array(values.length));
  const votes = new Float64Array(vectors.length);
  for (let i = 0; i < (vectors[0]?.length ?? 0); i++) {
    for (let j = 0; j < votes.length; j++) votes[j] = vectors[j][i] * weights[j];
    const sign = electedSign(votes, consensus);
    agrees.forEach((of, j) => {
      of[i] = Number(Math.sign(votes[j]) === sign);
    });
  }
  return agrees;
}

function divisorWarnings(figures: MixFigures): string[] {
  if (figures.smallDivisors === 0) return [];
  return ['weights that agree nearly cancel: divisors below a tenth of the sum of |weights|'];
}

/**
 * Generalised task arithmetic: delta_i = theta_i - theta_0 made sparse, D_i = w_i delta_i; with consensus only the D_i whose
 * sign is elected (the sign of their sum, or of the sum of their signs; 0 is positive), over the weights that agree where
 * `normalize` says so (exact 0: 1); without consensus over the sum of all weights (below 1e-8: 1); times lambda, on the
 * base. (Ilharco et al. 2023; Yadav et al. 2023.)
 */
export function mergeTaskVectors(task: MergeTask, { sparsify, consensus }: TaskArithmetic): MergeOutcome {
  const kept = keepBase(task);
  if (kept) return kept;
  const { others, base, models, wide } = taskVectorsOf(task);
  const sparse = sparsifyModels(task, sparsify);
  const weights = others.map((input) => numberParameter(input, 'weight'));
  const mixed: MixedVector[] = models.map((tensor, j) => {
    const coefficient = weights[j] * sparse[j].scale;
    return { tensor, sparsity: sparse[j].sparsity, weight: weights[j], coefficient, election: coefficient };
  });
  const normalize = taskBoolean(task, 'normalize');
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const absolute = weights.reduce((sum, weight) => sum + Math.abs(weight), 0);
  const cancelling = weights.some((weight) => weight < 0) && weights.some((weight) => weight > 0);
  const whole = normalize && !consensus;
  const count = elementCount(task.output.shape);
  const figures = mixTaskVectors(
    base,
    mixed,
    {
      wide,
      consensus: consensus ? (taskString(task, 'consensus_method') === 'count' ? 'count' : 'sum') : 'none',
      divideByAgreeing: normalize && consensus,
      smallDivisor: cancelling ? SMALL_DIVISOR * absolute : 0,
      divisor: whole && Math.abs(total) >= LEAST_DIVISOR ? total : 1,
      factor: taskNumber(task, 'lambda'),
      ontoBase: true,
    },
    task.output,
    count,
    task.threads,
  );
  const warnings = [
    ...sparse.flatMap((one) => one.warnings),
    ...nanWarnings(others, figures.nans),
    ...divisorWarnings(figures),
    ...(whole && cancelling && Math.abs(total) < SMALL_DIVISOR * absolute
      ? [`the weights nearly cancel: they sum to ${total}, their magnitudes to ${absolute}`]
      : []),
  ];
  const smallestDivisor = whole ? Math.abs(total) : figures.smallestDivisor;
  return {
    weights: perInput(task, weights, 1),
    keptDensity: perInput(
      task,
      figures.kept.map((elements) => elements / count),
      1,
    ),
    ...(normalize && Number.isFinite(smallestDivisor) ? { smallestDivisor } : {}),
    ...(normalize ? { figures: { absolute_weights: absolute } } : {}),
    warnings,
  };
}

/** Declarations that all methods of task arithmetic share. */
export const WEIGHT: ParameterDeclaration = {
  name: 'weight',
  kind: 'number',
  required: true,
  summary: "Weight of the model's task vector.",
};

export const DENSITY: ParameterDeclaration = {
  name: 'density',
  kind: 'number',
  default: 1,
  summary: "Share of the task vector's elements that stay.",
};

const CONSENSUS_METHOD: ParameterDeclaration = {
  name: 'consensus_method',
  kind: 'string',
  default: 'sum',
  choices: ['sum', 'count'],
  summary: 'What elects the sign of an element: the sum of the weighted task vectors, or of their signs.',
};

/** A method of generalised task arithmetic, and its defaults. */
export interface TaskArithmeticMethod
  extends Pick<MergeMethod, 'name' | 'summary' | 'reference' | 'span' | 'workBytes'> {
  readonly sparsify?: Sparsify;
  readonly consensus: boolean;
  /** Declared beside `weight`. */
  readonly perModel?: readonly ParameterDeclaration[];
  /** Declared beside `normalize` and `lambda`. */
  readonly global?: readonly ParameterDeclaration[];
  readonly normalize: boolean;
  readonly random?: boolean;
}

/** Masks of a bit an element and model. */
export function maskBytes(elements: number, inputs: number): number {
  return Math.ceil(elements / 8) * inputs;
}

/** What a selection among the elements of one tensor holds: the few candidates of sixteen bytes, and a copy of them. */
export function selectionBytes(elements: number): number {
  return 3 * elements;
}

/** `rescale` of the methods that have it. */
export function rescaleDeclaration(byDefault: boolean): ParameterDeclaration {
  return {
    name: 'rescale',
    kind: 'boolean',
    default: byDefault,
    summary: 'Make up for the dropped elements.',
  };
}

/** Accepted because configurations have it; int8 or not, masks here are bits, and values do not depend on them. */
const INT8_MASK: ParameterDeclaration = {
  name: 'int8_mask',
  kind: 'boolean',
  default: false,
  summary: 'Of no effect on values: masks are bits.',
};

export function taskArithmeticMethod(declared: TaskArithmeticMethod): MergeMethod {
  const { name, summary, reference, span, workBytes, consensus, random } = declared;
  const recipe: TaskArithmetic = { sparsify: declared.sparsify ?? (() => UNTOUCHED), consensus };
  return {
    name,
    summary,
    reference,
    base: 'required',
    models: { least: 1 },
    perModel: [WEIGHT, ...(declared.perModel ?? [])],
    global: [
      {
        name: 'normalize',
        kind: 'boolean',
        default: declared.normalize,
        summary: consensus ? 'Divide by the sum of the weights that agree.' : 'Divide by the sum of the weights.',
      },
      { name: 'lambda', kind: 'number', default: 1, summary: 'Factor of the merged task vector.' },
      ...(consensus ? [CONSENSUS_METHOD] : []),
      ...(declared.global ?? []),
      INT8_MASK,
    ],
    taskVectors: true,
    ...(random === undefined ? {} : { random }),
    span,
    workBytes,
    merge: (task) => mergeTaskVectors(task, recipe),
  };
}
