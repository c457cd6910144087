import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openTensorFile } from '../../src/formats/tensor-file.js';
import { readReport, validateReport } from '../../src/report/json.js';
import { resident } from './run-surprisal.js';

const MODEL = 'fixtures/models/llama-sotu';
let folder: string;
const at = (name: string): string => join(folder, name);
const text = readFileSync('fixtures/text/heldout_text.jsonl', 'utf8').split('\n');

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'distill-attention-'));
  const words = (row: string, count: number): string =>
    JSON.stringify({ text: JSON.parse(row).text.split(' ').slice(0, count).join(' ') });
  writeFileSync(at('train.jsonl'), `${words(text[0], 200)}\n`);
  writeFileSync(at('held.jsonl'), `${words(text[2], 80)}\n`);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const train = (out: string, options: readonly string[]): readonly string[] => [
  ...['distill-pld', 'train', '--student', MODEL, '--data', at('train.jsonl'), '--loss', 'ce', '--context', '32'],
  ...['--batch-size', '4', '--threads', '1', '--out', at(out), '--quiet', ...options],
];

interface AttentionReport {
  readonly measured_on: string;
  readonly temperatures: { per: string; folded: boolean; least: number; greatest: number };
  readonly shares: Record<'before' | 'after', { of_log_context: number[] }>;
  readonly heads: { entropy_nats_before: number; entropy_nats: number; threshold: number; temperature: number }[];
  readonly curve: { step: number; layer_entropy_nats: number[] }[];
}

function attentionOf(name: string): AttentionReport {
  const report = readReport(at(name));
  validateReport(report, name);
  return report.attention as unknown as AttentionReport;
}

/** Entropies of all heads, as the analysis measures them. */
function analysed(model: string, options: readonly string[]): number[] {
  const ended = resident([
    ...['analyze-entropy', 'attention', '--model', model, '--data', at('held.jsonl'), '--context', '32', '--quiet'],
    ...['--report', at('analysed.json'), '--force', ...options],
  ]);
  expect(ended).toMatchObject({ code: 0, stderr: '' });
  const heads = readReport(at('analysed.json')).by_head as unknown as { entropy_nats: number }[];
  return heads.map((head) => head.entropy_nats);
}

describe('distill-pld train, entropy-regularised attention', () => {
  it('brings heads nearer to their thresholds, and writes a model that carries the temperatures', () => {
    const ended = resident(
      train('guided', [
        ...['--attention-entropy', '0.4', '--attention-thresholds', 'fixed', '--attention-lambda', '1e-2'],
        ...['--attention-gamma', '0.05', '--steps', '8', '--learning-rate', '3e-3', '--eval-every', '4'],
        ...['--eval-data', at('held.jsonl'), '--keep', 'last', '--report', at('guided.json')],
        ...['--metrics', at('guided.csv'), '--plot', at('guided.svg')],
      ]),
    );
    expect(ended).toMatchObject({ code: 0, stderr: '' });
    const attention = attentionOf('guided.json');
    expect(attention).toMatchObject({ measured_on: 'held-out', temperatures: { per: 'head', folded: true } });
    expect(attention.curve.map(({ step }) => step)).toEqual([0, 4, 8]);
    expect(attention.shares.after.of_log_context.reduce((sum, share) => sum + share, 0)).toBeCloseTo(1, 12);
    const wanted = 0.4 * Math.log(32);
    const miss = (of: (head: AttentionReport['heads'][number]) => number): number =>
      attention.heads.reduce((sum, head) => sum + (of(head) - wanted) ** 2, 0);
    expect(miss((head) => head.entropy_nats)).toBeLessThan(0.8 * miss((head) => head.entropy_nats_before));
    expect(attention.heads.every(({ threshold }) => Math.abs(threshold - 0.4) < 1e-7)).toBe(true);
    const penalties = readFileSync(at('guided.csv'), 'utf8')
      .trim()
      .split('\n')
      .map((line) => line.split(',')[3]);
    expect(penalties[0]).toBe('attention-entropy_nats');
    expect(Number(penalties[8])).toBeLessThan(0.9 * Number(penalties[1]));
    expect(readFileSync(at('guided.svg'), 'utf8')).toContain('Attention entropy after');
    const file = openTensorFile(at('guided/attention.safetensors'));
    expect([...file.tensors.keys()].sort()).toEqual(['folded_temperatures', 'thresholds']);
    file.close();
    const read = ['--thresholds', at('guided/attention.safetensors')];
    // Windows of the analysis begin with a token of their own.
    analysed(at('guided'), read).forEach((entropy, head) => {
      expect(Math.abs(entropy - attention.heads[head].entropy_nats)).toBeLessThan(0.2);
    });
  });

  it('folds what it began with: the first layer has the entropies of the analysis at these temperatures', () => {
    const still = ['--attention-temperatures', 'head', '--attention-temperature-start', '2', '--learning-rate', '0'];
    expect(resident(train('still', [...still, '--steps', '1'])).code).toBe(0);
    const tempered = analysed(MODEL, ['--temperatures', '2']).slice(0, 4);
    const folded = analysed(at('still'), []).slice(0, 4);
    folded.forEach((entropy, head) => {
      expect(entropy).toBeCloseTo(tempered[head], 6);
    });
  });

  it('trains temperatures by position and reads them back', () => {
    const options = [
      ...[
        '--attention-entropy',
        'uniform',
        '--attention-temperatures',
        'position',
        '--attention-variant',
        'algorithm1',
      ],
      ...['--attention-lambda', '1', '--steps', '4', '--learning-rate', '1e-2'],
    ];
    expect(resident(train('whole', [...options, '--report', at('whole.json')])).code).toBe(0);
    const { temperatures, measured_on } = attentionOf('whole.json');
    expect(measured_on).toBe('training');
    expect(temperatures).toMatchObject({ per: 'position', folded: false });
    expect(temperatures.least).toBeLessThan(1);
    expect(temperatures.greatest).toBeGreaterThan(1);
    const file = at('whole/attention.safetensors');
    analysed(at('whole'), ['--temperatures', file, '--thresholds', file]);
    const again = ['--attention-temperatures', 'position', '--attention-temperature-start', file];
    const ended = resident(train('again', [...again, '--steps', '1', '--report', at('again.json')]));
    expect(ended.code).toBe(0);
    expect(attentionOf('again.json').temperatures.greatest).toBeCloseTo(temperatures.greatest, 2);
  });

  it.each([
    ['a stray tolerance', ['--attention-gamma', '0.1'], /--attention-gamma needs --attention-entropy/],
    ['a start of nothing', ['--attention-temperature-start', '2'], /needs --attention-temperatures head or position/],
    ['a share above 1', ['--attention-entropy', '1.5'], /--attention-entropy 1.5/],
    ['an unknown unit', ['--attention-temperatures', 'layer'], /--attention-temperatures/],
    [
      'a graph without heads',
      ['--attention-entropy', '0.3', '--task', 'language', '--student', 'fixtures/onnx/optimum.onnx'],
      /attention is trained in model directories/,
    ],
  ])('refuses %s', (_, options, message) => {
    const ended = resident(train('bad', ['--steps', '1', ...options]));
    expect(ended.code).toBe(2);
    expect(ended.stderr).toMatch(message);
    expect(existsSync(at('bad'))).toBe(false);
    rmSync(at('.bad.training'), { recursive: true, force: true });
  });
});
