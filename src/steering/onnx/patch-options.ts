export const PATCH_MODES = ['input', 'constant', 'none'] as const;
/** `input`: graph inputs `steer.<layer>`; `constant`: the vectors in the file; `none`: outputs only. */
export type PatchMode = (typeof PATCH_MODES)[number];

export const STEERING_RECIPES = ['branch', 'sum', 'bias'] as const;
/**
 * How the vector enters (specification, section 7.5). `branch`: added to the branch that the sum adds to the stream; one
 * node, fused norms stay. `sum`: added after the sum; a fused skip norm becomes Add, Add and its norm. `bias`: put in the
 * bias of a SkipLayerNormalization; constant vectors only.
 */
export type SteeringRecipe = (typeof STEERING_RECIPES)[number];

export const EXPOSED_POSITIONS = ['all', 'last', 'last-attended'] as const;
/**
 * Positions of the stream that leave the graph: all; the last of the window; or the last one that `attention_mask`
 * marks, which padding does not move.
 */
export type ExposedPositions = (typeof EXPOSED_POSITIONS)[number];
