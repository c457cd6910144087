import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openSafetensors } from '../../src/formats/safetensors.js';
import { readReport, validateReport } from '../../src/report/json.js';
import { temporaryFolder } from '../formats/collect.js';
import { type Ended, interrupted, resident } from './run-surprisal.js';

const directory = temporaryFolder();
const MIXTRAL = 'fixtures/models/mixtral-sotu-moby';
const at = (name: string): string => join(directory, name);
const TEXT = (() => {
  const rows = readFileSync('fixtures/text/heldout_text.jsonl', 'utf8').trimEnd().split('\n');
  const short = (from: number, to: number): string =>
    rows
      .slice(from, to)
      .map((row) => JSON.stringify({ text: (JSON.parse(row) as { text: string }).text.slice(0, 900) }))
      .join('\n');
  writeFileSync(at('train.jsonl'), `${short(0, 4)}\n`);
  writeFileSync(at('held.jsonl'), `${short(4, 6)}\n`);
  return at('train.jsonl');
})();

const line = (model: string, out: string, ...more: readonly string[]): readonly string[] => [
  ...['merge-moe', 'recover', '--model', model, '--teacher', MIXTRAL, '--data', TEXT, '--context', '32'],
  ...['--batch-size', '4', '--learning-rate', '1e-3', '--warmup', '2', '--threads', '1', '--quiet'],
  ...['--out', at(out), ...more],
];
const recover = (model: string, out: string, ...more: readonly string[]): Ended => resident(line(model, out, ...more));

function merged(out: string, ...more: readonly string[]): string {
  const words = ['merge-moe', 'merge', '--model', MIXTRAL, '--experts', '4', '--data', TEXT, '--calib-length', '128'];
  expect(resident([...words, '--out', at(out), '--quiet', ...more])).toMatchObject({ code: 0 });
  return at(out);
}

interface Judged {
  readonly perplexity: { readonly value: number };
  readonly teacher: { readonly kl_nats: { readonly mean: number }; readonly nll_nats: { readonly mean: number } };
}

const bytesOf = (directoryName: string, tensor: string): Uint8Array => {
  const store = openSafetensors(directoryName);
  const info = store.tensors.get(tensor);
  const bytes = new Uint8Array(info?.byteLength ?? 0);
  if (info) store.readInto(info, 0, bytes.length, bytes);
  store.close();
  return bytes;
};

