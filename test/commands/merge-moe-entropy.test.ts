import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { encodeNpy } from '../../src/formats/npy.js';
import { createRandom } from '../../src/random.js';
import { readReport } from '../../src/report/json.js';
import { temporaryFolder } from '../formats/collect.js';
import { resident, surprisal } from './run-surprisal.js';

const folder = temporaryFolder();
const out = (name: string): string => join(folder, name);
const text = (path: string): string => readFileSync(path, 'utf8');
const MODEL = 'fixtures/models/mixtral-sotu-moby';
const run = (...argv: string[]) => resident(['merge-moe', 'entropy', ...argv]);

interface LayerReport {
  tokens: number;
  usage_counts: number[];
  measures: Record<string, number>;
  strongest_pairs: { lift: number }[];
}
interface EntropyReport {
  documents: number | null;
  tokens: number;
  source: string;
  model_type: string | null;
  summary: Record<string, number>;
  by_layer: LayerReport[];
}

/** Reads a report and so checks it against its schema. */
const reportOf = (path: string): EntropyReport => readReport(path) as unknown as EntropyReport;

/** Five documents of the held-out text, one of which is a single word. */
const DATA = (() => {
  const [line] = text('fixtures/text/heldout_text.jsonl').split('\n', 1);
  const whole = (JSON.parse(line) as { text: string }).text;
  const pieces = [0, 1, 2, 3, 4].map((i) => (i === 2 ? 'We' : whole.slice(900 * i, 900 * i + 500 + 120 * i)));
  const path = out('pieces.jsonl');
  writeFileSync(path, pieces.map((piece, i) => JSON.stringify({ id: `piece-${i}`, text: piece })).join('\n'));
  return path;
})();
const TEXT = ['--model', MODEL, '--data', DATA, '--context', '128'];

const LOGITS = (() => {
  const random = createRandom(3n);
  const path = out('logits.npy');
  writeFileSync(
    path,
    encodeNpy(
      Float64Array.from({ length: 2 * 50 * 6 }, () => random.normal()),
      [2, 50, 6],
    ),
  );
  return path;
})();

describe('merge-moe entropy of a model', () => {
  const outputs = (name: string): string[] => [
    '--out',
    out(`${name}.csv`),
    '--report',
    out(`${name}.json`),
    '--table',
    out(`${name}-tokens.csv`),
  ];
  const first = run(
    ...TEXT,
    ...outputs('whole'),
    ...['--experts', out('experts.csv'), '--co-activation', out('pairs.jsonl'), '--plot', out('routing.svg')],
    ...['--assert', 'by_layer[0].measures.effective_experts_usage > 4'],
  );

  it('has figures that agree with its tables', () => {
    expect(first.stderr).toBe('');
    expect(first.code).toBe(0);
    const report = reportOf(out('whole.json'));
    expect(report).toMatchObject({ source: 'model', documents: 5, model_type: 'mixtral' });
    const rows = text(out('whole-tokens.csv')).trimEnd().split('\n').slice(1);
    expect(rows).toHaveLength(3 * report.tokens);
    report.by_layer.forEach(({ measures, usage_counts, tokens }, layer) => {
      const own = rows.map((row) => row.split(',')).filter((cells) => cells[4] === String(layer));
      const mean = own.reduce((sum, cells) => sum + Number(cells[5]), 0) / own.length;
      expect(mean).toBeCloseTo(measures.mean_token_entropy_nats, 12);
      const counts = new Array<number>(8).fill(0);
      for (const cells of own) for (const expert of cells[8].split(' ')) counts[Number(expert)]++;
      expect(counts).toEqual(usage_counts);
      expect(usage_counts.reduce((a, b) => a + b)).toBe(2 * tokens);
      expect(measures.usage_entropy_nats_document_low).toBeLessThan(measures.usage_entropy_nats_document_high);
    });
    expect(text(out('experts.csv')).trimEnd().split('\n')).toHaveLength(1 + 3 * 8);
    const pairs = text(out('pairs.jsonl'))
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as { layer: number; tokens: number });
    expect(pairs).toHaveLength(3 * 28);
    expect(pairs.filter(({ layer }) => layer === 2).reduce((sum, { tokens }) => sum + tokens, 0)).toBe(report.tokens);
    expect(text(out('routing.svg'))).toMatch(
      /Usage of experts.*Effective number of experts.*Experts chosen together, layer 2/s,
    );
    expect(text(out('whole.csv')).split('\n', 1)[0]).toMatch(
      /^layer,experts,top_k,score,tokens,.*mean_token_entropy_nats_document_se/,
    );
  });

  it('unites from shards to the same bytes', () => {
    for (const i of [0, 1])
      expect(run(...TEXT, ...outputs(`part-${i}`), '--shard', `${i}/2`, '--threads', '1').code).toBe(0);
    const merged = resident([
      'merge-reports',
      ...[out('part-1.json'), out('part-0.json'), '--out', out('merged.json')],
      ...['--table-parts', out('part-0-tokens.csv'), out('part-1-tokens.csv'), '--table-out', out('merged-tokens.csv')],
    ]);
    expect(merged.stderr).toBe('');
    expect(text(out('merged.json'))).toBe(text(out('whole.json')));
    expect(text(out('merged-tokens.csv'))).toBe(text(out('whole-tokens.csv')));
  });

  it('in bits is the same over ln 2, and with another k counts other choices', () => {
    expect(run(...TEXT, '--bits', '--top-k', '1', '--report', out('bits.json')).code).toBe(0);
    const nats = reportOf(out('whole.json'));
    const bits = reportOf(out('bits.json'));
    bits.by_layer.forEach(({ measures, usage_counts, tokens, strongest_pairs }, layer) => {
      const other = nats.by_layer[layer].measures;
      expect(measures.mean_token_entropy_bits).toBeCloseTo(other.mean_token_entropy_nats / Math.LN2, 12);
      expect(measures.mean_token_entropy_bits_document_se).toBeCloseTo(
        other.mean_token_entropy_nats_document_se / Math.LN2,
        12,
      );
      expect(measures.router_z_loss).toBe(other.router_z_loss);
      expect(measures.mean_topk_weight_entropy_bits).toBe(0);
      expect(usage_counts.reduce((a, b) => a + b)).toBe(tokens);
      expect(strongest_pairs).toEqual([]);
    });
  });

  it('is planned without a pass', () => {
    const planned = run(...TEXT, '--dry-run', '--out', out('never.csv'));
    expect(planned.stdout).toMatch(/experts, top-k +8, top-2/);
    expect(existsSync(out('never.csv'))).toBe(false);
  });
});

