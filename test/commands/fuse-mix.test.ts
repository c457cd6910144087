import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { readReport, validateReport } from '../../src/report/json.js';
import { temporaryFolder } from '../formats/collect.js';
import { type Ended, resident } from './run-surprisal.js';

const folder = temporaryFolder();
const at = (name: string): string => join(folder, name);
const mix = (...argv: string[]): Ended => resident(['fuse', 'mix', ...argv]);
const csv = (name: string, rows: readonly (readonly (string | number)[])[]): string => {
  writeFileSync(at(name), `${rows.map((row) => row.join(',')).join('\n')}\n`);
  return at(name);
};

function checked(name: string): Record<string, unknown> {
  const report = readReport(at(name));
  validateReport(report, name);
  return report as unknown as Record<string, unknown>;
}

/** The golden case as a log of losses. */
const GOLDEN = JSON.parse(readFileSync('fixtures/golden/aioli/ema_normalized.json', 'utf8')) as {
  inputs: { losses: number[][]; probe_orders: number[][]; k: number };
  expected: { proportions: number[][] };
};
const NAMES = ['a', 'b', 'c'];
const LOG = (() => {
  const rows: (string | number)[][] = [['round', 'probe', 'probe_group', 'group', 'val_loss']];
  let next = 0;
  GOLDEN.inputs.probe_orders.forEach((order, round) => {
    for (const [probe, probed] of [['start', ''] as const, ...order.map((j, n) => [n, NAMES[j]] as const)]) {
      const losses = GOLDEN.inputs.losses[next++];
      for (const [i, name] of NAMES.entries()) rows.push([round, probe, probed, name, losses[i]]);
    }
  });
  return rows;
})();

describe('fuse mix on logged losses', () => {
  it('gives the proportions of the golden case, as table, report and figure', () => {
    const log = csv('log.csv', LOG);
    const out = ['--out', at('rounds.csv'), '--report', at('logged.json'), '--plot', at('logged.svg')];
    const words = ['--losses', log, '--eta', '0.1', '--ema', '0.5', '--gamma', '0.5', ...out];
    expect(mix('aioli', ...words)).toMatchObject({ code: 0, stderr: '' });
    const report = checked('logged.json');
    const rounds = report.rounds as { proportions: number[]; cond_w: number }[];
    GOLDEN.expected.proportions.forEach((expected, round) => {
      expected.forEach((share, j) => {
        expect(rounds[round].proportions[j]).toBeCloseTo(share, 9);
      });
    });
    expect(rounds[0].cond_w).toBe(4);
    const [header, first] = readFileSync(at('rounds.csv'), 'utf8').split('\n');
    expect(header).toBe('round,step,group,loss_nats,p,eta_colsum,entropy_p_nats,kl_p_uniform_nats,cond_w');
    expect(first).toMatch(/^0,,a,4.023643,0.3326/);
    expect(existsSync(at('logged.svg'))).toBe(true);
  });

  it('reads what the other rows need', () => {
    const starts = LOG.filter((row, r) => r === 0 || row[1] === 'start').map(([round, , , group, loss]) => [
      round,
      group,
      loss,
    ]);
    const log = csv('starts.csv', [['round', 'group', 'val_loss'], ...starts.slice(1)]);
    const reference = csv('reference.csv', [['group', 'loss'], ...NAMES.map((name, i) => [name, 3 + i / 2])]);
    const graph = csv('graph.csv', [
      ['trained', ...NAMES],
      ['a', 1, 0.2, 0],
      ['b', 0, 1, 0],
      ['c', 0.1, 0.1, 1],
    ]);
    const alignments = csv('alignments.csv', [
      ['round', 'group', 'inner_product', 'norm'],
      ...[0, 1, 2, 3].flatMap((round) => NAMES.map((name, i) => [round, name, i * 0.1, 1])),
    ]);
    const of = (...argv: string[]): number[] => {
      expect(mix('--losses', log, '--report', at('row.json'), '--force', '--quiet', ...argv)).toMatchObject({
        code: 0,
      });
      return checked('row.json').proportions as number[];
    };
    expect(of('--method', 'stratified')).toEqual([1 / 3, 1 / 3, 1 / 3]);
    const doremi = of('--method', 'doremi', '--reference-losses', reference);
    expect(doremi[1]).toBeGreaterThan(doremi[2]);
    const doge = of('--method', 'doge', '--alignments', alignments, '--learning-rate', '0.01');
    expect(doge[2]).toBeGreaterThan(doge[1]);
    const skillIt = of('--method', 'skill-it', '--graph', graph);
    expect(skillIt[0]).toBeGreaterThan(skillIt[2]);
  });

  const changed = (name: string, change: (rows: (string | number)[][]) => void): string => {
    const rows = LOG.map((row) => [...row]);
    change(rows);
    return csv(name, rows);
  };

  it.each([
    ['NaN', (rows: (string | number)[][]) => (rows[5][4] = 'nan'), /nan.csv:6: the loss of b is nan/],
    [
      'missing',
      (rows: (string | number)[][]) => rows.splice(5, 1),
      /missing.csv:5: round 0, probe 0 holds no loss of the group b/,
    ],
    [
      'twice',
      (rows: (string | number)[][]) => (rows[5][3] = 'a'),
      /twice.csv:6: round 0, probe 0 has two losses of the group a/,
    ],
    [
      'one',
      (rows: (string | number)[][]) => rows.splice(0, rows.length, rows[0], rows[1]),
      /1 group; mixing needs two/,
    ],
  ])('refuses a log: %s', (name, change, message) => {
    const log = changed(`${name.toLowerCase()}.csv`, change);
    const ended = mix('--losses', log);
    expect(ended.code).toBe(2);
    expect(ended.stderr).toMatch(message);
  });
});

