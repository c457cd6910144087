import { disjunctive } from '../products.js';
import { type CombinationRule, foldSources } from './rule.js';

export const DISJUNCTIVE: CombinationRule = {
  name: 'disjunctive',
  title: 'unions: at least one source is right',
  source: 'Dubois and Prade 1986',
  ordered: false,
  combine: (sources, trim) => foldSources(sources, trim, disjunctive),
};
