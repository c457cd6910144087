import type { ExpertModel } from './expert-model.js';

/**
 * Bytes that merging a group of the widest layer takes: two experts in f32, sums in f64, the permuted copy, and the gains of
 * an assignment with its work space. One pair at a time; it does not depend on the number of experts or layers.
 */
export function mergeBytes({ layers }: Pick<ExpertModel, 'layers'>): number {
  return Math.max(
    ...layers.map(({ shape }) => {
      const matrices = (shape.gated ? 3 : 2) * shape.hidden * shape.width;
      return (2 * 4 + 8 + 4) * matrices + 2 * 4 * shape.width * shape.width + (1 << 24);
    }),
  );
}
