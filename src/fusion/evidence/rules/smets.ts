import { conjunctive } from '../products.js';
import { type CombinationRule, foldSources } from './rule.js';

export const SMETS: CombinationRule = {
  name: 'smets',
  title: 'conjunctive, conflict stays on the empty set',
  source: 'Smets 1990',
  ordered: false,
  unnormalised: true,
  combine: (sources, trim) => foldSources(sources, trim, conjunctive),
};