describe('merge-moe recover', { timeout: 120_000 }, () => {
  it.each(['reduced', 'remap'])(
    'brings a merged model nearer to the original, its routers as they are (%s)',
    (router) => {
      const model = merged(router, '--router', router);
      const report = ['--eval-data', at('held.jsonl'), '--report', at(`${router}.json`)];
      expect(recover(model, `${router}-out`, '--steps', '6', ...report)).toMatchObject({ code: 0, stderr: '' });
      const body = readReport(at(`${router}.json`));
      validateReport(body, `${router}.json`);
      expect(body).toMatchObject({
        command: 'merge-moe recover',
        parameters: { loss: 'ce + 0.2*kd(T=2,norm=sequences)', schedule: 'linear', epsilon: 1e-6, beta2: 0.98 },
        losparse: null,
      });
      const { before, after } = body.evaluation as unknown as Record<'before' | 'after', Judged>;
      expect(after.perplexity.value).toBeLessThan(0.9 * before.perplexity.value);
      expect(after.teacher.kl_nats.mean).toBeLessThan(before.teacher.kl_nats.mean);
      expect(Math.exp(after.teacher.nll_nats.mean)).toBeLessThan(after.perplexity.value);
      const routers = ['gate.weight', ...(router === 'remap' ? ['gate.expert_map'] : [])];
      for (const name of routers.map((each) => `model.layers.1.block_sparse_moe.${each}`)) {
        expect(bytesOf(at(`${router}-out`), name).length).toBeGreaterThan(0);
        expect(bytesOf(at(`${router}-out`), name)).toEqual(bytesOf(model, name));
      }
    },
  );

  it('prunes experts while they are trained, and goes on behind a kill to the same bytes', async () => {
    const options = ['--losparse-rank', '16', '--losparse-share', '0.2', '--steps', '12', '--checkpoint-every', '3'];
    const report = ['--eval-data', at('held.jsonl'), '--report', at('parts.json')];
    expect(recover(MIXTRAL, 'parts', ...options, ...report)).toMatchObject({ code: 0, stderr: '' });
    const body = readReport(at('parts.json'));
    validateReport(body, 'parts.json');
    const figures = body.losparse as unknown as Record<string, number>;
    expect(figures).toMatchObject({ matrices: 72, rows: 12288, final_share: 0.2, pruning_warmup_steps: 2 });
    expect(figures.sparse_rows / figures.rows).toBeGreaterThan(0.18);
    expect(figures.sparse_rows / figures.rows).toBeLessThan(0.23);
    expect(figures.bytes_after).toBeLessThan(0.6 * figures.bytes_before);
    expect(body).toMatchObject({ run: { kept: 'last' } });
    const metrics = ['--metrics', at('cut.csv')];
    const rows = (): number => (existsSync(at('cut.csv')) ? readFileSync(at('cut.csv'), 'utf8').split('\n').length : 0);
    const evaluated = ['--eval-data', at('held.jsonl')];
    const killed = await interrupted(
      line(MIXTRAL, 'cut', ...options, ...metrics, ...evaluated),
      'SIGKILL',
      () => rows() > 9,
    );
    expect(killed.signal).toBe('SIGKILL');
    const resumed = recover(MIXTRAL, 'cut', ...options, ...metrics, ...evaluated, '--resume');
    expect(resumed).toMatchObject({ code: 0, stderr: '' });
    const weights = (name: string): Buffer => readFileSync(at(`${name}/model.safetensors`));
    expect(weights('cut').equals(weights('parts'))).toBe(true);

    // The compressed directory is trained in its parts, and its rows stay the ones that they are.
    expect(recover(at('parts'), 'again', '--steps', '3', '--report', at('again.json'))).toMatchObject({ code: 0 });
    const again = readReport(at('again.json')).losparse as unknown as Record<string, number | null>;
    expect(again).toMatchObject({ matrices: 72 - figures.dense_matrices, final_share: null });
    const store = openSafetensors(at('parts'));
    const rowsName = [...store.tensors.keys()].find((each) => each.endsWith('.sparse_rows')) ?? '';
    store.close();
    const left = rowsName.replace('.sparse_rows', '.low_rank_left');
    expect(bytesOf(at('again'), rowsName)).toEqual(bytesOf(at('parts'), rowsName));
    expect(bytesOf(at('again'), left)).not.toEqual(bytesOf(at('parts'), left));
    expect(readdirSync(directory).filter((each) => each.startsWith('.'))).toEqual([]);
  });

  it('refuses what has no meaning', () => {
    expect(recover(MIXTRAL, 'x', '--losparse-share', '0.1').stderr).toMatch(
      /a rank says how its experts are taken apart/,
    );
    const few = ['--losparse-rank', '8', '--steps', '10'];
    expect(recover(MIXTRAL, 'x', ...few).stderr).toMatch(/too few steps/);
    const best = ['--keep', 'best', '--eval-data', at('held.jsonl')];
    expect(recover(MIXTRAL, 'x', ...few, ...best).stderr).toMatch(/--keep best has no meaning while rows are pruned/);
    expect(recover('fixtures/models/llama-sotu', 'x', ...few).stderr).toMatch(/has no experts/);
  });
});

describe('merge-moe gradients', { timeout: 120_000 }, () => {
  it('writes what merge and compress weigh by', () => {
    const files = ['--out', at('mean.safetensors'), '--fisher', at('fisher.safetensors')];
    const words = [
      'merge-moe',
      'gradients',
      '--model',
      MIXTRAL,
      '--data',
      TEXT,
      '--context',
      '64',
      '--quiet',
      ...files,
    ];
    const outputs = ['--report', at('gradients.json'), '--table', at('gradients.csv')];
    expect(resident([...words, ...outputs])).toMatchObject({ code: 0, stderr: '' });
    const report = readReport(at('gradients.json'));
    validateReport(report, 'gradients.json');
    expect(report).toMatchObject({ tensors: 72, elements: 72 * 128 * 192 });
    expect(readFileSync(at('gradients.csv'), 'utf8').trim().split('\n')).toHaveLength(73);
    const compress = ['merge-moe', 'compress', '--model', MIXTRAL, '--gradients', at('mean.safetensors')];
    expect(resident([...compress, '--out', at('by-gradients'), '--quiet'])).toMatchObject({ code: 0, stderr: '' });
    const means = ['--combine', 'fisher', '--gradients', at('fisher.safetensors')];
    expect(existsSync(join(merged('by-fisher', ...means), 'manifest.json'))).toBe(true);
    expect(resident([...words, '--force', '--loss', 'kd']).stderr).toMatch(/the loss kd learns from a teacher/);
    expect(
      resident(['merge-moe', 'gradients', '--model', 'fixtures/models/llama-sotu', '--data', TEXT, ...files, '--force'])
        .stderr,
    ).toMatch(/has no experts/);
  });
});
