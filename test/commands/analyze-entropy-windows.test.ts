import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { temporaryFolder } from '../formats/collect.js';
import { type Ended, interrupted, resident, severally, surprisal } from './run-surprisal.js';

const folder = temporaryFolder();
const out = (name: string): string => join(folder, name);
const text = (path: string): string => readFileSync(path, 'utf8');
const MODELS = readdirSync('fixtures/models').filter((name) =>
  existsSync(join('fixtures/models', name, 'config.json')),
);
const MODEL = 'fixtures/models/llama-sotu';
const TEXT = 'fixtures/text/heldout_text.jsonl';

/** Documents, of which some have a single word: `least` characters of the held-out text and more each. */
const piecesOf = (name: string, count: number, least: number, more: number): string => {
  const path = join(folder, name);
  const whole = text(TEXT)
    .trimEnd()
    .split('\n')
    .map((line) => (JSON.parse(line) as { text: string }).text)
    .join(' ');
  const pieces = Array.from({ length: count }, (_, i) =>
    i % 9 === 4 ? 'We' : whole.slice(1700 * i, 1700 * i + least + more * i),
  );
  writeFileSync(path, pieces.map((piece, i) => JSON.stringify({ id: `piece-${i}`, text: piece })).join('\n'));
  return path;
};
const DOCUMENTS = 14;
const PIECES = piecesOf('pieces.jsonl', DOCUMENTS, 250, 10);

interface AttentionReport {
  queries: number;
  documents: number;
  mean_entropy_nats: number;
  largest_standard_error_nats: number;
  diagnosis: { verdict: string; overloaded_heads: number };
  bins: { relative: { shares: number[]; of_nats: number } };
  offending_heads: { layer: number; head: number; flag: string }[];
  by_layer: { by_position: { first: number; queries: number }[] }[];
  by_head: { layer: number; head: number; queries: number; entropy_nats: number; flag: string; bin: number }[];
}
interface LayersReport {
  positions: number;
  mean_nll_nats: number;
  mean_entropy_nats: number;
  half_agreement_layer: number;
  by_layer: { residual_norm: number; effective_rank: number; lens_kl_to_final_nats: number }[];
}

const run = (view: string, ...argv: string[]) => resident(['analyze-entropy', view, ...argv]);
const reportOf = <T>(path: string): T => JSON.parse(text(path)) as T;

