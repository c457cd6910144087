import { describe, expect, it } from 'vitest';
import { runExpert, runInner } from '../../src/moe/expert-function.js';
import { route } from '../../src/moe/layer-function.js';
import {
  createPairSums,
  errorSimilarity,
  expertPairs,
  isPairBasis,
  pairBytes,
  pairPasses,
  similarityOfPairs,
} from '../../src/moe/pair-similarity.js';
import type { ExpertMatrices, ExpertShape, RouterRule } from '../../src/moe/types.js';
import { createRandom } from '../../src/random.js';

const random = createRandom(17);
const normal = (length: number): Float64Array => Float64Array.from({ length }, () => random.normal());
const [E, H, I, T] = [4, 6, 5, 60];
const shape: ExpertShape = { hidden: H, width: I, gated: true, activation: 'silu' };
const experts: ExpertMatrices[] = Array.from({ length: E }, () => ({
  gate: normal(I * H),
  up: normal(I * H),
  down: normal(H * I),
}));
const read = (expert: number): ExpertMatrices => experts[expert];
const x = normal(T * H);
const rule: RouterRule = { score: 'softmax', topK: 2, normalizeTopK: true };
// Expert 3 is never chosen.
const logits = normal(T * E).map((z, at) => (at % E === 3 ? -100 : z));
const routing = route(logits, T, E, rule);
const tokensOf = (...members: number[]): number[] =>
  Array.from({ length: T }, (_, t) => t).filter((t) =>
    members.some((e) => routing.chosen.subarray(t * 2, t * 2 + 2).includes(e)),
  );
const pairs = expertPairs(E);

function pearson(a: number[], b: number[]): number {
  const mean = (v: number[]): number => v.reduce((s, value) => s + value, 0) / v.length;
  const [ma, mb] = [mean(a), mean(b)];
  let [ab, aa, bb] = [0, 0, 0];
  a.forEach((value, t) => {
    ab += (value - ma) * (b[t] - mb);
    aa += (value - ma) ** 2;
    bb += (b[t] - mb) ** 2;
  });
  return ab / (a.length - 1) / (Math.sqrt((aa / (a.length - 1)) * (bb / (a.length - 1))) + 1e-7);
}

function permutations(n: number): number[][] {
  if (n === 0) return [[]];
  return permutations(n - 1).flatMap((p) =>
    Array.from({ length: n }, (_, at) => [...p.slice(0, at), n - 1, ...p.slice(at)]),
  );
}

/** [I][I] correlations of two experts over their tokens, by the definition. */
function correlations(a: number, b: number): number[][] {
  const rows = tokensOf(a, b);
  const inner = [a, b].map((e) => {
    const activations = new Float64Array(T * I);
    runInner(experts[e], shape, x, T, activations);
    return Array.from({ length: I }, (_, i) => rows.map((t) => activations[t * I + i]));
  });
  return inner[0].map((left) => inner[1].map((right) => pearson(left, right)));
}

/** Fed in two uneven batches. */
function valuesOf(basis: Parameters<typeof createPairSums>[0]): Float64Array {
  const sums = createPairSums(basis, pairs, read, shape);
  for (const [from, to] of [
    [0, 23],
    [23, T],
  ]) {
    const { chosen, topK } = routing;
    const part = { chosen: chosen.subarray(from * topK, to * topK), topK };
    sums.add(x.subarray(from * H, to * H), to - from, part);
  }
  return sums.finish();
}

describe('similarity pair by pair', () => {
  it('lsa is the mean correlation over the best assignment', () => {
    const values = valuesOf('activation-correlation.lsa');
    pairs.forEach(({ a, b }, p) => {
      const c = correlations(a, b);
      const best = Math.max(...permutations(I).map((order) => order.reduce((sum, j, i) => sum + c[i][j], 0)));
      expect(values[p]).toBeCloseTo((best / I + 1) / 2, 10);
    });
  });

  it('max is the mean of the largest correlation in each column', () => {
    const values = valuesOf('activation-correlation.max');
    pairs.forEach(({ a, b }, p) => {
      const c = correlations(a, b);
      const best = Array.from({ length: I }, (_, j) => Math.max(...c.map((row) => row[j])));
      expect(values[p]).toBeCloseTo((best.reduce((s, v) => s + v, 0) / I + 1) / 2, 10);
    });
  });

  it('mse compares the plain mean with each on its own tokens', () => {
    const values = valuesOf('mse');
    const half = (a: ExpertMatrices, b: ExpertMatrices): ExpertMatrices => ({
      gate: (a.gate ?? a.up).map((value, i) => (value + (b.gate ?? b.up)[i]) / 2),
      up: a.up.map((value, i) => (value + b.up[i]) / 2),
      down: a.down.map((value, i) => (value + b.down[i]) / 2),
    });
    pairs.forEach(({ a, b }, p) => {
      const merged = runExpert(half(experts[a], experts[b]), shape, x, T);
      let error = 0;
      for (const e of [a, b]) {
        const own = runExpert(experts[e], shape, x, T);
        for (const t of tokensOf(e)) for (let c = 0; c < H; c++) error += (merged[t * H + c] - own[t * H + c]) ** 2;
      }
      expect(values[p]).toBeCloseTo(1 / (1 + 0.1 * Math.log(error)), 10);
    });
  });

  it('a neuron order makes no difference to lsa, and two idle experts are alike', () => {
    const order = random.permutation(I);
    const turned: ExpertMatrices = {
      gate: Float64Array.from(
        { length: I * H },
        (_, at) => (experts[0].gate ?? x)[order[Math.floor(at / H)] * H + (at % H)],
      ),
      up: Float64Array.from({ length: I * H }, (_, at) => experts[0].up[order[Math.floor(at / H)] * H + (at % H)]),
      down: Float64Array.from({ length: H * I }, (_, at) => experts[0].down[Math.floor(at / I) * I + order[at % I]]),
    };
    const sums = createPairSums(
      'activation-correlation.lsa',
      [{ a: 0, b: 1 }],
      (e) => (e === 0 ? experts[0] : turned),
      shape,
    );
    sums.add(x, T, routing);
    expect(sums.finish()[0]).toBeCloseTo(1, 6);
    for (const basis of ['activation-correlation.lsa', 'mse'] as const) {
      expect([...createPairSums(basis, [{ a: 0, b: 1 }], read, shape).finish()]).toEqual([1]);
    }
  });

  it('fills a matrix, and goes pass by pass where memory is small', () => {
    expect([...similarityOfPairs(3, expertPairs(3), [0.1, 0.2, 0.3])]).toEqual([1, 0.1, 0.2, 0.1, 1, 0.3, 0.2, 0.3, 1]);
    const basis = 'activation-correlation.max';
    const passes = pairPasses(basis, E, shape, 4.5 * pairBytes(basis, shape));
    expect(passes.map((pass) => pass.length)).toEqual([4, 2]);
    expect(passes.flat()).toEqual(pairs);
    expect(() => pairPasses(basis, E, shape, 10)).toThrow(/--max-memory/);
    expect(isPairBasis('weight')).toBe(false);
    expect(isPairBasis('mse')).toBe(true);
  });

  it('never calls a smaller error less similar', () => {
    const values = [10, 1, 0.01, 1e-4, Math.exp(-10), 1e-9, 0].map(errorSimilarity);
    expect(values[1]).toBe(1);
    expect([...values].sort((a, b) => a - b)).toEqual(values);
  });
});
