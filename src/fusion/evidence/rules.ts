import { didYouMean, InputError } from '../../errors.js';
import { DEMPSTER } from './rules/dempster.js';
import { DISJUNCTIVE } from './rules/disjunctive.js';
import { DUBOIS_PRADE } from './rules/dubois-prade.js';
import { MURPHY } from './rules/murphy.js';
import { PCR5 } from './rules/pcr5.js';
import type { CombinationRule } from './rules/rule.js';
import { SMETS } from './rules/smets.js';
import { WEIGHTED_AVERAGE } from './rules/weighted-average.js';
import { YAGER, YAGER_SEQUENTIAL } from './rules/yager.js';

export type { CombinationRule } from './rules/rule.js';

/** Every rule, in the order of reports. */
export const RULES: readonly CombinationRule[] = [
  ...[DEMPSTER, SMETS, YAGER, YAGER_SEQUENTIAL, DUBOIS_PRADE, PCR5, DISJUNCTIVE, MURPHY, WEIGHTED_AVERAGE],
];

/** @throws InputError for an unknown name */
export function ruleNamed(name: string): CombinationRule {
  const rule = RULES.find((known) => known.name === name);
  if (rule !== undefined) return rule;
  const names = RULES.map((known) => known.name);
  throw new InputError(`unknown rule "${name}"${didYouMean(name, names)}; known: ${names.join(', ')}`);
}
