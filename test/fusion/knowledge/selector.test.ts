import { describe, expect, it } from 'vitest';
import {
  feedbackLoss,
  gateSize,
  gateTensors,
  importanceOf,
  initialGate,
  keptModels,
  selectionEntropy,
  selectSources,
  selectSourcesBackward,
  sequenceScores,
} from '../../../src/fusion/knowledge/selector.js';
import { createRandom } from '../../../src/random.js';

/** Σ over sequences of a·w, plus the feedback loss of the batch. */
function lossOf(gate: Float64Array, ces: readonly number[][], slopes: readonly number[][], threshold: number) {
  const selections = ces.map((ce) => selectSources(gate, sequenceScores(ce), threshold));
  const importance = importanceOf(
    selections.map(({ weights }) => weights),
    ces[0].length,
  );
  const feedback = feedbackLoss(importance);
  const linear = selections.reduce(
    (sum, { weights }, b) => sum + weights.reduce((inner, w, k) => inner + w * slopes[b][k], 0),
    0,
  );
  return { value: linear + feedback.value, selections, feedback };
}

describe('the selector', () => {
  it.each([1, 2, 3, 5, 8])('has the gradients of central differences for %i models', (models) => {
    const random = createRandom(models);
    const gate = initialGate(models, random).map((x) => 3 * x);
    const ces = Array.from({ length: 4 }, () => Array.from({ length: models }, () => 3 * random.uniform()));
    const slopes = ces.map((row) => row.map(() => random.normal()));
    const { selections, feedback } = lossOf(gate, ces, slopes, 0.15);
    const gradient = new Float64Array(gateSize(models));
    selections.forEach((selection, b) => {
      selectSourcesBackward(
        gate,
        selection,
        slopes[b].map((slope, k) => slope + feedback.slope[k]),
        gradient,
      );
    });
    const step = 1e-5;
    gradient.forEach((found, i) => {
      const at = (by: number): number => {
        const moved = gate.slice();
        moved[i] += by;
        return lossOf(moved, ces, slopes, 0.15).value;
      };
      expect(found).toBeCloseTo((at(step) - at(-step)) / (2 * step), 7);
    });
  });

  it('keeps what is above the threshold, and the first of the most likely where nothing is', () => {
    expect([...keptModels(Float64Array.of(0.15, 0.5, 0.35), 0.15)]).toEqual([0, 1, 1]);
    expect([...keptModels(new Float64Array(8).fill(0.125), 0.15)]).toEqual([1, 0, 0, 0, 0, 0, 0, 0]);
  });

  it('begins on the range of linear layers', () => {
    const gate = initialGate(16, createRandom(3));
    for (const { name, offset, length } of gateTensors(16)) {
      const bound = name.startsWith('gate2') ? 1 / Math.sqrt(32) : 0.25;
      const most = gate.subarray(offset, offset + length).reduce((a, b) => Math.max(a, Math.abs(b)), 0);
      expect(most).toBeLessThanOrEqual(bound);
      if (length > 100) expect(most).toBeGreaterThan(0.9 * bound);
    }
  });

  it('has no feedback from one model, none from equal shares, and the most from a collapse', () => {
    expect(feedbackLoss(Float64Array.of(7)).value).toBe(0);
    expect(feedbackLoss(Float64Array.of(2, 2, 2)).value).toBe(0);
    expect(feedbackLoss(Float64Array.of(9, 0, 0)).value).toBeCloseTo(3, 9);
    expect(feedbackLoss(Float64Array.of(900, 0, 0)).value).toBeCloseTo(3, 9);
  });

  it('counts sources by the entropy of their weights', () => {
    expect(Math.exp(selectionEntropy(Float64Array.of(0.25, 0.25, 0.25, 0.25)))).toBeCloseTo(4, 12);
    expect(selectionEntropy(Float64Array.of(0, 1 - 1e-8))).toBe(0);
  });

  it('survives scores that underflow, and refuses what is no score', () => {
    expect(sequenceScores([800])[0]).toBeGreaterThan(0);
    expect(() => sequenceScores([1, Number.NaN], 'sequence 7')).toThrow(
      /sequence 7: the cross-entropy of model 1 is NaN/,
    );
    expect(() => selectSources(initialGate(2, createRandom(1)), Float64Array.of(0.5, 1.5))).toThrow(/score 1 is 1.5/);
  });
});
