import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { temporaryFolder } from '../formats/collect.js';
import { type Ended, resident, surprisal } from './run-surprisal.js';

const folder = temporaryFolder();
const at = (name: string): string => join(folder, name);
const compare = (...argv: string[]) => resident(['analyze-entropy', 'compare', ...argv]);
const BASE = 'fixtures/models/llama-sotu';
const MOBY = 'fixtures/models/llama-sotu-ft-moby';
const RECENT = 'fixtures/models/llama-sotu-ft-recent';
const TEXT = at('text.jsonl');
const ON_TEXT = ['--data', TEXT, '--context', '48'];

interface Candidate {
  [figure: string]: unknown;
  tokens: number;
  mean_kl_nats: number;
  kl_quantiles_nats: Record<string, number>;
  delta_p_quantiles: Record<string, number>;
}
interface CompareReport {
  base: { kind: string };
  scored_tokens: number;
  candidates: Candidate[];
}
const reportOf = (path: string): CompareReport => JSON.parse(readFileSync(path, 'utf8')) as CompareReport;
const numberOf = (candidate: Candidate, key: string): number => candidate[key] as number;

/** A run with two candidates on the whole text. */
let both: Ended;
beforeAll(() => {
  const rows = readFileSync('fixtures/text/heldout_text.jsonl', 'utf8').trimEnd().split('\n');
  const short = rows.map((row) => {
    const { id, text } = JSON.parse(row) as { id: string; text: string };
    return JSON.stringify({ id, text: text.slice(0, 500) });
  });
  writeFileSync(TEXT, `${short.join('\n')}\n`);
  both = surprisal([
    ...['analyze-entropy', 'compare', '--base', BASE, '--against', MOBY, RECENT, ...ON_TEXT],
    ...['--out', at('t.jsonl'), '--table', at('d.jsonl'), '--report', at('r.json'), '--plot', at('p.svg')],
  ]);
});

describe('two models', { timeout: 60_000 }, () => {
  it('gives each model the perplexity that it has alone, and means over its own table', () => {
    expect(both).toMatchObject({ code: 0, stderr: '' });
    const { candidates, scored_tokens } = reportOf(at('r.json'));
    const table = readFileSync(at('t.jsonl'), 'utf8')
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, number | string | boolean>);
    expect(table).toHaveLength(2 * scored_tokens);
    for (const [c, model] of [MOBY, RECENT].entries()) {
      resident(['analyze-entropy', 'tokens', '--model', model, ...ON_TEXT, '--report', at('alone.json'), '--force']);
      const alone = JSON.parse(readFileSync(at('alone.json'), 'utf8')) as Record<string, number>;
      const candidate = candidates[c];
      expect(numberOf(candidate, 'candidate_perplexity') / alone.perplexity).toBeCloseTo(1, 7);
      expect(numberOf(candidate, 'candidate_mean_entropy_nats')).toBeCloseTo(alone.mean_entropy_nats, 7);
      const rows = table.filter((row) => row.candidate === model);
      const mean = (column: string): number => rows.reduce((sum, row) => sum + Number(row[column]), 0) / rows.length;
      expect(candidate.mean_kl_nats).toBeCloseTo(mean('kl_nats'), 12);
      expect(numberOf(candidate, 'mean_reverse_kl_nats')).toBeCloseTo(mean('reverse_kl_nats'), 12);
      expect(numberOf(candidate, 'mean_js_nats')).toBeCloseTo(mean('js_nats'), 12);
      expect(numberOf(candidate, 'mean_delta_entropy_nats')).toBeCloseTo(mean('delta_entropy_nats'), 12);
      expect(numberOf(candidate, 'top1_agreement')).toBeCloseTo(mean('same_top1'), 12);
      expect(numberOf(candidate, 'ln_perplexity_ratio')).toBeCloseTo(mean('delta_surprisal_nats'), 12);
    }
    // The fine-tune on other text is farther from the base than the one on more of the same.
    expect(candidates[0].mean_kl_nats).toBeGreaterThan(2 * candidates[1].mean_kl_nats);
    expect(readFileSync(at('d.jsonl'), 'utf8').trimEnd().split('\n')).toHaveLength(12);
  });

  it('finds exactly nothing between a model and itself', () => {
    compare('--base', BASE, '--against', BASE, ...ON_TEXT, '--report', at('self.json'), '--out', at('self.jsonl'));
    const [self] = reportOf(at('self.json')).candidates;
    const zeros = [
      ...['ln_perplexity_ratio', 'ln_perplexity_ratio_se', 'perplexity_ratio_se', 'perplexity_difference'],
      ...['perplexity_difference_se', 'mean_kl_nats', 'mean_kl_nats_se', 'mean_reverse_kl_nats', 'mean_js_nats'],
      ...['mean_delta_p', 'rms_delta_p', 'mean_delta_entropy_nats', 'mean_delta_entropy_nats_se', 'top1_agreement_se'],
    ];
    for (const key of zeros) expect(Math.abs(numberOf(self, key)), key).toBe(0);
    expect([self.perplexity_ratio, self.top1_agreement]).toEqual([1, 1]);
    for (const value of Object.values(self.kl_quantiles_nats)) expect(value).toBe(0);
    expect(self.most_divergent).toEqual([]);
    expect(self.mean_kl_16bit_base_nats).toBeUndefined();
  });

  it('has the same bytes for any number of threads, and from united shards', () => {
    const run = (name: string, ...more: string[]): void => {
      const files = ['--report', at(`${name}.json`), '--out', at(`${name}.csv`)];
      expect(compare('--base', BASE, '--against', RECENT, ...ON_TEXT, ...files, ...more).code).toBe(0);
    };
    run('one', '--threads', '1');
    run('four', '--threads', '4');
    run('s0', '--shard', '0/2');
    run('s1', '--shard', '1/2');
    expect(
      resident([
        ...['merge-reports', at('s0.json'), at('s1.json'), '--out', at('united.json')],
        ...['--table-parts', at('s0.csv'), at('s1.csv'), '--table-out', at('united.csv')],
      ]).code,
    ).toBe(0);
    for (const other of ['four', 'united']) {
      for (const kind of ['json', 'csv']) {
        expect(readFileSync(at(`${other}.${kind}`), 'utf8')).toBe(readFileSync(at(`one.${kind}`), 'utf8'));
      }
    }
  });

  it('holds asserts on a candidate', () => {
    const short = ['--base', BASE, '--against', RECENT, ...ON_TEXT, '--limit', '2', '--quiet'];
    const holds = (text: string) => compare(...short, '--assert', text).code;
    expect(holds('candidates[0].mean_kl_nats < 1')).toBe(0);
    expect(holds('candidates[0].top1_agreement > 0.99')).toBe(3);
    expect(holds('candidates[1].mean_kl_nats < 1')).toBe(2);
    const missed = ['--assert', 'candidates[0].top1_agreement > 0.99'];
    expect(surprisal(['analyze-entropy', 'compare', ...short, ...missed])).toEqual(compare(...short, ...missed));
  });
});

