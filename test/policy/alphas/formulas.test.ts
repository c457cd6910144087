import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { dependentMean } from '../../../src/linalg/newey-west.js';
import { backtest } from '../../../src/policy/alphas/backtest.js';
import { normalisedValues } from '../../../src/policy/alphas/combination.js';
import { dailyPearson } from '../../../src/policy/alphas/correlation.js';
import { createEvaluator } from '../../../src/policy/alphas/evaluate.js';
import {
  canonicalText,
  constantText,
  formulaText,
  reachOf,
  refuseLookAhead,
} from '../../../src/policy/alphas/expression.js';
import { describeUniverse, splitDays } from '../../../src/policy/alphas/panel.js';
import { parseFormula } from '../../../src/policy/alphas/parse-formula.js';
import { createPool, scoreNormalised } from '../../../src/policy/alphas/pool.js';
import {
  dailyIcOfWeights,
  maximiseDailyObjective,
  minimiseSquares,
  objectiveOf,
  solveLeastSquares,
} from '../../../src/policy/alphas/pool-weights.js';
import { readPanel } from '../../../src/policy/alphas/read-panel.js';
import { syntheticPanel } from '../../../src/policy/alphas/synthetic-panel.js';
import { createRandom } from '../../../src/random.js';

const folder = mkdtempSync(join(tmpdir(), 'alphas-'));
const write = (name: string, text: string): string => {
  writeFileSync(join(folder, name), text);
  return join(folder, name);
};
const request = (path: string) => ({
  paths: [path],
  format: 'long' as const,
  dateColumn: 'date',
  symbolColumn: 'symbol',
});

describe('formulas', () => {
  it('reads spaces, signs and exponents, and prints the canonical text', () => {
    expect(formulaText(parseFormula(' Add( $Close , -1e-5 ) '))).toBe('Add($close,-1e-05)');
    expect(formulaText(parseFormula('Corr($a,$b,10d)'))).toBe('Corr($a,$b,10d)');
    expect(canonicalText(parseFormula('Add($b,Mul(2.0,$a))'))).toBe(canonicalText(parseFormula('Add(Mul($a,2),$b)')));
    expect(canonicalText(parseFormula('Sub($b,$a)'))).toBe('Sub($b,$a)');
    expect([30, -0.5, 0.01, 1e-5, 1e16].map(constantText)).toEqual(['30.0', '-0.5', '0.01', '1e-05', '1e+16']);
  });

  it.each([
    ['Mean($close)', /Mean takes 1 value and a window/],
    ['Add($close,$open,5d)', /Add takes 2 values, not 2 and a window/],
    ['Abs(1.0)', /needs a feature/],
    ['Maen($close,5d)', /did you mean "Mean"/],
    ['$clse', /has no feature "clse"; did you mean "close"/],
    ['Add($close,', /character 12/],
    ['Add($close,1.0))', /stands behind the end/],
    ['10d', /a window alone/],
  ])('refuses %s', (text, message) => {
    expect(() => parseFormula(text, ['open', 'close'])).toThrow(message);
  });

  it('refuses look-ahead wherever it stands', () => {
    expect(() => refuseLookAhead(parseFormula('Ref(Ref($close,-2d),10d)'), 'formula')).toThrow(/reads 2 days ahead/);
    expect(() => refuseLookAhead(parseFormula('Mean($close,0d)'), 'formula')).toThrow(/at least 1 day/);
  });

  it('knows which days a formula reads', () => {
    expect(reachOf(parseFormula('Mean(Ref($close,3d),5d)'))).toEqual({ from: -7, to: -3 });
    expect(reachOf(parseFormula('Delta(Add($close,Ref($open,-2d)),4d)'))).toEqual({ from: -4, to: 2 });
  });

  it('evaluates within the margins alone, and the same with a cache that holds next to nothing', () => {
    const panel = syntheticPanel({ days: 60, stocks: 9, seed: 1, strength: 0.2 });
    const text = 'Add(Mean(Delta($close,5d),10d),Mul(Corr(Log($volume),Delta($close,5d),10d),CSRank($open)))';
    const large = createEvaluator(panel, { backtrack: 20, future: 2, cacheBytes: 1 << 26 });
    const small = createEvaluator(panel, { backtrack: 20, future: 2, cacheBytes: 0 });
    const values = [large, large, small].map((one) => one.evaluate(parseFormula(text), (v) => Array.from(v)));
    expect(values[1]).toEqual(values[0]);
    expect(values[2]).toEqual(values[0]);
    expect(large.inRange(parseFormula('Mean($close,21d)'))).toBe(true);
    expect(large.inRange(parseFormula('Mean($close,22d)'))).toBe(false);
    expect(() => large.evaluate(parseFormula('Ref($close,-3d)'), () => 0)).toThrow(RangeError);
  });
});

