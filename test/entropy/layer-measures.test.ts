import { describe, expect, it } from 'vitest';
import {
  addLayerRows,
  addSecondMoments,
  createLayerStatistics,
  createSecondMoments,
  layerFigures,
  mergeLayers,
  mergeSecondMoments,
  momentMeasures,
  rowNorms,
  sampleMeasures,
  spectrumMeasures,
} from '../../src/entropy/layer-measures.js';
import { createRandom } from '../../src/random.js';

const states = (seed: number, rows: number, width: number): Float64Array => {
  const random = createRandom(seed);
  return Float64Array.from({ length: rows * width }, (_, i) => random.normal() * (1 + (i % width)) + 0.5);
};

describe('spectra', () => {
  it('of k equal eigenvalues have effective rank k by every measure', () => {
    const measures = spectrumMeasures([3, 3, 3, 0, -1e-16]);
    for (const value of [measures.effectiveRank, measures.participationRatio, measures.stableRank]) {
      expect(value).toBeCloseTo(3, 12);
    }
    expect(measures.entropyNats).toBeCloseTo(Math.log(3), 12);
  });

  it('refuse zero and indefinite matrices', () => {
    expect(() => spectrumMeasures([0, 0])).toThrow(/do not vary/);
    expect(() => spectrumMeasures([1, -0.1])).toThrow(/positive semidefinite/);
  });
});

describe('second moments', () => {
  it('unite over parts and do not change under rotation or shift', () => {
    const width = 6;
    const data = states(3, 50, width);
    const whole = createSecondMoments(width);
    addSecondMoments(whole, data);
    const a = createSecondMoments(width);
    const b = createSecondMoments(width);
    addSecondMoments(a, data.subarray(0, 17 * width));
    addSecondMoments(b, data.subarray(17 * width));
    mergeSecondMoments(a, b);
    const expected = momentMeasures(whole);
    expect(momentMeasures(a).effectiveRank).toBeCloseTo(expected.effectiveRank, 10);
    const [c, s] = [Math.cos(0.7), Math.sin(0.7)];
    const moved = data.slice();
    for (let r = 0; r < 50; r++) {
      const [x, y] = [data[r * width], data[r * width + 1]];
      moved[r * width] = c * x - s * y + 9;
      moved[r * width + 1] = s * x + c * y - 4;
    }
    const rotated = createSecondMoments(width);
    addSecondMoments(rotated, moved);
    expect(momentMeasures(rotated).effectiveRank).toBeCloseTo(expected.effectiveRank, 8);
    expect(momentMeasures(rotated, false).effectiveRank).not.toBeCloseTo(expected.effectiveRank, 2);
  });

  it('agree with the Gram matrix of few rows', () => {
    const width = 30;
    const data = states(4, 12, width);
    const moments = createSecondMoments(width);
    addSecondMoments(moments, data);
    for (const centred of [true, false]) {
      const direct = momentMeasures(moments, centred);
      const dual = sampleMeasures(data, width, centred);
      expect(dual.effectiveRank).toBeCloseTo(direct.effectiveRank, 8);
      expect(dual.topShare).toBeCloseTo(direct.topShare, 10);
    }
  });

  it('need two rows', () => {
    expect(() => sampleMeasures(states(1, 1, 4), 4)).toThrow(/at least two/);
    const empty = createSecondMoments(3);
    expect(() => momentMeasures(empty)).toThrow(/at least two hidden states, got 0/);
  });
});

describe('layer statistics', () => {
  it('give means and errors, the same bytes for united shards', () => {
    const values = [1, 2, 3, 4, 1e16, -1e16, 0.1, 0.2];
    const whole = createLayerStatistics(2);
    addLayerRows(whole, 1, { residualNorm: Float64Array.from(values) });
    const left = createLayerStatistics(2);
    addLayerRows(left, 1, { residualNorm: Float64Array.from(values.slice(0, 5)) });
    const right = createLayerStatistics(2);
    addLayerRows(right, 1, { residualNorm: Float64Array.from(values.slice(5)) });
    const united = JSON.parse(JSON.stringify(right)) as typeof right;
    mergeLayers(united, left);
    expect(layerFigures(united)).toEqual(layerFigures(whole));
    expect(layerFigures(whole)[1].residual_norm).toBe(10.3 / 8);
    expect(layerFigures(whole)[0]).toEqual({ layer: 0, positions: 0 });
  });

  it('pass over NaN, and turn infinite with an infinite divergence', () => {
    const statistics = createLayerStatistics(1);
    addLayerRows(statistics, 0, {
      lensSurprisalNats: Float64Array.of(1, Number.NaN, 3),
      lensKlNats: Float64Array.of(1, Number.POSITIVE_INFINITY, 3),
      lensAgreement: [1, 0, 1],
    });
    const [figures] = layerFigures(statistics);
    expect(figures.lens_surprisal_nats).toBe(2);
    expect(figures.lens_kl_to_final_nats).toBe(Number.POSITIVE_INFINITY);
    expect(figures.lens_top1_agreement).toBeCloseTo(2 / 3, 14);
  });

  it('norms are Euclidean', () => {
    expect([...rowNorms(Float32Array.of(3, 4, 0, -2), 2)]).toEqual([5, 2]);
  });
});
