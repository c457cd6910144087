import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { describe, expect, it } from 'vitest';
import { encodeNpy } from '../../src/formats/npy.js';
import { createRandom } from '../../src/random.js';
import { temporaryFolder } from '../formats/collect.js';
import { resident } from './run-surprisal.js';

const folder = temporaryFolder();
const at = (name: string): string => join(folder, name);
const run = (...argv: string[]) => resident(['distill-pld', ...argv]);
const schema = (name: string): object => JSON.parse(readFileSync(`src/report/schemas/${name}.schema.json`, 'utf8'));
const ajv = new Ajv2020({ strict: true, allowUnionTypes: true });
ajv.addSchema(schema('envelope'));
const validators = {
  score: ajv.compile(schema('distill-score')),
  ensemble: ajv.compile(schema('distill-ensemble')),
};

function report(name: string, kind: keyof typeof validators) {
  const parsed = JSON.parse(readFileSync(at(name), 'utf8'));
  const validate = validators[kind];
  expect(validate(parsed), JSON.stringify(validate.errors)).toBe(true);
  return parsed;
}

const [ROWS, CLASSES] = [40, 5];
const random = createRandom(11);
const teacher = Float32Array.from({ length: ROWS * CLASSES }, () => 2 * random.normal());
const student = teacher.map((value) => value + random.normal());
const labels = Float64Array.from({ length: ROWS }, (_, i) => (i === 7 ? -100 : i % CLASSES));
writeFileSync(at('s.npy'), encodeNpy(student, [ROWS, CLASSES]));
writeFileSync(at('t.npy'), encodeNpy(teacher, [ROWS, CLASSES]));
writeFileSync(at('wide.npy'), encodeNpy(new Float32Array(ROWS * 6), [ROWS, 6]));
writeFileSync(at('y.csv'), `y\n${Array.from(labels).join('\n')}\n`);
writeFileSync(at('text.txt'), 'Our country is strong, and we ask the Congress to act on the budget this year.');
const pair = ['--student-logits', at('s.npy'), '--teacher-logits', at('t.npy'), '--labels', at('y.csv')];