describe('pools', () => {
  const panel = syntheticPanel({ days: 80, stocks: 15, seed: 2, strength: 0.3 });
  const evaluator = createEvaluator(panel, { backtrack: 20, future: 1, cacheBytes: 1 << 26 });
  const shape = { days: evaluator.days, stocks: evaluator.stocks };
  const target = normalisedValues(evaluator, parseFormula('Ref(Delta($close,1d),-1d)'));
  const score = (text: string) =>
    scoreNormalised(text, text, normalisedValues(evaluator, parseFormula(text)), target, shape);

  it('has the IC of the sum of z-scores without forming the sum', () => {
    const pool = createPool({ capacity: 5, l1: 0, iterate: 'last', objective: { kind: 'ic' } }, target, shape);
    for (const text of ['Delta($close,5d)', '$volume', 'Std($close,10d)']) pool.offer(score(text));
    const sum = new Float64Array(shape.days * shape.stocks);
    pool.members.forEach(({ normalised }, i) => {
      for (let k = 0; k < sum.length; k++) sum[k] += pool.weights[i] * normalised.scores[k];
    });
    const daily = dailyPearson(sum, target.scores, shape);
    expect(pool.ic).toBeCloseTo(daily.reduce((a, b) => a + b, 0) / daily.length, 12);
  });

  it('refuses what it has, lets its negative in, and remembers failures', () => {
    const pool = createPool({ capacity: 1, l1: 5e-3, iterate: 'last', objective: { kind: 'ic' } }, target, shape);
    const good = score('Sub(0.0,Delta($close,5d))');
    expect(pool.offer(good).result).toBe('added');
    expect(pool.offer(good)).toEqual({ reward: 0, result: 'refused' });
    expect(pool.offer(score('Delta($close,5d)')).result).not.toBe('refused');
    const noise = score('Div($open,$vwap)');
    const first = pool.offer(noise);
    if (first.result === 'dropped') expect(pool.offer(noise).result).toBe('failed before');
  });

  it('keeps one formula below the bound only while there is none above it', () => {
    const pool = createPool(
      { capacity: 3, l1: 0, iterate: 'last', objective: { kind: 'ic' }, icBound: 0.05 },
      target,
      shape,
    );
    expect(pool.offer(score('Delta($close,5d)')).result).toBe('added');
    expect(pool.offer(score('$volume')).result).toBe('added');
    const weak = score('Div($open,$vwap)');
    if (weak.ic < 0.05) expect(pool.offer(weak).result).toBe('refused');
  });

  it('solves least squares of least norm, and Adam comes near it without a penalty', () => {
    const mutual = Float64Array.of(1, 1, 1, 1);
    expect(Array.from(solveLeastSquares(mutual, Float64Array.of(0.1, 0.1)))).toEqual([
      expect.closeTo(0.05, 12),
      expect.closeTo(0.05, 12),
    ]);
    const regular = Float64Array.of(1, 0.3, 0.3, 1);
    const exact = solveLeastSquares(regular, Float64Array.of(0.1, -0.05));
    const found = minimiseSquares(regular, Float64Array.of(0.1, -0.05), Float64Array.of(0, 0), 0, 'best');
    found.forEach((weight, i) => {
      expect(weight).toBeCloseTo(exact[i], 2);
    });
  });

  it('climbs ICIR and lower bounds along gradients that differences confirm', () => {
    const random = createRandom(4);
    const [days, n] = [12, 3];
    const among = new Float64Array(days * n * n);
    const withTarget = Float64Array.from({ length: days * n }, () => 0.2 * random.normal());
    for (let t = 0; t < days; t++) for (let i = 0; i < n; i++) among[(t * n + i) * n + i] = 1;
    const covariances = { days, members: n, among, withTarget, targetDeviation: new Float64Array(days).fill(1) };
    const weights = Float64Array.of(0.3, 0.2, -0.1);
    const slope = new Float64Array(days * n);
    dailyIcOfWeights(covariances, weights, slope);
    for (let i = 0; i < n; i++) {
      const moved = (by: number) =>
        dailyIcOfWeights(
          covariances,
          weights.map((w, k) => (k === i ? w + by : w)),
        );
      const [up, down] = [moved(1e-6), moved(-1e-6)];
      for (let t = 0; t < days; t++) expect(slope[t * n + i]).toBeCloseTo((up[t] - down[t]) / 2e-6, 6);
    }
    for (const objective of [{ kind: 'icir' }, { kind: 'lcb', beta: 0.5 }] as const) {
      const best = maximiseDailyObjective(covariances, weights, { objective, l1: 0, iterate: 'best' });
      const value = (w: Float64Array) => objectiveOf(dailyIcOfWeights(covariances, w), objective);
      expect(value(best)).toBeGreaterThan(value(weights));
    }
  });
});

