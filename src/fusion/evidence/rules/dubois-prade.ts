import { withConflict } from '../products.js';
import { type CombinationRule, foldSources } from './rule.js';

export const DUBOIS_PRADE: CombinationRule = {
  name: 'dubois-prade',
  title: 'conflict of two sets to their union',
  source: 'Dubois and Prade 1988',
  ordered: true,
  combine: (sources, trim) =>
    foldSources(sources, trim, (a, b) =>
      withConflict(a, b, (add, x, y) => add(x.low | y.low, x.high | y.high, x.mass * y.mass)),
    ),
};
