import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { temporaryFolder } from '../formats/collect.js';
import { blobs } from '../representations/clouds.js';
import { resident, surprisal } from './run-surprisal.js';

const folder = temporaryFolder();
const out = (name: string): string => join(folder, name);
const text = (path: string): string => readFileSync(path, 'utf8');
const run = (...argv: string[]) => resident(['analyze-entropy', 'representations', ...argv]);

interface SetReport {
  name: string;
  layer: number | null;
  rows: number;
  rows_used: number;
  sampled_rows: number[] | null;
  duplicate_rows: number;
  sigma: number;
  method: string;
  entropies: { t: number; dse_bits: number; dse_bits_se: number | null; effective_rank: number }[];
  top_eigenvalues: number[] | null;
  variants: Record<string, number>;
  sweep: { follows_rule: boolean }[];
  curve: { size: number }[];
  information: { with: string; categories: string; by_time: { dsmi_bits: number }[]; terms: object[] }[];
  condition_number: number | string;
}
interface Report {
  sets: SetReport[];
  linear_cka: number[][] | null;
  attention: { layer: number; mean_entropy_nats: number }[] | null;
  warnings: string[];
}

/** A table of points with a class and an amount beside them. */
const N = 60;
const D = 4;
const cloud = blobs(N, D, 3, 17);
const rows = Array.from({ length: N }, (_, i) => Array.from(cloud.data.subarray(i * D, (i + 1) * D)));
const table = (name: string, lines: readonly (readonly (number | string)[])[]): string => {
  const path = out(name);
  const header = ['a', 'b', 'c', 'd', 'kind', 'amount'].slice(0, lines[0].length).join(',');
  writeFileSync(path, `${[header, ...lines.map((line) => line.join(','))].join('\n')}\n`);
  return path;
};
const POINTS = table('points.csv', rows);
const LABELLED = table(
  'labelled.csv',
  rows.map((row, i) => [...row, `kind ${i % 3}`, i / 7]),
);

const reportOf = (...argv: string[]): { report: Report; stdout: string; stderr: string } => {
  const path = out('report.json');
  const ended = run(...argv, '--report', path, '--force');
  expect(`${ended.code} ${ended.code === 0 ? '' : ended.stderr}`).toBe('0 ');
  return { report: JSON.parse(text(path)) as Report, ...ended };
};