describe('distill-pld score', () => {
  it('audits stored logits', () => {
    const found = run(
      ...['score', ...pair, '--report', at('r.json'), '--out', at('l.csv'), '--table', at('ranks.csv')],
      ...['--per-row', at('rows.csv'), '--gradients', at('g.npy'), '--gradient-of', 'kd(T=2)', '--plot', at('a.svg')],
    );
    expect([found.stderr, found.code]).toEqual(['', 0]);
    const body = report('r.json', 'score');
    expect(body.rows).toBe(ROWS - 1);
    const mean = (loss: string): number => body.losses.find((row: { loss: string }) => row.loss === loss).mean;
    expect(mean('comp-sum')).toBeCloseTo(mean('ce'), 12);
    expect(body.student.nll_nats.mean).toBeCloseTo(mean('ce'), 9);
    const ranks = body.pld.per_rank.reduce(
      (sum: number, row: { contribution_nats: number }) => sum + row.contribution_nats,
      0,
    );
    expect(ranks + body.pld.rest_nats).toBeCloseTo(body.pld.loss_nats.mean, 9);
    expect(body.pld.loss_nats.mean).toBeCloseTo(mean('pld'), 9);
    expect(body.comp_sum.by_tau.every((row: { bound_holds: boolean }) => row.bound_holds)).toBe(true);
    expect(body.universality.regret_to_teacher_nats).toBeLessThanOrEqual(Math.LN2 + 1e-9);
    expect(body.losses_left_out).toEqual([{ loss: 'rkd', reason: expect.stringContaining('features') }]);
    expect(readFileSync(at('rows.csv'), 'utf8').trim().split('\n')).toHaveLength(ROWS);
    expect(readFileSync(at('ranks.csv'), 'utf8')).toMatch(/\nrest,/);
    expect(readFileSync(at('a.svg'), 'utf8')).toContain('each must lie under its own curve');
  });

  it('audits language models row block by row block', () => {
    const model = 'fixtures/models/llama-sotu';
    const found = run(
      ...['score', '--student', model, '--teacher', model, '--data', at('text.txt')],
      ...['--context', '64', '--losses', 'ce,kd,pld-partial', '--report', at('lm.json'), '--threads', '1'],
    );
    expect(found.code, found.stderr).toBe(0);
    const body = report('lm.json', 'score');
    expect(body.losses.map((row: { loss: string }) => row.loss)).toEqual(['ce', 'kd', 'pld-partial']);
    expect(body.losses[1].mean).toBeLessThan(1e-9);
    expect(body.agreement.top1.mean).toBe(1);
  });

  it('audits a capture as the teacher, and says which figures it cannot know', () => {
    const model = 'fixtures/models/llama-sotu';
    const text = ['--data', at('text.txt'), '--context', '64'];
    const kept = run('capture', '--teacher', model, ...text, '--top-k', '4', '--out', at('t.capture'));
    expect(kept.code, kept.stderr).toBe(0);
    const found = run(
      ...['score', '--student', model, '--teacher', at('t.capture'), ...text],
      ...['--report', at('c.json'), '--plot', at('c.svg')],
    );
    expect(found.code, found.stderr).toBe(0);
    const { student: own, teacher: given, agreement, losses_left_out: left } = report('c.json', 'score');
    expect(agreement.top1.mean).toBe(1);
    expect(given.entropy_nats).toEqual({ mean: 'nan', standard_error: null });
    expect(found.stdout).not.toMatch(/teacher entropy/);
    expect(given.nll_rows).toBeLessThan(own.nll_rows);
    expect(given.nll_nats.mean).toBeLessThan(own.nll_nats.mean);
    expect(found.stderr).toMatch(/holds the label of [\d.]+% of the rows/);
    expect(left.map(({ loss }: { loss: string }) => loss)).toContain('dist');
    const other = run('score', '--student', model, '--teacher', at('t.capture'), '--data', at('text.txt'));
    expect(other.code).toBe(2);
  });

  it('refuses what does not fit', () => {
    const faults: [string[], RegExp][] = [
      [['score'], /either --student-logits/],
      [['score', '--student-logits', at('s.npy'), '--teacher', 'x'], /--teacher is of no use/],
      [['score', '--student-logits', at('s.npy'), '--teacher-logits', at('wide.npy')], /5 classes.*has 6/],
      [['score', ...pair, '--losses', 'kdd'], /did you mean "kd"/],
      [['score', ...pair, '--losses', 'ce+kd'], /is a sum/],
      [['score', ...pair, '--losses', 'rkd'], /loss rkd: it reads features/],
      [['score', ...pair, '--gradient-of', 'ce'], /--gradient-of is of no use/],
    ];
    for (const [argv, message] of faults) {
      const found = run(...argv);
      expect(found.stderr).toMatch(message);
      expect(found.code).toBe(2);
    }
    const wide = run(
      'score',
      '--student-logits',
      at('s.npy'),
      '--teacher-logits',
      at('wide.npy'),
      '--vocab-align',
      'truncate',
    );
    expect(wide.code).toBe(0);
    expect(wide.stderr).toMatch(/the first 5 are kept.*16\.7%/);
  });
});

