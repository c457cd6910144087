import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { rolloutRequest, withRollouts } from '../../commands/policy-rollouts.js';
import { createInputLedger } from '../../src/formats/inputs.js';
import { openRollouts } from '../../src/policy/rollouts/open-rollouts.js';

const folder = mkdtempSync(join(tmpdir(), 'surprisal-policy-rollouts-'));
const shared = {
  model: undefined,
  data: ['-'],
  limit: undefined,
  context: undefined,
  threads: 1,
  maxMemory: 1e9,
};
const line = '{"prompt_id": 1, "logprob": [-1, -2], "reward": 1}\n';
const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');

describe('options of a dump', () => {
  it('become a request', () => {
    const request = rolloutRequest(shared, { map: ['logprob=lp'], exactLimit: '1e3', vocab: '50', marker: 'first' });
    expect(request).toMatchObject({
      map: { logprob: 'lp' },
      exactLimit: 1000,
      vocabularySize: 50,
      marker: '</think>',
      markerChoice: 'first',
      advantage: 'dump',
    });
  });

  it.each([
    [{ map: ['logprob'] }, /--map logprob: write field=column/],
    [{ map: ['a=b', 'a=c'] }, /--map names a twice/],
    [{ advantage: 'grop' }, /--advantage grop: unknown; did you mean "grpo"\?/],
    [{ oldModel: 'x' }, /give the policy that is updated with --model/],
    [{ temperature: '0.7' }, /--temperature is for re-scoring/],
    [{ exactLimit: '-1' }, /--exact-limit/],
  ])('are refused where they say nothing: %j', (own, message) => {
    expect(() => rolloutRequest(shared, own)).toThrow(message);
  });

  it('need a temperature above 0', () => {
    expect(() => rolloutRequest({ ...shared, model: 'm' }, { temperature: '0' })).toThrow(/--temperature 0/);
  });

  it('read standard input and files, and hash both beside the work', async () => {
    const path = join(folder, 'a.jsonl');
    writeFileSync(path, line);
    const ledger = createInputLedger(Readable.from([Buffer.from(line + line)]));
    const request = rolloutRequest({ ...shared, data: ['-', join(folder, '*.jsonl')] }, { workDir: folder });
    const places = await withRollouts(ledger, request, async (prepared) => {
      expect(readFileSync(prepared.standardInput ?? '', 'utf8')).toBe(line + line);
      const rollouts = await openRollouts(prepared);
      return [0, 1, 2].map((record) => rollouts.place(record));
    });
    expect(places).toEqual(['-:1', '-:2', `${path}:1`]);
    expect((await ledger.digests()).map((digest) => digest.sha256)).toEqual([sha256(line + line), sha256(line)]);
    expect(readdirSync(folder)).toEqual(['a.jsonl']);
  });
});
