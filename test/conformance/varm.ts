import { type VarmLevel, varm, varmGroup, varmMeasure, varmWeights } from '../../src/fusion/merge/methods/varm.js';
import type { ParameterValue, TensorBytes } from '../../src/fusion/merge/types.js';
import type { Json } from './harness.js';
import { merged, stored, taskOf } from './merge-task.js';
import { keysOf } from './tensors.js';

type Tensors = ReadonlyMap<string, TensorBytes>;

function tensorsOf(value: Json, name: string): Tensors {
  if (value === null || typeof value !== 'object' || Array.isArray(value))
    throw new TypeError(`${name} is not an object`);
  return new Map(Object.entries(value).map(([key, entry]) => [key, stored(entry, `${name}.${key}`)]));
}

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const pivot = tensorsOf(inputs.pivot, 'pivot');
  if (!Array.isArray(inputs.targets)) throw new TypeError('targets is not a list');
  const targets = inputs.targets.map((target, j) => tensorsOf(target, `targets[${j}]`));
  const modelsOf = (name: string): TensorBytes[] =>
    targets.map((target) => {
      const found = target.get(name);
      if (found === undefined) throw new TypeError(`a target has no ${name}`);
      return found;
    });
  const each = <T>(get: (name: string, base: TensorBytes) => T): Record<string, T> =>
    Object.fromEntries([...pivot].map(([name, base]) => [name, get(name, base)]));
  const measured = (parameters: Record<string, ParameterValue>): Record<string, Float64Array> =>
    each((name, base) => varmMeasure(taskOf(varm, modelsOf(name), { base, parameters })));
  const run = (parameters: Record<string, ParameterValue>) =>
    each((name, base) => merged(varm, modelsOf(name), { base, parameters }));
  const perTarget = (measure: string) =>
    targets.map((_, j) => Object.fromEntries(Object.entries(measured({ measure })).map(([name, v]) => [name, v[j]])));
  const mergedTensors = (parameters: Record<string, ParameterValue>) =>
    Object.fromEntries(Object.entries(run(parameters)).map(([name, found]) => [name, found.tensor]));
  const weightsOf = (parameters: Record<string, ParameterValue>) =>
    Object.fromEntries(Object.entries(run(parameters)).map(([name, found]) => [name, found.outcome.weights?.slice(1)]));
  /** Sums over the groups of a level, by the authors' rule of zeros, as the executor forms them. */
  const groupWeights = (level: VarmLevel): Record<string, number[]> => {
    const sums = new Map<string, Float64Array>();
    for (const [name, vector] of Object.entries(measured({ level }))) {
      const group = varmGroup(level, name) ?? name;
      // Weights of layers are of tensors in layers.
      if (level === 'layer' && group === name) continue;
      const sum = sums.get(group);
      sums.set(group, sum === undefined ? vector : sum.map((value, j) => value + vector[j]));
    }
    return Object.fromEntries([...sums].map(([group, sum]) => [group, varmWeights(sum, 'uniform')]));
  };
  const result: Record<string, unknown> = {};
  for (const key of keysOf(wanted)) {
    const temperature = /^softmax_temp_([\d.e-]+)_(.+)_weights$/.exec(key);
    const group = /^(layer|module|model)_weights$/.exec(key);
    const zero_rule = key.endsWith('_code_zero_rule') ? 'uniform' : 'formula';
    if (temperature !== null) {
      const weights = weightsOf({ temperature: Number(temperature[1]) });
      result[key] = weights[temperature[2]] ?? weights[`${temperature[2]}.weight`];
    } else if (group !== null) {
      const level = group[1] as VarmLevel;
      const weights = groupWeights(level);
      result[key] = level === 'model' ? weights.model : weights;
    } else if (key === 'mean_square_variation') result[key] = perTarget('square');
    else if (key === 'mean_abs_variation') result[key] = perTarget('abs');
    else if (key.startsWith('param_weights')) result[key] = weightsOf({ zero_rule });
    else if (key.startsWith('param_merged')) result[key] = mergedTensors({ zero_rule });
    else if (key === 'item_merged') result[key] = mergedTensors({ level: 'item', zero_rule: 'uniform' });
  }
  return result;
}
