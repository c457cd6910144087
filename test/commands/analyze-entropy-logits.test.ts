import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { beforeAll, describe, expect, it } from 'vitest';
import { createNpyWriter } from '../../src/formats/npy.js';
import { createSafetensorsWriter } from '../../src/formats/safetensors-writer.js';
import type { DType } from '../../src/formats/tensor.js';
import { narrowFromF32 } from '../../src/kernels/dtypes.js';
import { createRandom } from '../../src/random.js';
import { sha256, temporaryFolder } from '../formats/collect.js';
import { resident, surprisal } from './run-surprisal.js';

const folder = temporaryFolder();
const at = (name: string): string => join(folder, name);
const logits = (...argv: string[]) => resident(['analyze-entropy', 'logits', ...argv]);

const bytesOf = (view: ArrayBufferView): Uint8Array => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);

function npy(name: string, dtype: DType, shape: number[], data: ArrayBufferView): string {
  const writer = createNpyWriter(at(name), { dtype, shape }, { force: true });
  writer.write(bytesOf(data));
  writer.commit();
  return at(name);
}

interface Golden {
  inputs: { logits: { shape: number[]; data: (number | string)[] }; targets: { data: number[] } };
  expected: Record<string, { data: number[] }> & { aggregate: Record<string, number> };
}

const golden = JSON.parse(readFileSync('fixtures/golden/token-measures/basic-v64.json', 'utf8')) as Golden;
const [ROWS, VOCABULARY] = golden.inputs.logits.shape;
const GOLDEN = Float64Array.from(golden.inputs.logits.data, Number);
const TARGETS = Int32Array.from(golden.inputs.targets.data);

/** A batch of sequences with the same logits in every storage. */
const BATCH = [6, 40, 50] as const;
const random = createRandom(11);
const batch = Float32Array.from({ length: BATCH[0] * BATCH[1] * BATCH[2] }, () => 3 * random.normal());
const ids = Int32Array.from({ length: BATCH[0] * BATCH[1] }, () => random.integer(BATCH[2]));

interface Row {
  document: number;
  position: number;
  row: number;
  target_id: number | null;
  surprisal_nats: number | null;
  [key: string]: number | string | null;
}
const rowsOf = (path: string): Row[] =>
  readFileSync(path, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Row);
const reportOf = (path: string) =>
  JSON.parse(readFileSync(path, 'utf8')) as Record<string, number> & { inputs: { path: string; sha256: string }[] };

beforeAll(() => {
  npy('golden.npy', 'F64', [ROWS, VOCABULARY], GOLDEN);
  npy('targets.npy', 'I64', [ROWS], BigInt64Array.from(TARGETS, BigInt));
  npy('batch.npy', 'F32', [...BATCH], batch);
  npy('ids.npy', 'I32', [BATCH[0], BATCH[1]], ids);
  const writer = createSafetensorsWriter(at('batch.safetensors'), {
    plan: [
      { name: 'logits', dtype: 'F32', shape: [...BATCH] },
      { name: 'input_ids', dtype: 'I32', shape: [BATCH[0], BATCH[1]] },
    ],
  });
  writer.write('logits', bytesOf(batch));
  writer.write('input_ids', bytesOf(ids));
  writer.commit();
});

