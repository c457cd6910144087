import { describe, expect, it } from 'vitest';
import { route } from '../../src/moe/layer-function.js';
import { searchSubset } from '../../src/moe/pruning.js';
import { createSubsetErrors } from '../../src/moe/subset-error.js';
import { createRandom } from '../../src/random.js';

const [experts, hidden, rows] = [6, 5, 40];
const random = createRandom(7);
const outputs = Array.from({ length: experts }, () =>
  Float64Array.from({ length: rows * hidden }, () => random.normal()),
);
const logits = Float64Array.from({ length: rows * experts }, () => 2 * random.normal());

/** ||y' - y||_F / ||y||_F, with the experts that stay and a router that knows no others. */
function direct(kept: Uint8Array, rule: { topK: number; normalizeTopK: boolean }): number {
  const own = [...kept.keys()].filter((e) => kept[e] === 1);
  const output = (z: Float64Array, places: readonly number[]): Float64Array => {
    const { chosen, weights, topK } = route(z, rows, places.length, { score: 'softmax', ...rule });
    const y = new Float64Array(rows * hidden);
    for (let i = 0; i < chosen.length; i++) {
      const row = Math.floor(i / topK);
      for (let h = 0; h < hidden; h++) {
        y[row * hidden + h] += weights[i] * outputs[places[chosen[i]]][row * hidden + h];
      }
    }
    return y;
  };
  const reduced = Float64Array.from({ length: rows * own.length }, (_, i) => {
    return logits[Math.floor(i / own.length) * experts + own[i % own.length]];
  });
  const before = output(logits, [...kept.keys()]);
  const after = output(reduced, own);
  const norm = (y: Float64Array): number => Math.hypot(...y);
  return norm(after.map((value, i) => value - before[i])) / norm(before);
}

describe('createSubsetErrors', () => {
  it.each([
    { topK: 2, normalizeTopK: true },
    { topK: 2, normalizeTopK: false },
    { topK: 1, normalizeTopK: false },
    { topK: 3, normalizeTopK: true },
  ])('equals the error of the layer without the dropped experts, %o', (rule) => {
    const sums = createSubsetErrors(experts, hidden, { score: 'softmax', ...rule });
    const half = rows / 2;
    for (const from of [0, half]) {
      const part = outputs.map((y) => y.subarray(from * hidden, (from + half) * hidden));
      sums.add(part, logits.subarray(from * experts, (from + half) * experts), half);
    }
    const error = sums.finish();
    for (const list of ['111000', '101010', '110111', '111111']) {
      const kept = Uint8Array.from(list, Number);
      expect(error(kept)).toBeCloseTo(direct(kept, rule), 10);
    }
    const best = searchSubset(experts, 4, error);
    expect(best).toMatchObject({ path: 'exact', evaluated: 15 });
    expect(best.error).toBe(error(Uint8Array.from({ length: experts }, (_, e) => Number(best.kept.includes(e)))));
  });

  it('lets a layer with fewer experts than a token chooses run them all', () => {
    const rule = { topK: 3, normalizeTopK: false };
    const sums = createSubsetErrors(experts, hidden, { score: 'softmax', ...rule });
    sums.add(outputs, logits, rows);
    const kept = Uint8Array.from('100100', Number);
    expect(sums.finish()(kept)).toBeCloseTo(direct(kept, rule), 10);
  });
});
