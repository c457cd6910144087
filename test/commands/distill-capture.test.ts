import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { topLogProbs } from '../../src/kernels/top-log-probs.js';
import { openLanguageModel } from '../../src/models/language-model.js';
import { openModelTokenizer } from '../../src/models/model-tokenizer.js';
import { captureRowBytes } from '../../src/training/language/capture-rows.js';
import { openCapturedTeacher } from '../../src/training/language/captured-teacher.js';
import { resident } from './run-surprisal.js';

const MODEL = 'fixtures/models/llama-sotu';
const VOCABULARY = 1024;
const folder = mkdtempSync(join(tmpdir(), 'distill-capture-'));
const path = (name: string): string => join(folder, name);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const TEXTS = [
  'The state of the union is strong, and our people are at work.',
  'We have passed laws that build roads and bridges for every county.',
  'No nation is alone; we share our burdens with our friends abroad.',
];
const tokenizer = openModelTokenizer(MODEL);
const BASE = ['distill-pld', 'capture', '--teacher', MODEL, '--context', '16', '--top-k', '8'];

beforeAll(() => writeFileSync(path('texts.jsonl'), TEXTS.map((text) => `${JSON.stringify({ text })}\n`).join('')));

describe('distill-pld capture', () => {
  it('keeps what the model says, whole or in shards', async () => {
    const data = ['--data', path('texts.jsonl')];
    const whole = resident([...BASE, ...data, '--out', path('whole.capture'), '--report', path('whole.json')]);
    expect(whole.stderr).toBe('');
    expect(whole.code).toBe(0);
    const report = JSON.parse(readFileSync(path('whole.json'), 'utf8'));
    expect(report.bytes_per_row).toBe(captureRowBytes({ vocabulary: VOCABULARY, k: 8, dtype: 'q8' }));
    expect(report.coding_error_nats.largest).toBeLessThan(1e-3);
    for (const i of [0, 1]) {
      expect(resident([...BASE, ...data, '--quiet', '--shard', `${i}/2`, '--out', path(`part${i}.capture`)]).code).toBe(
        0,
      );
    }
    const expected = {
      vocabulary: VOCABULARY,
      dataSha256: report.data_sha256,
      tokenizerSha256: report.tokenizer_sha256,
    };
    const teacher = openCapturedTeacher(path('whole.capture'), expected);
    const parts = openCapturedTeacher([path('part1.capture'), path('part0.capture')], expected);
    expect(teacher.storedRows).toBe(report.rows);
    const window = teacher.header.windows - 2;
    expect(parts.rows(window, 0, 16)).toEqual(teacher.rows(window, 0, 16));

    const ids = TEXTS.flatMap((text) => [...tokenizer.encode(text, { addSpecialTokens: false }), tokenizer.eosId ?? 0]);
    const model = await openLanguageModel(MODEL, {
      threads: 1,
      device: 'cpu',
      precision: 'f32',
      context: 16,
      maxMemoryBytes: 2 ** 30,
    });
    const first = tokenizer.addBosDefault && tokenizer.bosId !== undefined ? [tokenizer.bosId] : [];
    const logits = await model.logits([Int32Array.from([...first, ...ids].slice(0, 16))], [[0, 16]]);
    await model.close();
    const top = topLogProbs(logits, 16, VOCABULARY, 8);
    const stored = teacher.rows(0, 0, 16);
    for (let r = 0; r < 16; r++) {
      // The likeliest; ones of nearly equal probability may change places between two batches.
      expect(stored.ids[r * 8]).toBe(top.ids[r * 8]);
      expect(stored.logProbs[r * 8]).toBeCloseTo(top.logProbs[r * 8], 2);
      expect(stored.leftover[r]).toBeCloseTo(top.leftover[r], 4);
    }
    teacher.close();
    parts.close();
  });

  it('reads responses of inference servers, and writes what to train on', () => {
    const listed = (id: number, logprob: number) => ({ id, token: tokenizer.tokenText(id), logprob });
    const prompt = [...tokenizer.encode(TEXTS[0], { addSpecialTokens: false })].slice(0, 6);
    const rows = [
      {
        prompt_token_ids: prompt,
        prompt_logprobs: [null, ...prompt.slice(1).map((id) => ({ [id]: { logprob: -0.5 }, 7: { logprob: -1.5 } }))],
      },
      {
        prompt: TEXTS[1],
        completion_probabilities: [{ ...listed(40, -1), top_logprobs: [listed(41, -0.75), listed(40, -1)] }],
      },
      {
        prompt: TEXTS[2],
        details: {
          tokens: [{ id: 90, text: 'x', logprob: -0.1 }],
          top_tokens: [[{ id: 90, text: 'x', logprob: -0.1 }]],
        },
      },
    ];
    writeFileSync(path('rows.jsonl'), rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
    const argv = ['--responses', path('rows.jsonl'), '--dtype', 'f32', '--out', path('rows.capture'), '--quiet'];
    const ended = resident([...BASE, ...argv, '--texts', path('ids.jsonl'), '--report', path('rows.json')]);
    expect(ended.stderr).toBe('');
    const report = JSON.parse(readFileSync(path('rows.json'), 'utf8'));
    expect(report.rows).toBe(7);
    const teacher = openCapturedTeacher(path('rows.capture'), { vocabulary: VOCABULARY });
    const all = Array.from({ length: teacher.header.windows }, (_, w) => teacher.rows(w, 0, 16));
    const lists = all.flatMap(({ ids, logProbs, leftover }) =>
      [...leftover].flatMap((rest, r) =>
        ids[r * 8] < 0 ? [] : [{ ids: [...ids.subarray(r * 8, r * 8 + 2)], first: logProbs[r * 8], rest }],
      ),
    );
    teacher.close();
    expect(lists.map(({ ids }) => ids)).toEqual([...prompt.slice(1).map((id) => [id, 7]), [41, 40], [90, -1]]);
    expect(lists[5].first).toBeCloseTo(-0.75, 6);
    expect(lists[5].rest).toBeCloseTo(1 - Math.exp(-0.75) - Math.exp(-1), 6);

    // The rows of ids give the windows of the capture again.
    const again = [...BASE, '--data', path('ids.jsonl'), '--no-end-token', '--quiet'];
    expect(resident([...again, '--out', path('again.capture'), '--report', path('again.json')]).stderr).toBe('');
    const model = JSON.parse(readFileSync(path('again.json'), 'utf8'));
    expect([model.data_sha256, model.rows]).toEqual([report.data_sha256, report.rows]);
  });

  it('refuses what it cannot keep', () => {
    const refused = (...argv: string[]) => resident([...BASE, '--out', path('none.capture'), ...argv]);
    expect(refused('--data', path('texts.jsonl'), '--dtype', 'f8').stderr).toMatch(/--dtype f8/);
    expect(refused('--data', path('texts.jsonl'), '--temperature', '0')).toMatchObject({ code: 2 });
    expect(refused('--data', path('texts.jsonl'), '--texts', path('t.jsonl')).stderr).toMatch(
      /--texts needs --responses/,
    );
    writeFileSync(path('bad.jsonl'), '{"text":"no log-probabilities"}\n');
    expect(refused('--responses', path('bad.jsonl')).stderr).toMatch(/bad\.jsonl:1: no log-probabilities found/);
    const wild = {
      prompt: 'a',
      completion_probabilities: [
        {
          id: 5,
          token: 'x',
          logprob: -0.1,
          top_logprobs: [
            { id: 5, logprob: -0.1 },
            { id: 6, logprob: -0.2 },
          ],
        },
      ],
    };
    writeFileSync(path('wild.jsonl'), `${JSON.stringify(wild)}\n`);
    expect(refused('--responses', path('wild.jsonl')).stderr).toMatch(/add up to 1\.7/);
    expect(resident([...BASE, '--data', path('texts.jsonl'), '--out', path('whole.capture')]).stderr).toMatch(/exists/);
  });
});
