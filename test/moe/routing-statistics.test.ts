import { describe, expect, it } from 'vitest';
import { addRoutingStatistics, createRouter, createRoutingSums } from '../../src/moe/routing-statistics.js';
import type { RouterRule, RoutingStatistics } from '../../src/moe/types.js';
import { createRandom } from '../../src/random.js';

const SOFTMAX = (topK: number): RouterRule => ({ score: 'softmax', topK, normalizeTopK: true });

function logitsOf(rows: number, experts: number, seed = 1n, scale = 2): Float64Array {
  const random = createRandom(seed);
  return Float64Array.from({ length: rows * experts }, () => scale * random.normal());
}

function collect(
  logits: Float64Array,
  experts: number,
  rule: RouterRule,
  pieces: readonly number[],
): RoutingStatistics {
  const sums = createRoutingSums(3, experts, rule, { threads: 2 });
  let from = 0;
  for (const rows of pieces) {
    sums.add(logits.subarray(from * experts), rows);
    from += rows;
  }
  return sums.finish();
}

const entropy = (p: readonly number[]): number => -p.reduce((sum, x) => sum + (x > 0 ? x * Math.log(x) : 0), 0);
const total = (values: ArrayLike<number>): number => Array.from(values).reduce((a, b) => a + b, 0);

/** Every sum by its definition. */
function plain(logits: Float64Array, experts: number, { topK, score, correctionBias }: RouterRule) {
  const rows = logits.length / experts;
  const tokens = Array.from({ length: rows }, (_, t) => {
    const z = [...logits.subarray(t * experts, (t + 1) * experts)];
    const partition = total(z.map(Math.exp));
    const p = z.map((value) => (score === 'softmax' ? Math.exp(value) / partition : 1 / (1 + Math.exp(-value))));
    const by = p.map((value, e) => value + (correctionBias?.[e] ?? 0));
    const chosen = by
      .map((_, e) => e)
      .sort((a, b) => by[b] - by[a] || a - b)
      .slice(0, topK);
    const weights = chosen.map((e) => p[e] / total(chosen.map((i) => p[i])));
    return { z, chosen, weights, q: p.map((value) => value / total(p)), logZ: Math.log(partition) };
  });
  const sum = (value: (token: (typeof tokens)[number]) => number): number => total(tokens.map(value));
  const each = (value: (token: (typeof tokens)[number], e: number) => number): number[] =>
    Array.from({ length: experts }, (_, e) => sum((token) => value(token, e)));
  const pairs = (value: (token: (typeof tokens)[number], i: number, j: number) => number): number[] =>
    Array.from({ length: experts ** 2 }, (_, at) =>
      sum((token) => value(token, Math.floor(at / experts), at % experts)),
    );
  const mean = sum(({ q }) => entropy(q)) / rows;
  const centred = (z: number[], e: number): number => z[e] - total(z) / experts;
  return {
    tokens: rows,
    counts: each(({ chosen }, e) => (chosen.includes(e) ? 1 : 0)),
    entropySum: sum(({ q }) => entropy(q)),
    entropyDeviationSum: sum(({ q }) => (entropy(q) - mean) ** 2),
    chosenEntropySum: sum(({ weights }) => entropy(weights)),
    probabilitySum: each(({ q }, e) => q[e]),
    gateMass: each(({ chosen, weights }, e) => weights[chosen.indexOf(e)] ?? 0),
    squaredLogNormalizerSum: sum(({ logZ }) => logZ ** 2),
    logitSum: each(({ z }, e) => z[e]),
    logitGram: pairs(({ z }, i, j) => z[i] * z[j]),
    centredLogitGram: pairs(({ z }, i, j) => centred(z, i) * centred(z, j)),
    coActivation: pairs(({ chosen }, i, j) => (chosen.includes(i) && chosen.includes(j) ? 1 : 0)),
  };
}

function expectClose(actual: RoutingStatistics, expected: Partial<Record<string, number | number[]>>): void {
  for (const [key, value] of Object.entries(expected)) {
    const found = actual[key as keyof RoutingStatistics];
    const [a, b] = [found, value].map((one) => (typeof one === 'number' ? [one] : Array.from(one as number[])));
    expect(a.length, key).toBe(b.length);
    const largest = Math.max(...b.map(Math.abs), 1e-300);
    for (const [i, entry] of a.entries()) {
      expect(Math.abs(entry - b[i]) / largest, `${key}[${i}]`).toBeLessThan(1e-12);
    }
  }
}

