import { describe, expect, it } from 'vitest';
import { openRollouts } from '../../../src/policy/rollouts/open-rollouts.js';
import { first, request } from './dumps.js';

describe('a Parquet dump', () => {
  it('gives list columns of every width, nulls under the mask, rows of all groups', async () => {
    const rollouts = await openRollouts(request('fixtures/rollouts/rich.parquet', { advantage: 'no-std' }));
    expect([...rollouts.index.length]).toEqual([3, 4, 5, 6]);
    expect([...rollouts.index.counted]).toEqual([2, 3, 4, 5]);
    expect(rollouts.index.responseIds).toEqual(['r0', 'r1', 'r2', 'r3']);
    expect(rollouts.place(3)).toBe('fixtures/rollouts/rich.parquet, row 4');
    const block = first(rollouts, 1);
    const at = [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5];
    const counts = (t: number): number => (t === 1 ? 0 : 1);
    expect([...block.mask]).toEqual(at.map(counts));
    expect([...(block.logProb ?? [])].map((x) => x + 0)).toEqual(at.map((t) => (counts(t) ? -(t + 1) / 8 : 0)));
    expect([...(block.entropy ?? [])]).toEqual(at.map((t) => (counts(t) * t) / 4));
    expect([...(block.advantage ?? [])].map((x) => x + 0)).toEqual(
      at.map((t, i) => counts(t) * (i < 5 ? -0.5 : 0.5) + 0),
    );
    expect([...(block.topTokens?.logProbs ?? [])].slice(0, 6)).toEqual([-0.5, -2, -Infinity, -Infinity, -0.5, -2]);
  });

  it('tells what TRL logs, and keeps its rewards', async () => {
    const path = 'fixtures/rollouts/trl.parquet';
    await expect(openRollouts(request(path))).rejects.toThrow(/trl\.parquet, row 1: a dump of text \("completion"\)/);
    const { index, promptOf } = await openRollouts(request(path, { recordsOnly: true }));
    expect([...index.group]).toEqual([0, 0]);
    expect(promptOf?.(0)).toBe('1 + 1?');
    expect([...(index.components?.get('format_reward') ?? [])]).toEqual([0.5, 0.5]);
    expect([...(index.reward ?? [])]).toEqual([1.5, 0.5]);
    expect([...(index.advantage ?? [])]).toEqual([0.7, -0.7]);
  });
});
