import { DTYPE_BYTES, elementCount } from '../../../../src/formats/tensor.js';
import type {
  MergeMethod,
  MergeOutcome,
  MergeTask,
  MergeVariant,
  ParameterValue,
  TensorBytes,
} from '../../../../src/fusion/merge/types.js';
import {
  loadElements,
  type MergeElementType,
  storeElements,
} from '../../../../src/kernels/merge-elements-reference.js';

/** Values as a stored tensor. */
export function tensorOf(
  values: ArrayLike<number>,
  shape: readonly number[] = [values.length],
  dtype: MergeElementType = 'F64',
): TensorBytes {
  const bytes = new Uint8Array(values.length * DTYPE_BYTES[dtype]);
  storeElements(Float64Array.from(values), dtype, 0, values.length, bytes);
  return { dtype, shape, bytes };
}

export function valuesOf(tensor: TensorBytes): number[] {
  const values = new Float64Array(elementCount(tensor.shape));
  loadElements(tensor.bytes, tensor.dtype, 0, values.length, values);
  return [...values];
}

export interface TaskOptions {
  readonly base?: TensorBytes;
  /** Of the models but the base. */
  readonly weights?: readonly number[];
  readonly parameters?: Readonly<Record<string, ParameterValue>>;
  readonly dtype?: MergeElementType;
  readonly threads?: number;
  readonly variant?: MergeVariant;
}

/** Runs a method with its declared defaults; the merged values beside the outcome. */
export function runMethod(
  method: MergeMethod,
  models: readonly TensorBytes[],
  options: TaskOptions = {},
): MergeOutcome & { readonly values: number[]; readonly bytes: Uint8Array } {
  const { base, weights, parameters = {}, threads = 1, variant = 'surprisal' } = options;
  const shape = (models[0] ?? base).shape;
  const dtype = options.dtype ?? (models[0] ?? base).dtype;
  const output = tensorOf(new Float64Array(elementCount(shape)), shape, dtype);
  const defaults = Object.fromEntries(method.global.map((parameter) => [parameter.name, parameter.default]));
  const task: MergeTask = {
    name: 'model.layers.0.mlp.up_proj.weight',
    inputs: [
      ...(base === undefined ? [] : [{ model: 'base', isBase: true, tensor: base, parameters: {} }]),
      ...models.map((tensor, i) => ({ model: `m${i}`, isBase: false, tensor, parameters: { weight: weights?.[i] } })),
    ],
    parameters: { ...defaults, ...parameters },
    output,
    firstElement: 0,
    seed: 0,
    threads,
    variant,
  };
  return { ...method.merge(task), values: valuesOf(output), bytes: output.bytes };
}
