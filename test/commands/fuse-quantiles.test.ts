import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { describe, expect, it } from 'vitest';
import { encodeNpy } from '../../src/formats/npy.js';
import { createRandom } from '../../src/random.js';
import { temporaryFolder } from '../formats/collect.js';
import { resident } from './run-surprisal.js';

const folder = temporaryFolder();
const out = (name: string): string => join(folder, name);
const text = (name: string): string => readFileSync(out(name), 'utf8');
const run = (...argv: string[]) => resident(['fuse', 'quantiles', ...argv]);
const schema = (name: string): object => JSON.parse(readFileSync(`src/report/schemas/${name}.schema.json`, 'utf8'));
const ajv = new Ajv2020({ strict: true, allowUnionTypes: true });
ajv.addSchema(schema('envelope'));
const validate = ajv.compile(schema('fuse-quantiles'));

const NORMAL: Readonly<Record<string, number>> = {
  '0.1': -1.2816,
  '0.25': -0.6745,
  '0.5': 0,
  '0.75': 0.6745,
  '0.9': 1.2816,
};

/** Model A is right in the lower tail, B in the upper one; each is a little noisy. */
const TABLE = (() => {
  const random = createRandom(3);
  const levels = Object.keys(NORMAL);
  const lines = [['id', 'y', 'x', ...['A', 'B'].flatMap((k) => levels.map((level) => `${k}@${level}`))].join(',')];
  for (let i = 0; i < 400; i++) {
    const x = 2 * random.uniform() - 1;
    const spread = 0.5 + Math.abs(x);
    const cells = ['A', 'B'].flatMap((k) =>
      levels.map((level) => {
        const z = NORMAL[level];
        const wrong = k === 'A' ? z > 0 : z < 0;
        return (2 * x + spread * z * (wrong ? 2 : 1) + 0.1 * random.normal()).toFixed(4);
      }),
    );
    const y = i % 50 === 49 ? '' : (2 * x + spread * random.normal()).toFixed(4);
    lines.push([`s${i}`, y, x.toFixed(4), ...cells].join(','));
  }
  const path = join(folder, 'wide.csv');
  writeFileSync(path, `${lines.join('\n')}\n`);
  return path;
})();

interface Report {
  best_method: string;
  predict_rows: number;
  nesting: { holds: boolean } | null;
  warnings: string[];
  methods: {
    name: string;
    fit: { mean_pinball: number; duality_gap: number | null };
    test_mean_pinball: number;
    scores: { conformal: { wis: number; intervals: { coverage: number }[] } | null };
    conformal: { intervals: { lower_offset: number | string }[] } | null;
  }[];
  differences: { method: string; against: string; mean_pinball_difference: number; standard_error: number }[];
}

