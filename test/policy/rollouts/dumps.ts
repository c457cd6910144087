import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { openRollouts } from '../../../src/policy/rollouts/open-rollouts.js';
import type { RolloutRequest, Rollouts, TokenBlock } from '../../../src/policy/rollouts/types.js';

/** Where the dumps of this test file lie. */
export const folder = mkdtempSync(join(tmpdir(), 'surprisal-dump-'));

let files = 0;

/** Writes records (or lines as they are) as JSON Lines. */
export function dump(records: readonly unknown[], name = `dump${files++}.jsonl`): string {
  const path = join(folder, name);
  const text = `${records.map((record) => (typeof record === 'string' ? record : JSON.stringify(record))).join('\n')}\n`;
  writeFileSync(path, name.endsWith('.gz') ? gzipSync(text) : text);
  return path;
}

export function request(path: string | readonly string[], more: Partial<RolloutRequest> = {}): RolloutRequest {
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

export const open = (records: readonly unknown[], more?: Partial<RolloutRequest>): Promise<Rollouts> =>
  openRollouts(request(dump(records), more));

/** A record of three tokens. */
export const record = (more: object = {}): object => ({
  step: 1,
  prompt_id: 'p',
  tokens: [5, 6, 7],
  logprob: [-0.5, -1, -0.25],
  entropy: [1, 0.5, 0.25],
  reward: 1,
  ...more,
});

/** The first block of a step. */
export const first = (rollouts: Rollouts, step = 0): TokenBlock => {
  for (const block of rollouts.steps[step].blocks()) return block;
  throw new Error('a step without blocks');
};
