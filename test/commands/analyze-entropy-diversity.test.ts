import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { createRandom } from '../../src/random.js';
import { temporaryFolder } from '../formats/collect.js';
import { resident, surprisal } from './run-surprisal.js';

const folder = temporaryFolder();
const out = (name: string): string => join(folder, name);
const text = (path: string): string => readFileSync(path, 'utf8');
const run = (...argv: string[]) => resident(['analyze-entropy', 'diversity', ...argv]);
const QUICK = ['--resamples', '0', '--curve', 'none'];

interface Report {
  scores: Record<string, number>;
  sets: {
    name: string;
    method: string;
    items: number;
    duplicate_items: number;
    sigma: number | null;
    spectrum: { rank: number; cut: number; eigenvalues: number[] } | null;
    figures: { measure: string; q: number; value: number; value_se: number | null; value_half: number | null }[];
    groups: { name: string; items: number; share: number; scores: Record<string, number> }[];
    leave_one_out: { item: number; gains: Record<string, number> }[];
    curve: { items: number; scores: { measure: string; q: number; value: number; value_se: number | null }[] }[];
    modes: { items: { id: string; text: string | null }[]; items_nearest: number }[];
  }[];
  comparisons: {
    permutations: number;
    figures: {
      measure: string;
      q: number | string;
      value: number;
      against: number;
      union: number;
      difference: number;
      difference_se: number;
      permutation_p: number;
    }[];
  }[];
  warnings: string[];
}

/** Three clusters of unequal sizes in six dimensions, with a class and a weight beside them. */
const N = 48;
const random = createRandom(5);
const CLASSES = Array.from({ length: N }, (_, i) => (i < 24 ? 'a' : i < 40 ? 'b' : 'c'));
const rows = CLASSES.map((kind) =>
  Array.from({ length: 6 }, (_, k) => (k === kind.charCodeAt(0) - 97 ? 3 : 0) + 0.4 * random.normal()),
);
const table = (name: string, header: string, lines: readonly (readonly (number | string)[])[]): string => {
  const path = out(name);
  writeFileSync(path, `${[header, ...lines.map((line) => line.join(','))].join('\n')}\n`);
  return path;
};
const HEADER = 'x1,x2,x3,x4,x5,x6';
const POINTS = table('points.csv', HEADER, rows);
const LABELLED = table(
  'labelled.csv',
  `${HEADER},kind,weight`,
  rows.map((row, i) => [...row, CLASSES[i], 1 / N]),
);
const NARROW = table('narrow.csv', HEADER, rows.slice(0, 24));
const TEXTS = out('texts.jsonl');
const SENTENCES = [
  'the cat sat on the mat today',
  'the cat sat on the mat again',
  'a dog ran over the wide field',
  'a dog ran over the wide field',
  'numbers fall and rise with time',
];
writeFileSync(TEXTS, SENTENCES.map((item, i) => JSON.stringify({ id: `s${i}`, text: item })).join('\n'));

const reportOf = (...argv: string[]): Report => {
  const ended = run(...argv, '--report', out('report.json'), '--force');
  expect(`${ended.code} ${ended.code === 0 ? '' : ended.stderr}`).toBe('0 ');
  return JSON.parse(text(out('report.json'))) as Report;
};

const failure = (...argv: string[]): string => {
  const { code, stderr } = run(...argv);
  expect(code).toBe(2);
  expect(stderr.trim().split('\n').length).toBe(1);
  return stderr;
};

