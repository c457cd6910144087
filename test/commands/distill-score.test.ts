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
    expect(run('ensemble').stderr).toMatch(/pass one of --losses, --log-probs and --bernoulli/);
  });
});
