import { DTYPE_BYTES } from '../../../../src/formats/tensor.js';
import type {
  MergeDType,
  MergeMethod,
  MergeTask,
  MergeVariant,
  ParameterValue,
} from '../../../../src/fusion/merge/types.js';
import { loadElements, storeElements } from '../../../../src/kernels/merge-elements-reference.js';

export interface Given {
  readonly base: ArrayLike<number>;
  readonly models: readonly ArrayLike<number>[];
  readonly shape?: readonly number[];
  readonly dtype?: MergeDType;
  readonly perModel?: readonly Readonly<Record<string, ParameterValue>>[];
  readonly parameters?: Readonly<Record<string, ParameterValue>>;
  readonly variant?: MergeVariant;
  readonly names?: readonly string[];
  readonly seed?: number;
  readonly threads?: number;
  readonly firstElement?: number;
  readonly surveyed?: Float64Array;
  readonly name?: string;
}

const defaults = (declared: MergeMethod['global']): Record<string, ParameterValue | undefined> =>
  Object.fromEntries(declared.map((parameter) => [parameter.name, parameter.default]));

/** A task of a method on plain numbers, its defaults in place of what is not given. */
export function taskOn(method: MergeMethod, given: Given): MergeTask {
  const { base, models, dtype = 'F64', perModel = [], names = [] } = given;
  const shape = given.shape ?? [base.length];
  const tensor = (values: ArrayLike<number>) => {
    const bytes = new Uint8Array(values.length * DTYPE_BYTES[dtype]);
    storeElements(Float64Array.from(values), dtype, 0, values.length, bytes);
    return { dtype, shape, bytes };
  };
  const others = models.map((model, j) => ({
    model: names[j] ?? `model-${j}`,
    isBase: false,
    tensor: tensor(model),
    parameters: { ...defaults(method.perModel), ...perModel[j] },
  }));
  return {
    name: given.name ?? 'model.layers.0.mlp.up_proj.weight',
    inputs: [{ model: 'base', isBase: true, tensor: tensor(base), parameters: {} }, ...others],
    parameters: { ...defaults(method.global), ...given.parameters },
    output: tensor(new Float64Array(base.length)),
    firstElement: given.firstElement ?? 0,
    seed: given.seed ?? 1,
    threads: given.threads ?? 1,
    variant: given.variant ?? 'surprisal',
    ...(given.surveyed && { surveyed: given.surveyed }),
  };
}

/** The values of a task's output. */
export function valuesOf(task: MergeTask): number[] {
  const values = new Float64Array(task.inputs[0].tensor.bytes.length / DTYPE_BYTES[task.output.dtype]);
  loadElements(task.output.bytes, task.output.dtype, 0, values.length, values);
  return Array.from(values);
}

export function mergeOn(method: MergeMethod, given: Given) {
  const task = taskOn(method, given);
  const outcome = method.merge(task);
  return { outcome, values: valuesOf(task) };
}
