import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { beforeAll, describe, expect, it } from 'vitest';
import { openRollouts } from '../../../src/policy/rollouts/open-rollouts.js';
import type { RolloutRequest, Rollouts } from '../../../src/policy/rollouts/types.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'surprisal-dump-'));
});

let files = 0;
function dump(records: readonly unknown[], name = `dump${files++}.jsonl`): string {
  const path = join(folder, name);
  const text = `${records.map((record) => (typeof record === 'string' ? record : JSON.stringify(record))).join('\n')}\n`;
  writeFileSync(path, name.endsWith('.gz') ? gzipSync(text) : text);
  return path;
}

function request(path: string | readonly string[], more: Partial<RolloutRequest> = {}): RolloutRequest {
  return {
    paths: typeof path === 'string' ? [path] : path,
    map: {},
    exactLimit: 2e7,
    advantage: 'dump',
    markerChoice: 'last',
    temperature: 1,
    promptFormat: 'auto',
    context: 256,
    threads: 1,
    maxMemory: 1e9,
    workDirectory: folder,
    ...more,
  };
}

const open = (records: readonly unknown[], more?: Partial<RolloutRequest>): Promise<Rollouts> =>
  openRollouts(request(dump(records), more));

const record = (more: object = {}): object => ({
  step: 1,
  prompt_id: 'p',
  tokens: [5, 6, 7],
  logprob: [-0.5, -1, -0.25],
  entropy: [1, 0.5, 0.25],
  reward: 1,
  ...more,
});

const first = (rollouts: Rollouts, step = 0) => [...rollouts.steps[step].blocks()][0];

describe('a JSON Lines dump', () => {
  it('gives columns, groups, advantages and steps in order', async () => {
    const rollouts = await open([
      record({ step: 2 }),
      record({ step: 1, prompt_id: 'q', reward: 0, mask: [1, 1, 0], entropy: [1, 2, null] }),
      record({ step: 2, reward: 0 }),
      record({ step: 1, prompt_id: 'q' }),
    ]);
    expect(rollouts.steps.map(({ step, tokens, counted }) => [step, tokens, counted])).toEqual([
      [1, 6, 5],
      [2, 6, 6],
    ]);
    expect([...rollouts.steps[0].records]).toEqual([1, 3]);
    expect([...rollouts.index.group]).toEqual([0, 1, 0, 1]);
    expect(rollouts.index.promptIds).toEqual(['p', 'q']);
    const block = first(rollouts);
    const a = Math.SQRT1_2 / (1 + Math.SQRT2 * 1e-6);
    expect([...(block.advantage ?? [])].map((x) => x.toFixed(9))).toEqual(
      [-a, -a, 0, a, a, a].map((x) => x.toFixed(9)),
    );
    expect([...(block.entropy ?? [])]).toEqual([1, 2, 0, 1, 0.5, 0.25]);
    expect(block.oldLogProb).toBe(block.logProb);
    expect([...(rollouts.index.correct ?? [])]).toEqual([1, 0, 0, 1]);
    expect(rollouts.provenance).toMatchObject({ oldLogProb: 'equal to logProb', advantage: 'grpo from rewards' });
    expect(rollouts.place(2)).toMatch(/dump\d+\.jsonl:3$/);
    rollouts.close();
  });
});
