import { describe, expect, it } from 'vitest';
import { createRandom } from '../../src/random.js';
import { createLoSparsePruner, type PrunedMatrix, survivors } from '../../src/training/losparse-pruner.js';
import { remainingShare } from '../../src/training/pruning-schedule.js';

const random = createRandom(23);
const normal = (length: number): Float64Array => Float64Array.from({ length }, () => random.normal());

describe('schedule', () => {
  const schedule = { totalSteps: 100, warmupSteps: 10, finalShare: 0.1 };

  it('falls by a cube between two warm-ups', () => {
    expect(remainingShare(schedule, 10)).toEqual({ share: 1, masked: false });
    expect(remainingShare(schedule, 35).share).toBeCloseTo(0.1 + 0.9 / 8, 14);
    expect(remainingShare(schedule, 60).share).toBe(0.1);
    expect(remainingShare(schedule, 61)).toEqual({ share: 0.1, masked: true });
    expect(remainingShare({ ...schedule, interval: 2 }, 35).masked).toBe(false);
    expect(remainingShare({ ...schedule, interval: 2 }, 36).masked).toBe(true);
  });

  it('needs steps to fall in', () => {
    expect(() => remainingShare({ ...schedule, totalSteps: 50 }, 0)).toThrow(/too few steps.*at least 51/);
    expect(() => createLoSparsePruner([], { totalSteps: 5, warmupSteps: 1 })).toThrow(/too few steps/);
  });
});

describe('pruning in training', () => {
  const matrixOf = (values: Float64Array | Float32Array, rows: number): PrunedMatrix => ({
    name: 'S',
    rows,
    columns: values.length / rows,
    values,
  });

  /** The published update, step by step, for single entries. */
  function reference(start: Float64Array, gradients: Float64Array[], beta2: number): Float64Array {
    const values = start.slice();
    let average = new Float64Array(values.length);
    let uncertainty = new Float64Array(values.length);
    let importance = new Float64Array(values.length);
    gradients.forEach((gradient, t) => {
      average = average.map((value, i) => 0.85 * value + (1 - 0.85) * importance[i]);
      uncertainty = uncertainty.map((value, i) => beta2 * value + (1 - beta2) * Math.abs(importance[i] - average[i]));
      importance = values.map((value, i) => Math.abs(value * gradient[i]));
      const { share, masked } = remainingShare({ totalSteps: 20, warmupSteps: 2, finalShare: 0.3 }, t);
      const k = Math.floor(values.length * (1 - share));
      if (!masked || k === 0) return;
      const scores = average.map((value, i) => value * (beta2 < 1 ? uncertainty[i] : 1));
      const cut = Math.fround([...scores].sort((a, b) => a - b)[k - 1]);
      scores.forEach((score, i) => {
        if (score < cut) values[i] = 0;
      });
    });
    return values;
  }

  it.each([1, 0.9])('follows the published update (beta2 %d)', (beta2) => {
    const start = normal(30);
    const gradients = Array.from({ length: 20 }, () => normal(30));
    const matrix = matrixOf(start.slice(), 5);
    const pruner = createLoSparsePruner([matrix], {
      totalSteps: 20,
      warmupSteps: 2,
      finalShare: 0.3,
      beta2,
      structure: 'entry',
    });
    for (const gradient of gradients) pruner.step([gradient]);
    expect([...matrix.values]).toEqual([...reference(start, gradients, beta2)]);
  });

  it('keeps whole rows, lets masked rows grow again, and averages gradients between masks', () => {
    const matrix = matrixOf(Float32Array.from(normal(40)), 10);
    const pruner = createLoSparsePruner([matrix], { totalSteps: 12, warmupSteps: 2, finalShare: 0.3, interval: 2 });
    for (let t = 0; t < 12; t++) pruner.step([Float32Array.from(normal(40))]);
    const rows = survivors(matrix);
    expect(rows.length).toBeLessThanOrEqual(4);
    expect(rows.length).toBeGreaterThanOrEqual(3);
    for (const row of rows) {
      for (let c = 0; c < 4; c++) expect(matrix.values[row * 4 + c]).not.toBe(0);
    }
    expect(survivors(matrix, 'column')).toHaveLength(4);
    matrix.values.fill(1);
    expect(survivors(matrix)).toHaveLength(10);
  });

  it('counts a row whose entries cancel as alive', () => {
    expect([...survivors({ values: Float64Array.of(1, -1, 0, 0), rows: 2, columns: 2 })]).toEqual([0]);
  });

  it('masks nothing while not a single entry is to go, and refuses what does not fit', () => {
    const matrix = matrixOf(Float64Array.of(1, 2), 2);
    const pruner = createLoSparsePruner([matrix], { totalSteps: 1000, warmupSteps: 1, finalShare: 0.5 });
    for (let t = 0; t < 3; t++) expect(pruner.step([Float64Array.of(1, 1)]).threshold).toBeUndefined();
    expect(() => pruner.step([Float64Array.of(1)])).toThrow(RangeError);
    expect(() => createLoSparsePruner([matrix], { totalSteps: 100, warmupSteps: 1, beta2: 0 })).toThrow(/beta2/);
  });
});
