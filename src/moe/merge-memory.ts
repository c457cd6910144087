import type { ExpertModel } from './expert-model.js';
import type { MergeSettings } from './merge-settings.js';

/** Merges are given this much at least, so that what is small is held at once. */
const LEAST_BYTES = 64 << 20;

/**
 * Bytes that merging a group of the widest layer takes: two experts in f32, sums in f64, the permuted copy, and the gains of
 * an assignment with its work space. One pair at a time; it does not depend on the number of experts or layers.
 */
export function mergeBytes({ layers }: Pick<ExpertModel, 'layers'>): number {
  const each = layers.map(({ shape }) => {
    const matrices = (shape.gated ? 3 : 2) * shape.hidden * shape.width;
    return (2 * 4 + 8 + 4) * matrices + 2 * 4 * shape.width * shape.width + (1 << 24);
  });
  return Math.max(LEAST_BYTES, ...each);
}

/**
 * Bytes with which a merge makes one pass where less would take several: the system of all experts of a layer under
 * `--refit layer` with its factor, those experts, and the systems of all groups under `--refit group`.
 */
export function comfortableBytes({ layers }: Pick<ExpertModel, 'layers'>, settings: MergeSettings): number {
  const each = layers.map(({ shape }) => {
    const { width, hidden, gated } = shape;
    const kept = Math.ceil(settings.experts);
    const matrices = kept * (gated ? 3 : 2) * hidden * width * 4;
    if (settings.refit === 'layer') return 2 * 8 * (kept * width) ** 2 + 2 * matrices;
    return settings.refit === 'group' ? kept * 8 * width * (width + hidden) + 2 * matrices : 0;
  });
  return Math.max(mergeBytes({ layers }), ...each);
}
