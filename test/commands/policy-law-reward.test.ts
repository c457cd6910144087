import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { describe, expect, it } from 'vitest';
import { createRandom } from '../../src/random.js';
import { temporaryFolder } from '../formats/collect.js';
import { resident } from './run-surprisal.js';

const folder = temporaryFolder();
const out = (name: string): string => join(folder, name);
const text = (name: string): string => readFileSync(out(name), 'utf8');
const schema = (name: string): object => JSON.parse(readFileSync(`src/report/schemas/${name}.schema.json`, 'utf8'));
const ajv = new Ajv2020({ strict: true, allowUnionTypes: true });
ajv.addSchema(schema('envelope'));
const write = (name: string, lines: readonly string[]): string => {
  writeFileSync(out(name), `${lines.join('\n')}\n`);
  return out(name);
};

describe('analyze-policy law', () => {
  const validate = ajv.compile(schema('policy-law'));
  const run = (...argv: string[]) => resident(['analyze-policy', 'law', ...argv]);
  const entropy = (step: number): number => 0.7 * Math.exp(-step / 30) + 0.02;
  const steps = write('steps.csv', [
    'step,entropy_token_mean,cov_mean',
    ...Array.from({ length: 120 }, (_, s) => `${s},${entropy(s)},${0.01 * entropy(s)}`),
  ]);
  const random = createRandom(2);
  const score = (s: number): string => (0.6 - 0.15 * Math.expm1(entropy(s)) + 0.004 * random.normal()).toFixed(5);
  const evaluations = write('eval.jsonl', [
    ...Array.from({ length: 30 }, (_, k) => JSON.stringify({ step: 4 * k, score: Number(score(4 * k)) })),
    '{"step": 500, "score": 0.7}',
  ]);

  it('joins, fits, predicts; the same bytes whatever the threads', () => {
    const files = (name: string) => [
      '--out',
      out(`${name}.csv`),
      '--report',
      out(`${name}.json`),
      '--plot',
      out(`${name}.svg`),
    ];
    const first = run(
      '--data',
      steps,
      '--evaluations',
      evaluations,
      '--early',
      '10',
      '--quiet',
      ...files('one'),
      '--threads',
      '1',
    );
    expect(first).toEqual({ code: 0, stdout: '', stderr: '' });
    expect(
      run('--data', steps, '--evaluations', evaluations, '--early', '10', '--quiet', ...files('two'), '--threads', '2')
        .code,
    ).toBe(0);
    for (const end of ['.csv', '.json', '.svg']) expect(text(`two${end}`)).toBe(text(`one${end}`));
    const report = JSON.parse(text('one.json'));
    expect(validate(report), JSON.stringify(validate.errors)).toBe(true);
    const [law] = report.runs;
    expect(law.fit.points).toBe(30);
    expect(law.fit.ceiling).toBeCloseTo(0.6, 2);
    expect(law).toMatchObject({ entropy_only_steps: 90, evaluation_only_steps: [500], applicable: true });
    expect(law.early.fit.points).toBe(10);
    expect(law.intervals.points.ceiling.low).toBeLessThan(0.6);
    expect(report.cautions.length).toBeGreaterThan(3);
    expect(text('one.csv').split('\n')).toHaveLength(32);
  });

  it('reads a rollout dump by step', () => {
    const lines: string[] = [];
    for (let s = 0; s < 12; s++) {
      for (let r = 0; r < 2; r++) {
        const h = entropy(8 * s);
        lines.push(
          JSON.stringify({
            step: s,
            prompt_id: 'p',
            tokens: [1, 2],
            logprob: [-0.5, -0.2 - 0.1 * r],
            entropy: [h + 0.01 * r, h - 0.01 * r],
            reward: r,
          }),
        );
      }
    }
    const dump = write('dump.jsonl', lines);
    const scores = write('scores.csv', [
      'step,acc',
      ...Array.from({ length: 12 }, (_, s) => `${s},${0.6 - 0.15 * Math.expm1(entropy(8 * s))}`),
    ]);
    const ended = run(
      '--data',
      dump,
      '--evaluations',
      scores,
      '--score-column',
      'acc',
      '--report',
      out('dump.json'),
      '--quiet',
    );
    expect(ended.stderr).toBe('');
    const report = JSON.parse(text('dump.json'));
    expect(validate(report), JSON.stringify(validate.errors)).toBe(true);
    expect(report.parameters.input).toBe('dump');
    expect(report.runs[0].fit.a).toBeCloseTo(0.15, 9);
  });

  it.each([
    [['--data', steps], 'no column "performance"'],
    [['--data', steps, '--performance-column', 'cov_mean', '--evaluations', evaluations], 'leave one out'],
    [['--data', steps, '--evaluations', evaluations, '--early', '2'], '--early 2'],
    [['--data', steps, '--evaluations', evaluations, '--early', '99'], 'leaves none to predict'],
    [['--data', steps, '--evaluations', evaluations, '--temperature', '2'], 'is for rollout dumps'],
    [['--data', steps, '--evaluations', evaluations, '--params', 'x=1'], 'no run "x"'],
    [['--data', steps, '--evaluations', evaluations, '--predict-params', '1e9'], 'two or more known sizes'],
  ])('refuses %j', (argv, message) => {
    const ended = run(...argv);
    expect(ended.code).toBe(2);
    expect(ended.stderr).toContain(message);
  });
});

