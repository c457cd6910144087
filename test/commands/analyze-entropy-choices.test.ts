import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { temporaryFolder } from '../formats/collect.js';
import { resident, surprisal } from './run-surprisal.js';

const folder = temporaryFolder();
const at = (name: string): string => join(folder, name);
const choices = (...argv: string[]) => resident(['analyze-entropy', 'choices', ...argv]);
const DATA = 'fixtures/choices/continuations.jsonl';
const MODEL = 'fixtures/models/llama-sotu';
const ON = ['--model', MODEL, '--data', DATA];

interface Harness {
  metrics: Record<string, number>;
  questions: { id: string; log_likelihoods: number[]; acc: number; acc_norm: number; acc_bytes: number }[];
}
const jsonl = (path: string): Record<string, number | string | boolean>[] =>
  readFileSync(path, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, number | string | boolean>);
const reportOf = (path: string) => JSON.parse(readFileSync(path, 'utf8')) as Record<string, number>;

describe('lm-evaluation-harness on the same rows', { timeout: 60_000 }, () => {
  it.each(['llama-sotu', 'qwen2-moby'])('%s: log-likelihoods, outcomes and metrics', (name) => {
    const ended = choices(
      ...['--model', join('fixtures/models', name), '--data', DATA],
      ...['--out', at(`${name}-q.jsonl`), '--table', at(`${name}-c.jsonl`), '--report', at(`${name}.json`)],
    );
    expect(ended).toMatchObject({ code: 0, stderr: '' });
    const harness = JSON.parse(readFileSync(`fixtures/choices/${name}.lm-eval.json`, 'utf8')) as Harness;
    const questions = jsonl(at(`${name}-q.jsonl`));
    const lines = jsonl(at(`${name}-c.jsonl`));
    expect(questions).toHaveLength(harness.questions.length);
    harness.questions.forEach((question, i) => {
      expect(questions[i].document_id).toBe(question.id);
      const own = lines.filter(({ document }) => document === i).map((line) => Number(line.loglikelihood_nats));
      expect(own).toHaveLength(question.log_likelihoods.length);
      // The harness adds f32 log-softmax values in f32: sums reach -250, whose last bit is 1.5e-5.
      own.forEach((logLikelihood, c) => {
        expect(Math.abs(logLikelihood - question.log_likelihoods[c])).toBeLessThan(1e-4);
      });
      expect(questions[i].correct).toBe(question.acc === 1);
      expect(questions[i].correct_norm).toBe(question.acc_norm === 1);
      expect(questions[i].correct_bytes).toBe(question.acc_bytes === 1);
    });
    const report = reportOf(at(`${name}.json`));
    for (const [key, value] of Object.entries(harness.metrics)) expect(report[key], key).toBeCloseTo(value, 12);
    expect(report.truncated_questions).toBe(2);
  });
});

