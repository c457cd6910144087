import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { describe, expect, it } from 'vitest';
import type { ProbesBody } from '../../src/probes/probes-report.js';
import { createRandom } from '../../src/random.js';
import { temporaryFolder } from '../formats/collect.js';
import { resident, surprisal } from './run-surprisal.js';

const folder = temporaryFolder();
const out = (name: string): string => join(folder, name);
const run = (...argv: string[]) => resident(['analyze-entropy', 'probes', '--threads', '1', ...argv]);
const schema = (name: string): object => JSON.parse(readFileSync(`src/report/schemas/${name}.schema.json`, 'utf8'));
const ajv = new Ajv2020({ strict: true, allowUnionTypes: true });
ajv.addSchema(schema('envelope'));
const validate = ajv.compile(schema('probes'));

function reportOf(path: string): ProbesBody {
  const report = JSON.parse(readFileSync(path, 'utf8'));
  expect(validate(report), JSON.stringify(validate.errors)).toBe(true);
  return report;
}

interface Table {
  readonly ids: string[];
  readonly rows: number[][];
  readonly labels: string[];
}

/** Rows of a member: its own noisy view of two coordinates that decide the class. */
function tableOf(member: number, rows: number, seed: number, names = ['ant', 'bee', 'cat']): Table {
  const shared = createRandom(seed);
  const own = createRandom(1000 * (member + 1) + seed);
  const table: Table = { ids: [], rows: [], labels: [] };
  for (let r = 0; r < rows; r++) {
    const k = shared.integer(names.length);
    const centre = [Math.cos(2.1 * k), Math.sin(2.1 * k)];
    table.ids.push(`${seed}-${r}`);
    table.labels.push(names[k]);
    table.rows.push([centre[member % 2] + 0.8 * own.normal(), own.normal(), own.normal()]);
  }
  return table;
}

function writeTable(name: string, { ids, rows, labels }: Table): string {
  const path = out(name);
  const lines = rows.map((row, r) => [ids[r], ...row, labels[r]].join(','));
  writeFileSync(path, ['id,a,b,c,label', ...lines, ''].join('\n'));
  return path;
}

const train = [0, 1].map((m) => writeTable(`train-${m}.csv`, tableOf(m, 120, 1)));
const test = [0, 1].map((m) => writeTable(`test-${m}.csv`, tableOf(m, 80, 2)));
const COLUMNS = ['--id-column', 'id', '--label-column', 'label'];

describe('probes of tables', () => {
  it('scores members, their concatenation and their ensemble', () => {
    const argv = ['--data', ...train, '--test', ...test, ...COLUMNS, '--bootstrap', '200'];
    const paths = [
      '--out',
      out('p.csv'),
      '--report',
      out('p.json'),
      '--table',
      out('rank.csv'),
      '--plot',
      out('p.svg'),
    ];
    const ended = run(...argv, ...paths);
    expect(ended).toMatchObject({ code: 0, stderr: '' });
    const report = reportOf(out('p.json'));
    expect(report.sets.map(({ kind }) => kind)).toEqual(['single', 'single', 'ensemble', 'concatenation']);
    expect(report.splits.map(({ name, carved }) => [name, carved])).toEqual([
      ['train', false],
      ['validation', true],
      ['test', false],
    ]);
    expect(report.tasks[0].classes).toEqual(['ant', 'bee', 'cat']);
    const accuracy = (kind: string): number =>
      report.sets.find((set) => set.kind === kind)?.scores.find(({ split }) => split === 'test')?.accuracy ?? 0;
    expect(accuracy('concatenation')).toBeGreaterThan(accuracy('single'));
    expect(report.gains[0].over_best_single.low).toBeLessThanOrEqual(report.gains[0].over_best_single.value);
    expect(report.sets[3].parameters).toBe(3 * 7);
    expect(report.linear_cka[0][0]).toBe(1);
    expect(readFileSync(out('p.csv'), 'utf8').trimEnd().split('\n')).toHaveLength(1 + 4 * 3);
    expect(readFileSync(out('rank.csv'), 'utf8').trimEnd().split('\n')).toHaveLength(1 + 3);
    expect(readFileSync(out('p.svg'), 'utf8')).toContain('Linear CKA');
    const again = run(...argv, '--report', out('again.json'), '--threads', '2', '--quiet');
    expect(again.code).toBe(0);
    expect(readFileSync(out('again.json'), 'utf8')).toBe(readFileSync(out('p.json'), 'utf8'));
  });

  it('does not look at test labels when it chooses a decay', () => {
    const shuffled = { ...tableOf(0, 80, 2) };
    const wrong = { ...shuffled, labels: shuffled.labels.map((_, r) => shuffled.labels[(r + 7) % 80]) };
    const other = [writeTable('wrong-0.csv', wrong), test[1]];
    const chosen = (files: string[]): (number | null)[] => {
      const ended = run(
        '--data',
        ...train,
        '--test',
        ...files,
        ...COLUMNS,
        '--report',
        out('d.json'),
        '--force',
        '--quiet',
      );
      expect(ended).toMatchObject({ code: 0, stderr: '' });
      return reportOf(out('d.json')).sets.map(({ weight_decay }) => weight_decay);
    };
    expect(chosen(other)).toEqual(chosen(test));
  });

  it.each(['sgd'])('trains by %s', (probe) => {
    const ended = run(
      ...['--data', ...train, '--test', ...test, ...COLUMNS, '--probe', probe, '--epochs', '6', '--batch', '32'],
      ...['--decays', '1e-4,1e-2', '--report', out('sgd.json'), '--force', '--quiet'],
    );
    expect(ended).toMatchObject({ code: 0, stderr: '' });
    const report = reportOf(out('sgd.json'));
    expect(report.sets[0].path).toBe('sgd+bn');
    expect(report.sets[0].parameters).toBe(3 * 4 + 2 * 3);
    expect(report.sets[0].scores.find(({ split }) => split === 'test')?.accuracy).toBeGreaterThan(0.4);
  });

  it('starts the second stage from averaged heads', () => {
    const heads = [0, 1].map((m) => {
      const path = out(`head-${m}.npy`);
      const header = "{'descr': '<f8', 'fortran_order': False, 'shape': (3, 3), }".padEnd(117).concat('\n');
      const weights = Float64Array.from({ length: 9 }, (_, i) =>
        i % 3 === 0 ? Math.cos(2.1 * Math.floor(i / 3) - 1.57 * m) : 0,
      );
      const head = Buffer.from([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, 118, 0]);
      writeFileSync(path, Buffer.concat([head, Buffer.from(header), Buffer.from(weights.buffer)]));
      return path;
    });
    const argv = ['--data', ...train, '--test', ...test, ...COLUMNS, '--probe', 'two-stage', '--report', out('h.json')];
    const ended = run(...argv, '--heads', ...heads, '--quiet');
    expect(ended).toMatchObject({ code: 0, stderr: '' });
    const report = reportOf(out('h.json'));
    const [averaged] = report.sets.filter(({ kind }) => kind === 'averaged-heads');
    expect(averaged.scores.find(({ split }) => split === 'test')?.accuracy).toBeGreaterThan(0.5);
    expect(report.sets.find(({ kind }) => kind === 'concatenation')?.path).toBe('sgd');
    expect(run(...argv, '--force').stderr).toContain('--probe two-stage needs --heads');
  });

  it('regresses amounts by ridge, with the same network under a shift', () => {
    const amounts = (name: string, table: Table): string =>
      writeTable(name, { ...table, labels: table.rows.map((row) => String(2 * row[0] - row[1] + 0.01 * row[2])) });
    const files = ['a.csv', 'b.csv', 'c.csv'].map((name, i) => amounts(name, tableOf(0, 60 + i, 5 + i)));
    const ended = run(
      ...['--data', files[0], '--test', files[1], '--ood', `shifted=${files[2]}`, ...COLUMNS],
      ...['--report', out('ridge.json'), '--quiet'],
    );
    expect(ended).toMatchObject({ code: 0, stderr: '' });
    const report = reportOf(out('ridge.json'));
    expect(report.sets[0].path).toBe('eigendecomposition');
    expect(report.splits.map(({ role }) => role)).toEqual(['train', 'validation', 'id', 'ood']);
    expect(report.sets[0].scores[2].r2).toBeGreaterThan(0.999);
  });
});