describe('analyze-policy reward', () => {
  const validate = ajv.compile(schema('policy-reward'));
  const run = (...argv: string[]) => resident(['analyze-policy', 'reward', '--rewards', 'meteor,intent', ...argv]);
  const random = createRandom(4);
  const data = write('runs.csv', [
    'meteor,intent,score',
    ...Array.from({ length: 60 }, () => {
      const [a, b] = [random.uniform(), random.uniform()];
      return `${a},${b},${1 - (a - 0.5) ** 2 - (b - 0.4) ** 2 + 0.01 * random.normal()}`;
    }),
  ]);
  const updates = write(
    'updates.jsonl',
    Array.from({ length: 50 }, (_, u) => JSON.stringify({ update: u, meteor: 0.01 * u, intent: 0.3 + 0.005 * u })),
  );

  it('points, multipliers and thresholds in one run', () => {
    const ended = run(
      ...['--data', data, '--draws', '50', '--updates', updates, '--thresholds', 'joint', '--search', 'fit', '--quiet'],
      ...['--out', out('rows.csv'), '--multipliers', out('multipliers.csv'), '--simplex', out('simplex.csv')],
      ...['--report', out('reward.json'), '--plot', out('reward.svg')],
    );
    expect(ended).toEqual({ code: 0, stdout: '', stderr: '' });
    const report = JSON.parse(text('reward.json'));
    expect(validate(report), JSON.stringify(validate.errors)).toBe(true);
    expect(report.proxy.joint.point[0]).toBeCloseTo(0.5, 1);
    expect(report.multipliers.rewards[0].threshold).toBe(report.proxy.joint.point[0]);
    expect(report.search.best.score).toBeGreaterThan(0.98);
    expect(text('multipliers.csv').split('\n')).toHaveLength(102);
    expect(text('simplex.csv').split('\n')[0]).toBe('pass,vertex,meteor,intent,score,step,evaluations');
  });

  it('names the point that a table lacks', () => {
    const table = write('table.csv', ['meteor,intent,score', '0,0,1']);
    const ended = run(
      '--search',
      'table',
      '--search-table',
      table,
      '--search-ranges',
      'meteor=0:1,intent=0:1',
      '--report',
      out('table.json'),
    );
    expect(ended.code).toBe(0);
    expect(ended.stderr).toContain('the table has no score at meteor=');
    expect(validate(JSON.parse(text('table.json')))).toBe(true);
  });

  it.each([
    [[], 'nothing to do'],
    [['--updates', updates], '--thresholds is missing'],
    [['--updates', updates, '--thresholds', 'meteor=1'], 'no value for "intent"'],
    [['--updates', updates, '--thresholds', 'meteor=1,intend=1'], 'did you mean "intent"'],
    [['--data', data, '--span', '0.5'], 'has no meaning without --smoother loess'],
    [['--data', data, '--limit', '5'], 'needs 11 rows or more, got 5'],
    [
      ['--updates', updates, '--thresholds', 'meteor=1,intent=1', '--variant', 'ppo', '--squash', 'tanh'],
      'whose weights are fixed',
    ],
    [['--updates', updates, '--thresholds', 'joint'], 'needs a table of scored runs'],
  ])('refuses %j', (argv, message) => {
    const ended = run(...argv);
    expect(ended.code).toBe(2);
    expect(ended.stderr).toContain(message);
  });
});
