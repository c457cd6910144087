import { describe, expect, it } from 'vitest';
import { entropyConstrainedMass } from '../../src/decoding/entropy-constrained-mass.js';
import { prefixEntropies, topHDiagnostics, topHRules, truncationDivergence } from '../../src/decoding/top-h.js';
import { createRandom, type Random } from '../../src/random.js';

const xlogx = (x: number): number => (x > 0 ? x * Math.log(x) : 0);
const entropyOf = (p: readonly number[]): number => -p.reduce((sum, x) => sum + xlogx(x), 0);

function softmax(logits: readonly number[]): number[] {
  const top = Math.max(...logits);
  const weights = logits.map((x) => Math.exp(x - top));
  const total = weights.reduce((a, b) => a + b);
  return weights.map((w) => w / total);
}

function randomLogits(random: Random, n: number): Float64Array {
  const deviation = 4 * random.uniform();
  return Float64Array.from({ length: n }, () => deviation * random.normal());
}

describe('top-H', () => {
  it('keeps floor(n^alpha) of n equal tokens, the lowest ids', () => {
    const { kept, keptCount } = topHDiagnostics(new Float32Array(1000), 1, 1000, {
      alpha: 0.4,
      rule: 'paper',
      keep: true,
    });
    expect(keptCount[0]).toBe(15);
    expect([...kept[0]]).toEqual(Array.from({ length: 15 }, (_, i) => i));
  });

  it('gives the worked numbers of p = (0.5, 0.3, 0.2), alpha = 0.7', () => {
    const logits = Float64Array.of(0.5, 0.3, 0.2).map(Math.log);
    const row = topHDiagnostics(logits, 1, 3, { alpha: 0.7, rule: 'paper' });
    expect(row.keptCount[0]).toBe(2);
    expect(row.entropyNats[0]).toBeCloseTo(1.0297, 4);
    expect(row.boundNats[0]).toBeCloseTo(0.7208, 4);
    expect(row.keptMass[0]).toBeCloseTo(0.8, 12);
    expect(row.divergenceNats[0]).toBeCloseTo(0.0749, 4);
    const prefixes = prefixEntropies(logits);
    [0, 0.6616, 1.0297].forEach((entropy, j) => {
      expect(prefixes[j]).toBeCloseTo(entropy, 4);
    });
  });

  it('theorem 3: the entropy of prefixes grows strictly; the bound always holds for the paper rule', () => {
    const random = createRandom(17);
    for (let trial = 0; trial < 200; trial++) {
      const logits = randomLogits(random, 2 + random.integer(300));
      const prefixes = prefixEntropies(logits);
      // Growth below the last digit of H is not seen.
      const grows = (j: number): boolean => prefixes[j] > prefixes[j - 1] * (1 - 1e-14);
      expect(Array.from({ length: prefixes.length - 1 }, (_, j) => j + 1).filter((j) => !grows(j))).toEqual([]);
      for (let j = 1; j < Math.min(10, prefixes.length); j++) expect(prefixes[j]).toBeGreaterThan(prefixes[j - 1]);
      const alpha = 0.05 + 0.9 * random.uniform();
      const temperature = 0.3 + 2 * random.uniform();
      const row = topHDiagnostics(logits, 1, logits.length, { alpha, rule: 'paper', temperature });
      expect(row.entropyAfterNats[0]).toBeLessThanOrEqual(row.boundNats[0] * (1 + 1e-12) + 1e-15);
      expect(row.boundHeld[0]).toBe(1);
      expect(row.keptCount[0]).toBeLessThan(logits.length);
    }
  });

  it('the code rules bound something else, and differ from each other', () => {
    const random = createRandom(3);
    let broken = 0;
    let differing = 0;
    for (let trial = 0; trial < 200; trial++) {
      const logits = randomLogits(random, 400);
      const [paper, reference, transformers] = topHRules(logits, 1, 400, { alpha: 0.4, keep: true });
      broken += 1 - reference.boundHeld[0];
      differing += Number(reference.keptCount[0] !== transformers.keptCount[0]);
      expect(paper.keptCount[0]).toBeGreaterThan(0);
    }
    expect(broken).toBeGreaterThan(100);
    expect(differing).toBeGreaterThan(10);
  });

  it('the code rules serve alpha = 1, short vocabularies and one-hot rows', () => {
    const rows = Float64Array.of(1, 2, 3, 0, 0, 900);
    for (const { keptCount } of topHRules(rows, 2, 3, { alpha: 1 })) expect([...keptCount]).toEqual([3, 1]);
  });

  it('the divergence is the sum that it stands for', () => {
    const random = createRandom(23);
    for (let trial = 0; trial < 50; trial++) {
      const p = softmax([...randomLogits(random, 12)]);
      const kept = p.map((_, i) => i < 1 + (trial % 11));
      const mass = p.reduce((sum, x, i) => sum + (kept[i] ? x : 0), 0);
      const q = p.map((x, i) => (kept[i] ? x / mass : 0));
      const middle = p.map((x, i) => (x + q[i]) / 2);
      expect(truncationDivergence(mass)).toBeCloseTo(entropyOf(middle) - (entropyOf(p) + entropyOf(q)) / 2, 12);
    }
    expect(truncationDivergence(1)).toBe(0);
    expect(truncationDivergence(0)).toBe(Math.LN2);
  });

  it('refuses what is out of range', () => {
    const row = Float64Array.of(1, 2);
    expect(() => topHDiagnostics(row, 1, 2, { alpha: 1.2, rule: 'paper' })).toThrow(/alpha is 1.2/);
    expect(() => topHDiagnostics(row, 1, 2, { alpha: 0.4, rule: 'paper', temperature: -1 })).toThrow(/temperature/);
    expect(() =>
      topHDiagnostics(Float64Array.of(1, Number.NaN), 1, 2, { alpha: 0.4, rule: 'paper', name: 'x.npy' }),
    ).toThrow('x.npy: row 0, column 1 is NaN');
  });
});

