import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { readReport } from '../../src/report/json.js';
import { temporaryFolder } from '../formats/collect.js';
import { interrupted, surprisal } from './run-surprisal.js';

const folder = temporaryFolder();
const out = (name: string): string => join(folder, name);
const text = (path: string): string => readFileSync(path, 'utf8');
const RUN = ['steer', 'bandit', '--model', 'fixtures/models/llama-sotu', '--means', '95,105', '--horizon', '6'];

interface BanditReport {
  readonly steps: number;
  readonly action_entropy_nats: number;
  readonly by_step: readonly { readonly action_entropy_nats: number }[];
  readonly warnings: readonly string[];
}

describe('surprisal steer bandit', () => {
  const files = ['--out', out('log.jsonl'), '--report', out('bandit.json')];

  it('writes a log, a report, a table and a figure, and goes on after a signal as if there had been none', async () => {
    const whole = surprisal([
      ...RUN,
      '--runs',
      '16',
      ...files,
      '--table',
      out('runs.csv'),
      '--plot',
      out('bandit.svg'),
    ]);
    expect(whole.stderr).toContain('forced on it');
    expect(whole.code).toBe(0);
    const report = readReport(out('bandit.json')) as unknown as BanditReport;
    const rows = text(out('log.jsonl'))
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { run: string; step: number; entropy_nats: number });
    expect(report.steps).toBe(96);
    expect(rows).toHaveLength(96);
    expect(new Set(rows.map(({ run }) => run)).size).toBe(16);
    const mean = rows.reduce((sum, row) => sum + row.entropy_nats, 0) / 96;
    expect(Math.abs(report.action_entropy_nats - mean)).toBeLessThan(1e-12);
    expect(text(out('runs.csv')).trim().split('\n')).toHaveLength(17);
    expect(text(out('bandit.svg'))).toContain('Entropy of the action by step');

    const again = ['--out', out('again.jsonl'), '--report', out('again.json'), '--resume'];
    const state = out('.again.jsonl.checkpoint');
    const env = { SURPRISAL_CHECKPOINT_SECONDS: '0' };
    await interrupted([...RUN, '--runs', '16', ...again], 'SIGKILL', () => existsSync(state), env);
    expect(existsSync(out('again.jsonl'))).toBe(false);
    expect(surprisal([...RUN, '--runs', '16', ...again]).code).toBe(0);
    expect(text(out('again.jsonl'))).toBe(text(out('log.jsonl')));
    expect(text(out('again.json'))).toBe(text(out('bandit.json')));
    expect(existsSync(state)).toBe(false);
  });
});

describe('surprisal steer words', () => {
  it('finds the words that one log has more often', () => {
    const log = (name: string, word: string): string => {
      const rows = [0, 1, 2].map((step) => ({
        run: 'a',
        step,
        completions: [`Thought: ${word} of the ${word}, step ${step}.\nAction: I choose Button 1.`],
      }));
      writeFileSync(out(name), rows.map((row) => JSON.stringify(row)).join('\n'));
      return out(name);
    };
    const { code } = surprisal([
      ...[
        'steer',
        'words',
        '--default',
        log('default.jsonl', 'superior'),
        '--steered',
        log('steered.jsonl', 'variance'),
      ],
      ...['--out', out('words.csv'), '--report', out('words.json')],
    ]);
    expect(code).toBe(0);
    const report = readReport(out('words.json')) as unknown as { most_steered: { word: string; ratio: number }[] };
    expect(report.most_steered.map(({ word }) => word)).toEqual(['variance', 'step', 'superior']);
    // Nine words a side, three different ones: (6.5 / 10.5) / (0.5 / 10.5).
    expect(report.most_steered[0].ratio).toBeCloseTo(13, 12);
    expect(text(out('words.csv')).split('\n')[1]).toMatch(/^variance,0,6,13/);
  });
});
