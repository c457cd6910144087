import { CONVOLUTION_RULES } from './rules/convolution.js';
import { CROSS_ENTROPY_RULES } from './rules/cross-entropy.js';
import { EINSUM_RULES } from './rules/einsum.js';
import { ELEMENTWISE_RULES } from './rules/elementwise.js';
import { INDEXING_RULES } from './rules/indexing.js';
import { NORMALISATION_RULES } from './rules/normalisation.js';
import { PRODUCT_RULES } from './rules/products.js';
import { REDUCTION_RULES } from './rules/reductions.js';
import { ROUNDING_RULES } from './rules/rounding.js';
import { SHAPE_RULES } from './rules/shapes.js';
import type { RuleTable } from './types.js';

/** Every operator that can be differentiated. */
export const RULES: RuleTable = {
  ...ELEMENTWISE_RULES,
  ...PRODUCT_RULES,
  ...REDUCTION_RULES,
  ...SHAPE_RULES,
  ...INDEXING_RULES,
  ...NORMALISATION_RULES,
  ...CONVOLUTION_RULES,
  ...EINSUM_RULES,
  ...CROSS_ENTROPY_RULES,
};

/** The same with rounding taken for the identity. */
export const STRAIGHT_THROUGH: RuleTable = { ...RULES, ...ROUNDING_RULES };

export { DECOMPOSITIONS } from './decompositions.js';