describe('routing statistics', () => {
  const cases: readonly [string, number, RouterRule][] = [
    ['softmax, top 2 of 6', 6, SOFTMAX(2)],
    ['softmax, top 1 of 5', 5, SOFTMAX(1)],
    ['softmax, all of 3', 3, SOFTMAX(3)],
    ['sigmoid, top 3 of 7', 7, { score: 'sigmoid', topK: 3, normalizeTopK: true }],
    [
      'sigmoid with a correction bias',
      5,
      { score: 'sigmoid', topK: 2, normalizeTopK: true, correctionBias: Float32Array.of(0.5, 0, -0.25, 0.125, 0) },
    ],
  ];
  for (const [name, experts, rule] of cases) {
    it(`are the sums of their definitions: ${name}`, () => {
      const logits = logitsOf(300, experts);
      const found = collect(logits, experts, rule, [300]);
      expectClose(found, plain(logits, experts, rule));
      expect(total(found.entropyHistogram)).toBe(300);
      expect(found.tiedTokens).toBe(0);
      expect(total(found.counts)).toBe(300 * rule.topK);
    });
  }

  it('are the same bits however the rows come', () => {
    const logits = logitsOf(700, 6);
    const whole = collect(logits, 6, SOFTMAX(2), [700]);
    expect(collect(logits, 6, SOFTMAX(2), [1, 255, 1, 300, 143])).toEqual(whole);
  });

  it('of parts add up to those of the whole', () => {
    const logits = logitsOf(400, 6);
    const a = collect(logits, 6, SOFTMAX(2), [150]);
    const b = collect(logits.subarray(150 * 6), 6, SOFTMAX(2), [250]);
    const nothing = collect(logits, 6, SOFTMAX(2), [0]);
    expectClose(addRoutingStatistics(addRoutingStatistics(nothing, a), b), plain(logits, 6, SOFTMAX(2)));
    expect(() => addRoutingStatistics(a, collect(logits, 6, SOFTMAX(1), [1]))).toThrow(/layer 3.*topK 2 and 1/);
    expect(() => addRoutingStatistics(a, collect(logits, 5, SOFTMAX(2), [1]))).toThrow(/experts 6 and 5/);
  });

  it('count neither padding nor what comes from it', () => {
    const logits = logitsOf(8, 4);
    const padded = logits.slice();
    padded.fill(Number.NaN, 3 * 4, 4 * 4);
    const kept = Float64Array.of(...logits.subarray(0, 12), ...logits.subarray(16));
    const sums = createRoutingSums(3, 4, SOFTMAX(2));
    sums.add(padded, 8, { valid: [1, 1, 1, 0, 1, 1, 1, 1] });
    expect(sums.tokens).toBe(7);
    expect(sums.finish()).toEqual(collect(kept, 4, SOFTMAX(2), [7]));
  });

  it('hold entropies of logits of hundreds and of equal ones without loss', () => {
    const peaked = collect(Float64Array.of(800, -800, 0, 799), 4, SOFTMAX(2), [1]);
    const p = 1 / (1 + Math.exp(-1));
    expect(peaked.entropySum).toBeCloseTo(entropy([p, 1 - p]), 14);
    expect(peaked.squaredLogNormalizerSum).toBeCloseTo((800 + Math.log(1 + Math.exp(-1))) ** 2, 8);
    const equal = collect(new Float64Array(40 * 6).fill(0.3), 6, SOFTMAX(2), [40]);
    expect(equal.entropySum / 40).toBeCloseTo(Math.log(6), 14);
    expect(equal.entropyDeviationSum).toBeLessThan(1e-28);
    expect([...equal.counts]).toEqual([40, 40, 0, 0, 0, 0]);
    expect(equal.tiedTokens).toBe(40);
    expect(equal.entropyHistogram[63]).toBe(40);
  });

  it('take a single expert', () => {
    const alone = collect(Float64Array.of(3, -2), 1, SOFTMAX(1), [2]);
    expect([...alone.counts]).toEqual([2]);
    expect(alone).toMatchObject({ entropySum: 0, chosenEntropySum: 0, tiedTokens: 0 });
  });

  it('choose within the best groups', () => {
    const groups = { nGroup: 3, topkGroup: 1 };
    const chosen = (rule: RouterRule, ...logits: number[]): number[] => [
      ...createRouter(logits.length, rule)(Float64Array.from(logits), 0).chosen,
    ];
    const logits = [5, -9, 4, 4, 1, 2] as const;
    // DeepSeek-V2 takes the group of the largest, V3 that of the largest sum of two.
    expect(chosen({ ...SOFTMAX(2), groups }, ...logits)).toEqual([0, 1]);
    expect(chosen({ ...SOFTMAX(2), score: 'sigmoid', groups }, ...logits)).toEqual([2, 3]);
    const correctionBias = Float64Array.of(0, 0, 0, 0, 1, 1);
    expect(chosen({ ...SOFTMAX(2), score: 'sigmoid', groups, correctionBias }, ...logits)).toEqual([5, 4]);
    expect(chosen({ ...SOFTMAX(2), groups: { nGroup: 3, topkGroup: 2 } }, ...logits)).toEqual([0, 2]);
    expect(() => createRouter(6, { ...SOFTMAX(3), groups })).toThrow(/3 of 6 experts in 1 of 3 groups/);
    expect(() => createRouter(5, { ...SOFTMAX(1), groups })).toThrow(/groups do not hold them/);
  });

  it('follow the choice of the forward pass where it is given', () => {
    const sums = createRoutingSums(0, 3, SOFTMAX(1));
    sums.add(Float64Array.of(1, 1, 0, 1, 1, 0), 2, { chosen: [1, 0] });
    const found = sums.finish();
    expect([...found.counts]).toEqual([1, 1, 0]);
    expect(found.tiedTokens).toBe(2);
  });

  it('refuse logits that are not finite, with their place, and a k that cannot be', () => {
    const sums = createRoutingSums(5, 2, SOFTMAX(1));
    sums.add(Float64Array.of(1, 2), 1);
    expect(() => sums.add(Float64Array.of(1, Number.NaN), 1)).toThrow('layer 5, token 1, expert 1: router logit NaN');
    expect(() => createRouter(4, SOFTMAX(5))).toThrow(/top-k 5 of 4 experts/);
    expect(() =>
      createRoutingSums(0, 4, { ...SOFTMAX(1), score: 'sigmoid', correctionBias: new Float32Array(3) }),
    ).toThrow(/3 entries for 4 experts/);
  });
});