describe('merge-moe entropy without a model', () => {
  it('reads the statistics of calibration', () => {
    const calibrated = resident([
      ...['merge-moe', 'calibrate', '--model', MODEL, '--data', DATA, '--outputs', 'none', '--calib-tokens', '300'],
      ...['--calib-length', '100', '--out', out('stats'), '--quiet'],
    ]);
    expect(calibrated.stderr).toBe('');
    expect(run('--stats', out('stats'), '--report', out('stats.json'), '--plot', out('stats.svg')).code).toBe(0);
    const report = reportOf(out('stats.json'));
    expect(report).toMatchObject({ source: 'statistics', documents: null, tokens: 300, model_type: 'mixtral' });
    const [{ measures }] = report.by_layer;
    expect(measures.mean_token_entropy_nats_se).toBeGreaterThan(0);
    expect(measures.mean_token_entropy_nats_document_se).toBeUndefined();
    const refused = surprisal(['merge-moe', 'entropy', '--stats', out('stats'), '--top-k', '1']);
    expect(refused).toMatchObject({ code: 2, stderr: 'error: --top-k has no meaning with --stats; leave it out\n' });
  });

  it('reads stored logits, and writes a row a token and layer', () => {
    const found = run(
      '--logits',
      LOGITS,
      '--top-k',
      '2',
      '--report',
      out('l.json'),
      '--table',
      out('l.csv'),
      '--plot',
      out('l.html'),
    );
    expect(found.stderr).toBe('');
    expect(reportOf(out('l.json'))).toMatchObject({ source: 'logits', documents: null, tokens: 50, model_type: null });
    const rows = text(out('l.csv')).trimEnd().split('\n');
    expect(rows[0]).toMatch(/^document,document_id,position,token_id,layer,entropy_nats/);
    expect(rows).toHaveLength(101);
    expect(rows[100]).toMatch(/^0,,49,,1,/);
  });

  it.each([
    [['--logits', LOGITS], '--top-k is missing'],
    [['--logits', LOGITS, '--stats', 'x'], '--stats and --logits: name one source'],
    [['--logits', LOGITS, '--top-k', '2', '--shard', '0/2'], '--shard has no meaning with --logits'],
    [['--logits', LOGITS, '--top-k', '2', '--score', 'sigmod'], 'did you mean'],
    [['--logits', LOGITS, '--top-k', '9'], 'has 6 experts in layer 0'],
    [['--logits', 'nothing.npy', '--top-k', '2'], 'nothing.npy: no such file'],
    [['--hidden-states', LOGITS, '--top-k', '2'], '--hidden-states and --router-weight belong together'],
    [['--stats', folder], 'no folder of merge-moe calibrate'],
    [[...TEXT, '--score', 'sigmoid'], '--score has no meaning with a model and text'],
    [[...TEXT, '--experts', 'e.txt'], 'the extension names no table format'],
    [['--model', 'fixtures/models/llama-sotu', '--data', DATA], 'a dense model (llama)'],
  ])('%j is refused', (argv, message) => {
    const ended = run(...argv);
    expect(ended.stderr).toContain(message);
    expect(ended.code).toBe(2);
  });
});
