import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { describe, expect, it } from 'vitest';
import { createRandom } from '../../src/random.js';
import { temporaryFolder } from '../formats/collect.js';
import { resident, surprisal } from './run-surprisal.js';

const folder = temporaryFolder();
const out = (name: string): string => join(folder, name);
const run = (...argv: string[]) => resident(['analyze-entropy', 'pretraining', '--threads', '1', ...argv]);
const schema = (name: string): object => JSON.parse(readFileSync(`src/report/schemas/${name}.schema.json`, 'utf8'));
const ajv = new Ajv2020({ strict: true, allowUnionTypes: true, strictRequired: false });
ajv.addSchema(schema('envelope'));
const validate = ajv.compile(schema('pretraining'));

function reportOf(path: string) {
  const report = JSON.parse(readFileSync(path, 'utf8'));
  expect(validate(report), JSON.stringify(validate.errors)).toBe(true);
  return report;
}

const SMALL = [
  '--m',
  '50,500',
  '--n',
  '20,80',
  '--seeds',
  '4',
  '--dimension',
  '12',
  '--latent-dim',
  '2',
  '--bootstrap',
  '50',
];

describe('studies', () => {
  it.each([
    ['factor', 3],
    ['mixture', 2],
    ['contrastive', 2],
  ])('of %s give runs, rates and a figure', (name) => {
    const argv = ['--case', name, ...SMALL, '--test-rows', '300', '--epochs', '3', '--signals', '0.1,2', '--quiet'];
    const paths = ['--out', out(`${name}.csv`), '--report', out(`${name}.json`), '--plot', out(`${name}.svg`)];
    expect(run(...argv, ...paths, '--table', out(`${name}-x.csv`))).toMatchObject({ code: 0, stderr: '' });
    const report = reportOf(out(`${name}.json`));
    expect(report).toMatchObject({ mode: 'study', case: name, seeds: 4 });
    expect(report.cells).toHaveLength(2 * 2 + 2 * 2);
    expect(report.rates.map((rate: { method: string }) => rate.method)).toEqual([
      'supervised',
      'oracle',
      'pretrained',
      'pretrained',
    ]);
    expect(report.signal_sweep).toHaveLength(2);
    const lines = readFileSync(out(`${name}.csv`), 'utf8')
      .trimEnd()
      .split('\n');
    expect(lines).toHaveLength(1 + 4 * 8 + 2 * 4 * 3);
    expect(readFileSync(out(`${name}.svg`), 'utf8')).toContain('Excess risk');
  });

  it('refuses sizes that cannot be', () => {
    expect(run('--latent-dim', '50')).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('below the 50 features'),
    });
    expect(run('--case', 'mixture', '--m', '3')).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('components'),
    });
    expect(run('--labelled', 'x.csv')).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('needs --unlabelled'),
    });
    const wide = ['--latent-dim', '50'];
    expect(surprisal(['analyze-entropy', 'pretraining', ...wide])).toEqual(run(...wide));
    expect(run('--case', 'facto')).toMatchObject({ code: 2, stderr: expect.stringContaining('factor') });
  });
});

/** Rows of two clusters or factors along the first coordinates, with amounts and classes. */
function writeRows(name: string, rows: number, seed: number, labels: boolean): string {
  const random = createRandom(seed);
  const lines = [labels ? 'a,b,c,d,y,class' : 'a,b,c,d'];
  for (let r = 0; r < rows; r++) {
    const z = random.normal();
    const k = random.integer(2);
    const x = [3 * z + random.normal(), 3 * z + random.normal(), 6 * k + random.normal(), random.normal()];
    lines.push([...x, ...(labels ? [z + 0.1 * random.normal() + 0.5, k === 0 ? 'left' : 'right'] : [])].join(','));
  }
  const path = out(name);
  writeFileSync(path, `${lines.join('\n')}\n`);
  return path;
}

describe('comparisons on data', () => {
  const pool = writeRows('pool.csv', 600, 1, false);
  const splitRows = (name: string, rows: number, seed: number): { x: string; y: string; c: string } => {
    const path = writeRows(name, rows, seed, true);
    const lines = readFileSync(path, 'utf8').trimEnd().split('\n').slice(1);
    const [x, y, c] = [out(`${name}-x.csv`), out(`${name}-y.txt`), out(`${name}-c.txt`)];
    writeFileSync(x, ['a,b,c,d', ...lines.map((line) => line.split(',').slice(0, 4).join(','))].join('\n'));
    writeFileSync(y, lines.map((line) => line.split(',')[4]).join('\n'));
    writeFileSync(c, lines.map((line) => line.split(',')[5]).join('\n'));
    return { x, y, c };
  };
  const labelled = splitRows('few.csv', 8, 2);
  const test = splitRows('test.csv', 100, 3);
  const files = ['--unlabelled', pool, '--labelled', labelled.x, '--test', test.x, '--bootstrap', '100'];

  it('of a factor model beat least squares on few rows', () => {
    const argv = [...files, '--labels', labelled.y, '--test-labels', test.y, '--latent-dim', '2'];
    expect(run(...argv, '--report', out('f.json'), '--out', out('f.csv'), '--plot', out('f.svg'))).toMatchObject({
      code: 0,
      stderr: '',
    });
    const report = reportOf(out('f.json'));
    expect(report).toMatchObject({ mode: 'data', measure: 'mse', unlabelled_rows: 600, shared_test_rows: 0 });
    expect(report.risk_pretrained.value).toBeLessThan(report.risk_trivial.value);
    expect(report.model.effective_latent).toBe(2);
    expect(readFileSync(out('f.csv'), 'utf8')).toContain('pretrained,mse');
  });

  it('of a mixture classify by components, and of a factor model by a logistic head', () => {
    const labels = ['--labels', labelled.c, '--test-labels', test.c, '--latent-dim', '2', '--quiet', '--force'];
    for (const name of ['mixture', 'factor']) {
      expect(run(...files, ...labels, '--case', name, '--report', out('m.json'))).toMatchObject({ code: 0 });
      const report = reportOf(out('m.json'));
      expect(report.measure).toBe('error');
    }
  });

  it('say when test rows leak, and take them in on request', () => {
    const labels = ['--labels', labelled.y, '--test-labels', test.y, '--latent-dim', '2', '--bootstrap', '20'];
    const leaking = ['--unlabelled', test.x, '--labelled', labelled.x, '--test', test.x, ...labels];
    expect(run(...leaking).stderr).toContain('100 test rows are also unlabelled rows');
    const joined = run(...files, ...labels, '--transductive', '--report', out('t.json'), '--quiet');
    expect(joined.code).toBe(0);
    expect(reportOf(out('t.json')).unlabelled_rows).toBe(700);
  });

  it('name effective factors, and refuse a latent dimension as large as the features', () => {
    const labels = ['--labels', labelled.y, '--test-labels', test.y];
    expect(run(...files, ...labels, '--latent-dim', '3', '--noise', '5').stderr).toMatch(/effective factors of 3/);
    expect(run(...files, ...labels, '--latent-dim', '4')).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('--latent-dim 4 must be below the 4 features'),
    });
    expect(run(...files, '--latent-dim', '2')).toMatchObject({ code: 2, stderr: expect.stringContaining('no labels') });
    expect(run(...files, ...labels, '--case', 'mixture', '--latent-dim', '2')).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('needs labels that are classes'),
    });
  });
});
