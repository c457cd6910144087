import { mixingMethod } from '../../src/fusion/mixing/rows/registry.js';
import type { MixingParameters, MixingRound } from '../../src/fusion/mixing/types.js';
import type { Json } from './harness.js';
import { keysOf, number, numbers, tensor } from './tensors.js';

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const k = number(inputs.k, 'k');
  const orders = inputs.probe_orders as Json[];
  const losses = (inputs.losses as Json[]).map((row) => Float64Array.from(numbers(row, 'losses')));
  const ema = inputs.ema === null ? null : number(inputs.ema, 'ema');
  const method = mixingMethod('aioli');
  const parameters = {
    ...method.parameters(k),
    eta: number(inputs.eta, 'eta'),
    ema,
    gamma: number(inputs.one_hot_factor, 'one_hot_factor'),
    memory: ema === null ? 'accumulate' : 'uniform',
    diagonal: inputs.diagonal === true,
    normalise: inputs.normalize_A === true,
    floor: 0,
  } as MixingParameters;
  const groups = Array.from({ length: k }, (_, j) => `group ${j}`);
  const mixer = method.create({ groups, parameters, seed: 0 });
  let at = 0;
  const rounds = orders.map((order): MixingRound => {
    const start = losses[at++];
    const probes = numbers(order, 'probe_orders').map((group) => ({ group, losses: losses[at++] }));
    return mixer.update({ kind: 'probes', start, probes });
  });
  const square = (matrix: Float64Array | null): unknown => tensor([k, k], matrix ?? []);
  const named: Record<string, unknown> = {
    A: rounds.map(({ matrix }) => square(matrix)),
    A_used: rounds.map(({ used }) => square(used)),
    proportions: rounds.map(({ proportions }) => [...proportions]),
  };
  return Object.fromEntries(keysOf(wanted).map((key) => [key, named[key]]));
}