describe('figures of an independent program', () => {
  const first64 = (name: string) => {
    const golden = JSON.parse(text(join('fixtures/models', name, 'golden.json'))) as {
      first_64: {
        input_ids: number[];
        target_ids: number[];
        nll_nats: number[];
        entropy_nats: number[];
        resid_norm_mean_by_layer: number[];
        attention_entropy_mean_nats_layer_head: number[][];
      };
    };
    const path = out(`${name}.jsonl`);
    const { input_ids, target_ids } = golden.first_64;
    writeFileSync(path, `${JSON.stringify({ input_ids: [...input_ids.slice(1), target_ids[63]] })}\n`);
    return { golden: golden.first_64, path };
  };
  const mean = (values: number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
  const VIEWS = ['attention', 'layers'];
  let ended: Ended[];
  beforeAll(() => {
    const line = (name: string, view: string): string[] => [
      ...['analyze-entropy', view, '--model', join('fixtures/models', name), '--data', first64(name).path],
      ...['--prefix-token', '0', '--report', out(`${name}-${view}.json`)],
    ];
    ended = severally(VIEWS.flatMap((view) => MODELS.map((name) => line(name, view))));
  });
  /** What a view says of a model. */
  const said = <T>(view: string, name: string): T => {
    const one = ended[VIEWS.indexOf(view) * MODELS.length + MODELS.indexOf(name)];
    expect(one).toMatchObject({ code: 0, stderr: '' });
    return reportOf<T>(out(`${name}-${view}.json`));
  };

  it.each(MODELS)('%s: attention entropy of every head', (name) => {
    const { golden } = first64(name);
    const found = said<AttentionReport>('attention', name);
    expect(found.queries).toBe(64);
    const expected = golden.attention_entropy_mean_nats_layer_head.flat();
    expect(found.by_head).toHaveLength(expected.length);
    found.by_head.forEach((head, i) => {
      expect(Math.abs(head.entropy_nats - expected[i])).toBeLessThan(1e-5);
    });
  });

  it.each(MODELS)('%s: residual norms, and the final surprisal and entropy', (name) => {
    const { golden } = first64(name);
    const found = said<LayersReport>('layers', name);
    expect(found.by_layer).toHaveLength(golden.resid_norm_mean_by_layer.length);
    found.by_layer.forEach(({ residual_norm }, layer) => {
      expect(Math.abs(residual_norm - golden.resid_norm_mean_by_layer[layer])).toBeLessThan(1e-5);
    });
    expect(found.mean_nll_nats).toBeCloseTo(mean(golden.nll_nats), 5);
    expect(found.mean_entropy_nats).toBeCloseTo(mean(golden.entropy_nats), 5);
  });
});

describe.each(['attention', 'layers'])('%s', (view) => {
  const base = ['--model', MODEL, '--data', PIECES, '--context', '128'];

  const some = [view, '--model', MODEL, '--data', PIECES, '--limit', '9', '--context', '48', '--quiet'];
  const filesOf = (name: string): string[] => ['json', 'csv'].map((kind) => out(`${view}-${name}.${kind}`));
  /** A run over the first pieces that writes a report and a table. */
  const bytes = (name: string, ...more: string[]): string[] => {
    const [report, table] = filesOf(name);
    return ['analyze-entropy', ...some, '--report', report, '--out', table, ...more];
  };
  const done = { code: 0, stdout: '', stderr: '' };
  const file = (name: string, content: string): string => {
    const path = out(`${view}-${name}`);
    writeFileSync(path, content);
    return path;
  };
  const unknownToken = file('ids.jsonl', '{"input_ids": [1, 2]}\n{"input_ids": [3, 4000]}\n');
  const wrong: [string[], RegExp][] = [
    [['--data', PIECES], /^error: --model is missing; .*\n$/],
    [['--model', MODEL], /^error: --data is missing; .*\n$/],
    [['--model', MODEL, '--data', 'none.txt'], /^error: none\.txt: .*\n$/],
    [['--model', 'LICENSE', '--data', PIECES], /^error: .*LICENSE.*\n$/],
    [[...base, '--context', '512'], /^error: --context 512 is longer than the 256 positions .*\n$/],
    [[...base, '--context-len', '129'], /^error: context length c must satisfy .*\n$/],
    [[...base, '--prefix-token', '5000'], /^error: --prefix-token 5000 is outside the vocabulary of 1024\n$/],
    [[...base, '--max-memory', '10MB'], /^error: --max-memory 10MiB is too small .*\n$/],
    [[...base, '--plot', 'x.pdf'], /^error: --plot x\.pdf: .*\n$/],
    [[...base, '--out', PIECES], /^error: --out .* is already an input; .*\n$/],
    [[...base, '--precision', 'f16'], /^error: --precision f16: .*\n$/],
    [
      [...base, '--limit', '1', '--assert', 'nothing > 1'],
      /^error: --assert 'nothing > 1': the report has no "nothing".*\n$/,
    ],
    // The layers inside an ONNX export are not within reach.
    [['--model', file('empty.onnx', ''), '--data', PIECES], /^error: .*not reachable.*\n$/],
    [['--model', MODEL, '--data', unknownToken], /^error: .*position 1: token id 4000 .*\n$/],
    [['--model', MODEL, '--data', file('nothing.jsonl', '{"text": ""}\n')], /^error: .*no token was read.*\n$/],
  ];
  let whole: string[];
  let refusals: Ended[];
  beforeAll(() => {
    expect(surprisal(bytes('whole', '--threads', '1'))).toEqual(done);
    whole = filesOf('whole').map(text);
    refusals = severally(wrong.map(([argv]) => ['analyze-entropy', view, ...argv, '--quiet']));
  });

  it('writes the same bytes for 1, 2 and 4 threads', () => {
    const counts = ['2', '4'];
    const ended = severally(counts.map((threads) => bytes(`threads-${threads}`, '--threads', threads)));
    expect(ended).toEqual([done, done]);
    for (const threads of counts) expect(filesOf(`threads-${threads}`).map(text)).toEqual(whole);
  });

  it('unites shards to the bytes of a run without', () => {
    const shards = [0, 1, 2];
    const parts = shards.map((shard) => out(`${view}-shard-${shard}.json`));
    const united = out(`${view}-united.json`);
    const ended = severally([
      ...shards.map((i) => ['analyze-entropy', ...some, '--shard', `${i}/3`, '--report', parts[i]]),
      ['merge-reports', parts[2], parts[0], parts[1], '--out', united],
    ]);
    expect(ended.map(({ code }) => code)).toEqual([0, 0, 0, 0]);
    expect(text(united)).toBe(whole[0]);
  });

  it('draws the same picture twice, writes timings, and holds asserts', () => {
    const plots = ['a.svg', 'b.svg'].map((name) => out(`${view}-${name}`));
    const timings = out(`${view}-timings.json`);
    const four = [...base, '--limit', '4'];
    expect(run(view, ...four, '--plot', plots[0], '--quiet').code).toBe(0);
    const asserting = ['--timings', timings, '--assert', 'documents > 4'];
    const failed = surprisal(['analyze-entropy', view, ...four, '--plot', plots[1], ...asserting]);
    expect(text(plots[0])).toContain('<svg');
    expect(text(plots[1])).toBe(text(plots[0]));
    expect(failed).toMatchObject({ code: 3, stderr: 'assert does not hold: documents > 4 (4 > 4)\n' });
    expect(failed.stdout).toContain('entropy');
    expect(reportOf<{ stages: unknown[] }>(timings)).toMatchObject({ command: `analyze-entropy ${view}` });
  });

  it('plans without reading the data', () => {
    const { code, stdout, stderr } = run(view, ...base, '--dry-run', '--out', out(`${view}-dry.csv`));
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    for (const line of ['windows', 'weights', 'memory beside the engine', 'peak memory'])
      expect(stdout).toContain(line);
    expect(existsSync(out(`${view}-dry.csv`))).toBe(false);
  });

  it.each(wrong.map(([argv, stderr], i) => [argv, stderr, i] as const))('%j: one line and exit 2', (_, stderr, i) => {
    expect(refusals[i]).toEqual({ code: 2, stdout: '', stderr: expect.stringMatching(stderr) });
  });

  it('ends its process with exit 2, and one line, also while a model is open', () => {
    expect(surprisal(['analyze-entropy', view, '--model', MODEL, '--data', unknownToken, '--quiet'])).toEqual(
      refusals[wrong.length - 2],
    );
  });

  it('ends with 130 and without outputs when it is interrupted', async () => {
    const before = new Set(readdirSync(folder));
    const target = out(`${view}-interrupted.csv`);
    const ended = await interrupted(
      ['analyze-entropy', view, '--model', MODEL, '--data', TEXT, TEXT, TEXT, '--out', target],
      'SIGINT',
      () => readdirSync(folder).some((name) => !before.has(name)),
    );
    expect(ended.code).toBe(130);
    expect(readdirSync(folder).filter((name) => !before.has(name))).toEqual([]);
  });
});

describe('attention', () => {
  it('tables every head and every position, and lists the heads of the outer quarters', () => {
    const report = out('heads.json');
    const heads = out('heads.csv');
    const positions = out('positions.jsonl');
    const argv = ['--model', MODEL, '--data', PIECES, '--context', '64'];
    expect(run('attention', ...argv, '--report', report, '--out', heads, '--table', positions).code).toBe(0);
    const found = reportOf<AttentionReport>(report);
    const rows = text(heads).trimEnd().split('\n');
    expect(rows).toHaveLength(17);
    expect(rows[1].split(',').slice(0, 2)).toEqual(['0', '0']);
    const largest = Math.max(...found.by_head.map((head) => head.entropy_nats));
    expect(found.bins.relative.of_nats).toBe(largest);
    for (const { entropy_nats, bin, flag } of found.by_head) {
      expect(bin).toBe(Math.min(3, Math.floor((4 * entropy_nats) / largest)));
      expect(flag).toBe(bin === 3 ? 'overload' : bin === 0 ? 'collapse' : '');
    }
    expect(found.offending_heads).toHaveLength(found.by_head.filter((head) => head.flag !== '').length);
    // Every query is counted once: the places of a head add up to its rows.
    const places = text(positions)
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as { layer: number; head: number; queries: number });
    for (const head of found.by_head) {
      const own = places.filter((place) => place.layer === head.layer && place.head === head.head);
      expect(own.reduce((sum, place) => sum + place.queries, 0)).toBe(found.queries);
    }
  });

  it('stops once every head is known well enough', () => {
    const data = [piecesOf('many.jsonl', 26, 400, 20), TEXT];
    const argv = ['--model', MODEL, '--data', ...data, '--quiet', '--force', '--report', out('enough.json')];
    expect(run('attention', ...argv, '--target-se', '0.12').code).toBe(0);
    const stopped = reportOf<AttentionReport>(out('enough.json'));
    expect(stopped.largest_standard_error_nats).toBeLessThan(0.12);
    // The held-out text alone has 31,112 tokens.
    expect(stopped.queries).toBeLessThan(31_112);
    const wrong = [
      ['--target-se', '0.1', '--shard', '0/2'],
      ['--target-se', '0'],
    ];
    for (const ended of severally(wrong.map((more) => ['analyze-entropy', 'attention', ...argv, ...more]))) {
      expect(ended).toMatchObject({ code: 2 });
    }
  });
});

