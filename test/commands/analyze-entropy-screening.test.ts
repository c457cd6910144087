import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { createNpyWriter } from '../../src/formats/npy.js';
import { createRandom } from '../../src/random.js';
import { temporaryFolder } from '../formats/collect.js';
import { resident, surprisal } from './run-surprisal.js';

const folder = temporaryFolder();
const out = (name: string): string => join(folder, name);
const text = (path: string): string => readFileSync(path, 'utf8');
const reportOf = <T>(path: string): T => JSON.parse(text(path)) as T;
const DIABETES = 'fixtures/tables/diabetes.csv';
const ORTHODONT = 'fixtures/tables/orthodont.csv';
const run = (view: string, ...argv: string[]) => resident(['analyze-entropy', view, ...argv]);

/** y = 2 x1 + 3 |x2| + noise among eight columns, a genotype and two classes. */
const LINKS = (() => {
  const random = createRandom(4);
  const lines = ['x1,x2,x3,x4,x5,x6,x7,x8,snp,y,group'];
  for (let i = 0; i < 160; i++) {
    const x = Array.from({ length: 8 }, () => random.normal());
    const y = 2 * x[0] + 3 * Math.abs(x[1]) + 0.5 * random.normal();
    lines.push([...x, random.integer(3), y, y > 2.5 ? 'high' : 'low'].join(','));
  }
  const path = join(folder, 'links.csv');
  writeFileSync(path, `${lines.join('\n')}\n`);
  return path;
})();

/** The lines of a table, changed. */
function changed(path: string, name: string, edit: (lines: string[]) => string[]): string {
  const target = join(folder, name);
  writeFileSync(target, `${edit(text(path).trimEnd().split('\n')).join('\n')}\n`);
  return target;
}

interface ScreenReport {
  columns: number;
  discrete_columns: number;
  significant_columns_q05: number;
  outcome: { kind: string; levels: { name: string; rows: number }[] | null };
  ranking: { column: string; mi_nats: number; pearson_r: number | null; p_value: number; mi_ksg_nats: number | null }[];
  clumping: { kept: string[]; dropped: { column: string }[] } | null;
  regression: { support_size: number; coefficients: { column: string; index: number; coefficient: number }[] } | null;
}