describe('files of features', () => {
  it('give table, report, spectrum and figure, by the exact path', () => {
    const { report, stdout, stderr } = reportOf(
      ...['--data', POINTS, '--t', '1,2', '--sigma', '2', '--variants', 'all', '--knn', '4', '--sweep'],
      ...['--out', out('dse.csv'), '--table', out('spectrum.csv'), '--plot', out('dse.svg')],
    );
    expect(stderr).toBe('');
    expect(stdout).toMatch(/DSE, bits/);
    const [set] = report.sets;
    expect(set).toMatchObject({ rows: N, rows_used: N, sampled_rows: null, sigma: 2, method: 'exact' });
    expect(set.entropies.map(({ t }) => t)).toEqual([1, 2]);
    expect(set.entropies[0].effective_rank).toBeCloseTo(2 ** set.entropies[0].dse_bits, 10);
    expect(Object.keys(set.variants)).toEqual([
      'matrix_entry_entropy_bits',
      'adjacency_gaussian_entropy_bits',
      'adjacency_anisotropic_entropy_bits',
      'adjacency_knn4_entropy_bits',
      'shannon_2_bins_entropy_bits',
    ]);
    expect(set.variants.adjacency_anisotropic_entropy_bits).toBeCloseTo(set.entropies[0].dse_bits, 10);
    expect(set.sweep).toHaveLength(18);
    expect(set.curve.map(({ size }) => size)).toEqual([30, 30, 60, 60]);
    expect(text(out('dse.csv')).trim().split('\n')).toHaveLength(3);
    expect(text(out('spectrum.csv')).trim().split('\n')).toHaveLength(N + 1);
    expect(text(out('dse.svg'))).toContain('Entropy over bandwidths and diffusion times');
  });

  it('give the same bytes for any number of threads and the same seed', () => {
    const files = ['1', '2'].map((threads) => {
      const path = out(`threads-${threads}.json`);
      const ended = run(
        ...['--data', LABELLED, '--columns', 'a,b,c,d', '--label-column', 'kind', '--mi-with', 'labels'],
        ...['--max-n', '50', '--seed', '3', '--threads', threads, '--report', path, '--quiet'],
      );
      expect(ended).toMatchObject({ code: 0 });
      return text(path);
    });
    expect(files[1]).toBe(files[0]);
    const [set] = (JSON.parse(files[0]) as Report).sets;
    expect(set.sampled_rows).toHaveLength(50);
  });

  it('measure information with classes, amounts, the features themselves and another file', () => {
    const kinds = reportOf(
      ...['--data', LABELLED, '--columns', 'a,b,c,d', '--label-column', 'kind', '--clusters', '3'],
      ...['--mi-with', 'labels', 'input', POINTS, '--out', out('mi.csv')],
      ...['--table', out('terms.csv'), '--table-of', 'terms', '--plot', out('mi.svg')],
    ).report.sets[0].information;
    expect(kinds.map(({ categories }) => categories)).toEqual(['classes', 'clusters', 'clusters']);
    expect(kinds[1].by_time[0].dsmi_bits).toBe(kinds[2].by_time[0].dsmi_bits);
    expect(kinds[0].by_time[0].dsmi_bits).toBeGreaterThan(0.3);
    expect(text(out('mi.csv'))).toContain('dsmi_3_bits_se');
    expect(text(out('terms.csv')).trim().split('\n')).toHaveLength(1 + 9);
    const [amounts] = reportOf(
      ...[
        '--data',
        LABELLED,
        '--columns',
        'a,b,c,d',
        '--label-column',
        'amount',
        '--mi-with',
        'labels',
        '--clusters',
        '4',
      ],
    ).report.sets[0].information;
    expect(amounts).toMatchObject({ categories: 'bins' });
    expect(amounts.terms).toHaveLength(4);
  });

  it('compare several files over the same rows', () => {
    const half = table(
      'half.csv',
      rows.map((row) => row.slice(0, 2)),
    );
    const { report } = reportOf('--data', POINTS, half, '--curve', '20', '--plot', out('two.png'));
    expect(report.sets).toHaveLength(2);
    expect(report.linear_cka?.[0][0]).toBe(1);
    expect(report.linear_cka?.[1][0]).toBe(report.linear_cka?.[0][1]);
    expect(report.sets[1].curve.map(({ size }) => size)).toEqual([20]);
  });

  it('estimate with errors, as --method says', () => {
    const exact = reportOf('--data', POINTS, '--sigma', '3').report.sets[0].entropies[0];
    const slq = reportOf('--data', POINTS, '--sigma', '3', '--method', 'slq', '--curve', 'none').report.sets[0];
    expect(slq).toMatchObject({ method: 'slq', top_eigenvalues: null });
    const error = slq.entropies[0].dse_bits_se ?? 0;
    expect(Math.abs(slq.entropies[0].dse_bits - exact.dse_bits)).toBeLessThan(4 * error);
  });

  it('hold asserts', () => {
    const line = ['--data', POINTS, '--curve', 'none', '--assert', 'sets[0].entropies[0].dse_bits > 99'];
    const ended = run(...line);
    expect(ended.code).toBe(3);
    expect(surprisal(['analyze-entropy', 'representations', ...line])).toEqual(ended);
  });
});

