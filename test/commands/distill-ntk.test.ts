import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { describe, expect, it } from 'vitest';
import { temporaryFolder } from '../formats/collect.js';
import { resident } from './run-surprisal.js';

const folder = temporaryFolder();
const out = (name: string): string => join(folder, name);
const run = (...argv: string[]) => resident(['distill-pld', 'ntk', ...argv]);
const schema = (name: string): object => JSON.parse(readFileSync(`src/report/schemas/${name}.schema.json`, 'utf8'));
const ajv = new Ajv2020({ strict: true, allowUnionTypes: true });
ajv.addSchema(schema('envelope'));
const validate = ajv.compile(schema('distill-ntk'));

describe('distill-pld ntk', () => {
  it('predicts, simulates and draws, with the same bytes on any number of threads', () => {
    const words = [
      '--k',
      '4,5',
      '--ones',
      '2,3',
      '--nets',
      '7',
      '--width',
      '200',
      '--tests',
      '8',
      '--residual',
      '1e-3',
    ];
    const files = (n: number): string[] => [
      '--threads',
      String(n),
      '--report',
      out(`${n}.json`),
      '--out',
      out(`${n}.csv`),
    ];
    const first = run(...words, ...files(1), '--table', out('t.csv'), '--plot', out('a.svg'));
    expect([first.stderr, first.code]).toEqual(['', 0]);
    expect(first.stdout).toContain('Theta');
    expect(run(...words, ...files(2)).code).toBe(0);
    for (const type of ['json', 'csv']) {
      expect(readFileSync(out(`1.${type}`), 'utf8')).toBe(readFileSync(out(`2.${type}`), 'utf8'));
    }
    const report = JSON.parse(readFileSync(out('1.json'), 'utf8'));
    expect(validate(report), JSON.stringify(validate.errors)).toBe(true);
    expect(report.sizes[1].rows[0].models.gaussian_union).toBe(208);
    expect(report.sizes[1].rows[0].simulation.networks).toBe(7);
    expect(readFileSync(out('a.svg'), 'utf8')).toContain('predicted Gaussian');
    expect(readFileSync(out('t.csv'), 'utf8').split('\n')[0]).toContain('exact_share_predicted');
  });

  it('names the kernel of the other parametrisation, and refuses what makes no sense', () => {
    const standard = run('--param', 'standard', '--k', '10', '--report', out('s.json'));
    expect(standard.stdout).toContain('Sigma');
    const report = JSON.parse(readFileSync(out('s.json'), 'utf8'));
    expect(validate(report), JSON.stringify(validate.errors)).toBe(true);
    const faults: [string[], RegExp][] = [
      [['--k', '3', '--ones', '4'], /1 to 3 ones, not 4/],
      [['--width', '10'], /--width is of no use without --nets/],
      [['--delta', '1'], /between 0 and 1/],
      [['--param', 'nkt'], /did you mean "ntk"/],
      [['--nets', '100000', '--max-memory', '1MB'], /more than --max-memory/],
    ];
    for (const [argv, message] of faults) {
      const { code, stderr } = run(...argv);
      expect(stderr).toMatch(message);
      expect(code).toBe(2);
    }
  });
});
