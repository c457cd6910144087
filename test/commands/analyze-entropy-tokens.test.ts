import { cpSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { beforeAll, describe, expect, it } from 'vitest';
import { temporaryFolder } from '../formats/collect.js';
import { type Ended, interrupted, resident, severally, surprisal } from './run-surprisal.js';

const folder = temporaryFolder();
const MODELS = readdirSync('fixtures/models').filter((name) =>
  existsSync(join('fixtures/models', name, 'config.json')),
);
const MODEL = 'fixtures/models/llama-sotu';
const TEXT = 'fixtures/text/heldout_text.jsonl';
const out = (name: string): string => join(folder, name);
/** The beginnings of the first documents: what a run does with its options shows on few tokens as on many. */
const SHORT = out('short.jsonl');
writeFileSync(
  SHORT,
  readFileSync(TEXT, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as { text: string })
    .map((row) => `${JSON.stringify({ ...row, text: row.text.slice(0, 900) })}\n`)
    .join(''),
);
const tokens = (...argv: string[]): string[] => ['analyze-entropy', 'tokens', ...argv];
const text = (path: string): string => readFileSync(path, 'utf8');

interface TokensReport {
  readonly perplexity: number;
  readonly mean_entropy_nats: number;
  readonly bits_per_byte: number;
  readonly scored_tokens: number;
  readonly documents: number;
  readonly inputs: { path: string; sha256: string }[];
}
const reportOf = (path: string): TokensReport => JSON.parse(text(path)) as TokensReport;

/** Rows of a table whose cells hold no quoted line breaks. */
const rows = (path: string): string[] => text(path).trimEnd().split('\n');

describe('figures of independent programs', () => {
  let ended: Ended[];
  beforeAll(() => {
    const how = ['--data', TEXT, '--convention', 'lm-eval', '--context', '256', '--prefix-token', '0'];
    const line = (name: string): string[] => {
      const outputs = ['--report', out(`${name}.json`), '--out', out(`${name}.jsonl`)];
      return tokens('--model', join('fixtures/models', name), ...how, ...outputs);
    };
    ended = severally(MODELS.map(line));
  });

  it.each(MODELS)('%s: perplexity, bits per byte and entropy of its golden file', (name) => {
    const golden = JSON.parse(text(join('fixtures/models', name, 'golden.json'))) as {
      total: { perplexity: number; bits_per_byte: number; mean_entropy_nats: number; tokens: number };
      first_64: { nll_nats: number[]; entropy_nats: number[]; varentropy_nats2: number[]; rank: number[] };
    };
    expect(ended[MODELS.indexOf(name)]).toMatchObject({ code: 0, stderr: '' });
    const found = reportOf(out(`${name}.json`));
    expect(found.scored_tokens).toBe(golden.total.tokens);
    expect(Math.abs(found.perplexity / golden.total.perplexity - 1)).toBeLessThan(1e-6);
    expect(Math.abs(found.bits_per_byte / golden.total.bits_per_byte - 1)).toBeLessThan(1e-6);
    expect(Math.abs(found.mean_entropy_nats / golden.total.mean_entropy_nats - 1)).toBeLessThan(1e-6);

    const first = rows(out(`${name}.jsonl`))
      .slice(0, golden.first_64.nll_nats.length)
      .map((line) => JSON.parse(line) as Record<string, number>);
    first.forEach((row, i) => {
      expect(row.surprisal_nats).toBeCloseTo(golden.first_64.nll_nats[i], 4);
      expect(row.entropy_nats).toBeCloseTo(golden.first_64.entropy_nats[i], 4);
      expect(row.varentropy_nats2).toBeCloseTo(golden.first_64.varentropy_nats2[i], 3);
      expect(row.rank).toBe(golden.first_64.rank[i]);
    });
  });

  it('a smaller stride of the Hugging Face convention never raises the perplexity', () => {
    const strides = [8, 32, 64];
    const one = ['--model', MODEL, '--data', SHORT, '--limit', '1', '--convention', 'hf', '--context', '64', '--quiet'];
    severally(strides.map((n) => tokens(...one, '--stride', String(n), '--report', out(`stride-${n}.json`))));
    const [fine, half, disjoint] = strides.map((stride) => reportOf(out(`stride-${stride}.json`)).perplexity);
    expect(fine).toBeLessThan(half);
    expect(half).toBeLessThan(disjoint);
  });
});

describe('the same bytes', () => {
  const two = ['--model', MODEL, '--data', SHORT, '--limit', '2', '--context', '64', '--quiet'];
  const filesOf = (name: string): string[] => ['csv', 'json', 'svg'].map((kind) => out(`${name}.${kind}`));
  const line = (name: string, ...argv: string[]): string[] => {
    const [table, report, plot] = filesOf(name);
    return tokens(...two, '--out', table, '--report', report, '--plot', plot, ...argv);
  };
  const done = { code: 0, stdout: '', stderr: '' };
  beforeAll(() => {
    expect(surprisal(line('whole', '--threads', '1'))).toEqual(done);
  });

  it('for 1, 2 and 4 threads', () => {
    const counts = ['2', '4'];
    expect(severally(counts.map((n) => line(`threads-${n}`, '--threads', n)))).toEqual([done, done]);
    for (const n of counts) expect(filesOf(`threads-${n}`).map(text)).toEqual(filesOf('whole').map(text));
  });

  it('for gzipped text under the same name and from standard input, but for the name', () => {
    const strip = (path: string): string =>
      JSON.stringify({ ...JSON.parse(text(path)), inputs: [], parameters: {}, sources: [], histograms: 0 });
    const zipped = out('text.jsonl.gz');
    writeFileSync(zipped, gzipSync(readFileSync(SHORT)));
    const from = (data: string): string[] => tokens(...two.slice(0, 3), data, ...two.slice(4));
    expect(resident([...from(zipped), '--report', out('zipped.json')]).code).toBe(0);
    expect(surprisal([...from('-'), '--report', out('piped.json')], {}, text(SHORT)).code).toBe(0);
    expect(strip(out('zipped.json'))).toBe(strip(out('whole.json')));
    expect(strip(out('piped.json'))).toBe(strip(out('whole.json')));
  });

  it('from shards united, also when a shard has no document', () => {
    const parts = [0, 1, 2];
    const reports = parts.map((i) => out(`part-${i}.json`));
    const tables = parts.map((i) => out(`part-${i}.csv`));
    const ended = severally([
      ...parts.map((i) => tokens(...two, '--shard', `${i}/3`, '--out', tables[i], '--report', reports[i])),
      ['merge-reports', ...reports, '--out', out('merged.json'), '--table-parts', ...tables].concat(
        '--table-out',
        out('merged.csv'),
      ),
    ]);
    expect(ended.slice(0, 3)).toEqual([done, done, done]);
    expect(ended[3]).toMatchObject({ code: 0, stderr: '' });
    expect(text(out('merged.json'))).toBe(text(out('whole.json')));
    expect(text(out('merged.csv'))).toBe(text(out('whole.csv')));
  });
});

describe('without the native addon', () => {
  it('gives the same figures, with one notice', () => {
    const argv = tokens('--model', MODEL, '--data', SHORT, '--limit', '1', '--context', '256', '--quiet', '--report');
    resident([...argv, out('native.json')]);
    const slow = surprisal([...argv, out('slow.json')], { SURPRISAL_NO_NATIVE: '1' });
    expect(slow.code).toBe(0);
    expect(slow.stderr.trim().split('\n')).toEqual([expect.stringMatching(/^notice: native kernels are not in use/)]);
    const [a, b] = [reportOf(out('native.json')), reportOf(out('slow.json'))];
    expect(Math.abs(a.perplexity / b.perplexity - 1)).toBeLessThan(1e-7);
    expect(Math.abs(a.mean_entropy_nats / b.mean_entropy_nats - 1)).toBeLessThan(1e-7);
  });
});

describe('asserts', () => {
  const base = ['--model', MODEL, '--data', SHORT, '--limit', '2', '--context', '64', '--quiet'];
  let failed: Ended;
  beforeAll(() => {
    failed = resident(tokens(...base, '--report', out('assert.json'), '--assert', 'perplexity < 2'));
  });

  it('exit 0, 3 or 2, after the outputs were written', () => {
    expect(failed.code).toBe(3);
    expect(existsSync(out('assert.json'))).toBe(true);
    const [holds, unknown] = severally(
      ['perplexity < 40', 'perplexty < 2'].map((assert) => tokens(...base, '--assert', assert)),
    );
    expect(holds.code).toBe(0);
    expect(unknown).toMatchObject({ code: 2, stderr: expect.stringContaining('did you mean "perplexity"?') });
  });

  it('against a baseline', () => {
    const tuned = [
      '--model',
      'fixtures/models/llama-sotu-ft-recent',
      ...base.slice(2),
      '--baseline',
      out('assert.json'),
    ];
    const ended = severally(
      [9, 0.1].map((factor) => tokens(...tuned, '--assert', `perplexity <= ${factor} * baseline.perplexity`)),
    );
    expect(ended.map(({ code }) => code)).toEqual([0, 3]);
  });
});

describe('memory', () => {
  it.each(['fixtures/models/llama-sotu', 'fixtures/models/mixtral-sotu-moby'])(
    '%s: the peak of the process stays below the least limit that is accepted',
    (model) => {
      const argv = tokens('--model', model, '--data', TEXT, '--limit', '1', '--context', '256', '--quiet');
      const refused = surprisal([...argv, '--max-memory', '1MB']);
      expect(refused.code).toBe(2);
      const least = Number(/at least (\d+)MiB is needed/.exec(refused.stderr)?.[1]);
      const timings = out(`memory-${least}.json`);
      const ended = surprisal([...argv, '--max-memory', `${least}MiB`, '--timings', timings, '--force']);
      expect(ended).toEqual({ code: 0, stdout: '', stderr: '' });
      const { host } = JSON.parse(text(timings)) as { host: { peak_resident_bytes: number } };
      expect(host.peak_resident_bytes).toBeLessThanOrEqual(least * 2 ** 20);
    },
  );
});

describe('interrupted', () => {
  const big = (): string => {
    const path = out('big.jsonl');
    if (!existsSync(path)) {
      const file = openSync(path, 'w');
      for (let i = 0; i < 20; i++) writeSync(file, readFileSync(TEXT));
    }
    return path;
  };

  it.each([
    ['SIGINT', 130, '0'],
    ['SIGTERM', 143, '0'],
    ['SIGINT', 130, '1'],
  ] as const)('%s ends with %i and leaves no file (no addon: %s)', async (signal, code, withoutAddon) => {
    const where = out(`${signal}-${withoutAddon}`);
    mkdirSync(where);
    const running = (): boolean => readdirSync(where).length > 1;
    const started = Date.now();
    const ended = await interrupted(
      tokens('--model', MODEL, '--data', big(), '--out', join(where, 'a.csv'), '--report', join(where, 'a.json')),
      signal,
      () => running() && Date.now() - started > 1000,
      { SURPRISAL_NO_NATIVE: withoutAddon },
    );
    // Without the addon the signal's own default action ends the process; a shell sees the same code.
    expect(ended.signal === signal || ended.code === code).toBe(true);
    if (withoutAddon === '0') expect(ended.code).toBe(code);
    expect(readdirSync(where)).toEqual([]);
  });
});

describe('resumed', () => {
  it('gives the bytes of a run that was not interrupted, after a kill', async () => {
    const data = out('many.jsonl');
    const documents = text(TEXT)
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as { id: string; text: string });
    const lines = Array.from({ length: 12 }, (_, i) => {
      const { text: whole } = documents[i % documents.length];
      return JSON.stringify({ id: String(i), text: whole.slice(0, 2200) });
    });
    writeFileSync(data, `${lines.join('\n')}\n`);
    const where = out('resumed');
    mkdirSync(where);
    const argv = (name: string): string[] =>
      tokens(
        '--model',
        MODEL,
        '--data',
        data,
        '--quiet',
        '--out',
        join(where, `${name}.csv`),
        '--report',
        join(where, `${name}.json`),
      );
    expect(surprisal(argv('whole')).code).toBe(0);
    const often = { SURPRISAL_CHECKPOINT_SECONDS: '0.05' };
    const checkpoint = join(where, '.cut.csv.checkpoint');
    await interrupted([...argv('cut'), '--resume'], 'SIGKILL', () => existsSync(checkpoint), often);
    expect(existsSync(checkpoint)).toBe(true);
    expect(existsSync(join(where, 'cut.csv'))).toBe(false);
    const other = surprisal([...argv('cut'), '--resume', '--context', '64'], often);
    expect(other).toMatchObject({ code: 2, stderr: expect.stringMatching(/other options/) });
    expect(surprisal([...argv('cut'), '--resume'], often)).toEqual({ code: 0, stdout: '', stderr: '' });
    expect(text(join(where, 'cut.csv'))).toBe(text(join(where, 'whole.csv')));
    expect(text(join(where, 'cut.json'))).toBe(text(join(where, 'whole.json')));
    expect(readdirSync(where).sort()).toEqual(['cut.csv', 'cut.json', 'whole.csv', 'whole.json']);
  });
});