describe('panels', () => {
  it('puts dates and symbols in order and leaves gaps missing', async () => {
    const path = write('p.csv', 'date,symbol,Close,volume\n2020-01-02,B,2,20\n2020-01-01,B,1,10\n2020-01-02,A,3,\n');
    const panel = await readPanel(request(path));
    expect(panel).toMatchObject({
      dates: ['2020-01-01', '2020-01-02'],
      symbols: ['A', 'B'],
      features: ['close', 'volume'],
    });
    expect(Array.from(panel.values[0])).toEqual([Number.NaN, 1, 3, 2]);
    expect(describeUniverse(panel)).toMatchObject({ entering: 1, leaving: 0, alwaysPresent: 1, thinDays: 1 });
    const single = await readPanel({ ...request(path), precision: 'float32' });
    expect(single.values[0]).toBeInstanceOf(Float32Array);
  });

  it.each([
    [
      'date,symbol,close\n2020-01-01,A,1\n2020-01-02,A,1\n2020-01-01,A,2\n',
      /row 1 and .*row 3 both hold 2020-01-01, A/,
    ],
    ['date,symbol,close\n1/2/2020,A,1\n', /neither an integer nor YYYY-MM-DD/],
    ['date,name,close\n2020-01-01,A,1\n', /no column "symbol"/],
    ['date,symbol,close\n2020-01-01,A,x\n', /holds "x", which is no number/],
    ['date,symbol,close\n2020-01-01,,1\n', /row 1: has no date or no symbol/],
  ])('refuses a bad table', async (text, message) => {
    await expect(readPanel(request(write('bad.csv', text)))).rejects.toThrow(message);
  });

  it('makes closes of price relatives', async () => {
    const path = write('r.csv', 'a,b\n1.1,1\n0.5,2\n');
    const panel = await readPanel({ ...request(path), format: 'relatives' });
    expect(panel.values[0]).toEqual(Float64Array.of(1.1, 1, 0.55, 2));
  });

  it('keeps a gap before validation and test', () => {
    const dates = Array.from({ length: 100 }, (_, t) => String(t));
    const split = splitDays(dates, { backtrack: 10, future: 5, gap: 5, shares: [0.6, 0.2, 0.2] });
    expect(split).toEqual({ train: [10, 56], valid: [61, 73], test: [78, 95] });
    expect(() => splitDays(dates.slice(0, 18), { backtrack: 10, future: 5, gap: 5, shares: [1, 1, 1] })).toThrow(
      /leave 3/,
    );
  });
});

describe('intervals and portfolios', () => {
  it('widens the interval of a series that follows itself', () => {
    const white = Float64Array.from({ length: 8 }, (_, t) => (t % 2 ? 1 : -1));
    expect(dependentMean(white, 0).standardError).toBeCloseTo(1 / Math.sqrt(8), 12);
    // gamma_0 = 1, gamma_1 = 0.75 * ... of two runs: by hand.
    const runs = Float64Array.of(1, 1, 1, 1, -1, -1, -1, -1);
    expect(dependentMean(runs, 1).standardError).toBeCloseTo(Math.sqrt((1 + 5 / 8) / 8), 12);
    expect(dependentMean(runs, 1).effectiveSample).toBeCloseTo(8 / (1 + 5 / 8), 12);
  });

  it('holds the best, pays for what it trades, and never sees the next day', () => {
    const close = Float64Array.of(1, 1, 1, 2, 1, 1, 2, 2, 1);
    const signal = Float64Array.of(1, 0, -1, 0, 1, -1, 0, 0, 0);
    const settings = { top: 1, drop: 1, cost: 0.1, delay: 0, daysPerYear: 252 };
    const result = backtest(signal, close, () => true, ['a', 'b', 'c'], 3, settings);
    expect(result.days.map(({ return: r, turnover }) => [r, turnover])).toEqual([
      [expect.closeTo(2 * 0.9 - 1, 12), 0.5],
      [expect.closeTo(2 * 0.8 - 1, 12), 1],
    ]);
    expect(result.days[0].marketReturn).toBeCloseTo(1 / 3, 12);
    const late = backtest(signal, close, () => true, ['a', 'b', 'c'], 3, { ...settings, delay: 1 });
    expect(late.days).toHaveLength(1);
    expect(late.maxDrawdown).toBeCloseTo(0.1, 12);
  });
});
