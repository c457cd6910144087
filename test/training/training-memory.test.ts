import { describe, expect, it } from 'vitest';
import { openModelFiles } from '../../src/models/model-files.js';
import { planTraining, type TrainingPlanRequest } from '../../src/training/training-memory.js';

const files = openModelFiles('fixtures/models/llama-sotu');
const deep = {
  ...files,
  description: { ...files.description, layers: new Array(24).fill(files.description.layers[0]) },
};
const request = (maxBytes?: number): TrainingPlanRequest => ({
  files: deep,
  trainedElements: 1e6,
  precision: 'f32',
  batch: 8,
  length: 256,
  optimizerSlots: 2,
  processBytes: 100 << 20,
  keptScores: 0,
  ...(maxBytes !== undefined && { maxBytes }),
});

describe('plan of training', () => {
  it('recomputes no layer without a limit, and more of them the smaller the limit', () => {
    const free = planTraining(request());
    expect(free.recomputedLayers).toBe(0);
    let last = 0;
    for (const share of [0.95, 0.85, 0.78]) {
      const maxBytes = Math.floor(free.estimate.total * share);
      const plan = planTraining(request(maxBytes));
      expect(plan.estimate.total).toBeLessThanOrEqual(maxBytes);
      expect(plan.recomputedLayers).toBeGreaterThanOrEqual(last);
      expect(plan.largestBatch).toBeGreaterThanOrEqual(8);
      last = plan.recomputedLayers;
    }
    expect(last).toBeGreaterThan(0);
  });

  it('says how large a batch fits when this one does not', () => {
    const { estimate } = planTraining(request());
    expect(() => planTraining(request(Math.floor(estimate.total * 0.55)))).toThrow(/a batch of [1-7] fits/);
    expect(() => planTraining(request(1 << 20))).toThrow('a shorter --context needs less');
  });

  it('counts the parts', () => {
    const { total, ...parts } = planTraining(request()).estimate;
    expect(Object.values(parts).reduce((sum, bytes) => sum + bytes, 0)).toBe(total);
  });
});
