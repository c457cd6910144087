import { describe, expect, it } from 'vitest';
import { createExpertSums } from '../../src/moe/expert-statistics.js';
import { expertScores, pruneOrder, superExperts } from '../../src/moe/reap.js';
import { createRoutingSums } from '../../src/moe/routing-statistics.js';
import type { LayerStatistics } from '../../src/moe/types.js';

const RULE = { score: 'softmax', topK: 1, normalizeTopK: true } as const;

/** Layers of `experts` experts whose largest outputs are as given; each expert has one token, but for those of 0. */
function layersOf(largest: readonly (readonly number[])[]): LayerStatistics[] {
  return largest.map((values, layer) => {
    const experts = values.length;
    const routing = createRoutingSums(layer, experts, RULE);
    const sums = createExpertSums(layer, { experts, hidden: 2, width: 0 });
    values.forEach((value, e) => {
      if (value === 0) return;
      const logits = new Float64Array(experts);
      logits[e] = 1;
      routing.add(logits, 1);
      sums.addChosen(e, { output: Float64Array.of(value, value / 2), at: [0], weights: [0.5], shares: [1] });
    });
    return { routing: routing.finish(), outputs: sums.finish() };
  });
}

describe('REAP', () => {
  it('scores an expert without tokens 0 and prunes it first, ties by index', () => {
    const [layer] = layersOf([[3, 0, 4, 0]]);
    const scores = expertScores(layer);
    const norm = (value: number): number => Math.hypot(value, value / 2);
    expect([...scores.reap]).toEqual([norm(3), 0, norm(4), 0]);
    expect([...expertScores(layer, { renormalize: false }).reap]).toEqual([norm(3) / 2, 0, norm(4) / 2, 0]);
    expect([...scores.frequency]).toEqual([1, 0, 1, 0]);
    expect([...scores.eanMean]).toEqual([norm(3), 0, norm(4), 0]);
    expect([...pruneOrder(scores.reap)]).toEqual([1, 3, 0, 2]);
  });

  it('says how outputs are watched when they were not', () => {
    const [{ routing }] = layersOf([[1, 2]]);
    expect(() => expertScores({ routing })).toThrow(/layer 0: .*--outputs routed or all/);
  });
});

describe('super experts', () => {
  it('exceed the quantile and a tenth of the largest, in the first three quarters of the layers', () => {
    const layers = layersOf([
      [1, 2, 3, 400],
      [300, 1, 0, 2],
      [1, 2, 90, 3],
      [1, 1, 1, 1000],
    ]);
    const found = (options = {}): number[][] => superExperts(layers, options).map((row) => [...row]);
    // 0.995 quantile of 16 values: between 400 and 1000 at 14.925.
    expect(found()).toEqual([[], [], [], []]);
    expect(found({ quantile: 0.5 })).toEqual([[3], [0], [], []]);
    expect(found({ quantile: 0.5, layers: 1 })).toEqual([[3], [0], [], [3]]);
  });

  it('take the sign into account as the released code does', () => {
    const layers = layersOf([
      [-500, 1, 1, 100],
      [1, 1, 1, 1],
    ]);
    expect(superExperts(layers, { quantile: 0.5 }).map((row) => [...row])).toEqual([[0, 3], []]);
    expect(superExperts(layers, { quantile: 0.5, by: 'signed' }).map((row) => [...row])).toEqual([[3], []]);
  });
});