describe('analyze-entropy diversity', () => {
  it('gives the printed values of the package from similarity matrices', () => {
    const points = [0, 0, 10, 10, 20, 20];
    const exponential = table(
      'exp.csv',
      'a,b,c,d,e,f',
      points.map((x) => points.map((y) => Math.exp(-Math.abs(x - y)))),
    );
    const three = table('three.csv', 'a,b,c', [
      [1, 0.9, 0],
      [0.9, 1, 0],
      [0, 0, 1],
    ]);
    const first = reportOf('--similarity', exponential, ...QUICK);
    expect(first.scores.vendi_q1).toBeCloseTo(2.99999999, 7);
    expect(first.sets[0].spectrum?.rank).toBe(3);
    expect(first.sets[0].method).toBe('exact');
    const failing = ['--assert', 'scores.vendi_q1 > 2.2', '--quiet', '--report', out('three.json')];
    expect(surprisal(['analyze-entropy', 'diversity', '--similarity', three, ...QUICK, ...failing]).code).toBe(3);
    expect((JSON.parse(text(out('three.json'))) as Report).scores.vendi_q1).toBeCloseTo(2.1573, 4);
  });

  it('agrees over paths, and with equal weights', () => {
    const dual = reportOf('--data', POINTS, ...QUICK);
    const exact = reportOf('--data', POINTS, '--method', 'exact', ...QUICK);
    const weighted = reportOf('--data', LABELLED, '--columns', HEADER, '--weights', 'weight', ...QUICK);
    expect([dual.sets[0].method, exact.sets[0].method]).toEqual(['dual', 'exact']);
    for (const [key, value] of Object.entries(dual.scores)) {
      expect(exact.scores[key] / value).toBeCloseTo(1, 9);
      expect(weighted.scores[key] / value).toBeCloseTo(1, 9);
    }
    const whole = reportOf('--data', POINTS, '--kernel', 'rbf', ...QUICK);
    const landmarks = reportOf('--data', POINTS, '--kernel', 'rbf', '--method', 'nystrom', ...QUICK);
    expect(landmarks.scores.vendi_q1 / whole.scores.vendi_q1).toBeCloseTo(1, 6);
    const features = reportOf('--data', POINTS, '--kernel', 'rbf', '--method', 'fkea', '--features', '256', ...QUICK);
    expect(Math.abs(features.scores.vendi_q1 / whole.scores.vendi_q1 - 1)).toBeLessThan(0.15);
    expect(features.sets[0].figures[0].value_half).not.toBeNull();
    const probes = reportOf('--data', POINTS, '--kernel', 'rbf', '--method', 'slq', ...QUICK);
    expect(Math.abs(probes.scores.vendi_q1 / whole.scores.vendi_q1 - 1)).toBeLessThan(0.02);
    expect(probes.scores.rke).toBeCloseTo(whole.scores.rke, 9);
    expect(probes.sets[0].spectrum).toBeNull();
  });

  it('measures and draws groups, curves, errors, single items and modes; the same bytes for any threads', () => {
    const argv = ['--data', LABELLED, '--columns', HEADER, '--label-column', 'kind', '--modes', '3', '--truncate', '3'];
    const reports = ['1', '2'].map((threads) => {
      const plot = out(threads === '1' ? 'd.svg' : 'd.html');
      const files = ['report.json', 'out.csv', 'items.csv'].map((name) => out(`${threads}-${name}`));
      const [report, scores, items] = files;
      const ended = run(
        ...argv,
        '--report',
        report,
        '--out',
        scores,
        '--table',
        items,
        '--plot',
        plot,
        '--threads',
        threads,
        '--quiet',
      );
      expect(ended.stderr).toBe('');
      expect(ended.code).toBe(0);
      expect(text(plot)).toContain('Score against order');
      return files.map(text);
    });
    expect(reports[0]).toEqual(reports[1]);
    const [set] = (JSON.parse(reports[0][0]) as Report).sets;
    expect(set.groups.map(({ name, items }) => [name, items])).toEqual([
      ['a', 24],
      ['b', 16],
      ['c', 8],
    ]);
    for (const { scores } of set.groups) expect(scores.vendi_q1).toBeLessThan(set.figures[2].value);
    expect(set.figures.every(({ measure, value_se }) => measure === 'intdiv' || value_se !== null)).toBe(true);
    const last = set.curve[set.curve.length - 1];
    expect(last.items).toBe(N);
    expect(last.scores[2].value).toBeCloseTo(set.figures[2].value, 9);
    expect(set.curve[0].scores[2].value_se).toBeGreaterThan(0);
    expect(set.leave_one_out.length).toBe(32);
    expect(set.modes.map(({ items_nearest }) => items_nearest)).toEqual([24, 16, 8]);
    const lines = reports[0][2].trim().split('\n');
    expect(lines.length).toBe(N + 1);
    expect(lines[0]).toContain('gain_vendi_q0.5');
    const rke = lines[1 + set.leave_one_out[0].item].split(',')[6];
    expect(Number(rke)).toBeCloseTo(set.leave_one_out[0].gains.rke, 10);
  });

  it('compares sets: difference, union, interval and permutation', () => {
    const { comparisons } = reportOf(
      '--data',
      POINTS,
      '--against',
      NARROW,
      POINTS,
      '--resamples',
      '20',
      '--curve',
      'none',
    );
    const order = (k: number, q: number) => {
      const found = comparisons[k].figures.find((figure) => figure.measure === 'vendi' && figure.q === q);
      if (!found) throw new Error(`no order ${q}`);
      return found;
    };
    const narrow = order(0, 1);
    expect(narrow.difference).toBeCloseTo(narrow.value - narrow.against, 12);
    expect(narrow.difference).toBeGreaterThan(0.5);
    expect(narrow.permutation_p).toBeLessThan(0.02);
    expect(narrow.difference_se).toBeGreaterThan(0);
    const same = order(1, 1);
    expect(same.difference).toBeCloseTo(0, 9);
    expect(same.union).toBeCloseTo(same.value, 9);
    expect(same.permutation_p).toBeGreaterThan(0.5);
  });

  it('scores texts by n-grams, equality and edits', () => {
    const grams = reportOf('--data', TEXTS, '--modes', '1', ...QUICK);
    expect(grams.sets[0]).toMatchObject({ items: 5, duplicate_items: 1, method: 'exact' });
    expect(grams.scores.vendi_q0).toBe(4);
    expect(grams.sets[0].modes[0].items.every(({ id, text: shown }) => id.startsWith('s') && shown !== null)).toBe(
      true,
    );
    const equal = reportOf('--data', TEXTS, '--kernel', 'match', ...QUICK);
    expect(equal.sets[0].method).toBe('counts');
    expect(equal.scores.rke).toBeCloseTo(25 / 7, 12);
    const edits = reportOf('--data', TEXTS, '--kernel', 'edit', '--negative-eigenvalues', 'drop', ...QUICK);
    expect(edits.scores.vendi_q1).toBeGreaterThan(1);
    const probes = reportOf('--data', TEXTS, '--method', 'slq', ...QUICK);
    expect(probes.scores.vendi_q2).toBeCloseTo(grams.scores.vendi_q2, 6);
  });

  it('embeds texts by a model, layer by layer', () => {
    const model = ['--model', 'fixtures/models/llama-sotu', '--layer', '0,-1', '--data', TEXTS];
    const { sets } = reportOf(...model, '--q', '1', ...QUICK);
    expect(sets.length).toBe(2);
    expect(sets.every(({ items, duplicate_items }) => items === 5 && duplicate_items === 1)).toBe(true);
  });

  it('plans, and scores one item as 1', () => {
    const planned = run('--data', POINTS, '--dry-run');
    expect(planned.stdout).toMatch(/48 x 6, dual: 6 columns are fewer than 48 items/);
    const one = reportOf('--data', table('one.csv', 'a,b', [[1, 2]]), '--intdiv', '1');
    expect(one.scores).toMatchObject({ vendi_q0: 1, vendi_q1: 1, vendi_qinf: 1, rke: 1 });
    expect(one.sets[0].figures[0].value_se).toBeNull();
  });

  it('warns of a bandwidth that sees nothing or one item', () => {
    const far = run('--data', POINTS, '--kernel', 'rbf', '--sigma', '1e-3', ...QUICK);
    expect(far.stderr).toMatch(/--sigma 0.001 makes all items distinct .* the median distance is .* useful values are/);
    const near = reportOf('--data', POINTS, '--kernel', 'rbf', '--sigma', '1000', ...QUICK);
    expect(near.warnings[0]).toMatch(/--sigma 1000 makes all items alike/);
  });
});

