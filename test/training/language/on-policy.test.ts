import { describe, expect, it } from 'vitest';
import { adoptTeacherLabels, isOnPolicy, onPolicyBatches } from '../../../src/training/language/on-policy.js';
import { packTexts, separateTexts, windowBatches } from '../../../src/training/language/token-data.js';

const tokens = (values: number[]) => ({ tokens: Int32Array.from(values) });

describe('onPolicyBatches', () => {
  const packed = windowBatches(packTexts([tokens([0, 1, 2, 3, 4, 5, 6, 7, 8])], { length: 4 }), 2);

  it('continues the first half of a window and asks for what was written', async () => {
    const seen: number[][] = [];
    const source = onPolicyBatches(packed, { share: 1, temperature: 1, seed: 3 }, async (prompts, count, stream) => {
      seen.push(...prompts.map((prompt) => [...prompt]));
      expect([count, stream]).toEqual([2, 0]);
      return prompts.map((_, b) => Int32Array.of(90 + b, 95 + b));
    });
    const batch = await source.batch(0);
    expect(seen).toEqual([
      [0, 1],
      [4, 5],
    ]);
    expect(isOnPolicy(batch)).toBe(true);
    expect(batch.length).toBe(3);
    expect([...batch.tokens]).toEqual([0, 1, 90, 4, 5, 91]);
    expect([...batch.labels]).toEqual([-100, 90, 95, -100, 91, 96]);
  });

  it('starts at the answer where one is asked for, and keeps sequences that ended early', async () => {
    const rows = separateTexts(
      [
        { ...tokens([1, 2, 3, 4, 5]), spans: [[2, 5]] },
        { ...tokens([6, 7, 8, 9]), spans: [[3, 4]] },
      ],
      { length: 6 },
    );
    const source = onPolicyBatches(
      windowBatches(rows, 2),
      { share: 1, temperature: 1, tokens: 3, seed: 0 },
      (prompts) => Promise.resolve(prompts.map((_, b) => (b === 0 ? Int32Array.of(50) : Int32Array.of(60, 61, 62)))),
    );
    const batch = await source.batch(0);
    expect(batch.length).toBe(4);
    expect([...batch.labels]).toEqual([-100, 50, -100, -100, -100, -100, 60, 61]);
    expect([...batch.tokens]).toEqual([1, 2, 50, 50, 6, 7, 8, 60]);
  });

  it('samples the wanted share, the same batches in every run', async () => {
    const write = (prompts: readonly Int32Array[]) => Promise.resolve(prompts.map(() => Int32Array.of(1)));
    const source = onPolicyBatches(packed, { share: 0.3, temperature: 1, seed: 5 }, write);
    let sampled = 0;
    for (let index = 0; index < 400; index++) if (isOnPolicy(await source.batch(index))) sampled++;
    expect(sampled / 400).toBeGreaterThan(0.22);
    expect(sampled / 400).toBeLessThan(0.38);
    expect(isOnPolicy(await source.batch(7))).toBe(isOnPolicy(await source.batch(7)));
  });
});

describe('adoptTeacherLabels', () => {
  it('takes the likeliest class of every row that counts', () => {
    const labels = Int32Array.from([7, -100, 7, 7]);
    adoptTeacherLabels(labels, 1, 2, { kind: 'dense', logits: Float32Array.from([0, 1, 0, 3, 1, 2]) });
    expect([...labels]).toEqual([7, -100, 0, 7]);
    const top = { kind: 'top' as const, k: 2, ids: Int32Array.from([4, 2]), logProbs: new Float32Array(2) };
    adoptTeacherLabels(labels, 3, 1, { ...top, leftover: new Float32Array(1) });
    expect([...labels]).toEqual([7, -100, 0, 4]);
  });
});