describe('dumps', { timeout: 60_000 }, () => {
  it('gives the golden measures of every row and their aggregate', () => {
    const ended = logits(
      ...['--data', at('golden.npy'), '--targets', at('targets.npy')],
      ...['--out', at('golden.jsonl'), '--report', at('golden.json')],
    );
    expect(ended).toMatchObject({ code: 0, stderr: '' });
    const keys = {
      surprisal_nats: 'nll',
      entropy_nats: 'entropy',
      varentropy_nats2: 'varentropy',
      rank: 'target_rank',
      top5_mass: 'topk_mass_5',
      top10_mass: 'topk_mass_10',
      renyi_half_nats: 'renyi_0.5',
      renyi_2_nats: 'renyi_2',
      min_entropy_nats: 'min_entropy',
      margin: 'margin_top1_top2',
      normalized_entropy: 'normalized_entropy',
      self_certainty_nats: 'self_certainty_kl_uniform_p',
      fisher_rao: 'fisher_rao_to_uniform',
      excess_surprisal_nats: 'surprisal_minus_entropy',
    };
    const table = rowsOf(at('golden.jsonl'));
    expect(table).toHaveLength(ROWS);
    for (const [column, name] of Object.entries(keys)) {
      table.forEach((row, r) => {
        expect(row[column], `${column} of row ${r}`).toBeCloseTo(golden.expected[name].data[r], 9);
      });
    }
    const report = reportOf(at('golden.json'));
    const { aggregate } = golden.expected;
    expect(report.perplexity).toBeCloseTo(aggregate.perplexity, 8);
    expect(report.mean_entropy_nats).toBeCloseTo(aggregate.mean_entropy_nats, 10);
    expect(report.mean_nll_nats_se).toBeCloseTo(aggregate.stderr_mean_nll, 9);
    expect(report.inputs.map(({ path }) => path)).toEqual([at('golden.npy'), at('targets.npy')]);
  });

  it('reads the same figures from .npy and .safetensors, at any memory and number of threads', () => {
    const bytes = [
      ['--data', at('batch.npy'), '--targets', at('ids.npy')],
      ['--data', at('batch.safetensors'), '--targets', 'input_ids'],
      ['--data', at('batch.safetensors'), '--targets', 'input_ids', '--threads', '1'],
      ['--data', at('batch.safetensors'), '--targets', 'input_ids', '--threads', '4', '--max-memory', '1MB'],
    ].map((argv, i) => {
      expect(logits(...argv, '--shift', '--out', at(`same-${i}.csv`), '--report', at(`same-${i}.json`))).toMatchObject({
        code: 0,
        stderr: '',
      });
      return readFileSync(at(`same-${i}.csv`), 'utf8').replaceAll('batch.npy', 'batch.safetensors');
    });
    for (const other of bytes.slice(1)) expect(other).toBe(bytes[0]);
    expect(readFileSync(at('same-3.json'), 'utf8')).toBe(readFileSync(at('same-2.json'), 'utf8'));
    const report = reportOf(at('same-1.json'));
    expect(report.rows_without_target).toBe(BATCH[0]);
    expect(report.scored_tokens).toBe(BATCH[0] * (BATCH[1] - 1));
    expect(report.inputs[0].sha256).toBe(sha256(readFileSync(at('batch.safetensors'))));
    const half = rowsOf(toJsonl('same', bytes[0]));
    const shifted = half.find(({ document, position }) => document === 2 && position === 7);
    expect(Number(shifted?.target_id)).toBe(ids[2 * BATCH[1] + 8]);
  });

  it('unites shards to the bytes of one run, with targets and without', () => {
    const runs = {
      targeted: ['--data', at('batch.safetensors'), '--targets', 'input_ids', '--shift'],
      alone: ['--data', at('batch.npy')],
      cut: ['--data', at('golden.npy'), '--targets', at('targets.npy'), '--document-rows', '5'],
    };
    for (const [name, argv] of Object.entries(runs)) {
      logits(...argv, '--report', at(`${name}.json`), '--out', at(`${name}.csv`));
      for (const shard of ['0/2', '1/2']) {
        const part = shard.replace('/', '-');
        const files = ['--report', at(`${name}-${part}.json`), '--out', at(`${name}-${part}.csv`)];
        expect(logits(...argv, '--shard', shard, ...files).code).toBe(0);
      }
      const parts = (kind: string): string[] => ['0-2', '1-2'].map((part) => at(`${name}-${part}.${kind}`));
      expect(
        resident([
          ...['merge-reports', ...parts('json'), '--out', at(`${name}-united.json`)],
          ...['--table-parts', ...parts('csv'), '--table-out', at(`${name}-united.csv`)],
        ]),
      ).toMatchObject({ code: 0, stderr: '' });
      for (const kind of ['json', 'csv']) {
        expect(readFileSync(at(`${name}-united.${kind}`), 'utf8')).toBe(readFileSync(at(`${name}.${kind}`), 'utf8'));
      }
    }
  });

  it('keeps what needs a second pass: a nearly uniform row has its own varentropy', () => {
    const width = 1000;
    const row = Float64Array.from({ length: width }, (_, i) => 700 + (i % 2) * 1e-6);
    npy('flat.npy', 'F64', [1, width], row);
    logits('--data', at('flat.npy'), '--out', at('flat.jsonl'));
    // Half of the tokens 1e-6 above the others: the variance of the logits is 1e-12 / 4.
    expect(Number(rowsOf(at('flat.jsonl'))[0].varentropy_nats2) / 2.5e-13).toBeCloseTo(1, 3);
  });

  it('reads half precision as it is stored', () => {
    const narrow = new Uint16Array(batch.length);
    narrowFromF32(batch, 'BF16', bytesOf(narrow));
    npy('half.npy', 'BF16', [...BATCH], narrow);
    expect(logits('--data', at('half.npy'), '--report', at('half.json'))).toMatchObject({ code: 0, stderr: '' });
    logits('--data', at('batch.npy'), '--report', at('whole.json'));
    const difference = reportOf(at('half.json')).mean_entropy_nats - reportOf(at('whole.json')).mean_entropy_nats;
    expect(Math.abs(difference)).toBeLessThan(1e-2);
  });

  it('names file, tensor and row of what is wrong, and writes nothing', () => {
    const hostile = (name: string, change: (copy: Float32Array) => void): string => {
      const copy = batch.slice();
      change(copy);
      return npy(name, 'F32', [...BATCH], copy);
    };
    const row = 2 * BATCH[1] + 3;
    const place = 'row 83 \\(index \\[2, 3\\]\\)';
    const nan = hostile('nan.npy', (copy) => {
      copy[row * BATCH[2] + 4] = Number.NaN;
      copy[(row + 1) * BATCH[2]] = Number.POSITIVE_INFINITY;
    });
    const empty = hostile('empty.npy', (copy) => {
      copy.fill(Number.NEGATIVE_INFINITY, row * BATCH[2], (row + 1) * BATCH[2]);
    });
    const bad = ids.slice();
    bad[5] = BATCH[2];
    const cases: [string[], RegExp][] = [
      [['--data', nan], new RegExp(`nan\\.npy: tensor "nan": ${place}, column 4 is NaN; .*\\(and 1 more of`)],
      [['--data', empty], new RegExp(`empty\\.npy: tensor "empty": ${place} has empty support`)],
      [['--data', at('batch.safetensors'), '--tensor', 'logts'], /no tensor "logts"; did you mean "logits"\?/],
      [['--data', at('ids.npy')], /tensor "ids" I32 \[6, 40\] is no tensor of logits/],
      [
        ['--data', at('batch.npy'), '--targets', npy('bad.npy', 'I32', [BATCH[0], BATCH[1]], bad)],
        /bad\.npy: row 5: target 50 is outside the vocabulary of 50/,
      ],
      [
        ['--data', at('batch.npy'), '--targets', at('targets.npy')],
        /targets of shape \[12\] do not fit logits of shape/,
      ],
      [['--data', at('batch.npy'), '--targets', 'none'], /no tensor "none"/],
      [['--data', at('batch.npy'), '--document-rows', '5'], /drop --document-rows/],
      [['--data', at('batch.npy'), at('golden.npy')], /golden\.npy: a vocabulary of 64, .* has 50/],
    ];
    for (const [argv, message] of cases) {
      const ended = logits(...argv, '--out', at('none.csv'), '--report', at('none.json'));
      expect(ended.code).toBe(2);
      expect(ended.stderr).toMatch(message);
      expect(ended.stderr.trimEnd().split('\n')).toHaveLength(1);
      expect(() => readFileSync(at('none.csv'))).toThrow();
    }
  });
});

