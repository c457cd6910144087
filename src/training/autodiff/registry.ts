import { elementwiseRules } from './rules/elementwise.js';
import { productRules } from './rules/products.js';
import { reductionRules } from './rules/reductions.js';
import type { Decomposition, RuleTable } from './types.js';

/** Every operator that can be differentiated. */
export const RULES: RuleTable = {
  ...elementwiseRules,
  ...productRules,
  ...reductionRules,
};

/** Compound operators that are written in elementary ones first. */
export const DECOMPOSITIONS: Readonly<Record<string, Decomposition>> = {};
