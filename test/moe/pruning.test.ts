import { describe, expect, it } from 'vitest';
import { keepExperts, pruneByScore, type SubsetError, searchSubset } from '../../src/moe/pruning.js';
import { createRandom } from '../../src/random.js';

const scores = [Float64Array.of(0.1, 5, 0, 0, 3), Float64Array.of(1, 1, 1, 1, 1)];

describe('pruning by score', () => {
  it('drops the lowest, of equal ones the higher index', () => {
    const [first, second] = pruneByScore([2, 5], scores, { keep: 3 });
    expect(first).toEqual({ layer: 2, labels: Int32Array.of(0, 1, -1, -1, 2), dominants: Int32Array.of(0, 1, 4) });
    expect([...second.labels]).toEqual([0, 1, 2, -1, -1]);
  });

  it('shares a budget over layers, with a least number in each', () => {
    const keepings = (least: number): number[] =>
      pruneByScore([0, 1], scores, { keep: 3, budget: 'exact', least }).map(({ dominants }) => dominants.length);
    expect(keepings(1)).toEqual([2, 4]);
    expect(keepings(3)).toEqual([3, 3]);
  });

  it('keeps protected experts', () => {
    const protectedExperts = [Int32Array.of(3), []];
    const [first] = pruneByScore([0, 1], scores, { keep: 2, protectedExperts });
    expect([...first.dominants]).toEqual([1, 3]);
    const many = [Int32Array.of(0, 2, 3), []];
    expect(() => pruneByScore([0, 1], scores, { keep: 2, protectedExperts: many })).toThrow(/layer 0 protects 3/);
  });

  it('leaves excluded layers alone and refuses a score that is no number', () => {
    const [, second] = pruneByScore([0, 1], scores, { keep: 2, pruned: [true, false] });
    expect([...second.labels]).toEqual([0, 1, 2, 3, 4]);
    expect(() => pruneByScore([4], [Float64Array.of(1, Number.NaN)], { keep: 1 })).toThrow(
      /layer 4: the score of expert 1/,
    );
  });
});

/** Share of the summed outputs that the dropped experts gave, from inner products [E, E]. */
function weightedOutputError(gram: Float64Array, experts: number): SubsetError {
  const all = gram.reduce((sum, product) => sum + product, 0);
  return (kept) => {
    const dropped = gram.reduce(
      (sum, p, at) => (kept[Math.floor(at / experts)] || kept[at % experts] ? sum : sum + p),
      0,
    );
    return Math.sqrt(Math.max(0, dropped) / all);
  };
}

describe('subset search', () => {
  const random = createRandom(3);
  const [n, d] = [8, 20];
  const vectors = Float64Array.from({ length: n * d }, () => random.normal());
  const gram = Float64Array.from({ length: n * n }, (_, at) => {
    const [i, j] = [Math.floor(at / n), at % n];
    let sum = 0;
    for (let c = 0; c < d; c++) sum += vectors[i * d + c] * vectors[j * d + c];
    return sum;
  });
  const errorOf = weightedOutputError(gram, n);

  it('knows the error of a subset', () => {
    const kept = Uint8Array.of(1, 1, 0, 1, 0, 1, 1, 1);
    let [dropped, all] = [0, 0];
    for (let c = 0; c < d; c++) {
      let sum = 0;
      for (let e = 0; e < n; e++) sum += vectors[e * d + c];
      all += sum ** 2;
      dropped += (vectors[2 * d + c] + vectors[4 * d + c]) ** 2;
    }
    expect(errorOf(kept)).toBeCloseTo(Math.sqrt(dropped / all), 12);
    expect(errorOf(new Uint8Array(n).fill(1))).toBe(0);
  });

  it('finds the best of all subsets', () => {
    const found = searchSubset(n, 4, errorOf);
    expect(found).toMatchObject({ path: 'exact', evaluated: 70 });
    let least = Number.POSITIVE_INFINITY;
    for (let mask = 0; mask < 256; mask++) {
      const flags = Uint8Array.from({ length: n }, (_, e) => (mask >> e) & 1);
      if (flags.reduce((a, b) => a + b, 0) === 4) least = Math.min(least, errorOf(flags));
    }
    expect(found.error).toBe(least);
    expect(
      errorOf(
        keepExperts(0, n, found.kept).labels.reduce(
          (flags, l, e) => flags.fill(l < 0 ? 0 : 1, e, e + 1),
          new Uint8Array(n),
        ),
      ),
    ).toBe(least);
  });

  it('goes one expert at a time where there are too many', () => {
    const greedy = searchSubset(n, 4, errorOf, { exactSubsets: 10 });
    expect(greedy.path).toBe('greedy');
    expect(greedy.kept).toHaveLength(4);
    expect(greedy.evaluated).toBe(1 + 8 + 7 + 6 + 5);
    expect(greedy.error).toBeGreaterThanOrEqual(searchSubset(n, 4, errorOf).error);
    // Of outputs that do not overlap, greedy is exact.
    const diagonal = new Float64Array(n * n);
    for (let e = 0; e < n; e++) diagonal[e * n + e] = (e * 5) % n;
    const error = weightedOutputError(diagonal, n);
    expect(searchSubset(n, 3, error, { exactSubsets: 0 }).error).toBe(searchSubset(n, 3, error).error);
  });

  it('tries all subsets only where they are few, and refuses what cannot be', () => {
    const paths = [
      [16, 8],
      [64, 2],
      [64, 32],
      [60, 4],
    ].map(([experts, keep]) => searchSubset(experts, keep, (kept) => kept[0]).path);
    expect(paths).toEqual(['exact', 'exact', 'greedy', 'greedy']);
    expect(() => searchSubset(4, 5, () => 0)).toThrow(/5 of 4/);
  });
});