/** A CSV of numbers as JSON lines, in a file. */
function toJsonl(name: string, csv: string): string {
  const [header, ...lines] = csv.trimEnd().split('\n');
  const columns = header.split(',');
  const objects = lines.map((line) => Object.fromEntries(line.split(',').map((cell, i) => [columns[i], Number(cell)])));
  writeFileSync(at(`${name}.jsonl`), objects.map((object) => JSON.stringify(object)).join('\n'));
  return at(`${name}.jsonl`);
}

describe('top log-probabilities', { timeout: 60_000 }, () => {
  const TOP = 4;
  /** The batch as an OpenAI server would return it, targets being the likeliest token of every third row. */
  const answers = Array.from({ length: BATCH[0] }, (_, d) => {
    const content = Array.from({ length: BATCH[1] }, (_unused, t) => {
      const start = (d * BATCH[1] + t) * BATCH[2];
      const row = batch.subarray(start, start + BATCH[2]);
      const max = Math.max(...row);
      const logSum = max + Math.log(row.reduce((sum, logit) => sum + Math.exp(logit - max), 0));
      const order = Array.from(row.keys()).sort((a, b) => row[b] - row[a]);
      const target = ids[d * BATCH[1] + t];
      const entry = (id: number) => ({ token: `t${id}`, logprob: row[id] - logSum });
      return { ...entry(target), top_logprobs: order.slice(0, TOP).map(entry) };
    });
    return { id: `answer ${d}`, logprobs: { content } };
  });
  beforeAll(() => {
    writeFileSync(at('top.jsonl'), answers.map((answer) => `${JSON.stringify(answer)}\n`).join(''));
    writeFileSync(at('top.jsonl.gz'), gzipSync(readFileSync(at('top.jsonl'))));
  });

  it('bounds the entropy of every position from both sides', () => {
    const ended = logits(
      ...['--data', at('top.jsonl'), '--vocabulary-size', '50'],
      ...['--out', at('top.out.jsonl'), '--report', at('top.json'), '--plot', at('top.svg')],
    );
    expect(ended).toMatchObject({ code: 0, stderr: '' });
    logits(
      '--data',
      at('batch.npy'),
      '--targets',
      at('ids.npy'),
      '--out',
      at('exact.jsonl'),
      '--report',
      at('exact.json'),
    );
    const exact = rowsOf(at('exact.jsonl'));
    rowsOf(at('top.out.jsonl')).forEach((bounds, i) => {
      const entropy = Number(exact[i].entropy_nats);
      expect(Number(bounds.entropy_lower_nats)).toBeLessThanOrEqual(entropy + 1e-9);
      expect(Number(bounds.entropy_upper_nats)).toBeGreaterThanOrEqual(entropy - 1e-9);
      expect(bounds.surprisal_nats).toBeCloseTo(Number(exact[i].surprisal_nats), 6);
    });
    const report = reportOf(at('top.json'));
    expect(report.perplexity).toBeCloseTo(reportOf(at('exact.json')).perplexity, 4);
    expect(report.mean_entropy_nats).toBeUndefined();
    expect(report.unbounded_positions).toBe(0);
  });

  it('says that the upper bound is infinite when the vocabulary is not known', () => {
    expect(logits('--data', at('top.jsonl.gz'), '--report', at('open.json')).code).toBe(0);
    const report = reportOf(at('open.json'));
    expect(report.mean_entropy_upper_nats).toBe('inf');
    expect(report.unbounded_positions).toBe(BATCH[0] * BATCH[1]);
    expect(report.vocabulary_size).toBeNull();
  });

  it('unites shards', () => {
    const argv = ['--data', at('top.jsonl'), '--vocabulary-size', '50'];
    for (const shard of ['0/2', '1/2']) {
      logits(...argv, '--shard', shard, '--report', at(`top-${shard[0]}.json`));
    }
    resident(['merge-reports', at('top-0.json'), at('top-1.json'), '--out', at('top-united.json')]);
    expect(readFileSync(at('top-united.json'), 'utf8')).toBe(readFileSync(at('top.json'), 'utf8'));
  });

  it('names the line of what is wrong', () => {
    writeFileSync(at('bad.jsonl'), `${JSON.stringify(answers[0])}\n{"text": "no log-probabilities"}\n`);
    const small = ['--data', at('top.jsonl'), '--vocabulary-size', '3'];
    for (const [argv, message] of [
      [['--data', at('bad.jsonl')], /bad\.jsonl:2: no log-probabilities found/],
      [small, /top\.jsonl:1: position 0: \d log-probabilities for a vocabulary of 3/],
      [['--data', at('top.jsonl'), '--tensor', 'x'], /--tensor: log-probabilities are no tensor; drop it/],
      [['--data', at('top.jsonl'), at('batch.npy')], /give tensors or JSONL, not both/],
    ] as [string[], RegExp][]) {
      const ended = logits(...argv);
      expect(ended.code).toBe(2);
      expect(ended.stderr).toMatch(message);
    }
    expect(surprisal(['analyze-entropy', 'logits', ...small])).toEqual(logits(...small));
  });
});
