import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { arrayMatrix } from '../../../src/formats/feature-matrix.js';
import {
  checkClasses,
  classCounts,
  DIFFICULTIES,
  labelThresholds,
  proxyLabels,
} from '../../../src/policy/difficulty/labels.js';
import {
  type DifficultyProbe,
  predictedClasses,
  probeLogits,
  scoreProbabilities,
  softmaxRows,
} from '../../../src/policy/difficulty/probe.js';
import { probeBytes, readProbe } from '../../../src/policy/difficulty/probe-file.js';
import { levelsOf } from '../../../src/policy/difficulty/questions.js';
import { comparePolicies } from '../../../src/policy/difficulty/routing.js';
import { truncatedOutcome } from '../../../src/policy/difficulty/strategies.js';
import { trainProbe } from '../../../src/policy/difficulty/train-probe.js';
import { uCurve, uCurveIntervals } from '../../../src/policy/difficulty/u-curve.js';
import { createRandom } from '../../../src/random.js';

describe('proxy labels', () => {
  const accuracy = [1, 0.9, 0.5, 0.2, 0];
  const entropy = [0.2, 0.9, 0.5, 0.1, 0.8];

  it('apply their rules in order', () => {
    const labels = proxyLabels(accuracy, entropy, { alpha: 0.5, beta: 0.5, gamma: 1 / 3 });
    expect(Array.from(labels, (c) => DIFFICULTIES[c])).toEqual(['normal', 'easy', 'normal', 'hard', 'hard']);
    // A question that is both: normal comes first.
    expect(proxyLabels([0.3], [0.1], { alpha: 0.2, beta: 0.5, gamma: 0.4 })[0]).toBe(DIFFICULTIES.indexOf('normal'));
  });

  it('take their thresholds from the data where none are given', () => {
    expect(labelThresholds(accuracy, entropy)).toEqual({ alpha: 0.5, beta: 0.5, gamma: 1 / 3 });
    expect(labelThresholds(accuracy, entropy, { beta: 2 }).beta).toBe(2);
  });

  it('name a class that stays empty with the thresholds', () => {
    const thresholds = { alpha: 0.5, beta: 0.5, gamma: 0 };
    const counts = classCounts(proxyLabels(accuracy, entropy, thresholds));
    expect(() => checkClasses(counts, thresholds)).toThrow(
      /no question is hard \(alpha 0\.5, beta 0\.5 nats, gamma 0;/,
    );
  });
});

describe('the curve over difficulty', () => {
  const level = Array.from({ length: 90 }, (_, i) => 101 + (i % 9));
  const bent = level.map((l, i) => 0.4 + 0.01 * (l - 105) ** 2 + 0.001 * (((i * 7) % 11) - 5));

  it('gives back the coefficients of a parabola, far from zero too', () => {
    const exact = uCurve(
      level,
      level.map((l) => 0.4 + 0.01 * (l - 105) ** 2),
    );
    expect(exact.quadratic[0]).toBeCloseTo(0.01, 12);
    expect(exact.vertex).toBeCloseTo(105, 8);
    expect(exact.quadratic[2] + exact.quadratic[1] * 105 + exact.quadratic[0] * 105 ** 2).toBeCloseTo(0.4, 10);
    expect(exact).toMatchObject({ argminLevel: 105, looksUShaped: true });
    expect(exact.dropFromFirst).toBeCloseTo(0.16 / 0.56, 10);
  });

  it('is U-shaped when the whole interval says so and no end is least', () => {
    expect(uCurveIntervals(level, bent, { seed: 1, resamples: 200 }).uShaped).toBe(true);
    const falling = level.map((l, i) => 5 - 0.01 * l + 0.3 * (((i * 7) % 11) - 5));
    expect(uCurveIntervals(level, falling, { seed: 1, resamples: 200 }).uShaped).toBe(false);
    expect(
      uCurve(
        level,
        level.map((l) => l ** 2),
      ).looksUShaped,
    ).toBe(false);
  });

  it('needs three levels', () => {
    expect(() => uCurve([1, 2, 1], [0.1, 0.2, 0.3])).toThrow(/at least 3 levels, got 2/);
  });

  it('reads levels from words', () => {
    expect([...levelsOf(['Level 3', '7', '2.5', undefined])]).toEqual([3, 7, 2.5, Number.NaN]);
    expect([...levelsOf(['b', 'a'], ['a', 'b'])]).toEqual([2, 1]);
    expect(() => levelsOf(['brutal'])).toThrow(/"brutal" ends with no number.*--levels/);
    expect(() => levelsOf(['c'], ['a', 'b'])).toThrow(/--levels: the dump also has the difficulty "c"/);
  });
});

/** Three clusters that a line cannot part: class = number of signs that agree. */
function clusters(rows: number, seed: number): { x: Float32Array; labels: Uint8Array } {
  const random = createRandom(seed);
  const x = new Float32Array(rows * 4);
  const labels = new Uint8Array(rows);
  for (let r = 0; r < rows; r++) {
    for (let j = 0; j < 4; j++)
      x[r * 4 + j] = 5 + (j < 2 ? (random.uniform() < 0.5 ? -1 : 1) : 0) + 0.2 * random.normal();
    const same = x[r * 4] > 5 === x[r * 4 + 1] > 5;
    labels[r] = same ? (x[r * 4] > 5 ? 2 : 1) : 0;
  }
  return { x, labels };
}

const SETTINGS = {
  ...{ hidden: 16, epochs: 60, learningRate: 1e-2, weightDecay: 0.01, batchSize: 32 },
  ...{ balanced: false, seed: 3, threads: 1, holdBytes: 2 ** 30 },
};

describe('the probe', () => {
  const { x, labels } = clusters(300, 11);
  const rows = Int32Array.from({ length: 200 }, (_, r) => r);
  const matrix = arrayMatrix('clusters', x, 300, 4);

  it('learns what no line can part, with equal bits for any threads', async () => {
    const one = await trainProbe(matrix, labels, rows, 3, SETTINGS);
    const two = await trainProbe(matrix, labels, rows, 3, { ...SETTINGS, threads: 2 });
    expect(two.probe.w1).toEqual(one.probe.w1);
    expect(one.lossNats.at(-1)).toBeLessThan(0.1 * one.lossNats[0]);
    const p = softmaxRows(probeLogits(one.probe, x.subarray(200 * 4), 100), 3);
    expect(scoreProbabilities(p, labels.subarray(200), 3).accuracy).toBeGreaterThan(0.95);
  });

  it('learns as well from rows that are read in blocks', async () => {
    const { probe, held } = await trainProbe(matrix, labels, rows, 3, { ...SETTINGS, holdBytes: 1 });
    expect(held).toBe(false);
    const p = softmaxRows(probeLogits(probe, x.subarray(200 * 4), 100), 3);
    expect(scoreProbabilities(p, labels.subarray(200), 3).accuracy).toBeGreaterThan(0.95);
  });

  it('goes through a file', async () => {
    const { probe } = await trainProbe(matrix, labels, rows, 3, { ...SETTINGS, epochs: 1 });
    const folder = mkdtempSync(join(tmpdir(), 'difficulty-'));
    const path = join(folder, 'probe.safetensors');
    writeFileSync(path, probeBytes(probe));
    expect(probeLogits(readProbe(path), x, 300)).toEqual(probeLogits(probe, x, 300));
    const wrong: DifficultyProbe = { ...probe, classes: 2, w2: probe.w2.subarray(0, 32), b2: probe.b2.subarray(0, 2) };
    writeFileSync(path, probeBytes(wrong));
    expect(() => readProbe(path)).toThrow(/2 classes, not easy, normal, hard/);
  });

  it('names rows that are no numbers', async () => {
    const bad = x.slice();
    bad[4 * 7 + 2] = Number.NaN;
    await expect(trainProbe(arrayMatrix('bad', bad, 300, 4), labels, rows, 3, SETTINGS)).rejects.toThrow(/row 7/);
  });

  it('is scored by accuracy, macro F1 and confusion', () => {
    const p = [0.8, 0.1, 0.1, 0.2, 0.7, 0.1, 0.5, 0.5, 0];
    expect([...predictedClasses(p, 3)]).toEqual([0, 1, 0]);
    const score = scoreProbabilities(p, [0, 1, 1], 3);
    expect(score.confusion).toEqual([
      [1, 0, 0],
      [1, 1, 0],
      [0, 0, 0],
    ]);
    expect(score.macroF1).toBeCloseTo((2 / 3 + 2 / 3 + 0) / 3, 12);
    expect(score.crossEntropyNats).toBeCloseTo(-(Math.log(0.8) + Math.log(0.7) + Math.log(0.5)) / 3, 12);
  });
});

describe('routing', () => {
  it('counts a response beyond the budget as cut and wrong', () => {
    expect(truncatedOutcome([10, 30, 50], [1, 1, 0], 25)).toEqual({ accuracy: 1 / 3, tokens: 20 });
  });

  it('compares strategies, routes and the oracle on the same questions', () => {
    const outcome = (accuracy: number, tokens: number) => ({ accuracy, tokens });
    const outcomes = [
      [outcome(1, 10), outcome(0, 10), outcome(0, 10)],
      [outcome(1, 100), outcome(1, 80), outcome(0, 90)],
      [outcome(0, 50), outcome(1, 40), outcome(0, 45)],
    ];
    const found = comparePolicies(outcomes, new Map([['probe', [0, 2, 1]]]), 1);
    expect(found.map(({ name }) => name)).toEqual(['always easy', 'always normal', 'always hard', 'probe', 'oracle']);
    const byName = Object.fromEntries(found.map((policy) => [policy.name, policy]));
    expect(byName['always normal']).toMatchObject({
      accuracy: 2 / 3,
      meanTokens: 90,
      tokenSaving: 0,
      accuracyDifference: 0,
    });
    // The oracle takes the cheapest strategy that is right, and the cheapest of all where none is.
    expect(byName.oracle).toMatchObject({ accuracy: 2 / 3, meanTokens: 20, picks: [2, 0, 1] });
    expect(byName.probe.tokenSaving).toBeCloseTo(1 - 140 / 270, 12);
    expect(byName.probe.tokenSavingLow).toBeLessThanOrEqual(byName.probe.tokenSaving);
  });
});
