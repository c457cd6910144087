import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readReport } from '../../src/report/json.js';
import { readSteeringVectors } from '../../src/steering/vector-files/vector-files.js';
import { type Ended, surprisal } from './run-surprisal.js';

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'steer-compute-'));
  const lines: string[] = [];
  for (let run = 0; run < 4; run++) {
    let prompt = `The state of the union in year ${run} is`;
    for (let step = 0; step < 5; step++) {
      const left = (7 * run + 5 * step) % 12;
      lines.push(JSON.stringify({ run, step, prompt, counts: step === 2 && run === 1 ? [0, 0] : [left, 25 - left] }));
      prompt += ` good and the people of ${step} are strong`;
    }
  }
  writeFileSync(join(directory, 'log.jsonl'), `${lines.join('\n')}\n`);
});
afterAll(() => rmSync(directory, { recursive: true }));

const at = (name: string): string => join(directory, name);
const MODEL = ['--model', 'fixtures/models/llama-sotu', '--data'];
const compute = (...argv: readonly string[]): Ended => surprisal(['steer', 'compute', ...argv]);

describe('steer compute', { timeout: 120_000 }, () => {
  it('unites parts to the bytes of the whole, for any number of threads', () => {
    const outputs = (name: string): string[] => ['--out', at(`${name}.safetensors`), '--table', at(`${name}.csv`)];
    const whole = compute(
      ...MODEL,
      at('log.jsonl'),
      '--layer',
      '1-3',
      ...outputs('whole'),
      '--report',
      at('r.json'),
      '--plot',
      at('p.svg'),
      '--threads',
      '1',
      '--quiet',
    );
    expect(whole).toMatchObject({ code: 0, stderr: '' });
    const report = readReport(at('r.json')) as { [key: string]: unknown };
    expect(report).toMatchObject({
      schema: 'surprisal/steer-compute',
      method: 'east',
      runs: 4,
      steps: 19,
      steps_left_out: 1,
      entropy_source: 'counts',
    });
    const part = (i: number): Ended =>
      compute(
        ...MODEL,
        at('log.jsonl'),
        '--layer',
        '1-3',
        '--shard',
        `${i}/2`,
        '--activations-out',
        at(`part${i}.safetensors`),
        '--threads',
        '2',
        '--quiet',
      );
    expect([part(0).code, part(1).code]).toEqual([0, 0]);
    const united = compute(
      '--activations',
      at('part1.safetensors'),
      at('part0.safetensors'),
      ...outputs('united'),
      '--quiet',
    );
    expect(united).toMatchObject({ code: 0, stderr: '' });
    for (const extension of ['safetensors', 'csv']) {
      expect(readFileSync(at(`united.${extension}`))).toEqual(readFileSync(at(`whole.${extension}`)));
    }
    const { directions, origin } = readSteeringVectors(at('whole.safetensors'));
    expect([...directions.keys()]).toEqual([1, 2, 3]);
    expect(origin).toMatchObject({ method: 'east', scale: 'raw', positions: 'last', modelType: 'llama', layers: 4 });
    expect(readFileSync(at('whole.csv'), 'utf8').split('\n')).toHaveLength(1 + 3 * 19 + 1);
  });
});