describe('a stored base', { timeout: 60_000 }, () => {
  beforeAll(() => {
    const saved = compare('--base', BASE, ...ON_TEXT, '--save-logits', at('base.dump'));
    expect(saved).toMatchObject({ code: 0, stderr: '' });
  });

  it('gives the figures of a run with both models, within its coding', () => {
    const ended = compare('--base-logits', at('base.dump'), '--against', MOBY, ...ON_TEXT, '--report', at('dump.json'));
    expect(ended).toMatchObject({ code: 0, stderr: '' });
    const [live] = reportOf(at('r.json')).candidates;
    const [dump] = reportOf(at('dump.json')).candidates;
    for (const key of ['base_perplexity', 'perplexity_ratio', 'ln_perplexity_ratio_se', 'mean_delta_entropy_nats']) {
      expect(numberOf(dump, key)).toBeCloseTo(numberOf(live, key), 9);
    }
    for (const key of ['mean_kl_nats', 'mean_reverse_kl_nats', 'mean_js_nats', 'mean_kl_16bit_base_nats']) {
      const exact = numberOf(live, key.replace('_16bit_base', ''));
      expect(Math.abs(numberOf(dump, key) - exact)).toBeLessThan(2e-5);
    }
  });

  it('refuses a dump of another run, saying in what it differs', () => {
    truncate();
    const dump = ['--base-logits', at('base.dump')];
    const other = at('other.jsonl');
    writeFileSync(other, '{"text": "Something else altogether, and not short at all."}\n');
    for (const [argv, message] of [
      [
        [...dump, '--against', MOBY, '--data', TEXT, '--context', '32'],
        /was saved with --context 48, this run is with --context 32/,
      ],
      [
        [...dump, '--against', MOBY, ...ON_TEXT, '--limit', '2'],
        /was saved without --limit, this run is with --limit 2/,
      ],
      [[...dump, '--against', MOBY, ...ON_TEXT, '--shard', '0/2'], /was saved without --shard/],
      [[...dump, '--against', MOBY, '--data', other, '--context', '48'], /was saved from other data than --data/],
      [[...dump, '--base', MOBY, '--against', RECENT, ...ON_TEXT], /was saved from another model than --base/],
      [[...dump, '--against', 'fixtures/models/qwen2-moby', ...ON_TEXT], /predicts 768 tokens, .*base\.dump 1024/],
      [['--base-logits', at('cut.dump'), '--against', MOBY, ...ON_TEXT], /cut\.dump: truncated logit dump/],
      [['--base-logits', TEXT, '--against', MOBY, ...ON_TEXT], /neither a dump of --save-logits nor/],
    ] as [string[], RegExp][]) {
      const ended = compare(...argv, '--report', at('none.json'));
      expect(ended.stderr).toMatch(message);
      expect(ended.stderr.trimEnd().split('\n')).toHaveLength(1);
      expect(ended.code).toBe(2);
    }
  });

  function truncate(): void {
    writeFileSync(at('cut.dump'), readFileSync(at('base.dump')));
    truncateSync(at('cut.dump'), 100_000);
  }
});

