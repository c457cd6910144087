import { wholeFrame } from '../focal-sets.js';
import { createMassSums, type MassFunction } from '../mass-function.js';
import { conjunctive } from '../products.js';
import { type CombinationRule, foldSources } from './rule.js';

/** The mass of the empty set goes to the frame. */
function conflictToFrame(masses: MassFunction): MassFunction {
  const whole = wholeFrame(masses.frame);
  const sums = createMassSums(masses.frame);
  masses.mass.forEach((mass, i) => {
    const [low, high] = [masses.low[i], masses.high[i]];
    if (low === 0 && high === 0) sums.add(whole.low, whole.high, mass);
    else sums.add(low, high, mass);
  });
  return sums.result();
}

/** Conjunctive product of all sources first: the order does not matter. */
export const YAGER: CombinationRule = {
  name: 'yager',
  title: 'conjunctive over all sources, then conflict to the frame',
  source: 'Yager 1987',
  ordered: false,
  combine: (sources, trim) => conflictToFrame(foldSources(sources, trim, conjunctive)),
};

/** The rule of two sources, folded: conflict that went to the frame meets the next source as ignorance. */
export const YAGER_SEQUENTIAL: CombinationRule = {
  name: 'yager-sequential',
  title: 'conflict to the frame after every source',
  source: 'Yager 1987',
  ordered: true,
  combine: (sources, trim) => foldSources(sources, trim, (a, b) => conflictToFrame(conjunctive(a, b))),
};