describe('bad input of analyze-entropy diversity', () => {
  const square = (name: string, lines: number[][]): string =>
    table(name, lines[0].map((_, i) => `c${i}`).join(','), lines);

  it('is named in one line', () => {
    const skew = square('skew.csv', [
      [1, 0.5],
      [0.25, 1],
    ]);
    expect(failure('--similarity', skew)).toMatch(/skew.csv: is not symmetric: .* 0.250000, at i=1, j=0/);
    const negative = square('negative.csv', [
      [1, 0.9, -0.9],
      [0.9, 1, 0.9],
      [-0.9, 0.9, 1],
    ]);
    expect(failure('--similarity', negative)).toMatch(
      /negative.csv \(--similarity\) is not positive semidefinite: the smallest eigenvalue of K\/n is -0.26\d+ \(.*of the largest\)/,
    );
    const scaled = square('scaled.csv', [
      [2, 1],
      [1, 2],
    ]);
    expect(failure('--similarity', scaled)).toMatch(/the diagonal is not 1: K_ii = 2 at i=0; --normalize/);
    expect(run('--similarity', scaled, '--normalize', ...QUICK).code).toBe(0);
    expect(failure('--similarity', POINTS)).toMatch(/\[48, 6\] is no similarity matrix/);
    const holes = table('holes.csv', 'a,b', [
      [1, 2],
      ['nan', 1],
      [2, 'nan'],
    ]);
    expect(failure('--data', holes)).toMatch(/2 of 3 rows hold NaN .* the first is row 1, column "a"/);
    const zero = table('zero.csv', 'a,b', [
      [1, 2],
      [0, 0],
    ]);
    expect(failure('--data', zero)).toMatch(/row 1 is zero and cannot be divided by its length/);
    expect(failure('--data', TEXTS, '--ngrams', '9')).toMatch(/text of row 0 has 7 words, so no 9-gram/);
  });

  it('refuses weights, groups and options that do not fit', () => {
    const weights = (name: string, lines: number[]): string => {
      writeFileSync(out(name), lines.join('\n'));
      return out(name);
    };
    const even = new Array<number>(N).fill(1 / N);
    expect(failure('--data', POINTS, '--weights', weights('few.txt', [0.5, 0.5]))).toMatch(/2 weights for 48 items/);
    expect(failure('--data', POINTS, '--weights', weights('low.txt', new Array<number>(N).fill(0.5)))).toMatch(
      /sum to 24/,
    );
    const minus = weights('minus.txt', [-1, 2, ...even.slice(2).fill(0)]);
    expect(failure('--data', POINTS, '--weights', minus)).toMatch(/the weight of row 0 is -1/);
    expect(failure('--data', POINTS, '--weights', 'missing.txt')).toMatch(/missing.txt/);
    expect(failure('--data', POINTS, '--weights', weights('even.txt', even), '--against', NARROW)).toMatch(/one set/);
    expect(failure('--data', POINTS, '--labels', weights('three.txt', [1, 2, 3]))).toMatch(/3 labels/);
    expect(failure('--data', POINTS, '--shard', '0/2')).toMatch(/--shard: a score belongs to all items together/);
    expect(failure('--data', POINTS, '--kernel', 'cosin')).toMatch(/did you mean "cosine"/);
    expect(failure('--data', POINTS, '--method', 'fkea')).toMatch(/--method fkea does not serve the kernel cosine/);
    expect(failure('--data', POINTS, '--q', '1,-2')).toMatch(/"-2" is no order/);
    expect(failure('--data', POINTS, '--products', 'f32')).toMatch(/orders below 1/);
    expect(failure('--data', POINTS, '--method', 'slq', '--truncate', '3')).toMatch(/--truncate needs a spectrum/);
    expect(failure('--data', POINTS, '--method', 'exact', '--max-memory', '20000')).toMatch(/--max-memory/);
    expect(failure('--data', POINTS, '--against', TEXTS)).toMatch(/texts.jsonl/);
    const mixed = ['--data', POINTS, '--against', TEXTS];
    expect(surprisal(['analyze-entropy', 'diversity', ...mixed])).toEqual(run(...mixed));
  });
});
