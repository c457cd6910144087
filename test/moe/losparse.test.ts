import { describe, expect, it } from 'vitest';
import { rowMeanMagnitudes, rowScores, selectRows, spectrumFigures, stableRank } from '../../src/moe/losparse.js';

describe('figures of a spectrum', () => {
  it('are stable and effective rank', () => {
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