describe('distill-pld ensemble', () => {
  it('gives mixture, posterior and bounds of models, and of a grid of coins', () => {
    const losses = Float64Array.from(
      { length: 3 * 50 },
      (_, i) => 0.5 + Math.floor(i / 50) * 0.2 + 0.3 * random.uniform(),
    );
    writeFileSync(at('losses.npy'), encodeNpy(losses, [3, 50]));
    const found = run(
      ...['ensemble', '--losses', at('losses.npy'), '--prior', '1,1,2', '--reference', '0', '--train-records', '40'],
      ...['--target-regret', '0.1', '--report', at('e.json'), '--table', at('balls.csv'), '--plot', at('e.svg')],
    );
    expect(found.code, found.stderr).toBe(0);
    expect(found.stderr).toMatch(/the prior sums to 4/);
    const { ensemble } = report('e.json', 'ensemble');
    expect(ensemble.mixture.best_single_index).toBe(0);
    expect(ensemble.reference.divergences).toBe('estimated');
    for (const row of ensemble.by_model) expect(row.regret_nats).toBeLessThanOrEqual(row.regret_limit_nats + 1e-9);
    expect(ensemble.test.records).toBe(10);
    expect(run('ensemble', '--bernoulli', '0.3', '--grids', '25,101', '--report', at('g.json')).code).toBe(0);
    expect(report('g.json', 'ensemble').bernoulli.grids[1].expected_regret_nats).toBeCloseTo(2.015855, 5);
    expect(run('ensemble', '--bernoulli', '0.3', '--prior', '1').stderr).toMatch(
      /--prior is of no use with --bernoulli/,
    );
    expect(run('ensemble').stderr).toMatch(/pass one of --losses, --log-probs, --langevin and --bernoulli/);
  });

  const SAMPLE = [
    ...['ensemble', '--data', 'fixtures/tables/digits.csv', '--student', 'mlp:8', '--standardize', 'all'],
    ...['--langevin', '6', '--step-size', '1e-3', '--burn-in', '150', '--thinning', '20', '--seed', '3'],
  ];

  it('samples networks from their posterior and judges them on held-out rows', () => {
    const views = ['--reference', '0', '--train-records', '40', '--prior-precision', '10', '--temperature', '0.5'];
    const outputs = ['--report', at('p.json'), '--out', at('p.csv'), '--plot', at('p.svg')];
    const found = run(...SAMPLE, ...views, ...outputs);
    expect(found.code, found.stderr).toBe(0);
    const { ensemble, langevin, parameters } = report('p.json', 'ensemble');
    expect(langevin).toMatchObject({
      ...{ student: 'mlp:8', weights: 8 * 49 + 8 + 80 + 10, training_rows: 244, held_out_rows: 56, classes: 10 },
      ...{ step_size: 1e-3, temperature: 0.5, prior_precision: 10, burn_in_steps: 150, thinning_steps: 20 },
      ...{ steps: 270, skipped_steps: 0, seed: 3, bias: expect.stringMatching(/none is rejected/) },
    });
    expect(parameters.seed).toBe(3);
    expect(langevin.snapshots.map(({ step }: { step: number }) => step)).toEqual([170, 190, 210, 230, 250, 270]);
    expect(langevin.trace.at(-1).step).toBe(270);
    // Six different networks, all better than chance; by Jensen their average loses less than they do on average.
    const nll = langevin.snapshots.map((row: { nll_nats: number }) => row.nll_nats);
    expect(new Set(nll).size).toBe(6);
    expect(Math.max(...nll)).toBeLessThan(Math.log(10));
    const mean = nll.reduce((sum: number, value: number) => sum + value, 0) / 6;
    expect(langevin.average.nll_nats).toBeLessThan(mean);
    // The records of the views are those of the snapshots.
    expect([ensemble.models, ensemble.records, ensemble.test.records]).toEqual([6, 56, 16]);
    const { uniform_average_mean_nats: learnt } = ensemble.mixture;
    const { uniform_average_mean_nats: tested } = ensemble.test;
    expect((40 * learnt + 16 * tested) / 56).toBeCloseTo(langevin.average.nll_nats, 9);
    expect(ensemble.reference.divergences).toBe('exact');
    for (const row of ensemble.by_model) expect(row.regret_nats).toBeLessThanOrEqual(row.regret_limit_nats + 1e-9);
    expect(readFileSync(at('p.csv'), 'utf8')).toMatch(/divergence_nats,step,training_nll_nats,nll_nats/);
    expect(readFileSync(at('p.svg'), 'utf8')).toContain('Loss along the chain');

    expect(run(...SAMPLE, ...views, '--report', at('q.json'), '--threads', '2').code).toBe(0);
    expect(report('q.json', 'ensemble').langevin).toEqual(langevin);
  });

  it('refuses samples that cannot be taken', () => {
    const faults: [string[], RegExp][] = [
      [SAMPLE.filter((_, i) => i !== 1 && i !== 2), /--data is missing/],
      [SAMPLE.filter((_, i) => i !== 3 && i !== 4), /--student is missing/],
      [[...SAMPLE, '--step-size', '0'], /--step-size 0/],
      [[...SAMPLE, '--reference', '6'], /the models are 0 to 5/],
      [[...SAMPLE, '--eval-labels', 'y.csv'], /--eval-labels needs --eval-data/],
      [[...SAMPLE, '--grids', '5'], /--grids is of no use with --langevin/],
      [[...SAMPLE, '--bernoulli', '0.3'], /pass one of/],
      [['ensemble', '--bernoulli', '0.3', '--burn-in', '5'], /--burn-in is of no use with --bernoulli/],
      [['ensemble', '--losses', at('losses.npy'), '--data', 'x.csv'], /--data is of no use with --losses/],
    ];
    for (const [argv, message] of faults) {
      const found = run(...argv);
      expect(found.stderr).toMatch(message);
      expect(found.code).toBe(2);
    }
    const wild = run(...SAMPLE, '--step-size', '1e30');
    expect(wild.stderr).toMatch(/step \d/);
    expect(wild.code).toBe(1);
  });
});