describe('bad input', () => {
  const broken = (name: string, change: (directory: string) => void): string => {
    const directory = out(name);
    cpSync(MODEL, directory, { recursive: true });
    change(directory);
    return directory;
  };
  const edited = (file: string, change: (content: string) => string) => (directory: string) =>
    writeFileSync(join(directory, file), change(text(join(directory, file))));
  const cases: [string, () => string[], RegExp][] = [
    ['unknown model', () => ['--model', 'org/none', '--data', TEXT], /hf download org\/none/],
    [
      'unknown type',
      () => [
        '--model',
        broken(
          'type',
          edited('config.json', (c) => c.replace('"llama"', '"lama"')),
        ),
        '--data',
        TEXT,
      ],
      /model_type "lama" is not supported; did you mean "llama"/,
    ],
    [
      'shape against config',
      () => [
        '--model',
        broken(
          'shape',
          edited('config.json', (c) => c.replace('"hidden_size": 128', '"hidden_size": 64')),
        ),
        '--data',
        TEXT,
      ],
      /tensor "model.layers.0.input_layernorm.weight" has shape \[128\]/,
    ],
    [
      'truncated weights',
      () => [
        '--model',
        broken('cut', (d) =>
          writeFileSync(join(d, 'model.safetensors'), readFileSync(join(d, 'model.safetensors')).subarray(0, 1000)),
        ),
        '--data',
        TEXT,
      ],
      /truncated/,
    ],
    [
      'foreign tokenizer',
      () => [
        '--model',
        broken('foreign', (d) => {
          cpSync('fixtures/models/qwen2-moby', d, { recursive: true });
          cpSync(join(MODEL, 'tokenizer.json'), join(d, 'tokenizer.json'));
        }),
        '--data',
        TEXT,
      ],
      /only 768 embedding rows/,
    ],
    ['context', () => ['--model', MODEL, '--data', TEXT, '--context', '1024'], /longer than the 256 positions/],
    ['memory', () => ['--model', MODEL, '--data', TEXT, '--max-memory', '40MB'], /at least \d+MiB is needed/],
    ['no token', () => ['--model', MODEL, '--data', file('zero.jsonl', '{"text":""}\n')], /no token was scored/],
    ['not JSON', () => ['--model', MODEL, '--data', file('bad.jsonl', '{"text":"a"}\nnope\n')], /bad.jsonl:2/],
    ['missing field', () => ['--model', MODEL, '--data', file('miss.jsonl', '{"txt":"a"}\n')], /did you mean "txt"/],
    [
      'token id',
      () => ['--model', MODEL, '--data', file('ids.jsonl', '{"input_ids":[1,99999]}\n')],
      /position 1: token id 99999/,
    ],
    ['existing output', () => ['--model', MODEL, '--data', TEXT, '--out', file('there.csv', '')], /already exists/],
    ['no directory', () => ['--model', MODEL, '--data', TEXT, '--out', out('none/a.csv')], /does not exist/],
    ['plot kind', () => ['--model', MODEL, '--data', TEXT, '--plot', out('a.pdf')], /\.svg, \.png or \.html/],
  ];
  const file = (name: string, content: string): string => {
    writeFileSync(out(name), content);
    return out(name);
  };

  let ended: Ended[];
  beforeAll(() => {
    ended = severally(cases.map(([, argv]) => tokens(...argv(), '--quiet')));
  });

  it.each(cases.map(([name, , message], i) => [name, message, i] as const))('%s: one line, exit 2', (_, message, i) => {
    expect(ended[i].stderr).toMatch(message);
    expect(ended[i].stderr.trimEnd().split('\n')).toHaveLength(1);
    expect(ended[i].code).toBe(2);
  });

  it('NaN weights: names document and position', () => {
    const directory = broken('nan', (d) => {
      const path = join(d, 'model.safetensors');
      const bytes = readFileSync(path);
      const header = Number(bytes.readBigUInt64LE(0));
      const tensors = JSON.parse(bytes.toString('utf8', 8, 8 + header)) as Record<string, { data_offsets: number[] }>;
      bytes.writeUInt16LE(0x7fc0, 8 + header + tensors['model.layers.1.mlp.up_proj.weight'].data_offsets[0]);
      writeFileSync(path, bytes);
    });
    const ended = resident(tokens('--model', directory, '--data', TEXT, '--quiet'));
    expect(ended).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/document 1863_abraham_lincoln_r, position 0/),
    });
  });
});

describe('chat and answers', () => {
  it('scores the answers alone', () => {
    const data = out('answers.jsonl');
    writeFileSync(
      data,
      '{"prompt":"The State of the","answer":" Union"}\n{"prompt":"Fellow-Citizens of the","answer":" Senate"}\n',
    );
    const ended = resident(
      tokens('--model', MODEL, '--data', data, '--score-only', 'answer', '--out', out('answers.csv'), '--quiet'),
    );
    expect(ended).toEqual({ code: 0, stdout: '', stderr: '' });
    const texts = rows(out('answers.csv'))
      .slice(1)
      .map((line) => line.split(',')[5]);
    expect(texts.join('')).toBe(' Union Senate');
  });
});