describe('screen', () => {
  const base = ['--data', LINKS, '--outcome', 'y', '--except', 'group', '--permutations', '99', '--grid', '100'];

  it('ranks both links, where correlation misses one; sparse regression on the kept columns follows', () => {
    const ended = run(
      'screen',
      ...base,
      ...['--estimators', 'kernel,binned,ksg', '--top', '5', '--then', 'mcp', '--lambdas', '20'],
      ...['--report', out('s.json'), '--out', out('s.csv'), '--plot', out('s.svg')],
    );
    expect([ended.code, ended.stderr]).toEqual([0, '']);
    const report = reportOf<ScreenReport>(out('s.json'));
    expect(report.ranking.slice(0, 2).map(({ column }) => column)).toEqual(['x1', 'x2']);
    expect(report.ranking.length).toBe(5);
    expect(Math.abs(report.ranking[1].pearson_r ?? 1)).toBeLessThan(0.2);
    expect(report.ranking[1].p_value).toBe(0.01);
    expect(report.discrete_columns).toBe(1);
    expect(report.regression?.coefficients[0].column).toBe('x1');
    const lines = text(out('s.csv')).trimEnd().split('\n');
    expect(lines.length).toBe(1 + 9);
    expect(lines[1].startsWith('1,x1,0,continuous,')).toBe(true);
    expect(text(out('s.svg'))).toContain('Information against correlation');
    expect(ended.stdout).toContain('x2');
  });

  it('unites shards to the same bytes, whatever the number of threads', () => {
    expect(run('screen', ...base, '--threads', '1', '--report', out('whole.json')).code).toBe(0);
    const parts = [0, 1, 2].map((index) => out(`part-${index}.json`));
    parts.forEach((path, index) => {
      expect(run('screen', ...base, '--threads', '2', '--shard', `${index}/3`, '--report', path).code).toBe(0);
    });
    const merged = resident(['merge-reports', ...parts, '--out', out('merged.json')]);
    expect([merged.code, merged.stderr]).toEqual([0, '']);
    expect(text(out('merged.json'))).toBe(text(out('whole.json')));
  });

  it('takes classes, a vector beside an array, and the reference bandwidth', () => {
    expect(
      run(
        'screen',
        '--data',
        LINKS,
        '--outcome',
        'group',
        '--except',
        'y',
        '--permutations',
        '0',
        '--report',
        out('c.json'),
      ).code,
    ).toBe(0);
    const classes = reportOf<ScreenReport>(out('c.json'));
    expect(classes.outcome.levels?.map(({ name }) => name)).toEqual(['high', 'low']);
    expect(classes.ranking[0].column).toBe('x1');
    const rows = text(LINKS)
      .trimEnd()
      .split('\n')
      .slice(1)
      .map((line) => line.split(','));
    const write = (name: string, shape: number[], values: number[]): string => {
      const writer = createNpyWriter(out(name), { dtype: 'F64', shape });
      writer.write(new Uint8Array(Float64Array.from(values).buffer));
      writer.commit();
      return out(name);
    };
    const matrix = write(
      'x.npy',
      [160, 9],
      rows.flatMap((row) => row.slice(0, 9).map(Number)),
    );
    const vector = write(
      'y.npy',
      [160],
      rows.map((row) => Number(row[9])),
    );
    const plain = ['--permutations', '0', '--grid', '100'];
    expect(run('screen', '--data', matrix, '--labels', vector, ...plain, '--report', out('n.json')).code).toBe(0);
    expect(run('screen', ...base, '--permutations', '0', '--report', out('t.json')).code).toBe(0);
    const mi = (name: string): number[] => reportOf<ScreenReport>(out(name)).ranking.map(({ mi_nats }) => mi_nats);
    expect(mi('n.json')).toEqual(mi('t.json'));
    expect(
      run('screen', '--data', matrix, '--labels', vector, ...plain, '--compat', 'unit-bw', '--report', out('u.json'))
        .code,
    ).toBe(0);
    expect(mi('u.json')[0]).toBeLessThan(0.5 * mi('n.json')[0]);
  });

  it('ranks the features of a layer by what they say about a field', () => {
    const words = text('fixtures/text/heldout_text.jsonl');
    const pieces = Array.from({ length: 24 }, (_, i) =>
      JSON.stringify({
        text: words.slice(500 * i + 40, 500 * i + 240).replace(/["\\{}]/g, ' '),
        side: i % 2 ? 'a' : 'b',
      }),
    );
    writeFileSync(out('pieces.jsonl'), pieces.join('\n'));
    const ended = run(
      ...([
        'screen',
        '--model',
        'fixtures/models/llama-sotu',
        '--data',
        out('pieces.jsonl'),
        '--outcome',
        'side',
      ] as const),
      ...['--layer', '1', '--pool', 'mean', '--permutations', '0', '--top', '3', '--report', out('l.json')],
    );
    expect([ended.code, ended.stderr]).toEqual([0, '']);
    expect(reportOf<ScreenReport>(out('l.json')).ranking.length).toBe(3);
  });

  it('says what is wrong in one line', () => {
    const refuse = (argv: string[], message: string): void => {
      const { code, stderr } = run('screen', ...argv);
      expect(stderr.trimEnd().split('\n').length).toBe(1);
      expect(stderr).toContain(message);
      expect(code).toBe(2);
    };
    refuse(['--data', LINKS, '--outcome', 'groups'], 'no column "groups"; did you mean "group"?');
    const constant = changed(LINKS, 'constant.csv', (lines) =>
      lines.map((line, i) => `${line},${i === 0 ? 'flat' : 7}`),
    );
    refuse(['--data', constant, '--outcome', 'y', '--except', 'group'], 'column "flat" is constant (7)');
    const holes = changed(LINKS, 'holes.csv', (lines) =>
      lines.map((line, i) => (i === 3 || i === 9 ? line.replace(/^[^,]+/, 'NA') : line)),
    );
    refuse(
      ['--data', holes, '--outcome', 'y', '--except', 'group'],
      '2 cells are NaN or infinite, the first in row 2, column "x1" (NaN)',
    );
    const one = changed(LINKS, 'one.csv', (lines) => lines.map((line) => line.replace(/high|low/, 'same')));
    refuse(['--data', one, '--outcome', 'group'], 'fewer than 2 classes');
    refuse([...base, '--clump', '0.1', '--shard', '0/2'], 'need all columns; run them without --shard');
    const argv = ['--data', LINKS, '--outcome', 'groups'];
    expect(surprisal(['analyze-entropy', 'screen', ...argv])).toEqual(run('screen', ...argv));
  });
});

interface RegressReport {
  support_size: number;
  max_kkt_residual: number;
  lambda: number;
  intercept: number;
  coefficients: { column: string; coefficient: number }[];
  classes: string[];
  solvers: { solver: string; gap_least: number }[];
  warnings: string[];
  path: { support_size: number }[];
}

describe('regress', () => {
  it('selects along a path, with every penalty and solver at a stationary point', () => {
    for (const penalty of ['lasso', 'scad', 'mcp']) {
      const ended = run(
        ...([
          'regress',
          '--data',
          DIABETES,
          '--outcome',
          'progression',
          '--penalty',
          penalty,
          '--lambdas',
          '30',
        ] as const),
        ...[
          '--folds',
          '5',
          '--report',
          out(`${penalty}.json`),
          '--out',
          out(`${penalty}.csv`),
          '--table',
          out(`${penalty}-path.csv`),
        ],
      );
      expect([ended.code, ended.stderr]).toEqual([0, '']);
      const report = reportOf<RegressReport>(out(`${penalty}.json`));
      expect(report.max_kkt_residual).toBeLessThan(1e-6);
      expect(
        report.coefficients
          .map(({ column }) => column)
          .slice(0, 2)
          .sort(),
      ).toEqual(['bmi', 's5']);
      expect(
        text(out(`${penalty}-path.csv`))
          .trimEnd()
          .split('\n').length,
      ).toBe(31);
      expect(
        text(out(`${penalty}.csv`))
          .trimEnd()
          .split('\n').length,
      ).toBe(1 + report.support_size);
    }
  });

  it('agrees with an independent lasso at one lambda (scikit-learn 1.x on standardised columns)', () => {
    for (const solver of ['ag', 'ncg', 'pg']) {
      const ended = run(
        ...([
          'regress',
          '--data',
          DIABETES,
          '--outcome',
          'progression',
          '--penalty',
          'lasso',
          '--lambda',
          '2',
        ] as const),
        ...['--solver', solver, '--report', out('one.json'), '--force'],
      );
      expect([ended.code, ended.stderr]).toEqual([0, '']);
      const found = Object.fromEntries(
        reportOf<RegressReport>(out('one.json')).coefficients.map(({ column, coefficient }) => [column, coefficient]),
      );
      expect(Object.keys(found).sort()).toEqual(Object.keys(LASSO_AT_2).sort());
      for (const [column, value] of Object.entries(LASSO_AT_2)) expect(found[column]).toBeCloseTo(value, 5);
    }
  });

  it('compares solvers, fits classes, and warns where solutions are not unique', () => {
    const ended = run(
      ...(['regress', '--data', LINKS, '--outcome', 'group', '--columns', 'x1,x2,x3,x4', '--lambdas', '10'] as const),
      ...['--folds', '4', '--compare-solvers', '--report', out('g.json'), '--plot', out('g.svg')],
    );
    expect([ended.code, ended.stderr]).toEqual([0, '']);
    const report = reportOf<RegressReport>(out('g.json'));
    expect(report.classes).toEqual(['high', 'low']);
    expect(report.coefficients[0].column).toBe('x1');
    expect(report.solvers.map(({ solver }) => solver)).toEqual(['pg', 'ag', 'ncg', 'ncg']);
    expect(text(out('g.svg'))).toContain('Solution path');
    const few = changed(LINKS, 'few.csv', (lines) =>
      lines.slice(0, 10).map((line) => line.split(',').slice(0, 10).join(',')),
    );
    const wide = changed(few, 'wide.csv', (lines) =>
      lines.map((line, i) => `${line},${i === 0 ? 'z1,z2' : `${Math.sin(i)},${Math.cos(3 * i)}`}`),
    );
    const warned = run(
      'regress',
      '--data',
      wide,
      '--outcome',
      'y',
      '--lambdas',
      '5',
      '--folds',
      '3',
      '--report',
      out('w.json'),
    );
    expect(warned.code).toBe(0);
    expect(warned.stderr).toContain('several stationary points exist');
  });

  it('says what is wrong in one line', () => {
    const refuse = (argv: string[], message: string): void => {
      const { code, stderr } = run('regress', ...argv);
      expect(stderr).toContain(message);
      expect(stderr.trimEnd().split('\n').length).toBe(1);
      expect(code).toBe(2);
    };
    const base = ['--data', DIABETES, '--outcome', 'progression'];
    refuse(['--data', DIABETES, '--outcome', 'progress'], 'did you mean "progression"?');
    refuse([...base, '--penalty', 'scad', '--a', '1.5'], 'a=1.5: SCAD needs a > 2');
    refuse([...base, '--family', 'logistic'], 'logistic regression needs 2');
    refuse([...base, '--max-memory', '100KB'], 'raise --max-memory');
    const argv = [...base, '--penalty', 'scad', '--a', '1.5'];
    expect(surprisal(['analyze-entropy', 'regress', ...argv])).toEqual(run('regress', ...argv));
  });
});

/** Coefficients in original units, from an independent coordinate descent (scikit-learn's Lasso, tol 1e-12). */
const LASSO_AT_2: Readonly<Record<string, number>> = {
  sex: -15.1668598284,
  bmi: 5.57946006297,
  bp: 0.953836233614,
  s1: -0.0785938018236,
  s3: -0.778167867424,
  s5: 44.3617375372,
  s6: 0.147202296641,
};

interface MixedReport {
  fixed_effects: {
    effect: string;
    theta: number;
    theta_se: number;
    theta_gaussian: number;
    theta_gaussian_se: number;
  }[];
  degrees_of_freedom: number;
  sigma2_gaussian: number;
  psi_gaussian: number[][];
  log_likelihood_gaussian: number;
  outlying_clusters: string[];
  joint_model: { profile: { log_likelihood: number }[]; note: string };
  profile: unknown[];
}

describe('mixed-effects', () => {
  const base = ['--data', ORTHODONT, '--outcome', 'distance', '--group', 'subject'];

  it('fits the normal model as others do, and finds the two outlying boys', () => {
    const ended = run(
      'mixed-effects',
      ...base,
      ...['--report', out('m.json'), '--out', out('m.csv'), '--table', out('e.csv'), '--plot', out('m.svg')],
    );
    expect([ended.code, ended.stderr]).toEqual([0, '']);
    const report = reportOf<MixedReport>(out('m.json'));
    // Maximum likelihood of an independent program (statsmodels' MixedLM).
    const normal = report.fixed_effects.map((row) => row.theta_gaussian);
    for (const [j, value] of [17.70671296, 0.66018519, -2.32102273].entries()) expect(normal[j]).toBeCloseTo(value, 6);
    expect(report.fixed_effects[0].theta_gaussian_se).toBeCloseTo(0.81991522, 5);
    expect(report.sigma2_gaussian).toBeCloseTo(2.0241557, 4);
    expect(report.psi_gaussian[0][0]).toBeCloseTo(2.9931634, 4);
    expect(report.log_likelihood_gaussian).toBeCloseTo(-217.42824254688546, 7);
    expect(report.outlying_clusters).toEqual(['M09', 'M13']);
    expect(report.degrees_of_freedom).toBeGreaterThan(4);
    expect(report.degrees_of_freedom).toBeLessThan(7);
    const joint = report.joint_model.profile.map((point) => point.log_likelihood);
    expect(joint).toEqual([...joint].sort((a, b) => a - b));
    expect(report.joint_model.note).toContain('not identifiable');
    const rows = text(out('m.csv')).trimEnd().split('\n');
    expect(rows[0]).toBe('cluster,observations,weight,mahalanobis2,mahalanobis2_per_observation,q,blup_intercept');
    expect(rows.length).toBe(28);
    expect(text(out('e.csv')).trimEnd().split('\n').length).toBe(4);
    expect(text(out('m.svg'))).toContain('Weight of every cluster');
  });

  it('takes a random slope, correlated errors, a given q, and a penalty', () => {
    const slope = run('mixed-effects', ...base, '--random', '1,age', '--no-profile', '--report', out('r.json'));
    expect(slope.code).toBe(0);
    expect(reportOf<MixedReport>(out('r.json')).profile).toEqual([]);
    const given = run('mixed-effects', ...base, '--q', '1.2', '--no-profile', '--report', out('q.json'));
    expect(given.code).toBe(0);
    expect(reportOf<MixedReport>(out('q.json')).degrees_of_freedom).toBeCloseTo(6, 10);
    const more = ['--error-correlation', '0.2', '--penalty', 'mcp', '--lambda', '0.05', '--no-profile'];
    expect(run('mixed-effects', ...base, ...more, '--report', out('p.json')).code).toBe(0);
  });

  it('says what is wrong in one line', () => {
    const refuse = (argv: string[], message: string): void => {
      const { code, stderr } = run('mixed-effects', ...argv);
      expect(stderr).toContain(message);
      expect(stderr.trimEnd().split('\n').length).toBe(1);
      expect(code).toBe(2);
    };
    refuse([...base, '--q', '1.6'], 'q=1.6 needs q < 1+2/n = 1.5 for n=4 observations in cluster M01');
    refuse([...base, '--random', 'weight'], '--random weight: fixtures/tables/orthodont.csv has no such column');
    const doubled = changed(ORTHODONT, 'doubled.csv', (lines) =>
      lines.map((line, i) => `${line},${i === 0 ? 'months' : 12 * Number(line.split(',')[1])}`),
    );
    refuse(['--data', doubled, ...base.slice(2)], 'linearly dependent');
    const argv = [...base, '--q', '1.6'];
    expect(surprisal(['analyze-entropy', 'mixed-effects', ...argv])).toEqual(run('mixed-effects', ...argv));
  });
});
