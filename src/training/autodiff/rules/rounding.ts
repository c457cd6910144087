import type { RuleContext, RuleTable, VjpRule } from '../types.js';

/** The cotangent in the type of the graph: that of an integer tensor is written in floats. */
const passOn: VjpRule = (context: RuleContext) => [context.cotangents[0]];

/**
 * Straight-through estimates: rounding and quantisation followed by dequantisation count as the identity. (Bengio,
 * Leonard, Courville 2013, arXiv 1308.3432.)
 */
export const ROUNDING_RULES: RuleTable = {
  Round: passOn,
  Floor: passOn,
  Ceil: passOn,
  QuantizeLinear: passOn,
  DequantizeLinear: passOn,
};
