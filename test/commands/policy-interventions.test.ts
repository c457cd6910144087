import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { resident } from './run-surprisal.js';

const folder = mkdtempSync(path.join(tmpdir(), 'surprisal-interventions-command-'));
afterAll(() => rmSync(folder, { recursive: true }));
const at = (name: string): string => path.join(folder, name);

const lines = Array.from({ length: 16 }, (_, r) => {
  const column = (f: (t: number) => number) => Array.from({ length: 5 }, (_unused, t) => f(t + 5 * r));
  return JSON.stringify({
    step: r < 8 ? 0 : 1,
    prompt_id: Math.floor(r / 4),
    reward: r % 3 === 0 ? 1 : 0,
    logprob: column((i) => -0.1 - ((i * 37) % 29) / 10),
    old_logprob: column((i) => -0.15 - ((i * 37) % 29) / 10 + 0.05 * ((i % 7) - 3) * ((i * 37) % 29 > 5 ? 1 : 0)),
    entropy: column((i) => ((i * 53) % 31) / 20),
  });
});
writeFileSync(at('dump.jsonl'), `${lines.join('\n')}\n`);
const base = ['analyze-policy', 'interventions', '--data', at('dump.jsonl')];

describe('analyze-policy interventions', () => {
  it('compares all methods, lists what the dump cannot show, writes every output', () => {
    const outputs = [
      '--out',
      at('c.csv'),
      '--table',
      at('f.csv'),
      '--report',
      at('r.json'),
      '--weights',
      at('weights'),
    ];
    const ended = resident([...base, ...outputs, '--plot', at('p.svg'), '--assert', 'methods.0.tokens_touched == 0']);
    expect(ended.stderr).toMatch(/empg is left out: the dump lacks turns/);
    expect(ended.code).toBe(0);
    const report = JSON.parse(readFileSync(at('r.json'), 'utf8'));
    expect(report.schema).toBe('surprisal/policy-interventions');
    expect(report.tokens).toBe(80);
    expect(report.methods.map(({ name }: { name: string }) => name)).toEqual(
      expect.arrayContaining(['grpo', 'clip-cov', 'kl-cov', 'steer', 'entropy-bonus', 'targeted-entropy']),
    );
    expect(readFileSync(at('c.csv'), 'utf8').trim().split('\n')).toHaveLength(1 + 3 * report.methods.length);
    expect(readFileSync(at('f.csv'), 'utf8')).toMatch(/^0,steer,metric_largest,/m);
    expect(readFileSync(at('weights/steer.jsonl'), 'utf8').trim().split('\n')).toHaveLength(16);
    expect(statSync(at('weights/steer.npz')).size).toBeGreaterThan(1000);
    expect(readFileSync(at('p.svg'), 'utf8')).toContain('Overlap of touched tokens');
  });

  it.skipIf(!existsSync('/dev/full'))('gives weights and tables no name where another output fails', () => {
    symlinkSync('/dev/full', at('full.svg'));
    const failed = ['--plot', at('full.svg'), '--quiet', '--report', at('failed.json')];
    for (const own of [
      ['--weights', at('failed')],
      ['--weights', at('failed.npz')],
      ['--details', 'steer', '--tables', at('failed')],
    ]) {
      const { code, stderr } = resident([...base, ...failed, ...own]);
      expect(stderr).toMatch(/full\.svg: /);
      expect(code).toBe(1);
      expect(readdirSync(folder).filter((name) => name.includes('failed'))).toEqual([]);
    }
  });

  it('refuses what it cannot do, in one line', () => {
    const refused = (...argv: string[]) => {
      const { code, stderr } = resident([...base, ...argv]);
      expect(code).toBe(2);
      return stderr;
    };
    expect(refused('--method', 'stear')).toMatch(/no intervention "stear"; did you mean "steer"/);
    expect(refused('--method', 'empg')).toMatch(/empg: the dump lacks turns/);
    expect(refused('--plain', 'dual-clip=0.5')).toMatch(/dual-clip is 0.5; it must be above 1/);
    expect(refused('--top-fraction', '0')).toMatch(/leaves no token/);
  });
});
