import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { describe, expect, it } from 'vitest';
import { openScore, parseVariable } from '../../commands/score-source.js';
import { temporaryFolder } from '../formats/collect.js';
import { surprisal } from './run-surprisal.js';

const folder = temporaryFolder();
const out = (name: string): string => join(folder, name);
const run = (...argv: string[]) => surprisal(['steer', 'zeta', '--threads', '1', ...argv]);
const schema = (name: string): object => JSON.parse(readFileSync(`src/report/schemas/${name}.schema.json`, 'utf8'));
const ajv = new Ajv2020({ strict: true, allowUnionTypes: true });
ajv.addSchema(schema('envelope'));
const validate = ajv.compile(schema('steer-zeta'));

function reportOf(path: string) {
  const report = JSON.parse(readFileSync(path, 'utf8'));
  expect(validate(report), JSON.stringify(validate.errors)).toBe(true);
  return report;
}

describe('steer zeta', () => {
  it('finds zeros and estimates, with report, tables and figure', () => {
    const words = ['--mode', 'rare-event', '--t', '10,30', '--eps', '0.01', '--final-samples', '2000'];
    const files = ['--out', out('a.csv'), '--table', out('t.csv'), '--report', out('a.json'), '--plot', out('a.svg')];
    const ended = run(...words, ...files, '--assert', 'zeros.missed == 0');
    expect([ended.stderr, ended.code]).toEqual(['', 0]);
    const report = reportOf(out('a.json'));
    expect(report.zeros.rows.map(({ t }: { t: number }) => t.toFixed(6))).toEqual([
      '14.134725',
      '21.022040',
      '25.010858',
    ]);
    expect(report.notice).toContain('no evidence');
    const [line] = report.estimates;
    expect(Math.abs(line.estimate - line.exact)).toBeLessThan(4 * line.standard_error);
    expect(readFileSync(out('t.csv'), 'utf8').split('\n')).toHaveLength(4);
    expect(readFileSync(out('a.csv'), 'utf8')).toContain('pass 0 tile 0,0,0,');
    expect(readFileSync(out('a.svg'), 'utf8')).toContain('sampling law');
  });

  it('searches the score of another program', () => {
    writeFileSync(
      out('score.mjs'),
      `let text = '';
      for await (const chunk of process.stdin) text += chunk;
      for (const line of text.trim().split('\\n')) {
        const { x, layer } = JSON.parse(line);
        console.log(layer === 8 ? -((x - 1) ** 2) : 'nan');
      }`,
    );
    const words = ['--score', `command:node ${out('score.mjs')}`, '--variable', 'x=-3:3', '--variable', 'layer=4|8|12'];
    const ended = run(...words, '--rounds', '6', '--report', out('c.json'), '--out', out('c.csv'));
    expect([ended.stderr, ended.code]).toEqual(['', 0]);
    const { optimum } = reportOf(out('c.json'));
    expect(optimum.point.layer).toBe(8);
    expect(optimum.point.x).toBeCloseTo(1, 1);
    expect(optimum.rounds).toBe(6);
  });

  it('refuses what it would not read', () => {
    const refused = run('--score', 'rosenbrock', '--eps', '0.1');
    expect([refused.code, refused.stderr]).toEqual([2, expect.stringContaining('--eps is not read')]);
  });
});

describe('scores and variables', () => {
  const options = { variables: [], components: 1 };

  it('reads definitions', () => {
    expect(parseVariable('rate=1e-4:1:log')).toMatchObject({ kind: 'continuous', low: 1e-4, scale: 'log' });
    expect(parseVariable('kind=a|3')).toEqual({ name: 'kind', kind: 'choice', values: ['a', 3] });
    expect(parseVariable('wait=exp:0.25')).toEqual({ name: 'wait', kind: 'exponential', mean: 0.25 });
    expect(() => parseVariable('x=3:1')).toThrow('--variable x=3:1');
    expect(() => openScore('command:', options)).toThrow('needs a command line');
    expect(() => openScore('rosenbrock', { ...options, glassSeed: 1 })).toThrow('--glass');
  });

  it('scores the ground state of a ferromagnet, and the ridge', async () => {
    const ising = openScore('ising', { ...options, dimensions: 4 });
    expect([...(await ising.score(new Float64Array(16).fill(1), 1))]).toEqual([32]);
    const ridge = openScore('rosenbrock', { ...options, dimensions: 3 });
    expect(Array.from(await ridge.score(Float64Array.of(1, 1, 1, 0, 0, 0), 2), Math.abs)).toEqual([0, 2]);
  });

  it('names a program that fails or answers wrongly', async () => {
    const of = (words: string) => openScore(`command:${words}`, { ...options, variables: ['x=0:1'] });
    await expect(of('exit 3').score(Float64Array.of(0.5), 1)).rejects.toThrow('ended with code 3');
    await expect(of('echo a; cat >/dev/null').score(Float64Array.of(0.5), 1)).rejects.toThrow('line 1');
    await expect(of('cat').score(Float64Array.of(0.5, 0.6), 1)).rejects.toThrow();
    await expect(of('true').score(Float64Array.of(0.5), 1)).rejects.toThrow('0 lines for 1 points');
  });
});
