import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'csv-parse/sync';
import { describe, expect, it } from 'vitest';
import { readReport, validateReport } from '../../src/report/json.js';
import { temporaryFolder } from '../formats/collect.js';
import { type Ended, interrupted, resident } from './run-surprisal.js';

const directory = temporaryFolder();
const at = (name: string): string => join(directory, name);
const PIVOT = 'fixtures/models/llama-sotu';
const SOURCE = 'fixtures/models/qwen2-moby';
const OTHER = 'fixtures/models/mixtral-sotu-moby';

const rows = readFileSync('fixtures/text/heldout_text.jsonl', 'utf8').trimEnd().split('\n');
const short = (row: number, characters: number): string =>
  JSON.stringify({ text: (JSON.parse(rows[row]) as { text: string }).text.slice(0, characters) });
writeFileSync(at('addresses.jsonl'), `${short(0, 500)}\n`);
writeFileSync(at('novel.jsonl'), `${short(4, 500)}\n`);
writeFileSync(at('held.jsonl'), `${short(5, 300)}\n`);
const answers = ['white|The whale is white.', 'sea|The ship is at sea.', `long|${'very '.repeat(80)}long`];
writeFileSync(
  at('answers.jsonl'),
  answers.map((one) => `${JSON.stringify({ prompt: `${one.split('|')[0]}? `, answer: one.split('|')[1] })}\n`).join(''),
);

const line = (out: string, ...more: readonly string[]): readonly string[] => [
  ...['fuse', 'knowledge', '--pivot', PIVOT, '--source', SOURCE, '--context', '48', '--batch-size', '4'],
  ...['--learning-rate', '1e-3', '--threads', '1', '--quiet', '--out', at(out), ...more],
];
const TEXTS = ['--data', at('addresses.jsonl'), at('novel.jsonl')];
const fuse = (out: string, ...more: readonly string[]): Ended => resident(line(out, ...more));

interface Body {
  readonly sources: readonly { readonly alignment: Readonly<Record<string, number>>; readonly kept_mass: number }[];
  readonly texts: { readonly sequences: number; readonly dropped_long: number; readonly dropped_nan: number };
  readonly targets: readonly {
    readonly models: readonly string[];
    readonly mean_ce_nats: readonly number[];
    readonly weights: { readonly mean: readonly number[]; readonly effective_sources: number } | null;
    readonly fused: { readonly interference: number; readonly labels_covered: number } | null;
    readonly gate: { readonly importance_by_step: readonly unknown[] } | null;
    readonly grad_check: { readonly agrees: boolean; readonly worst_parameter: string } | null;
    readonly domains: readonly { readonly name: string }[];
  }[];
  readonly merge: { readonly method: string; readonly domains: readonly unknown[] } | null;
}

function bodyOf(file: string): Body {
  const report = readReport(at(file));
  validateReport(report, file);
  return report as unknown as Body;
}

