import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { attentionEntropiesFromQueryKeys } from '../../src/entropy/attention.js';
import { bestThreshold, fitTemperatures, type TemperatureProblem } from '../../src/entropy/temperature-fit.js';
import { createRandom } from '../../src/random.js';

const HEADS = 2;
const LENGTH = 24;
const DIM = 6;
const MAXIMUM = Math.log(LENGTH);

/** Two windows of random queries and keys; the second one begins at position 4. */
function problemOf(changes: Partial<TemperatureProblem> = {}): TemperatureProblem {
  const random = createRandom(5);
  const draw = (count: number): Float64Array => Float64Array.from({ length: count }, () => 1.7 * random.normal());
  const windows = [
    { from: 0, count: LENGTH },
    { from: 4, count: LENGTH - 4 },
  ];
  const tensors = windows.map(({ count }) => ({
    queries: draw(count * HEADS * DIM),
    keys: draw(LENGTH * HEADS * DIM),
  }));
  const positions = changes.positions ?? LENGTH;
  return {
    heads: HEADS,
    positions,
    windows,
    evaluate: (w, temperatures) =>
      attentionEntropiesFromQueryKeys(
        {
          ...tensors[w],
          heads: HEADS,
          keyHeads: HEADS,
          headDim: DIM,
          queryCount: windows[w].count,
          keyCount: LENGTH,
          queryStart: windows[w].from,
          scale: 1 / Math.sqrt(DIM),
          temperatures,
        },
        { moments: true },
      ),
    reduction: 'code',
    gamma: 0.05,
    contextSize: LENGTH,
    thresholds: Float64Array.of(0.3, 0.5),
    start: new Float64Array(HEADS * positions).fill(1),
    passes: 200,
    ...changes,
  };
}

/** Loss of every head, summed over its rows. */
function lossOf(problem: TemperatureProblem, temperatures: Float64Array, thresholds: Float64Array): number[] {
  const loss = new Array<number>(HEADS).fill(0);
  const sums = new Array<number>(HEADS).fill(0);
  let rows = 0;
  problem.windows.forEach(({ from, count }, w) => {
    const own = new Float64Array(HEADS * count);
    for (let i = 0; i < own.length; i++) {
      const head = Math.floor(i / count);
      own[i] = temperatures[head * problem.positions + (problem.positions === 1 ? 0 : from + (i % count))];
    }
    problem.evaluate(w, own).entropyNats.forEach((entropy, i) => {
      const head = Math.floor(i / count);
      const delta = entropy - thresholds[head] * MAXIMUM;
      sums[head] += entropy;
      if (Math.abs(delta) > problem.gamma * MAXIMUM) loss[head] += delta * delta;
    });
    rows += count;
  });
  if (problem.reduction === 'code') return loss;
  return sums.map((sum, head) => {
    const delta = sum / rows - thresholds[head] * MAXIMUM;
    return Math.abs(delta) > problem.gamma * MAXIMUM ? delta * delta : 0;
  });
}

describe('a fit of temperatures', () => {
  it.each([
    ['code', LENGTH],
    ['code', 1],
    ['algorithm1', LENGTH],
    ['algorithm1', 1],
  ] as const)(
    '%s with %i temperatures a head lowers the loss, and says which loss it reached',
    (reduction, positions) => {
      const problem = problemOf({ reduction, positions });
      const fit = fitTemperatures(problem);
      const thresholds = Float64Array.of(0.3, 0.5);
      expect(fit.settled).toBe(true);
      const before = lossOf(problem, problem.start, thresholds);
      const after = lossOf(problem, fit.temperatures, thresholds);
      for (let head = 0; head < HEADS; head++) {
        expect(fit.lossBefore[head]).toBeCloseTo(before[head], 10);
        expect(fit.lossAfter[head]).toBeCloseTo(after[head], 10);
        expect(after[head]).toBeLessThan(before[head]);
        if (reduction === 'algorithm1') expect(after[head]).toBe(0);
      }
    },
  );

  it('brings a row alone to its threshold, where that is in reach', () => {
    const problem = problemOf({ windows: [{ from: 0, count: LENGTH }] });
    const { rows } = fitTemperatures(problem);
    [0.3, 0.5].forEach((threshold, head) => {
      for (let q = 0; q < LENGTH; q++) {
        const reachable = Math.log(q + 1) > (threshold - 0.05) * MAXIMUM + 0.02;
        const delta = rows[0].entropyNats[head * LENGTH + q] - threshold * MAXIMUM;
        if (reachable) expect(Math.abs(delta)).toBeLessThanOrEqual(0.05 * MAXIMUM);
        else expect(rows[0].entropyNats[head * LENGTH + q]).toBeCloseTo(Math.log(q + 1), 1);
      }
    });
  });

  it('leaves alone what costs nothing', () => {
    const fit = fitTemperatures(problemOf({ gamma: 1, thresholds: Float64Array.of(0.5, 0.5) }));
    expect(fit.temperatures.every((t) => t === 1)).toBe(true);
    expect(fit.passes).toBe(1);
  });

  it('learns the thresholds at which the start costs least', () => {
    const problem = problemOf({ thresholds: 'learn', positions: 1 });
    const fit = fitTemperatures(problem);
    const best = lossOf(problem, problem.start, fit.thresholds);
    for (let share = 0; share <= 1; share += 0.01) {
      const other = lossOf(problem, problem.start, Float64Array.of(share, share));
      for (let head = 0; head < HEADS; head++) expect(best[head]).toBeLessThanOrEqual(other[head] + 1e-12);
    }
    expect(fit.lossAfter[0]).toBeLessThanOrEqual(fit.lossBefore[0]);
  });
});

describe('the best threshold', () => {
  it('is no worse than any other', () => {
    const entropies = fc.array(fc.double({ min: 0, max: 3, noNaN: true }), { minLength: 1, maxLength: 12 });
    const other = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 40, maxLength: 40 });
    fc.assert(
      fc.property(entropies, fc.double({ min: 0.01, max: 1, noNaN: true }), other, (values, tolerance, shares) => {
        const cost = (share: number): number =>
          values.reduce((sum, e) => sum + (Math.abs(e - 3 * share) > tolerance ? (e - 3 * share) ** 2 : 0), 0);
        const found = bestThreshold(Float64Array.from(values), tolerance, 3);
        for (const share of shares) expect(cost(found)).toBeLessThanOrEqual(cost(share) + 1e-9);
      }),
      { numRuns: 200 },
    );
  });

  it('is the mean without a tolerance', () => {
    expect(bestThreshold(Float64Array.of(0.2, 0.4, 1.2), 0, 2)).toBeCloseTo(0.3, 12);
  });
});
