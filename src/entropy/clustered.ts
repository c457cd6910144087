import { addExact, type ExactSum, mergeExact, totalOf } from './exact-sum.js';

/**
 * Sums over documents from which the standard error of a ratio of sums follows, with documents as the independent units.
 * Mergeable, exact, and small whatever the number of documents.
 */
export interface ClusterSums {
  documents: number;
  /** Sums over documents of s^2, s n and n^2, where a document brings the sum s of n values. */
  readonly square: ExactSum;
  readonly cross: ExactSum;
  readonly countSquare: ExactSum;
}

export function createClusters(): ClusterSums {
  return { documents: 0, square: [], cross: [], countSquare: [] };
}

/** Adds one document with the sum of its `count` values; a document without values is passed over. */
export function addCluster(clusters: ClusterSums, sum: number, count: number): void {
  if (count === 0) return;
  clusters.documents++;
  addExact(clusters.square, sum * sum);
  addExact(clusters.cross, sum * count);
  addExact(clusters.countSquare, count * count);
}

/** Adds `other` into `clusters`, exactly. */
export function mergeClusters(clusters: ClusterSums, other: ClusterSums): void {
  clusters.documents += other.documents;
  mergeExact(clusters.square, other.square);
  mergeExact(clusters.cross, other.cross);
  mergeExact(clusters.countSquare, other.countSquare);
}

/**
 * Standard error of the mean `total / count` when documents, not their tokens, are independent: with mean m, documents D
 * and document sums s of n values, `sqrt(D/(D-1) sum (s - m n)^2) / N` (ratio estimator, Cochran 1977, chapter 6).
 * NaN for fewer than two documents.
 */
export function clusterError(clusters: ClusterSums, total: number, count: number): number {
  const { documents } = clusters;
  if (documents < 2) return Number.NaN;
  const mean = total / count;
  const spread =
    totalOf(clusters.square) - 2 * mean * totalOf(clusters.cross) + mean * mean * totalOf(clusters.countSquare);
  return Math.sqrt((Math.max(0, spread) * documents) / (documents - 1)) / count;
}
