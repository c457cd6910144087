import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createRandom } from '../../src/random.js';
import { readReport } from '../../src/report/json.js';
import { type Ended, resident } from './run-surprisal.js';

let folder: string;
const at = (name: string): string => join(folder, name);
const run = (...argv: string[]): Ended => resident(['analyze-policy', ...argv, '--data', at('dump.jsonl')]);

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'policy-dynamics-'));
  const random = createRandom(2);
  const lines: string[] = [];
  for (let record = 0; record < 48; record++) {
    const step = Math.floor(record / 8);
    const length = 5 + random.integer(10);
    const draw = (make: () => number): number[] => Array.from({ length }, make);
    lines.push(
      JSON.stringify({
        step,
        prompt_id: `p${record % 2}`,
        reward: random.integer(2),
        token_text: draw(() => 0).map((_, t) => `w${t} `),
        logprob: draw(() => -Math.abs(random.normal())),
        old_logprob: draw(() => -Math.abs(random.normal())),
        entropy: draw(() => Math.abs(random.normal()) * 0.5 ** step),
      }),
    );
  }
  writeFileSync(at('dump.jsonl'), `${lines.join('\n')}\n`);
});
afterAll(() => rmSync(folder, { recursive: true }));

describe('analyze-policy dynamics', () => {
  it('writes table, tokens, report and picture; bare analyze-policy is the same', () => {
    const outputs = ['--out', at('steps.csv'), '--table', at('tokens.csv'), '--top', '7', '--plot', at('plot.svg')];
    const ended = run('dynamics', ...outputs, '--report', at('report.json'), '--threads', '1');
    expect(ended.code).toBe(0);
    expect(ended.stderr).toContain('entropy collapsed');
    const report = readReport(at('report.json'));
    const [header, first] = readFileSync(at('steps.csv'), 'utf8').split('\n');
    expect(header.split(',').slice(0, 5)).toEqual([
      'step',
      'n_tokens',
      'entropy_token_mean',
      'entropy_seq_mean',
      'nll_mean',
    ]);
    const [byStep] = report.by_step as Record<string, number>[];
    expect(Number(first.split(',')[2])).toBe(byStep.entropy_token_mean);
    expect(readFileSync(at('tokens.csv'), 'utf8').trim().split('\n').length).toBe(8);
    expect(report.alarms).toMatchObject([{ kind: 'collapse' }]);
    expect(readFileSync(at('plot.svg'), 'utf8')).toContain('Which tokens move entropy');

    const bare = run('--report', at('bare.json'), '--threads', '2', '--quiet', '--exact-limit', '10');
    expect(bare.code).toBe(0);
    const again = readReport(at('bare.json'));
    expect(again.by_step).toEqual(report.by_step);
    expect(again.selection).toEqual({ entropy: 'histogram', covariance: 'histogram' });
  });

  it('refuses what has no meaning', () => {
    expect(run('dynamics', '--score', 'cov')).toMatchObject({ code: 2 });
    expect(run('dynamics', '--window', '0').stderr).toContain('--window 0');
    expect(run('dynamics', '--table', at('t.csv'), '--score', 'covariance').code).toBe(2);
  });
});
