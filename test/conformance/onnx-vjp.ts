import { composeGraph, type GraphType } from '../../src/models/graph.js';
import { fed, graphVjp, shown } from './graph-vjp.js';
import type { Json } from './harness.js';
import { type OperatorCase, writeOperator } from './operator-graphs.js';
import { keysOf } from './tensors.js';

type Entry = { [key: string]: Json };

const TYPES: Readonly<Record<string, GraphType>> = { float64: 'f64', int64: 'i64', bool: 'bool' };

function entries(value: Json, name: string): Entry[] {
  if (!Array.isArray(value)) throw new TypeError(`${name} is not a list`);
  return value as Entry[];
}

async function runCase({ op, attrs, inputs, grad_outputs }: Entry, expected: Entry): Promise<unknown> {
  const cotangents = entries(grad_outputs, 'grad_outputs').map((value, i) => fed(value, `grad_outputs[${i}]`));
  const given = { op, attrs, inputs, outputs: cotangents.length } as unknown as OperatorCase;
  const feeds = Object.fromEntries(Object.entries(given.inputs).map(([name, value]) => [name, fed(value, name)]));
  const g = composeGraph(given.op, 'f64');
  for (const [name, value] of Object.entries(feeds)) g.input(name, TYPES[value.type], value.dims);
  const names = writeOperator(g, given);
  const seeds = names.map((name, i) => {
    const seed = `output${i}`;
    g.publish(name, seed);
    return seed;
  });
  const { outputs, gradients } = await graphVjp({
    graph: g.encode(),
    feeds,
    wanted: keysOf(expected.grads),
    seeds,
    cotangents: () => Object.fromEntries(seeds.map((seed, i) => [seed, cotangents[i]])),
  });
  return {
    op,
    outputs: seeds.map((seed) => shown(outputs[seed])),
    grads: Object.fromEntries(Object.entries(gradients).map(([name, value]) => [name, shown(value)])),
  };
}

export async function run(inputs: { [key: string]: Json }, wanted: Json): Promise<unknown> {
  const cases = entries(inputs.cases, 'cases');
  const expected = entries((wanted as Entry).cases, 'expected cases');
  const results: unknown[] = [];
  for (const [i, given] of cases.entries()) results.push(await runCase(given, expected[i]));
  return { cases: results };
}
