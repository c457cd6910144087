import { describe, expect, it } from 'vitest';
import {
  lowRankFactors,
  lowRankProduct,
  remainingShare,
  rowMeanMagnitudes,
  rowScores,
  selectRows,
  sparseResidual,
  spectrumFigures,
  stableRank,
} from '../../src/moe/losparse.js';
import { createLoSparsePruner, type PrunedMatrix, survivors } from '../../src/moe/losparse-pruner.js';
import { createRandom } from '../../src/random.js';

const random = createRandom(23);
const normal = (length: number): Float64Array => Float64Array.from({ length }, () => random.normal());

describe('low rank and what is left', () => {
  it('share the weight of the singular values', () => {
    const [rows, columns, rank] = [12, 9, 4];
    const weight = normal(rows * columns);
    const { left, right, svd } = lowRankFactors(weight, rows, columns, rank);
    for (let i = 0; i < rank; i++) {
      let [a, b] = [0, 0];
      for (let r = 0; r < rows; r++) a += left[r * rank + i] ** 2;
      for (let c = 0; c < columns; c++) b += right[i * columns + c] ** 2;
      expect(a).toBeCloseTo(svd.values[i], 10);
      expect(b).toBeCloseTo(svd.values[i], 10);
    }
    const sizes = { rows, columns, rank };
    const residual = sparseResidual(weight, left, right, sizes);
    expect(Math.hypot(...residual)).toBeCloseTo(svd.residual, 10);
    lowRankProduct(left, right, sizes).forEach((value, at) => {
      expect(value + residual[at]).toBeCloseTo(weight[at], 12);
    });
    expect([...sparseResidual(weight, new Float64Array(0), new Float64Array(0), { rows, columns, rank: 0 })]).toEqual([
      ...weight,
    ]);
  });

  it('have figures of their spectrum', () => {
    expect(spectrumFigures(Float64Array.of(2, 2, 2)).stableRank).toBeCloseTo(12 / (4 + 1e-7), 12);
    expect(spectrumFigures(Float64Array.of(2, 2, 2)).effectiveRank).toBeCloseTo(3, 12);
    expect(spectrumFigures(new Float64Array(3)).effectiveRank).toBeNaN();
    expect(stableRank(0, 0)).toBe(0);
  });
});

describe('scores of rows', () => {
  const residual = Float64Array.of(3, -4, 0, 1, 1, 1);

  it('are means an entry', () => {
    expect([...rowScores('magnitude', residual, 2, 3)]).toEqual([Math.sqrt(25 / 3), 1]);
    expect([...rowScores('activations', residual, 2, 3, Float64Array.of(0, 1, 2))]).toEqual([
      Math.sqrt(16 / 3),
      Math.sqrt(5 / 3),
    ]);
    expect([...rowScores('gradients', residual, 2, 3, Float64Array.of(1, 1, 1, -6, 0, 0))]).toEqual([7 / 3, 2]);
    expect([...rowMeanMagnitudes(residual, 2, 3)]).toEqual([7 / 3, 1]);
    expect(() => rowScores('activations', residual, 2, 3, Float64Array.of(1))).toThrow(/need 3 weights/);
    expect(() => rowScores('gradients', residual, 2, 3)).toThrow(/need 6 weights/);
  });

  it('choose rows of all matrices within their share of the entries', () => {
    const matrices = [
      { scores: Float64Array.of(5, 1, 4), columns: 2 },
      { scores: Float64Array.of(4, 9), columns: 7 },
    ];
    const rowsAt = (share: number): number[][] => selectRows(matrices, share).map((rows) => [...rows]);
    expect(rowsAt(0)).toEqual([[], []]);
    expect(rowsAt(1)).toEqual([
      [0, 1, 2],
      [0, 1],
    ]);
    // 9 of 20 entries: the row of 7, then one of 2.
    expect(rowsAt(0.45)).toEqual([[0], [1]]);
    // 6 of 20: the rows of 7 do not fit.
    expect(rowsAt(0.3)).toEqual([[0, 1, 2], []]);
    expect(selectRows([{ scores: new Float64Array(10).fill(1), columns: 3 }], 0.1)[0]).toEqual(Int32Array.of(0));
  });
});

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