describe('layers', () => {
  it('tables documents by layer, and agrees with the tokens view on the final layer', () => {
    const table = out('layer-documents.csv');
    const report = out('layer-documents.json');
    const tokens = out('tokens.json');
    const argv = ['--model', MODEL, '--data', PIECES, '--context', '128', '--quiet'];
    expect(run('layers', ...argv, '--table', table, '--report', report).code).toBe(0);
    expect(run('tokens', ...argv, '--report', tokens).code).toBe(0);
    const rows = text(table).trimEnd().split('\n');
    expect(rows).toHaveLength(1 + DOCUMENTS * 5);
    expect(rows[6]).toMatch(/^1,piece-1,0,/);
    const found = reportOf<LayersReport>(report);
    const scored = reportOf<{ scored_tokens: number; mean_nll_nats: number; mean_entropy_nats: number }>(tokens);
    expect(found.positions).toBe(scored.scored_tokens);
    expect(found.mean_nll_nats).toBeCloseTo(scored.mean_nll_nats, 12);
    expect(found.mean_entropy_nats).toBeCloseTo(scored.mean_entropy_nats, 12);
    expect(found.by_layer[4].lens_kl_to_final_nats).toBe(0);
    for (const { effective_rank } of found.by_layer) {
      expect(effective_rank).toBeGreaterThan(1);
      expect(effective_rank).toBeLessThan(128);
    }
  });
});
