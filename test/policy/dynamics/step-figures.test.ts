import { describe, expect, it } from 'vitest';
import { groupAdvantages } from '../../../src/policy/advantages.js';
import { type StepSettings, stepFigures } from '../../../src/policy/dynamics/step-figures.js';
import { stepOfArrays } from '../../../src/policy/rollouts/array-step.js';
import type { RolloutIndex, RolloutStep } from '../../../src/policy/rollouts/types.js';
import { createRandom } from '../../../src/random.js';

const random = createRandom(5);
const RECORDS = 24;
const lengths = Array.from({ length: RECORDS }, (_, r) => (r === 7 ? 0 : 1 + random.integer(40)));
const offsets = Int32Array.from([0, ...lengths].map((_, r) => lengths.slice(0, r).reduce((sum, n) => sum + n, 0)));
const count = offsets[RECORDS];
const mask = Uint8Array.from({ length: count }, () => (random.uniform() < 0.9 ? 1 : 0));
const group = Int32Array.from({ length: RECORDS }, (_, r) => Math.floor(r / 6));
const reward = Float64Array.from(group, (g, r) => (g === 2 || r % 3 === 0 ? 1 : 0));
const advantage = groupAdvantages(reward, group, 4);
const column = (draw: () => number): Float64Array =>
  Float64Array.from(mask, (counts) => (counts === 0 ? Number.NaN : draw()));
const recordOf = Int32Array.from({ length: count }, (_, i) => offsets.findIndex((offset) => offset > i) - 1);
const columns = {
  logProb: column(() => -Math.abs(random.normal())),
  oldLogProb: column(() => -Math.abs(random.normal())),
  entropy: column(() => Math.abs(random.normal())),
  advantage: Float64Array.from(recordOf, (r, i) => (mask[i] === 0 ? Number.NaN : advantage[r])),
};
const index: RolloutIndex = {
  records: RECORDS,
  step: new Float64Array(RECORDS),
  group,
  groups: 4,
  promptIds: ['a', 'b', 'c', 'd'],
  length: Int32Array.from(lengths),
  counted: Int32Array.from(lengths),
  reward,
  correct: reward,
  advantage,
};
const settings: StepSettings = { clip: { low: 0.2, high: 0.2 }, exactLimit: 2e7, lengthLimit: 40 };
const whole = stepOfArrays({ offsets, mask, columns });

/** The same step in blocks of a few records. */
function inBlocks(records: number): RolloutStep {
  const blocks = Array.from({ length: Math.ceil(RECORDS / records) }, (_, b) => {
    const first = b * records;
    const last = Math.min(RECORDS, first + records);
    const cut = <T extends Float64Array | Uint8Array>(values: T): T => values.slice(offsets[first], offsets[last]) as T;
    return {
      records: Int32Array.from({ length: last - first }, (_, r) => first + r),
      offsets: offsets.slice(first, last + 1).map((offset) => offset - offsets[first]),
      firstToken: offsets[first],
      mask: cut(mask),
      logProb: cut(columns.logProb),
      oldLogProb: cut(columns.oldLogProb),
      entropy: cut(columns.entropy),
      advantage: cut(columns.advantage),
    };
  });
  return { ...whole, blocks: () => blocks };
}

describe('stepFigures', () => {
  const found = stepFigures(whole, index, settings);
  const counted = Array.from({ length: count }, (_, i) => i).filter((i) => mask[i] === 1);
  const mean = (value: (i: number) => number): number => counted.reduce((sum, i) => sum + value(i), 0) / counted.length;
  const meanA = mean((i) => columns.advantage[i]);
  const meanL = mean((i) => columns.logProb[i]);
  const summands = counted
    .map((i) => (columns.advantage[i] - meanA) * (columns.logProb[i] - meanL))
    .sort((a, b) => b - a);

  it('is the definition of every mean', () => {
    expect(found.tokens).toBe(counted.length);
    expect(found.entropy?.token.mean).toBeCloseTo(
      mean((i) => columns.entropy[i]),
      12,
    );
    expect(found.nll?.mean).toBeCloseTo(-meanL, 12);
    expect(found.covariance?.mean.mean).toBeCloseTo(summands.reduce((sum, c) => sum + c, 0) / summands.length, 12);
    expect(found.covariance?.fractionPositive).toBe(summands.filter((c) => c > 0).length / summands.length);
    const k = Math.floor(0.2 * summands.length);
    const top = summands.slice(0, k).reduce((sum, c) => sum + c, 0) / k;
    expect(found.covariance?.top[3]).toBeCloseTo(top, 12);
    expect(found.emptyRecords).toBe(lengths.filter((_, r) => !counted.some((i) => recordOf[i] === r)).length);
    // Group 2 has equal rewards.
    expect(found.zeroAdvantageFraction).toBe(0.25);
  });

  it('has the same bits in memory and by histograms, in any blocks', () => {
    for (const exactLimit of [2e7, 50, 1]) {
      for (const records of [RECORDS, 5, 1]) {
        const other = stepFigures(inBlocks(records), index, { ...settings, exactLimit });
        const path = exactLimit === 2e7 ? 'memory' : 'histogram';
        expect(other).toEqual({
          ...found,
          entropy: { ...found.entropy, path },
          covariance: { ...found.covariance, path },
        });
      }
    }
  });

  it('says what the columns allow', () => {
    const few = stepFigures(stepOfArrays({ offsets, mask, columns: { logProb: columns.logProb } }), index, settings);
    expect([few.entropy, few.covariance, few.quadrants, few.ratios]).toEqual(new Array(4).fill(undefined));
    expect(few.nll?.mean).toBe(found.nll?.mean);
    const bounds = { entropyLower: columns.entropy, entropyUpper: columns.entropy };
    const bounded = stepFigures(stepOfArrays({ offsets, mask, columns: bounds }), index, settings);
    expect(bounded.entropyLower).toEqual(found.entropy);
    expect([bounded.entropy, bounded.nll]).toEqual([undefined, undefined]);
  });

  it('stands a step of which no token counts', () => {
    const none = stepFigures(stepOfArrays({ offsets, mask: new Uint8Array(count), columns }), index, settings);
    expect([none.tokens, none.emptyRecords, none.entropy]).toEqual([0, RECORDS, undefined]);
  });
});