describe("a base file of llama.cpp's own program", { timeout: 60_000 }, () => {
  const FILE = 'fixtures/llama.cpp/sotu-recent.kld';
  const printed = JSON.parse(readFileSync('fixtures/llama.cpp/sotu-recent.json', 'utf8')) as Record<string, number[]>;

  it('gives the statistics that llama-perplexity prints', () => {
    const ended = compare('--base-logits', FILE, '--against', RECENT, '--report', at('llama.json'));
    expect(ended).toMatchObject({ code: 0, stderr: '' });
    const report = reportOf(at('llama.json'));
    expect(report.base.kind).toBe('llama.cpp');
    const [found] = report.candidates;
    const near = (value: number, expected: number, tolerance: number): void =>
      expect(Math.abs(value - expected)).toBeLessThanOrEqual(tolerance);
    near(numberOf(found, 'base_perplexity'), printed['Mean PPL(base)'][0], 1e-6);
    near(numberOf(found, 'base_perplexity_se'), printed['Mean PPL(base)'][1], 1e-6);
    near(numberOf(found, 'candidate_perplexity'), printed['Mean PPL(Q)'][0], 1e-5);
    near(numberOf(found, 'ln_perplexity_ratio'), printed['Mean ln(PPL(Q)/PPL(base))'][0], 1e-6);
    near(numberOf(found, 'ln_perplexity_ratio_se'), printed['Mean ln(PPL(Q)/PPL(base))'][1], 1e-6);
    near(numberOf(found, 'perplexity_difference_se'), printed['Mean PPL(Q)-PPL(base)'][1], 1e-5);
    near(100 * numberOf(found, 'ln_perplexity_correlation'), printed['Cor(ln(PPL(Q)), ln(PPL(base)))'][0], 0.01);
    near(numberOf(found, 'mean_kl_16bit_base_nats'), printed['Mean KLD'][0], 1e-6);
    near(numberOf(found, 'mean_kl_16bit_base_nats_se'), printed['Mean KLD'][1], 1e-6);
    near(100 * numberOf(found, 'mean_delta_p'), printed['Mean Δp'][0], 1e-3);
    near(100 * numberOf(found, 'rms_delta_p'), printed['RMS Δp'][0], 1e-3);
    near(100 * numberOf(found, 'rms_delta_p_se'), printed['RMS Δp'][1], 1e-3);
    near(100 * numberOf(found, 'top1_agreement'), printed['Same top p'][0], 1e-3);
    near(100 * numberOf(found, 'top1_agreement_se'), printed['Same top p'][1], 1e-3);
    for (const [key, name] of [
      ...[
        ['max', 'Maximum'],
        ['p99.9', '99.9%'],
        ['p99', '99.0%'],
        ['p90', '90.0%'],
        ['median', 'Median'],
      ],
      ...[
        ['p10', '10.0%'],
        ['p1', '1.0%'],
        ['p0.1', '0.1%'],
        ['min', 'Minimum'],
      ],
    ]) {
      near(found.kl_quantiles_nats[key], printed[`${name} KLD`][0], 2e-4);
      near(100 * found.delta_p_quantiles[key], printed[`${name} Δp`][0], 2e-3);
    }
  });

  it('holds a text against its tokens', () => {
    const ended = compare('--base-logits', FILE, '--against', RECENT, '--data', TEXT, '--limit', '1');
    expect(ended.stderr).toMatch(/is one stream; drop --stride, --shard and --limit/);
    const other = compare('--base-logits', FILE, '--against', RECENT, '--data', 'fixtures/text/README.md');
    expect(other.stderr).toMatch(/sotu-recent\.kld: token 0 is \d+, of fixtures\/text\/README\.md it is \d+/);
    expect(other.code).toBe(2);
    expect(compare('--base-logits', FILE, '--against', RECENT, '--context', '32').stderr).toMatch(
      /windows of 64 tokens/,
    );
  });
});

describe('wrong use', () => {
  it.each([
    [['--against', RECENT, ...ON_TEXT], /--base is missing/],
    [['--base', BASE, ...ON_TEXT], /--against is missing/],
    [
      ['--base', BASE, '--against', 'fixtures/models/qwen2-moby', ...ON_TEXT],
      /qwen2-moby: predicts 768 tokens, .* 1024/,
    ],
    [['--base', BASE, '--against', RECENT, ...ON_TEXT, '--max-memory', '120MB'], /2 models share --max-memory equally/],
    [['--base', BASE, '--save-logits', at('x.dump'), '--data', '-'], /not standard input/],
    [['--base', BASE, '--save-logits', at('x.dump'), ...ON_TEXT, '--out', at('x.csv')], /--out needs --against/],
    [['--base', BASE, '--against', RECENT, '--data', at('none.jsonl')], /no such file/],
  ])('%j', (argv, message) => {
    const ended = compare(...argv);
    expect(ended.stderr).toMatch(message);
    expect(ended.stderr.trimEnd().split('\n')).toHaveLength(1);
    expect(ended.code).toBe(2);
  });
});