describe('fuse quantiles', () => {
  const base = ['--data', TABLE, '--features', 'x', '--trials', '1', '--max-steps', '100', '--quiet'];

  it('compares all methods, whatever the threads; files and report fit together', () => {
    const files = (name: string) => [
      ...['--out', out(`${name}.csv`), '--table', out(`${name}-scores.csv`), '--weights', out(`${name}-weights.csv`)],
      ...['--report', out(`${name}.json`), '--plot', out(`${name}.svg`)],
    ];
    expect(run(...base, ...files('one'), '--threads', '1')).toEqual({ code: 0, stdout: '', stderr: '' });
    expect(run(...base, ...files('two'), '--threads', '2').code).toBe(0);
    for (const end of ['.csv', '-scores.csv', '-weights.csv', '.json', '.svg'])
      expect(text(`two${end}`)).toBe(text(`one${end}`));
    const report = JSON.parse(text('one.json')) as Report;
    expect(validate(report), JSON.stringify(validate.errors)).toBe(true);
    expect(report.methods.length).toBe(10);
    expect(report.nesting?.holds).toBe(true);
    const loss = (name: string): number =>
      report.methods.find((method) => method.name === name)?.test_mean_pinball ?? 0;
    expect(loss('medium')).toBeLessThan(loss('coarse'));
    expect(loss('coarse')).toBeLessThan(loss('best-single'));
    for (const { scores } of report.methods) {
      for (const [at, nominal] of [0.8, 0.5].entries()) {
        const coverage = scores.conformal?.intervals[at].coverage ?? 0;
        expect(Math.abs(coverage - nominal)).toBeLessThan(0.17);
      }
    }
    expect(report.differences.length).toBe(45);
    expect(report.predict_rows).toBe(8);
    const lines = text('one.csv').trimEnd().split('\n');
    expect(lines[0]).toBe('id,split,method,tau,q,y');
    expect(lines.filter((line) => line.includes(',predict,medium,')).length).toBe(8 * 5);
    expect(lines.find((line) => line.startsWith('s49,predict,'))?.endsWith(',')).toBe(true);
    const medium = text('one-weights.csv')
      .split('\n')
      .filter((line) => line.startsWith('medium,0.1,'));
    expect(medium.reduce((sum, line) => sum + Number(line.split(',')[4]), 0)).toBeCloseTo(1, 10);
    expect(text('one-scores.csv')).toContain('medium,conformal,interval,0.8,');
    expect(text('one.svg')).toContain('Weights of medium');
  });

  it('reads arrays; trained and free weights, an infinite interval, asserts', () => {
    const random = createRandom(5);
    const [n, p, m] = [40, 2, 3];
    const y = Float64Array.from({ length: n }, () => random.normal());
    const z = Float64Array.from({ length: n * p * m }, (_, c) => 0.3 * (c % m) - 0.3 + random.normal());
    writeFileSync(out('z.npy'), encodeNpy(z, [n, p, m]));
    writeFileSync(out('y.npy'), encodeNpy(y, [n]));
    const words = [
      '--data',
      out('z.npy'),
      '--outcomes',
      out('y.npy'),
      '--levels',
      '0.05:0.95:3',
      '--shares',
      '0.6,0.1,0.3',
    ];
    const ended = run(
      ...words,
      ...['--solver', 'adam', '--trials', '1', '--max-steps', '100', '--method', 'medium,best-single'],
      ...['--non-crossing', 'isotonic', '--conformal', 'asymmetric', '--report', out('a.json'), '--out', out('a.csv')],
    );
    expect(ended.code).toBe(0);
    expect(ended.stderr).toContain('4 calibration rows are too few for intervals of 0.900; they are infinite');
    const report = JSON.parse(text('a.json')) as Report;
    expect(validate(report), JSON.stringify(validate.errors)).toBe(true);
    expect(report.methods[0].conformal?.intervals[0].lower_offset).toBe('inf');
    expect(text('a.csv')).toContain(',-inf,');
    const free = [
      ...words,
      '--unnormalized',
      '--method',
      'coarse',
      '--conformal',
      'none',
      '--quiet',
      '--report',
      out('u.json'),
    ];
    expect(run(...free, '--assert', 'best_test_mean_pinball > 0').code).toBe(0);
    expect(run(...free, '--force', '--assert', 'best_test_mean_pinball < 0').code).toBe(3);
  });

  it.each([
    [['--method', 'meduim'], 'did you mean "medium"'],
    [['--method', 'local-medium'], 'name their columns with --features'],
    [['--method', 'medium', '--trials', '3'], '--trials has no meaning without --solver adam or a local method'],
    [['--shares', '0.5,0.5'], 'three numbers that make 1'],
    [['--levels', '0.1,0.5'], '--levels is for arrays'],
    [['--sort', 'soft-library', '--non-crossing', 'isotonic'], '--sort is for --non-crossing sort'],
    [['--solver', 'adam', '--tolerance', '0.1'], '--tolerance is for --solver lp and eg'],
    [['--solver', 'eg', '--method', 'average'], '--solver is for global weights'],
    [['--features', 'x', '--method', 'medium'], '--features is for local weights'],
    [['--shares', '1,0,0'], '0 rows to test on'],
    [['--unnormalized', '--solver', 'eg', '--method', 'coarse'], '--solver eg works on the simplex'],
  ])('refuses %s', (words, message) => {
    const ended = run('--data', TABLE, ...words);
    expect([ended.code, ended.stderr.includes(message)]).toEqual([2, true]);
  });
});