describe('fuse mix on a sweep', () => {
  it('lays out mixtures, fits laws to their losses and compares a matrix', () => {
    const words = [
      'design',
      '--groups',
      'a,b,c',
      '--design',
      '14',
      '--out',
      at('design.csv'),
      '--report',
      at('design.json'),
    ];
    expect(mix(...words, '--plot', at('design.svg'))).toMatchObject({ code: 0, stderr: '' });
    expect(checked('design.json')).toMatchObject({ mixtures: 14 });
    const [header, ...rows] = readFileSync(at('design.csv'), 'utf8').trim().split('\n');
    expect(header).toBe('p_a,p_b,p_c');
    // A straight world with L0 = 5 and a known A.
    const A = [0.9, 0.1, 0, 0.2, 0.5, 0.1, 0, 0.3, 0.8];
    const sweep = csv('sweep.csv', [
      ['p_a', 'p_b', 'p_c', 'loss_a', 'loss_b', 'loss_c'],
      ...rows.map((row) => {
        const p = row.split(',').map(Number);
        return [...p, ...[0, 1, 2].map((i) => 5 - p.reduce((sum, share, j) => sum + A[3 * i + j] * share, 0))];
      }),
    ]);
    const matrix = csv('matrix.csv', [
      ['group', ...NAMES],
      ...NAMES.map((name, i) => [name, ...A.slice(3 * i, 3 * i + 3)]),
    ]);
    const more = [
      '--start-losses',
      'a=5,b=5,c=5',
      '--compare-matrix',
      matrix,
      '--plot',
      at('fit.svg'),
      '--out',
      at('fit.csv'),
    ];
    expect(mix('--fit', sweep, ...more, '--report', at('fit.json'))).toMatchObject({ code: 0, stderr: '' });
    const report = checked('fit.json') as {
      linear: { fit: { r2: number }; left_out: { r2: number }; optimum: { mixture: number[] } };
      log_linear: { fit: { mse: number }; optimum: { mixture: number[] } };
      measured_A: number[][];
      agreement: { cosine: number; centred_cosine: number };
    };
    expect(report.measured_A.flat().every((entry, e) => Math.abs(entry - A[e]) < 1e-9)).toBe(true);
    expect(report.agreement.cosine).toBeCloseTo(1, 9);
    expect(report.linear.left_out.r2).toBeCloseTo(1, 9);
    expect(report.log_linear.fit.mse).toBeLessThan(1e-16);
    expect(report.linear.optimum.mixture).toEqual([1, 0, 0]);
    expect(report.log_linear.optimum.mixture[0]).toBeCloseTo(1, 9);
    const chosen = mix(
      '--method',
      'dml',
      '--losses',
      csv('log2.csv', LOG),
      '--sweep',
      sweep,
      '--report',
      at('dml.json'),
      '--quiet',
    );
    expect(chosen.code).toBe(0);
    expect((checked('dml.json').proportions as number[])[0]).toBeCloseTo(1, 9);
  });
});

