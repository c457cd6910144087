import { describe, expect, it } from 'vitest';
import { LINKAGES, parseLinkage } from '../../src/linalg/agglomerative.js';
import { directSquaredDistances } from '../../src/linalg/point-distances.js';
import { centreMembers, clusterRows, silhouette } from '../../src/moe/clustering.js';
import { createRandom } from '../../src/random.js';

const points = (n: number, d: number, seed: number): Float64Array => {
  const random = createRandom(seed);
  return Float64Array.from({ length: n * d }, () => random.normal());
};

/** Merges by the plain definition of each linkage, from members, not from updated distances. */
function bruteForce(x: Float64Array, n: number, d: number, clusters: number, linkage: string): number[][] {
  let groups = Array.from({ length: n }, (_, i) => [i]);
  const distance = (i: number, j: number): number =>
    Math.hypot(...Array.from({ length: d }, (_, c) => x[i * d + c] - x[j * d + c]));
  const mean = (g: number[]): number[] =>
    Array.from({ length: d }, (_, c) => g.reduce((s, i) => s + x[i * d + c], 0) / g.length);
  const scatter = (g: number[]): number => {
    const m = mean(g);
    return g.reduce((s, i) => s + m.reduce((t, value, c) => t + (x[i * d + c] - value) ** 2, 0), 0);
  };
  const between = (a: number[], b: number[]): number => {
    const all = a.flatMap((i) => b.map((j) => distance(i, j)));
    if (linkage === 'single') return Math.min(...all);
    if (linkage === 'complete') return Math.max(...all);
    if (linkage === 'complete-as-released') return -Math.max(...all);
    if (linkage === 'average') return all.reduce((s, v) => s + v, 0) / all.length;
    if (linkage === 'ward') return scatter([...a, ...b]) - scatter(a) - scatter(b);
    const [ma, mb] = [mean(a), mean(b)];
    return ((a.length * b.length) / (a.length + b.length)) * Math.hypot(...ma.map((v, c) => v - mb[c]));
  };
  while (groups.length > clusters) {
    let best = [0, 1];
    for (let a = 0; a < groups.length; a++) {
      for (let b = a + 1; b < groups.length; b++) {
        if (between(groups[a], groups[b]) < between(groups[best[0]], groups[best[1]])) best = [a, b];
      }
    }
    const united = [...groups[best[0]], ...groups[best[1]]].sort((a, b) => a - b);
    groups = [...groups.filter((_, g) => g !== best[0] && g !== best[1]), united].sort((a, b) => a[0] - b[0]);
  }
  return groups;
}

const groupsOf = (labels: Int32Array): number[][] =>
  Array.from({ length: Math.max(...labels) + 1 }, (_, c) => [...labels.keys()].filter((e) => labels[e] === c));

describe('agglomerative clusters', () => {
  it.each(LINKAGES)('%s equals the definition', (linkage) => {
    for (let seed = 0; seed < 6; seed++) {
      const x = points(13, 4, seed);
      for (const clusters of [1, 2, 5, 9, 13]) {
        expect(groupsOf(clusterRows(x, 13, 4, clusters, linkage))).toEqual(bruteForce(x, 13, 4, clusters, linkage));
      }
    }
  });

  it('numbers labels by first appearance and finds planted clusters', () => {
    const x = points(12, 3, 1);
    for (let i = 0; i < 12; i++) x[i * 3] += 100 * (i % 3);
    for (const linkage of ['average', 'single', 'complete', 'ward'] as const) {
      expect([...clusterRows(x, 12, 3, 3, linkage)]).toEqual([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2]);
    }
  });

  it('refuses what cannot be', () => {
    expect(() => clusterRows(new Float64Array(6), 3, 2, 4, 'average')).toThrow(/3 experts cannot form 4 clusters/);
    expect(() => parseLinkage('averge')).toThrow(/did you mean "average"/);
  });
});

describe('centres and silhouettes', () => {
  it('takes the member nearest to the mean, the first of equal ones', () => {
    const x = Float64Array.of(0, 1, 3, 10, 12);
    expect([...centreMembers(x, 1, Int32Array.of(0, 0, 0, 1, 1))]).toEqual([1, 3]);
  });

  it('equals the definition on four points', () => {
    const x = Float64Array.of(0, 1, 10, 20);
    const labels = Int32Array.of(0, 0, 1, 2);
    const squared = directSquaredDistances(x, 4, 1);
    const pair = (10 - 1) / 10 + (9 - 1) / 9;
    expect(silhouette(squared, labels)).toBeCloseTo(pair / 4, 14);
    expect(silhouette(squared, labels, { asReleased: true })).toBeCloseTo((pair + 2) / 4, 14);
    expect(silhouette(squared, new Int32Array(4))).toBeNaN();
    expect(silhouette(new Float64Array(16), Int32Array.of(0, 0, 1, 1))).toBe(0);
  });
});