describe('fuse knowledge', { timeout: 120_000 }, () => {
  it('teaches a model by one with another tokenizer, sequence by sequence', () => {
    const outputs = ['--report', at('mince.json'), '--table', at('mince.csv'), '--plot', at('mince.svg')];
    const kept = ['--captures', at('captures')];
    const ended = fuse('mince', ...TEXTS, '--steps', '3', '--eval-data', at('held.jsonl'), ...outputs, ...kept);
    expect(ended).toMatchObject({ code: 0 });
    const { sources, targets, texts, merge } = bodyOf('mince.json');
    const [{ alignment, kept_mass }] = sources;
    expect(Object.values(alignment).reduce((a, b) => a + b, 0)).toBeCloseTo(1, 9);
    expect(alignment.exact).toBeGreaterThan(0.5);
    expect(kept_mass).toBeGreaterThan(0.8);
    expect(kept_mass).toBeLessThanOrEqual(1);
    expect(targets[0]).toMatchObject({ models: [PIVOT, SOURCE], domains: [{ name: 'held' }], gate: null });
    // One model a sequence: it is never outvoted.
    expect(targets[0].fused?.interference).toBe(0);
    expect(targets[0].weights?.effective_sources).toBeCloseTo(1, 9);
    expect(merge).toBeNull();
    const table: Record<string, string>[] = parse(readFileSync(at('mince.csv')), { columns: true });
    expect(table).toHaveLength(texts.sequences);
    for (const row of table) {
      const best = Number(row.ce_nats_0) <= Number(row.ce_nats_1) ? 0 : 1;
      expect(row.chosen).toBe([PIVOT, SOURCE][best]);
      expect(Number(row[`weight_${best}`])).toBe(1);
    }
    expect(existsSync(at('mince/config.json'))).toBe(true);
    expect(existsSync(at('.mince.training'))).toBe(false);

    // The captures stand for the source: its directory may hold the tokenizer alone.
    expect(readdirSync(at('captures')).sort()).toContain('1-qwen2-moby.capture');
    const again = fuse('again', ...TEXTS, '--steps', '3', '--eval-data', at('held.jsonl'), ...kept);
    expect(again).toMatchObject({ code: 0 });
    const weights = (name: string): Buffer => readFileSync(at(`${name}/model.safetensors`));
    expect(weights('again').equals(weights('mince'))).toBe(true);
    const other = fuse('other', '--data', at('novel.jsonl'), '--steps', '1', ...kept);
    expect(other).toMatchObject({ code: 2 });
    expect(other.stderr).toMatch(/captured on windows of tokens with the hash/);
    mkdirSync(at('elsewhere'));
    copyFileSync(at('captures/1-qwen2-moby.capture'), at('elsewhere/1-llama-sotu-ft-moby.capture'));
    const wrong = ['--pivot', PIVOT, '--source', 'fixtures/models/llama-sotu-ft-moby', '--captures', at('elsewhere')];
    const mixed = resident([
      'fuse',
      'knowledge',
      ...wrong,
      ...TEXTS,
      '--context',
      '48',
      '--out',
      at('mixed'),
      '--quiet',
    ]);
    expect(mixed).toMatchObject({ code: 2 });
    expect(mixed.stderr).toMatch(
      /captured with a vocabulary of 768, and that of fixtures.models.llama-sotu-ft-moby is 1024/,
    );
  });

  it('trains the selector beside the model, with gradients that hold', () => {
    // Few tensors: every entry that is checked takes four passes.
    const few = ['--train', '*norm*', '--grad-check'];
    const options = ['--strategy', 'fusion-x', '--source', OTHER, '--steps', '2', '--lambda', '0.5', ...few];
    expect(fuse('x', ...TEXTS, ...options, '--report', at('x.json'))).toMatchObject({ code: 0 });
    const [target] = bodyOf('x.json').targets;
    expect(target.models).toEqual([PIVOT, SOURCE, OTHER]);
    expect(target.grad_check?.agrees).toBe(true);
    expect(target.gate?.importance_by_step).toHaveLength(2);
    expect(target.weights?.mean.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 6);
    expect(statSync(at('x/gate.safetensors')).size).toBeGreaterThan(8 * (5 * 9 + 12));
    // It can be read again, and then stays as it is.
    const fixed = ['--strategy', 'fusion-x', '--gate', at('x/gate.safetensors'), '--steps', '1'];
    expect(fuse('fixed', ...TEXTS, '--source', OTHER, ...fixed, '--report', at('fixed.json'))).toMatchObject({
      code: 0,
    });
    expect(bodyOf('fixed.json').targets[0].weights?.mean).toEqual(target.weights?.mean);
    expect(fuse('two', ...TEXTS, ...fixed).stderr).toMatch(/a gate over 2 models has \[4, 2\]/);
  });

  it('learns answers alone from each source by itself, and merges the targets', () => {
    const options = ['--data', at('answers.jsonl'), '--loss-on', 'answers', '--pairwise', '--source', OTHER];
    const merge = ['--merge', 'varm', '--map', 'mined', '--strategy', 'avgce', '--fusion-loss', 'kl', '--steps', '2'];
    const ended = fuse('pairs', ...options, ...merge, '--eval-data', at('answers.jsonl'), '--report', at('pairs.json'));
    expect(ended).toMatchObject({ code: 0 });
    const { targets, texts, merge: merged } = bodyOf('pairs.json');
    expect(texts).toMatchObject({ sequences: 2, dropped_long: 1 });
    expect(targets.map(({ models }) => models)).toEqual([
      [PIVOT, SOURCE],
      [PIVOT, OTHER],
    ]);
    expect(merged).toMatchObject({ method: 'varm', domains: [{ name: 'answers' }] });
    expect(readdirSync(at('pairs/targets')).sort()).toEqual(['1-qwen2-moby', '2-mixtral-sotu-moby']);
    expect(existsSync(at('pairs/model.safetensors'))).toBe(true);
  });

  it('goes on after a kill to the bytes of an unbroken run', async () => {
    const options = [...TEXTS, '--strategy', 'fusion-x', '--steps', '12', '--checkpoint-every', '2'];
    expect(fuse('whole', ...options, '--report', at('whole.json'))).toMatchObject({ code: 0 });
    const log = at('.cut.training/target-0/selections.jsonl');
    const steps = (): number => (existsSync(log) ? readFileSync(log, 'utf8').split('\n').length - 1 : 0);
    const killed = await interrupted(line('cut', ...options), 'SIGKILL', () => steps() > 4);
    expect(killed.signal).toBe('SIGKILL');
    expect(fuse('cut', ...options).stderr).toMatch(/an interrupted run left its work; pass --resume/);
    expect(fuse('cut', ...options, '--resume', '--report', at('cut.json'))).toMatchObject({ code: 0 });
    for (const name of ['model.safetensors', 'gate.safetensors']) {
      expect(readFileSync(at(`cut/${name}`)).equals(readFileSync(at(`whole/${name}`)))).toBe(true);
    }
    expect(readFileSync(at('cut.json')).equals(readFileSync(at('whole.json')))).toBe(true);
  });

  it.each([
    [['--strategy', 'minc'], /--strategy minc: .*mince/],
    [['--gate', 'random'], /--gate needs --strategy fusion-x/],
    [['--strategy', 'clm', '--lambda', '0.5'], /--lambda needs another --strategy/],
    [['--merge', 'sce'], /--merge needs --pairwise/],
    [['--ms-rule', 'fusechat', '--map', 'mined'], /--ms-rule needs --map ms/],
    [['--lambda-schedule', 'soft', '--lambda', '0.5'], /--lambda needs a --lambda-schedule/],
    [['--context', '100000'], /--context 100000 is longer than the 256 positions/],
    [['--domain-field', 'part'], /addresses.jsonl:1: there is no text in the field "part"/],
  ])('refuses %j', (options, message) => {
    const ended = fuse('refused', ...TEXTS, ...options);
    expect(ended).toMatchObject({ code: 2 });
    expect(ended.stderr).toMatch(message);
  });
});
