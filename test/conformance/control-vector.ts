import type { ContrastMethod, PairRows } from '../../src/steering/methods/contrast.js';
import { findMethod } from '../../src/steering/methods/registry.js';
import { cosine } from '../../src/steering/vector-measures.js';
import type { Json } from './harness.js';
import { float64, keysOf, shapeOf, tensor } from './tensors.js';

function methodOf(name: string): ContrastMethod {
  const method = findMethod(name);
  if (typeof method === 'string') throw new TypeError(`${name} takes no pairs`);
  return method;
}

function directions(inputs: { [key: string]: Json }, wanted: { [key: string]: Json }): unknown {
  const [rows, width] = shapeOf(inputs.hidden, 'hidden');
  const pairs: PairRows = { data: float64(inputs.hidden, 'hidden'), pairs: rows / 2, width };
  const planted = float64(inputs.planted, 'planted');
  const found = new Map(keysOf(wanted.directions).map((name) => [name, methodOf(name).direction(pairs)] as const));
  const mean = methodOf('mean_diff').direction(pairs).vector;
  const each = (of: Json, value: (name: string) => unknown): unknown =>
    Object.fromEntries(keysOf(of).map((name) => [name, value(name)]));
  const vectorOf = (name: string): Float64Array => (found.get(name) ?? methodOf(name).direction(pairs)).vector;
  return {
    directions: each(wanted.directions, (name) => tensor([width], vectorOf(name))),
    explained_variance_ratio: each(
      wanted.explained_variance_ratio,
      (name) => methodOf(name).direction(pairs).explainedVarianceRatio,
    ),
    cos_with_planted: each(wanted.cos_with_planted, (name) => cosine(vectorOf(name), planted)),
    cos_with_mean_diff: each(wanted.cos_with_mean_diff, (name) => cosine(vectorOf(name), mean)),
  };
}

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  if (wanted === null || typeof wanted !== 'object' || Array.isArray(wanted)) throw new TypeError('expected an object');
  return directions(inputs, wanted);
}
