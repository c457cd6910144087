import { modelStock, stockAngles } from '../../src/fusion/merge/methods/model-stock.js';
import type { Json } from './harness.js';
import { merged, stored, storedList } from './merge-task.js';
import { keysOf, tensor } from './tensors.js';

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const base = stored(inputs.base, 'base');
  const models = storedList(inputs.models, 'models');
  const whole = stockAngles(base, models, { filterWise: false, variant: 'surprisal' });
  const rows = stockAngles(base, models, { filterWise: true, variant: 'surprisal' });
  const named: Readonly<Record<string, () => unknown>> = {
    cos: () => tensor([1], whole.cosines),
    t: () => tensor([1], whole.factors),
    merged: () => merged(modelStock, models, { base }).tensor,
    filter_wise_cos: () => tensor([rows.cosines.length, 1], rows.cosines),
    filter_wise_t: () => tensor([rows.factors.length, 1], rows.factors),
    filter_wise_merged: () => merged(modelStock, models, { base, parameters: { filter_wise: true } }).tensor,
  };
  return Object.fromEntries(keysOf(wanted).flatMap((key) => (key in named ? [[key, named[key]()]] : [])));
}
