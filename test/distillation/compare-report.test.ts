import { describe, expect, it } from 'vitest';
import type { ClassMetrics } from '../../src/distillation/class-metrics.js';
import { measureClassifier } from '../../src/distillation/class-metrics.js';
import type { CellResult, PreparedComparison } from '../../src/distillation/compare-job.js';
import { comparisonBody, plannedCells, seedSpread } from '../../src/distillation/compare-report.js';

const metrics = (accuracy: number, nllNats: number): ClassMetrics => ({
  rows: 100,
  accuracy,
  accuracyError: 0.03,
  nllNats,
  nllError: 0.02,
  calibrationError: 0.01,
  entropyNats: 0.5,
});

describe('measures of a classifier', () => {
  it('agrees with its definitions', () => {
    const logits = Float64Array.of(2, 0, 0, 0, 1, 1, 0, 0, 3);
    const found = measureClassifier(logits, Int32Array.of(0, 2, -100), 3, Float64Array.of(1, 0, 0, 0, 0, 1, 9, 0, 0));
    const first = Math.exp(2) / (Math.exp(2) + 2);
    const second = Math.E / (1 + 2 * Math.E);
    expect(found.rows).toBe(2);
    expect(found.accuracy).toBe(0.5); // The first of equal logits counts.
    expect(found.nllNats).toBeCloseTo(-(Math.log(first) + Math.log(second)) / 2, 12);
    expect(found.calibrationError).toBeCloseTo((Math.abs(1 - first) + second) / 2, 12);
    expect(found.agreement).toBe(0.5);
    const p = Math.E / (Math.E + 2);
    const q = 1 / (Math.E + 2);
    const kl1 = p * Math.log(p / first) + 2 * q * Math.log((q * (Math.exp(2) + 2)) / 1);
    const s = [1, Math.E, Math.E].map((e) => e / (1 + 2 * Math.E));
    const kl2 = q * Math.log(q / s[0]) + q * Math.log(q / s[1]) + p * Math.log(p / s[2]);
    expect(found.klNats).toBeCloseTo((kl1 + kl2) / 2, 12);
  });

  it('puts neighbouring confidences into one bin', () => {
    const logits = Float64Array.of(0, 0, 0, 0, 0, 0);
    expect(measureClassifier(logits, Int32Array.of(0, 1, 0), 2).calibrationError).toBeCloseTo(2 / 3 - 0.5, 12);
  });
});

describe('comparison of losses', () => {
  const plan = {
    families: [
      { name: 'ce', members: [{ text: 'ce', choice: '' }] },
      {
        name: 'PLD',
        members: [
          { text: 'pld(tau=1)', choice: 'tau=1' },
          { text: 'pld(tau=2)', choice: 'tau=2' },
        ],
      },
    ],
    seeds: [7, 8],
    chooseBy: 'accuracy',
    reference: 0,
    student: 'mlp:4',
    seed: 0,
  } as const;
  const data = {
    name: 'x',
    rows: 10,
    dims: [2],
    features: new Float32Array(20),
    labels: new Int32Array(10),
    classes: [],
    warnings: [],
  };
  const prepared: PreparedComparison = {
    task: { classes: 3, training: data, heldOut: data, test: data },
    teacherRows: 12,
    warnings: [],
  };
  /** Held-out accuracy prefers tau = 2, test accuracy tau = 1: the report must not look at the latter. */
  const held = [0.8, 0.8, 0.7, 0.72, 0.81, 0.83];
  const test = [0.7, 0.74, 0.9, 0.9, 0.78, 0.8];
  const results = plannedCells(plan).map(
    ({ index }): CellResult => ({
      index,
      steps: 5,
      curve: [],
      heldOut: metrics(held[index], 0.4),
      test: metrics(test[index], 0.5),
      weights: 9,
    }),
  );

  it('chooses on held-out rows and reports test rows', () => {
    const { losses } = comparisonBody(plan, prepared, results);
    expect(losses[1].choice).toBe('tau=2');
    expect(losses[1].test.accuracy?.mean).toBeCloseTo(0.79, 12);
    expect(losses[1].members.map(({ chosen }) => chosen)).toEqual([false, true]);
    expect(losses[0].difference).toBeNull();
    // Paired by seed: 0.78 - 0.70 and 0.80 - 0.74.
    expect(losses[1].difference?.accuracy?.mean).toBeCloseTo(0.07, 12);
    expect(losses[1].difference?.accuracy?.standard_error).toBeCloseTo(0.01, 12);
    expect(losses[1].test.agreement).toBeUndefined();
  });

  it('leaves out runs that diverged and says so', () => {
    const broken = results.map((result) =>
      result.index === 5 ? { ...result, failed: 'step 3: the loss is nan' } : result,
    );
    const body = comparisonBody(plan, prepared, broken);
    expect(body.losses[1].members[1]).toMatchObject({ seeds: 1, failed: 1 });
    expect(body.losses[1].difference?.accuracy?.mean).toBeCloseTo(0.08, 12);
    expect(body.warnings).toEqual(['pld(tau=2), seed 8: step 3: the loss is nan']);
  });

  it('has no spread with one seed', () => {
    expect(seedSpread([0.5], 0)).toEqual({
      mean: 0.5,
      standard_deviation: null,
      standard_error: null,
      interval_low: null,
      interval_high: null,
    });
    const { interval_low, interval_high } = seedSpread([1, 2, 3], 0);
    expect(interval_low).toBeGreaterThanOrEqual(1);
    expect(interval_high).toBeLessThanOrEqual(3);
  });
});
