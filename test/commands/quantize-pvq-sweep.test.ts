import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { readReport } from '../../src/report/json.js';
import { temporaryFolder } from '../formats/collect.js';
import { resident, surprisal } from './run-surprisal.js';

const folder = temporaryFolder();
const at = (name: string): string => join(folder, name);
const MODEL = 'fixtures/models/llama-sotu';
const TEXT = at('text.jsonl');
const sweep = (...argv: string[]) =>
  resident(['quantize-pvq', 'sweep', '--model', MODEL, '--work-dir', folder, ...argv]);

interface SweepReport {
  base: { perplexity: number };
  rows: {
    id: string;
    bits_per_weight: number;
    model_bytes: number;
    sqnr_db: number;
    hessian_loss_relative: number;
    evaluation: { mean_kl_nats: number; perplexity: number };
    tensors: { name: string }[];
  }[];
  left_out: { method: string; reason: string }[];
}

beforeAll(() => {
  const rows = readFileSync('fixtures/text/heldout_text.jsonl', 'utf8').trimEnd().split('\n').slice(0, 3);
  writeFileSync(TEXT, `${rows.join('\n')}\n`);
});

describe('quantize-pvq sweep', { timeout: 120_000 }, () => {
  it('measures every method against the original and lists what is left out', () => {
    const own = ['--tensors', '*.3.*_proj*', '--bpw', '3,7.9', '--methods', 'rtn,rtn-feedback,q4_0'];
    const text = ['--data', TEXT, '--calib-tokens', '600', '--calib-length', '100'];
    const evaluation = ['--eval-data', TEXT, '--eval-tokens', '150', '--context', '64'];
    const outputs = ['--out', at('s.csv'), '--table', at('t.csv'), '--report', at('s.json'), '--plot', at('s.svg')];
    const ended = sweep(...own, ...text, ...evaluation, ...outputs);
    expect(ended.stderr).toBe('');
    expect(ended.code).toBe(0);
    const report = readReport(at('s.json')) as unknown as SweepReport;
    expect(report.rows.map(({ id }) => id)).toEqual(['rtn:bits=3:group=128', 'rtn-feedback:bits=3:group=128', 'q4_0']);
    const [plain, fed, q4] = report.rows;
    expect(plain.bits_per_weight).toBe(3.125);
    expect(q4.bits_per_weight).toBe(4.5);
    expect(fed.hessian_loss_relative).toBeLessThan(plain.hessian_loss_relative);
    expect(q4.evaluation.mean_kl_nats).toBeLessThan(plain.evaluation.mean_kl_nats);
    expect(q4.evaluation.mean_kl_nats).toBeGreaterThan(0);
    expect(report.left_out.map(({ reason }) => /cannot be reached/.test(reason))).toEqual([true, true]);
    expect(readFileSync(at('s.csv'), 'utf8').trimEnd().split('\n')).toHaveLength(6);
    expect(readFileSync(at('s.svg'), 'utf8')).toContain('Divergence from the original');
    expect(readdirSync(folder).filter((name) => name.startsWith('surprisal-sweep-'))).toEqual([]);
  });

  it('shows sizes without work, and measures weights alone without text', () => {
    const own = ['--tensors', '*q_proj*', '--methods', 'nf4,rtn:bits=2:group=32'];
    const plan = sweep(...own, '--dry-run', '--out', at('never.csv'));
    expect(plan.stdout).toMatch(/nf4 +4\.5 /);
    expect(existsSync(at('never.csv'))).toBe(false);
    expect(sweep(...own, '--report', at('w.json'), '--quiet').code).toBe(0);
    const report = readReport(at('w.json')) as unknown as Omit<SweepReport, 'base'> & { base: null };
    expect(report.base).toBeNull();
    expect(report.rows[0].sqnr_db).toBeGreaterThan(18);
  });

  it('says what is missing', () => {
    const wrong = (...argv: string[]): string => {
      const ended = sweep('--tensors', '*proj*', ...argv);
      expect(ended.code).toBe(2);
      return ended.stderr;
    };
    expect(wrong('--methods', 'rtn-feedback')).toMatch(/needs calibration text/);
    expect(wrong('--methods', 'rnt')).toMatch(/did you mean "rtn"/);
    const real = surprisal(['quantize-pvq', 'sweep', '--model', MODEL, '--tensors', '*proj*', '--methods', 'rnt']);
    expect(real).toMatchObject({ code: 2, stderr: expect.stringMatching(/did you mean "rtn"/) });
    expect(wrong('--eval-tokens', '5')).toMatch(/--eval-tokens needs --eval-data/);
  });
});
