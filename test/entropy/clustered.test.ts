import { describe, expect, it } from 'vitest';
import { addCluster, clusterError, createClusters, mergeClusters } from '../../src/entropy/clustered.js';
import { createRandom } from '../../src/random.js';

const DOCUMENTS = (() => {
  const random = createRandom(5);
  return Array.from({ length: 40 }, () => {
    const level = random.uniform();
    return Array.from({ length: 1 + Math.floor(random.uniform() * 30) }, () => level + random.uniform());
  });
})();

const total = DOCUMENTS.flat().reduce((a, b) => a + b, 0);
const count = DOCUMENTS.flat().length;

function clustersOf(documents: readonly number[][]) {
  const clusters = createClusters();
  for (const values of documents) {
    addCluster(
      clusters,
      values.reduce((a, b) => a + b, 0),
      values.length,
    );
  }
  return clusters;
}

describe('clusterError', () => {
  it('is the ratio estimator taken straight from its definition', () => {
    const mean = total / count;
    const squares = DOCUMENTS.map((values) => values.reduce((sum, value) => sum + value - mean, 0) ** 2);
    const n = DOCUMENTS.length;
    const expected = Math.sqrt((n / (n - 1)) * squares.reduce((a, b) => a + b, 0)) / count;
    expect(clusterError(clustersOf(DOCUMENTS), total, count)).toBeCloseTo(expected, 12);
  });

  it('is the standard error of the mean where every document has one value', () => {
    const values = [1, 4, 2, 8, 5, 7];
    const mean = 27 / 6;
    const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / 5;
    expect(clusterError(clustersOf(values.map((value) => [value])), 27, 6)).toBeCloseTo(Math.sqrt(variance / 6), 12);
  });

  it('merges to the same bits, and is not known for one document', () => {
    const merged = clustersOf(DOCUMENTS.slice(23));
    mergeClusters(merged, clustersOf(DOCUMENTS.slice(0, 23)));
    expect(clusterError(merged, total, count)).toBe(clusterError(clustersOf(DOCUMENTS), total, count));
    const one = clustersOf([[1, 2], []]);
    expect(one.documents).toBe(1);
    expect(clusterError(one, 3, 2)).toBeNaN();
  });
});
