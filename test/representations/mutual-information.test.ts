import { describe, expect, it } from 'vitest';
import { withProducts } from '../../src/linalg/tiled-products.js';
import { createRandom } from '../../src/random.js';
import {
  categoriesOfCodes,
  categoriesOfLabels,
  rowsByCategory,
  takeCategories,
} from '../../src/representations/categories.js';
import { exactEntropy } from '../../src/representations/entropy-estimate.js';
import {
  drawSubsets,
  mutualInformation,
  mutualInformationTerms,
} from '../../src/representations/mutual-information.js';
import { takePoints } from '../../src/representations/points.js';
import {
  clusterByPivots,
  connectedComponents,
  neighbourAffinity,
  sparseLeadingVectors,
  spectralClusters,
} from '../../src/representations/spectral-clustering.js';
import { blobs, SETTINGS } from './clouds.js';

/** DSMI of a cloud with codes, R = 5. */
const informationOf = (cloud: ReturnType<typeof blobs>, codes: ArrayLike<number>, seed = 0) =>
  withProducts({ threads: 1 }, async (products) => {
    const terms = await mutualInformationTerms(
      categoriesOfCodes(codes, 'classes'),
      (category, size) => drawSubsets(cloud.n, size, 5, seed, category),
      async (rows) => (await exactEntropy(takePoints(cloud, rows), 4, { products, settings: SETTINGS })).bits,
    );
    return { terms, ...mutualInformation(terms, 0) };
  });

describe('mutual information', () => {
  const cloud = blobs(120, 6, 4, 8);
  const labels = Int32Array.from({ length: 120 }, (_, i) => i % 4);

  it('is large for the clusters themselves, and its terms add up', async () => {
    const { bits, termBits, standardError } = await informationOf(cloud, labels);
    expect(bits).toBeGreaterThan(0.8);
    expect(termBits.reduce((sum, term) => sum + term, 0)).toBeCloseTo(bits, 12);
    expect(standardError).toBeGreaterThan(0);
    expect(standardError).toBeLessThan(0.1);
  });

  it('averages to 0 over shuffled labels, and is not clamped', async () => {
    const found: number[] = [];
    for (let shuffle = 0; shuffle < 20; shuffle++) {
      const order = createRandom(50 + shuffle).permutation(120);
      const shuffled = Int32Array.from(order, (row) => labels[row]);
      found.push((await informationOf(cloud, shuffled, shuffle)).bits);
    }
    const mean = found.reduce((sum, value) => sum + value, 0) / 20;
    const deviation = Math.sqrt(found.reduce((sum, value) => sum + (value - mean) ** 2, 0) / 19);
    expect(Math.abs(mean)).toBeLessThan((2 * deviation) / Math.sqrt(20));
    expect(Math.min(...found)).toBeLessThan(0);
  });

  it('is 0 for one category, and a category of one row has entropy 0', async () => {
    expect((await informationOf(cloud, new Int32Array(120))).bits).toBeCloseTo(0, 12);
    const { terms } = await informationOf(
      cloud,
      Int32Array.from(labels, (label, i) => (i === 0 ? 9 : label)),
    );
    expect(terms[terms.length - 1]).toMatchObject({ name: '9', count: 1 });
    expect(Array.from(terms[terms.length - 1].givenBits)).toEqual([0]);
  });

  it('draws subsets without repetition, the same for the same seed and category', () => {
    const subsets = drawSubsets(50, 20, 5, 1, 3);
    for (const subset of subsets) expect(new Set(subset).size).toBe(20);
    expect(drawSubsets(50, 20, 5, 1, 3)).toEqual(subsets);
    expect(drawSubsets(50, 20, 5, 1, 4)).not.toEqual(subsets);
    expect(subsets[0]).not.toEqual(subsets[1]);
  });
});

describe('categories', () => {
  it('of classes keep their names, those without rows are left out', () => {
    const labels = { kind: 'classes', codes: Int32Array.of(2, 0, 2), names: ['a', 'b', 'c'] } as const;
    const found = categoriesOfLabels(labels, 10, 'labels');
    expect(found.names).toEqual(['a', 'c']);
    expect(rowsByCategory(found).map((rows) => Array.from(rows))).toEqual([[1], [0, 2]]);
    expect(takeCategories(found, Int32Array.of(0, 2)).names).toEqual(['c']);
  });

  it('of numbers are bins named from 1', () => {
    const labels = { kind: 'numbers', values: Float64Array.of(0, 0.3, 1, 0.9) } as const;
    expect(categoriesOfLabels(labels, 4, 'labels')).toMatchObject({ kind: 'bins', names: ['1', '2', '4'] });
  });
});

describe('spectral clustering', () => {
  it('finds separated clusters, the same every time', async () => {
    const cloud = blobs(400, 5, 6, 21, 6);
    const cluster = () =>
      withProducts({ threads: 2 }, (products) =>
        spectralClusters(cloud.data as Float64Array, cloud.n, cloud.d, 6, 0, products),
      );
    const { codes } = await cluster();
    const pairs = new Set(Array.from(codes, (code, i) => `${code} ${i % 6}`));
    expect(pairs.size).toBe(6);
    expect((await cluster()).codes).toEqual(codes);
  });

  it('counts the components of the neighbour graph', () => {
    // 0 -> 1 -> 0, 2 -> 3 -> 2, 4 -> 0
    const affinity = neighbourAffinity(Int32Array.of(1, 0, 3, 2, 0), 5, 1);
    expect(connectedComponents(affinity)).toBe(2);
    expect(Array.from(affinity.weights.subarray(affinity.starts[0], affinity.starts[1]))).toEqual([1, 0.5]);
  });

  it('leading eigenvectors of a sparse matrix satisfy their equation', () => {
    // A path of 300 nodes: eigenvalues of the half-weighted path are cos(pi k / 301).
    const n = 300;
    const starts = Int32Array.from({ length: n + 1 }, (_, i) => (i === 0 ? 0 : i === n ? 2 * n - 2 : 2 * i - 1));
    const columns = new Int32Array(2 * n - 2);
    for (let i = 0; i < n; i++) {
      let at = starts[i];
      if (i > 0) columns[at++] = i - 1;
      if (i < n - 1) columns[at] = i + 1;
    }
    const weights = new Float64Array(2 * n - 2).fill(0.5);
    const vectors = sparseLeadingVectors({ n, starts, columns, weights }, 4, 0);
    for (let c = 0; c < 4; c++) {
      const value = Math.cos((Math.PI * (c + 1)) / (n + 1));
      let worst = 0;
      for (let i = 0; i < n; i++) {
        let image = 0;
        for (let e = starts[i]; e < starts[i + 1]; e++) image += weights[e] * vectors[columns[e] * 4 + c];
        worst = Math.max(worst, Math.abs(image - value * vectors[i * 4 + c]));
      }
      expect(worst).toBeLessThan(1e-8);
    }
  });

  it('clusters do not depend on the rotation of the embedding', () => {
    const { data, n } = blobs(60, 2, 2, 30, 9);
    const turned = Float64Array.from(data);
    for (let i = 0; i < n; i++) {
      turned[2 * i] = 0.8 * data[2 * i] - 0.6 * data[2 * i + 1];
      turned[2 * i + 1] = 0.6 * data[2 * i] + 0.8 * data[2 * i + 1];
    }
    expect(clusterByPivots(turned, n, 2)).toEqual(clusterByPivots(data as Float64Array, n, 2));
  });
});