describe('bad input', () => {
  const base = ['--data', ...train, ...COLUMNS];

  it('names both ids where the rows of a member are permuted', () => {
    const table = tableOf(1, 120, 1);
    const permuted = writeTable('permuted.csv', {
      ids: [...table.ids].reverse(),
      rows: [...table.rows].reverse(),
      labels: [...table.labels].reverse(),
    });
    const ended = run('--data', train[0], permuted, ...COLUMNS);
    expect(ended.code).toBe(2);
    expect(surprisal(['analyze-entropy', 'probes', '--data', train[0], permuted, ...COLUMNS])).toEqual(ended);
    expect(ended.stderr).toContain(`row 0: id "1-0" in ${train[0]}, but "1-119" in ${permuted}`);
  });

  it('names a class that has no training row, and a column that is not finite', () => {
    const other = [0, 1].map((m) => writeTable(`other-${m}.csv`, tableOf(m, 20, 3, ['ant', 'bee', 'cow'])));
    expect(run(...base, '--test', ...other)).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/row \d+ has class "cow", which is missing from the training rows/),
    });
    const broken = tableOf(1, 120, 1);
    broken.rows[5][2] = Number.NaN;
    const ended = run('--data', train[0], writeTable('broken.csv', broken), ...COLUMNS);
    expect(ended.code).toBe(2);
    expect(ended.stderr).toMatch(/row 5|column "c"/);
  });

  it.each([
    [['--data', train[0], '--id-column', 'id'], 'has no labels'],
    [[...base, '--test', test[0], '--label-column', 'label'], 'split "test" has 1 members, training has 2'],
    [[...base, '--wide', '2'], 'leaves no member'],
    [[...base, '--probe', 'ridge'], 'needs amounts'],
    [[...base, '--epochs', '3'], '--epochs is for --probe sgd'],
    [[...base, '--decays', '-1'], 'decays of 0 or more'],
    [[...base, '--ood', 'x'], 'write name=file'],
    [[...base, '--also-model', 'x'], '--also-model needs --model'],
  ])('%j', (argv, message) => {
    const ended = run(...argv);
    expect(ended.code).toBe(2);
    expect(ended.stderr).toContain(message);
    expect(ended.stderr.trimEnd().split('\n')).toHaveLength(1);
  });

  it('counts constant features and says when classes are separable without a decay', () => {
    const table = tableOf(0, 60, 9);
    for (const [r, row] of table.rows.entries()) {
      row[1] = 4;
      row[0] = 10 * ['ant', 'bee', 'cat'].indexOf(table.labels[r]);
    }
    const ended = run(
      '--data',
      writeTable('constant.csv', table),
      ...COLUMNS,
      '--decays',
      '0',
      '--report',
      out('c.json'),
    );
    expect(ended.code).toBe(0);
    expect(ended.stderr).toContain('1 of 3 features are constant');
    expect(ended.stderr).toContain('separable');
    expect(reportOf(out('c.json')).members[0].constant_features).toBe(1);
  });
});
