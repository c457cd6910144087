import type {
  MergeMethod,
  MergeOutcome,
  MergeTask,
  MergeVariant,
  ParameterValue,
  TensorBytes,
} from '../../src/fusion/merge/types.js';
import type { Json } from './harness.js';
import { float64, shapeOf, tensor } from './tensors.js';

/** A golden tensor as stored F64 elements. */
export function stored(value: Json, name: string): TensorBytes {
  const values = float64(value, name);
  return { dtype: 'F64', shape: shapeOf(value, name), bytes: new Uint8Array(values.buffer) };
}

/** A list of golden tensors. */
export function storedList(value: Json, name: string): TensorBytes[] {
  if (!Array.isArray(value)) throw new TypeError(`${name} is not a list`);
  return value.map((entry, i) => stored(entry, `${name}[${i}]`));
}

export interface TaskSettings {
  readonly base?: TensorBytes;
  /** Of each model but the base. */
  readonly perModel?: readonly Readonly<Record<string, ParameterValue>>[];
  readonly parameters?: Readonly<Record<string, ParameterValue>>;
  readonly variant?: MergeVariant;
}

/** A task of a method, its defaults in place of what the settings do not name. */
export function taskOf(method: MergeMethod, models: readonly TensorBytes[], settings: TaskSettings = {}): MergeTask {
  const { base, perModel = [], parameters = {}, variant = 'surprisal' } = settings;
  const like = models[0];
  const inputs = models.map((model, i) => ({
    model: `model-${i}`,
    isBase: false,
    tensor: model,
    parameters: { ...defaults(method.perModel), ...perModel[i] },
  }));
  const first = base === undefined ? [] : [{ model: 'base', isBase: true, tensor: base, parameters: {} }];
  return {
    name: 'golden',
    inputs: [...first, ...inputs],
    parameters: { ...defaults(method.global), ...parameters },
    output: { ...like, bytes: new Uint8Array(like.bytes.length) },
    firstElement: 0,
    seed: 0,
    threads: 1,
    variant,
  };
}

/** Runs a method on tensors, its defaults in place of what the settings do not name. */
export function merged(
  method: MergeMethod,
  models: readonly TensorBytes[],
  settings: TaskSettings = {},
): { tensor: unknown; outcome: MergeOutcome } {
  const task = taskOf(method, models, settings);
  const outcome = method.merge(task);
  return { tensor: tensor(task.output.shape, new Float64Array(task.output.bytes.buffer)), outcome };
}

function defaults(declared: MergeMethod['global']): Record<string, ParameterValue | undefined> {
  return Object.fromEntries(declared.map((parameter) => [parameter.name, parameter.default]));
}