describe('a model and a text', () => {
  it('give entropies, ranks and attention entropies over layers', () => {
    const { report } = reportOf(
      ...['--model', 'fixtures/models/llama-sotu', '--data', 'fixtures/text/heldout_text.jsonl', '--limit', '1'],
      ...['--pool', 'tokens', '--max-n', '300', '--attention', '--plot', out('layers.svg')],
    );
    expect(report.sets.map(({ layer }) => layer)).toEqual([0, 1, 2, 3, 4]);
    expect(report.attention?.map(({ layer }) => layer)).toEqual([1, 2, 3, 4]);
    expect(report.sets[0].duplicate_rows).toBeGreaterThan(0);
    expect(report.warnings.join('\n')).toMatch(/layer 0: \d+ of 300 rows equal an earlier one/);
    for (const title of ['Diffusion spectral entropy', 'Effective rank', 'Attention entropy', 'Linear CKA']) {
      expect(text(out('layers.svg'))).toContain(title);
    }
  });
});

describe('bad input', () => {
  const refused = (argv: readonly string[], message: RegExp): void => {
    const { code, stderr } = run(...argv);
    expect(stderr.trim().split('\n')).toHaveLength(1);
    expect(stderr).toMatch(message);
    expect(code).toBe(2);
  };

  it('counts rows that are not finite and names the first', () => {
    const path = table(
      'nan.csv',
      rows.map((row, i) => (i % 20 === 7 ? [row[0], 'nan', row[2], row[3]] : row)),
    );
    refused(['--data', path], /nan\.csv: 3 of 60 rows hold NaN or an infinite value, the first is row 7, column "b"/);
  });

  it('one row has entropy 0, constant columns and equal rows are counted', () => {
    const one = reportOf('--data', table('one.csv', [[1, 2, 3, 4]]), '--t', '1,3');
    expect(one.report.sets[0].entropies.map(({ dse_bits }) => dse_bits)).toEqual([0, 0]);
    expect(one.stderr).toMatch(/one row: every entropy is 0/);
    const same = table(
      'same.csv',
      [...rows, rows[0], rows[1]].map((row) => [...row.slice(0, 3), 5]),
    );
    const { stderr, report } = reportOf('--data', same);
    expect(stderr).toMatch(/2 of 62 rows equal an earlier one/);
    expect(stderr).toMatch(/1 of 4 columns are constant/);
    expect(report.sets[0].condition_number).not.toBe('nan');
    refused(['--data', same, '--variants', 'shannon'], /same\.csv: column "d" is constant \(5\), 1 of 4 columns are/);
    expect(run('--data', same, '--variants', 'shannon', '--constant-columns', 'drop').code).toBe(0);
  });

  it('warns of a bandwidth beyond the useful range', () => {
    expect(run('--data', POINTS, '--sigma', '1e4').stderr).toMatch(/all points alike.*try --sigma median/);
    expect(run('--data', POINTS, '--sigma', '1e-4').stderr).toMatch(/every point alone.*try --sigma median/);
  });

  it('names options and labels that do not fit', () => {
    const labels = out('short.txt');
    writeFileSync(labels, 'x\ny\n');
    refused(['--data', POINTS, '--labels', labels, '--mi-with', 'labels'], /short\.txt: 2 labels, but .*60 rows/);
    refused(['--data', POINTS, '--mi-with', 'labels'], /--mi-with labels: there are none; name them with --labels/);
    refused(['--data', POINTS, '--t', '1,0'], /--t 1,0: diffusion times are positive/);
    refused(['--data', POINTS, '--sigma', 'mean'], /--sigma mean: give median/);
    refused(['--data', POINTS, '--sweep', 'x0'], /--sweep x0: give median/);
    refused(['--data', POINTS, '--variants', 'knm'], /--variants knm: unknown; did you mean "knn"/);
    refused(['--data', POINTS, '--variants', 'knn', '--knn', '99'], /--knn 99 counts the row itself.*only 60 rows/);
    refused(['--data', POINTS, '--attention'], /--attention needs --model/);
    refused(['--data', POINTS, '--table-of', 'terms'], /--table-of terms needs --mi-with/);
    refused(['--data', POINTS, '--shard', '0/2'], /unknown option '--shard'/);
    refused(['--data', POINTS, '--mi-with', 'input', '--clusters', '99'], /60 rows for 99 clusters; lower --clusters/);
  });
});
