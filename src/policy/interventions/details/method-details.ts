import type { MethodDetails } from './types.js';

/** Details by the name of their intervention, for `--details`. */
export const METHOD_DETAILS: Readonly<Record<string, MethodDetails>> = {};