describe('entropyConstrainedMass', () => {
  /** Every subset. */
  function exhaustive(p: readonly number[], boundNats: number): number {
    let best = 0;
    for (let mask = 1; mask < 2 ** p.length; mask++) {
      let mass = 0;
      let moment = 0;
      for (let i = 0; i < p.length; i++) {
        if ((mask & (1 << i)) === 0) continue;
        mass += p[i];
        moment += xlogx(p[i]);
      }
      if (mass > best && Math.log(mass) - moment / mass <= boundNats * (1 + 1e-12) + 2e-16) best = mass;
    }
    return best;
  }

  it('finds what trying every subset finds, and never less than the greedy prefix', () => {
    const random = createRandom(41);
    let better = 0;
    for (let trial = 0; trial < 120; trial++) {
      const p = softmax([...randomLogits(random, 2 + random.integer(10))]);
      const alpha = 0.1 + 0.8 * random.uniform();
      const found = entropyConstrainedMass(Float64Array.from(p), { alpha });
      expect(found.optimalMass).toBeCloseTo(exhaustive(p, alpha * entropyOf(p)), 11);
      expect(found.optimalMass).toBeGreaterThanOrEqual(found.greedyMass * (1 - 1e-12));
      expect(found.optimalMass - found.greedyMass).toBeLessThanOrEqual(found.gapBound + 1e-12);
      const set = [...found.optimal].map((id) => p[id]);
      expect(set.reduce((a, b) => a + b)).toBeCloseTo(found.optimalMass, 12);
      better += Number(found.ratio < 1 - 1e-9);
    }
    expect(better).toBeGreaterThan(20);
  });

  it('searches 24 candidates, flat ones too, without visiting all subsets', () => {
    const random = createRandom(5);
    for (const deviation of [0.05, 0.5, 1.5]) {
      const p = softmax(Array.from({ length: 24 }, () => deviation * random.normal()));
      const { visited, complete } = entropyConstrainedMass(Float64Array.from(p), { alpha: 0.4 });
      expect(complete).toBe(true);
      expect(visited).toBeLessThan(2 ** 21);
    }
  });

  it('takes the top m alone, with the entropy of the whole', () => {
    const random = createRandom(6);
    const p = Float64Array.from(softmax([...randomLogits(random, 500)]));
    const found = entropyConstrainedMass(p, { alpha: 0.3, candidates: 15 });
    expect([found.candidates, found.complete]).toEqual([15, false]);
    expect(found.entropyNats).toBeCloseTo(entropyOf([...p]), 12);
    expect(found.ratio).toBeLessThanOrEqual(1 + 1e-12);
  });

  it('refuses what is no problem of its kind', () => {
    const p = Float64Array.of(0.5, 0.5);
    expect(() => entropyConstrainedMass(p, { alpha: 0 })).toThrow(/alpha is 0/);
    expect(() => entropyConstrainedMass(Float64Array.of(0.5, 0.1), { alpha: 0.4 })).toThrow(/sum to/);
    const many = new Float64Array(30).fill(1 / 30);
    expect(() => entropyConstrainedMass(many, { alpha: 0.4, candidates: 25 })).toThrow(/1 to 24/);
  });
});
