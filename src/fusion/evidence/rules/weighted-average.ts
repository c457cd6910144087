import { credibilities } from '../jousselme.js';
import { mixture } from '../mass-function.js';
import { selfCombined } from './murphy.js';
import type { CombinationRule } from './rule.js';

export const WEIGHTED_AVERAGE: CombinationRule = {
  name: 'weighted-average',
  title: 'as murphy, each source weighted by its agreement with the others',
  source: 'Deng, Shi, Zhu and Liu 2004',
  ordered: false,
  combine: (sources, trim) => {
    const all = sources.map(({ masses }) => masses);
    return selfCombined(mixture(all, credibilities(all)), all.length, trim);
  },
};
