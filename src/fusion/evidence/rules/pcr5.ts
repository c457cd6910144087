import { withConflict } from '../products.js';
import { type CombinationRule, foldSources } from './rule.js';

/** A product x y in conflict goes back as x^2 y / (x + y) and x y^2 / (x + y). */
export const PCR5: CombinationRule = {
  name: 'pcr5',
  title: 'conflict of two sets back to them, in proportion to their masses',
  source: 'Smarandache and Dezert 2006',
  ordered: true,
  combine: (sources, trim) =>
    foldSources(sources, trim, (a, b) =>
      withConflict(a, b, (add, x, y) => {
        const each = (x.mass * y.mass) / (x.mass + y.mass);
        add(x.low, x.high, x.mass * each);
        add(y.low, y.high, y.mass * each);
      }),
    ),
};
