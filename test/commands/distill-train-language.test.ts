import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readReport, validateReport } from '../../src/report/json.js';
import { interrupted, resident } from './run-surprisal.js';

const MODEL = 'fixtures/models/llama-sotu';
let folder: string;
const at = (name: string): string => join(folder, name);
const text = readFileSync('fixtures/text/heldout_text.jsonl', 'utf8').split('\n');

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'distill-language-'));
  const words = (row: string, count: number): string =>
    JSON.stringify({ text: JSON.parse(row).text.split(' ').slice(0, count).join(' ') });
  writeFileSync(at('train.jsonl'), `${words(text[0], 500)}\n${words(text[1], 300)}\n`);
  writeFileSync(at('held.jsonl'), `${words(text[2], 200)}\n`);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A training run of a copy of half the layers, small enough for a test. */
function train(out: string, options: readonly string[], student = 'every:2'): readonly string[] {
  return [
    ...['distill-pld', 'train', '--student', student, '--teacher', MODEL, '--data', at('train.jsonl')],
    ...['--context', '32', '--batch-size', '8', '--threads', '1', '--out', at(out), '--quiet', ...options],
  ];
}

const weights = (out: string): Buffer => readFileSync(at(`${out}/model.safetensors`));

describe('distill-pld train, language models', () => {
  it('teaches half the layers by PLD, and says how well', () => {
    const ended = resident(
      train('pld', [
        ...[
          '--loss',
          'pld(tau=2)',
          '--steps',
          '12',
          '--learning-rate',
          '2e-3',
          '--eval-data',
          at('held.jsonl'),
          '--eval-every',
          '6',
        ],
        ...['--metrics', at('pld.csv'), '--report', at('pld.json'), '--plot', at('pld.svg'), '--timings', at('t.json')],
      ]),
    );
    expect(ended).toMatchObject({ code: 0, stderr: '' });
    const report = readReport(at('pld.json'));
    validateReport(report, 'pld.json');
    expect(report).toMatchObject({
      student: { source: 'layers', layers: 2, copied_layers: [0, 2], lora: null },
      teacher: { kind: 'model', vocabulary: 1024 },
      run: { steps: 12, kept: 'best', skipped_steps: 0 },
    });
    const { before, after } = report.evaluation as unknown as Record<
      'before' | 'after',
      { perplexity: { value: number }; teacher: { kl_nats: { mean: number } } }
    >;
    expect(after.perplexity.value).toBeLessThan(0.9 * before.perplexity.value);
    expect(after.teacher.kl_nats.mean).toBeLessThan(before.teacher.kl_nats.mean);
    expect(readFileSync(at('pld.csv'), 'utf8').trim().split('\n')).toHaveLength(13);
    expect(readFileSync(at('pld.svg'), 'utf8')).toContain('held-out cross-entropy');
    validateReport(readReport(at('pld/manifest.json')), 'manifest.json');
    const scored = resident([
      ...['analyze-entropy', 'tokens', '--model', at('pld'), '--data', at('held.jsonl'), '--context', '32'],
      ...['--report', at('scored.json'), '--quiet'],
    ]);
    expect(scored.code).toBe(0);
  });

  it('goes on behind the last checkpoint after a kill, to the same bytes', async () => {
    const options = ['--loss', '0.5*ce + 0.5*kd(T=2)', '--steps', '16', '--accumulate', '2', '--checkpoint-every', '4'];
    expect(
      resident(train('whole', [...options, '--metrics', at('whole.csv'), '--report', at('whole.json')])).code,
    ).toBe(0);
    const metrics = ['--metrics', at('cut.csv')];
    const rows = (): number => (existsSync(at('cut.csv')) ? readFileSync(at('cut.csv'), 'utf8').split('\n').length : 0);
    const killed = await interrupted(train('cut', [...options, ...metrics]), 'SIGKILL', () => rows() > 7);
    expect(killed.signal).toBe('SIGKILL');
    expect(existsSync(at('cut'))).toBe(false);
    const again = resident(train('cut', options));
    expect(again).toMatchObject({ code: 2 });
    expect(again.stderr).toMatch(/an interrupted run left its checkpoints; pass --resume/);
    const other = resident(train('cut', ['--loss', 'ce', '--steps', '16', '--resume']));
    expect(other).toMatchObject({ code: 2 });
    expect(other.stderr).toMatch(/cut\.training.*loss/);
    const resumed = resident(train('cut', [...options, ...metrics, '--resume', '--report', at('cut.json')]));
    expect(resumed).toMatchObject({ code: 0, stderr: '' });
    expect(weights('cut')).toEqual(weights('whole'));
    expect(readFileSync(at('cut.csv'), 'utf8')).toBe(readFileSync(at('whole.csv'), 'utf8'));
    expect(readFileSync(at('cut.json'), 'utf8')).toBe(readFileSync(at('whole.json'), 'utf8'));
    expect(readdirSync(folder).filter((name) => name.startsWith('.'))).toEqual([]);
  });

  it('trains adapters, a random start, continuations of its own, and an ONNX export', () => {
    const adapter = ['--lora-rank', '2', '--lora-targets', 'q_proj', 'v_proj', '--lora-output', 'adapter'];
    expect(resident(train('lora', ['--loss', 'kd', '--steps', '2', ...adapter], MODEL)).code).toBe(0);
    expect(readdirSync(at('lora')).sort()).toEqual([
      'adapter_config.json',
      'adapter_model.safetensors',
      'manifest.json',
    ]);
    const start = ['--loss', 'ce', '--steps', '2', '--report', at('start.json')];
    expect(resident(train('start', start, `${MODEL}/config.json`)).code).toBe(0);
    expect(readReport(at('start.json')).first_loss_nats).toBeCloseTo(Math.log(1024), 0);
    const own = ['--loss', 'jsd', '--steps', '2', '--on-policy', '1', '--report', at('own.json')];
    expect(resident(train('own', own)).code).toBe(0);
    expect(readReport(at('own.json'))).toMatchObject({ run: { on_policy_batches: 2 } });
    writeFileSync(at('ids.jsonl'), '{"input_ids":[1,5,9,3,7,2,8,4,6]}\n');
    const onnx = resident([
      ...['distill-pld', '--task', 'language', '--student', 'fixtures/onnx/optimum.onnx', '--data', at('ids.jsonl')],
      ...['--loss', 'ce', '--steps', '3', '--context', '8', '--out', at('onnx'), '--quiet'],
    ]);
    expect(onnx).toMatchObject({ code: 0, stderr: '' });
    expect(existsSync(at('onnx/model.onnx'))).toBe(true);
  });

  it('saves the graph of loss and gradients, which gives the loss of the first step elsewhere', async () => {
    const ids = [1, 5, 9, 3, 7, 2, 8, 4, 6, 11, 40, 300];
    writeFileSync(at('window.jsonl'), `${JSON.stringify({ input_ids: ids })}\n`);
    const ended = resident([
      ...['distill-pld', 'train', '--student', MODEL, '--data', at('window.jsonl'), '--context', String(ids.length)],
      ...['--loss', 'ce', '--steps', '1', '--out', at('graph'), '--quiet', '--save-gradient-graph', at('graph.onnx')],
      ...['--report', at('graph.json')],
    ]);
    expect(ended).toMatchObject({ code: 0, stderr: '' });
    const report = readReport(at('graph.json'));
    validateReport(report, 'graph.json');
    expect(report.gradient_graph).toEqual({
      loss: 'inside',
      inputs: ['input_ids', 'labels'],
      outputs: ['logits', 'loss', 'grad_norm'],
      gradients: 38,
    });
    const session = await InferenceSession.create(at('graph.onnx'), { logSeverityLevel: 3 });
    const integers = (values: readonly number[]): Tensor =>
      new Tensor('int64', BigInt64Array.from(values, BigInt), [1, values.length]);
    // The end of a text is learnt too.
    const feeds = { input_ids: integers(ids), labels: integers([...ids.slice(1), 0]) };
    const outputs = await session.run(feeds, ['loss', 'grad_norm']);
    await session.release();
    const [step] = report.curve as unknown as { loss_nats: number; gradient_norm: number }[];
    expect(Number(outputs.loss.data[0])).toBeCloseTo(step.loss_nats, 5);
    expect(Number(outputs.grad_norm.data[0]) / step.gradient_norm).toBeCloseTo(1, 5);
  });

  it('plans without training', () => {
    const plan = resident(train('plan', ['--steps', '5', '--dry-run']).filter((word) => word !== '--quiet'));
    expect(plan.code).toBe(0);
    expect(plan.stdout).toMatch(/peak memory in MiB without a teacher, about +\d+/);
    expect(existsSync(at('plan'))).toBe(false);
  });

  it.each([
    ['a loss without its teacher', ['--teacher'], [], /--teacher is missing: the loss pld learns from one/],
    ['options of the other task', [], ['--labels', 'x.csv'], /--labels has no meaning for the task language/],
    ['an unknown loss', [], ['--loss', 'plt'], /there is no loss "plt".*did you mean "pld"/],
    ['too long windows', [], ['--context', '4096'], /--context 4096 is longer than the 256 positions/],
    ['both lengths', [], ['--epochs', '1', '--steps', '2'], /--epochs and --steps both say/],
    ['another tokenizer', [], ['--student', 'fixtures/models/qwen2-moby'], /have different tokenizers: token \d+ is/],
    ['a pattern without a match', [], ['--freeze', 'model.layer.*'], /no tensor is named "model\.layer\.\*"/],
    ['no memory', [], ['--max-memory', '64MB'], /max-memory/],
    ['adapters without a rank', [], ['--lora-alpha', '3'], /--lora-alpha needs --lora-rank/],
    ['best without a judge', [], ['--keep', 'best'], /--keep best needs --eval-data/],
  ])('refuses %s', (_, without, extra, message) => {
    const line = [...train('bad', ['--steps', '2', ...extra])];
    for (const flag of without) line.splice(line.indexOf(flag), 2);
    const ended = resident(line);
    expect(ended.code).toBe(2);
    expect(ended.stderr).toMatch(message);
    expect(ended.stderr.trim().split('\n')).toHaveLength(1);
    expect(existsSync(at('bad'))).toBe(false);
    expect(readdirSync(folder).filter((name) => name.startsWith('.bad'))).toEqual([]);
  });
});
