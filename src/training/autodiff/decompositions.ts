import { ATTENTION_DECOMPOSITIONS } from './decompositions/attention.js';
import { DOUBLE_DECOMPOSITIONS } from './decompositions/double-precision.js';
import { FUSED_DECOMPOSITIONS } from './decompositions/fused.js';
import { NORM_DECOMPOSITIONS } from './decompositions/norms.js';
import { WINDOW_DECOMPOSITIONS } from './decompositions/windows.js';
import type { Decomposition } from './types.js';

/** Compound operators that are written in elementary ones before a graph is differentiated. */
export const DECOMPOSITIONS: Readonly<Record<string, Decomposition>> = {
  ...ATTENTION_DECOMPOSITIONS,
  ...NORM_DECOMPOSITIONS,
  ...FUSED_DECOMPOSITIONS,
  ...WINDOW_DECOMPOSITIONS,
  ...DOUBLE_DECOMPOSITIONS,
};