describe('fuse mix on the training engine', () => {
  it('trains, writes a model, and logs losses that give the same proportions', () => {
    const texts = readFileSync('fixtures/text/heldout_text.jsonl', 'utf8').split('\n');
    const groups = ['sotu', 'moby'].map((name, j) => {
      const { text } = JSON.parse(texts[j === 0 ? 0 : 3]) as { text: string };
      writeFileSync(at(`${name}.txt`), text.slice(0, 5000));
      return `${name}=${at(`${name}.txt`)}`;
    });
    const words = [
      '--model',
      'fixtures/models/llama-sotu',
      '--group',
      ...groups,
      '--context',
      '32',
      '--batch-size',
      '4',
    ];
    const course = [
      '--method',
      'aioli',
      '--steps',
      '8',
      '--update-every',
      '6',
      '--probe-rounds',
      '2',
      '--probe-steps',
      '1',
    ];
    const outputs = [
      '--out',
      at('model'),
      '--report',
      at('train.json'),
      '--table',
      at('train.csv'),
      '--save-losses',
      at('losses.csv'),
    ];
    const ended = mix(...words, ...course, ...outputs, '--plot', at('train.svg'), '--threads', '1', '--quiet');
    expect(ended).toMatchObject({ code: 0, stderr: '' });
    const report = checked('train.json') as { proportions: number[]; budget: object; runs: { rounds: object[] }[] };
    expect(report.budget).toMatchObject({ probe_steps: 4, final_steps: 8, total_steps: 8 });
    expect(existsSync(at('model/model.safetensors'))).toBe(true);
    validateReport(readReport(at('model/manifest.json')), 'manifest');
    expect(mix('--losses', at('losses.csv'), '--report', at('again.json'), '--quiet')).toMatchObject({ code: 0 });
    expect(checked('again.json').proportions).toEqual(report.proportions);
    const dry = mix(...words, '--method', 'doremi', '--steps', '8', '--out', at('none'), '--dry-run');
    expect(dry.stdout).toMatch(/reference run +2 steps[\s\S]*steps of all runs +12/);
  });
});

describe('fuse mix refuses', () => {
  const groups = ['--model', 'fixtures/models/llama-sotu', '--out', at('never'), '--group', 'a=x.txt'];
  it.each([
    [[], /nothing says what to do/],
    [['ailoi'], /no method; did you mean "aioli"/],
    [['--losses', 'x.csv', '--fit', 'y.csv'], /--losses and --fit are different things/],
    [['--losses', 'x.csv', '--alpha', '2'], /--alpha has no meaning with --losses; it goes with --design/],
    [['--losses', 'x.csv', '--method', 'stratified', '--eta', '2'], /--eta: stratified does not read it/],
    [['--losses', 'x.csv', '--method', 'doremi'], /doremi needs --reference-losses/],
    [['--losses', 'x.csv', '--prior', 'a=0.5,b=0.5'], /begins anew at uniform/],
    [['--fit', 'x.csv', '--starts', '5'], /--starts 5: an integer of at least 20/],
    [['--design', '5', '--groups', 'a'], /1 groups: mixing needs two/],
    [groups, /1 group; mixing needs two or more/],
    [[...groups, 'b=y.txt', '--eval-group', 'c=z.txt'], /there is no group c/],
    [[...groups, 'b=y.txt', '--graph-steps', '5'], /--graph-steps: aioli does not read it/],
  ])('%j', (argv, message) => {
    const ended = mix(...argv);
    expect(ended.code).toBe(2);
    expect(ended.stderr).toMatch(message);
  });

  it('proportions of 0, and gamma of 1/k', () => {
    const log = csv('log3.csv', LOG);
    const zero = mix('--losses', log, '--prior', 'a=0,b=1,c=1', '--memory', 'accumulate');
    expect([zero.code, zero.stderr]).toEqual([2, expect.stringMatching(/proportion of a is 0/)]);
    const singular = mix('--losses', log, '--gamma', '0.333333333333');
    expect([singular.code, singular.stderr]).toEqual([2, expect.stringMatching(/W is singular/)]);
  });
});