describe('one run', { timeout: 60_000 }, () => {
  it('has the same bytes for any number of threads and batches, and from united shards', () => {
    const run = (name: string, ...more: string[]): void => {
      const files = ['--report', at(`${name}.json`), '--out', at(`${name}.csv`)];
      expect(choices(...ON, '--limit', '9', ...files, ...more)).toMatchObject({ code: 0, stderr: '' });
    };
    run('one', '--threads', '1');
    run('four', '--threads', '4');
    for (const i of [0, 1, 2]) run(`s${i}`, '--shard', `${i}/3`);
    const parts = (kind: string): string[] => [2, 0, 1].map((i) => at(`s${i}.${kind}`));
    expect(
      resident([
        ...['merge-reports', ...parts('json'), '--out', at('united.json')],
        ...['--table-parts', ...parts('csv'), '--table-out', at('united.csv')],
      ]).code,
    ).toBe(0);
    for (const other of ['four', 'united']) {
      for (const kind of ['json', 'csv']) {
        expect(readFileSync(at(`${other}.${kind}`), 'utf8')).toBe(readFileSync(at(`one.${kind}`), 'utf8'));
      }
    }
  });

  it('lets a shard be without questions', () => {
    expect(choices(...ON, '--limit', '1', '--shard', '1/2', '--report', at('empty.json'), '--quiet').code).toBe(0);
    choices(...ON, '--limit', '1', '--shard', '0/2', '--report', at('full.json'));
    const merged = resident(['merge-reports', at('empty.json'), at('full.json'), '--out', at('both.json')]);
    expect(merged.code).toBe(0);
    expect(reportOf(at('both.json')).questions).toBe(1);
  });

  it('weighs choices by the normalisation, draws, and holds asserts', () => {
    const plain = surprisal([
      'analyze-entropy',
      'choices',
      ...ON,
      '--report',
      at('plain.json'),
      '--plot',
      at('plain.svg'),
      '--assert',
      'acc > 0.9',
    ]);
    expect(plain.code).toBe(3);
    choices(...ON, '--normalisation', 'tokens', '--report', at('tokens.json'));
    const [none, tokens] = [reportOf(at('plain.json')), reportOf(at('tokens.json'))];
    expect(tokens.acc_norm).toBe(none.acc_norm);
    // Mean log-likelihoods lie closer together than sums: the distribution over the choices is flatter.
    expect(tokens.mean_choice_entropy_nats).toBeGreaterThan(5 * none.mean_choice_entropy_nats);
    expect(tokens.expected_calibration_error).toBeLessThan(none.expected_calibration_error);
    expect(readFileSync(at('plain.svg'), 'utf8')).toContain('</svg>');
  });

  it('scores single tokens as one forward pass gives them', () => {
    // The choices are the likeliest continuations of one context, so their shares are those of the model's own top tokens.
    writeFileSync(
      at('single.jsonl'),
      `${JSON.stringify({ question: 'The people of the United', options: ['States', 'N', 'K', 'D'], label: 'States' })}\n`,
    );
    const fields = ['--context-field', 'question', '--choices-field', 'options', '--answer-field', 'label'];
    const argv = ['--model', MODEL, '--data', at('single.jsonl'), ...fields];
    expect(choices(...argv, '--out', at('single.out.jsonl'), '--table', at('single.c.jsonl'))).toMatchObject({
      code: 0,
    });
    const [question] = jsonl(at('single.out.jsonl'));
    expect(question).toMatchObject({ answer: '0', prediction: 0, correct: true });
    const lines = jsonl(at('single.c.jsonl'));
    const total = lines.reduce((sum, line) => sum + Math.exp(Number(line.loglikelihood_nats)), 0);
    for (const line of lines) {
      expect(Number(line.probability)).toBeCloseTo(Math.exp(Number(line.loglikelihood_nats)) / total, 12);
    }
  });

  it('reads labels as ARC has them, and several right answers', () => {
    const rows = [
      { context: 'The', choices: { text: ['war', 'peace'], label: ['A', 'B'] }, answer: 'B' },
      { context: 'The', choices: ['war', 'peace', 'sea'], answer: [0, 2] },
    ];
    writeFileSync(at('arc.jsonl'), rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
    expect(choices('--model', MODEL, '--data', at('arc.jsonl'), '--out', at('arc.out.jsonl')).code).toBe(0);
    expect(jsonl(at('arc.out.jsonl')).map(({ answer }) => answer)).toEqual(['1', '0 2']);
  });
});

describe('bad input', { timeout: 60_000 }, () => {
  const right = { context: 'The', choices: ['war', 'peace'], answer: 0 };
  it.each([
    [{ choices: ['a', 'b'], answer: 0 }, /:2: no field "context"/],
    [{ ...right, choices: 'war' }, /:2: field "choices" must be a list of at least two texts/],
    [{ ...right, choices: ['war'] }, /:2: field "choices" must be a list of at least two texts/],
    [{ ...right, choices: ['war', ''] }, /:2: choice 1 of field "choices" is empty/],
    [{ ...right, answer: 2 }, /:2: field "answer": 2 is not an index of the 2 choices/],
    [{ ...right, answer: 'piece' }, /:2: field "answer": "piece" is none of the choices/],
    [{ ...right, choices: ['war', 'war'], answer: 'war' }, /:2: field "answer": "war" is the text of two choices/],
    [{ ...right, answer: null }, /:2: field "answer" must be the index or the text of a choice/],
    [{ ...right, choices: ['war', 'x'.repeat(5000)] }, /:2: choice 1: a choice of \d+ tokens does not fit/],
  ])('%j', (row, message) => {
    writeFileSync(at('bad.jsonl'), `${JSON.stringify(right)}\n${JSON.stringify(row)}\n`);
    const ended = choices('--model', MODEL, '--data', at('bad.jsonl'), '--out', at('bad.csv'));
    expect(ended.stderr).toMatch(message);
    expect(ended.stderr.trimEnd().split('\n')).toHaveLength(1);
    expect(ended.code).toBe(2);
    expect(() => readFileSync(at('bad.csv'))).toThrow();
  });

  it('refuses unknown normalisations and prefixes', () => {
    expect(choices(...ON, '--normalisation', 'character').stderr).toMatch(/did you mean "characters"/);
    const outside = [...ON, '--prefix-token', '99999'];
    expect(choices(...outside).stderr).toMatch(/outside the vocabulary of 1024/);
    expect(surprisal(['analyze-entropy', 'choices', ...outside])).toEqual({ ...choices(...outside), code: 2 });
  });
});
