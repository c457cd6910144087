import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { createRandom } from '../../../src/random.js';
import { type CaptureHeader, createCapture, windowsSha256 } from '../../../src/training/language/capture-file.js';
import { CAPTURE_DTYPES, type CaptureDType, captureRowBytes } from '../../../src/training/language/capture-rows.js';
import { capturedLanguageTeacher } from '../../../src/training/language/captured-language-teacher.js';
import { type CaptureExpectations, openCapturedTeacher } from '../../../src/training/language/captured-teacher.js';
import { packTexts } from '../../../src/training/language/token-data.js';
import { IGNORED, type TopTeacher } from '../../../src/training/types.js';

const folder = mkdtempSync(join(tmpdir(), 'capture-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const VOCABULARY = 70_001;
const K = 20;

/** Likeliest classes of rows of random logits, most of them by far unlikely. */
function topRows(rows: number, seed: number, k = K): TopTeacher {
  const random = createRandom(seed);
  const teacher = {
    kind: 'top' as const,
    k,
    ids: new Int32Array(rows * k),
    logProbs: new Float32Array(rows * k),
    leftover: new Float32Array(rows),
  };
  for (let r = 0; r < rows; r++) {
    const scores = Float64Array.from({ length: 60 }, () => 3 * random.normal()).sort((a, b) => b - a);
    const total = scores.reduce((sum, score) => sum + Math.exp(score), 0);
    let rest = 1;
    for (let i = 0; i < k; i++) {
      teacher.ids[r * k + i] = (r * 31 + i * 7919) % VOCABULARY;
      teacher.logProbs[r * k + i] = scores[i] - Math.log(total);
      rest -= Math.exp(scores[i]) / total;
    }
    teacher.leftover[r] = rest;
  }
  return teacher;
}

function headerOf(changes: Partial<CaptureHeader> = {}): CaptureHeader {
  const hashes = { tokenizerSha256: 'a1', modelSha256: 'b2', dataSha256: 'c3' };
  const shape = { vocabulary: VOCABULARY, k: K, dtype: 'f16' as CaptureDType, temperature: 1 };
  return { ...hashes, ...shape, windows: 2, length: 11, first: 0, stored: 2, ...changes };
}

function bytesOf(header: CaptureHeader, wanted: Uint8Array, rows: TopTeacher): Buffer {
  const chunks: Uint8Array[] = [];
  const writer = createCapture({ write: (bytes) => chunks.push(Buffer.from(bytes)) }, header, wanted);
  writer.append(rows, rows.leftover.length);
  writer.finish();
  return Buffer.concat(chunks);
}

let files = 0;
function save(bytes: Uint8Array): string {
  const path = join(folder, `${files++}.topk`);
  writeFileSync(path, bytes);
  return path;
}

const expected: CaptureExpectations = { vocabulary: VOCABULARY, dataSha256: 'c3', tokenizerSha256: 'a1' };
const ALL = new Uint8Array(22).fill(1);

/** KL(stored || decoded) with all that is left over as one class. */
function divergence(a: TopTeacher, b: TopTeacher, row: number): number {
  let sum = a.leftover[row] * Math.log(a.leftover[row] / b.leftover[row]);
  for (let i = row * a.k; i < (row + 1) * a.k; i++) sum += Math.exp(a.logProbs[i]) * (a.logProbs[i] - b.logProbs[i]);
  return sum;
}

describe('captures', () => {
  it.each(CAPTURE_DTYPES)('give back what was stored as %s', (dtype) => {
    const rows = topRows(22, 1);
    const path = save(bytesOf(headerOf({ dtype }), ALL, rows));
    const teacher = openCapturedTeacher(path, expected);
    const back = teacher.rows(1, 0, 11);
    teacher.close();
    expect(back.ids).toEqual(rows.ids.subarray(11 * K));
    expect(back.leftover).toEqual(rows.leftover.subarray(11));
    const limit = { f32: 1e-6, f16: 1e-6, q8: 1e-4 }[dtype];
    for (let r = 0; r < 11; r++) {
      const original = { ...rows, ids: rows.ids.subarray(11 * K), logProbs: rows.logProbs.subarray(11 * K) };
      const kl = divergence({ ...original, leftover: rows.leftover.subarray(11) }, back, r);
      expect(Math.abs(kl)).toBeLessThan(limit);
    }
  });

  it('hold 64 classes of a large vocabulary in less than 300 bytes', () => {
    expect(captureRowBytes({ vocabulary: 151_936, k: 64, dtype: 'f16' })).toBe(276);
    expect(captureRowBytes({ vocabulary: 151_936, k: 64, dtype: 'q8' })).toBe(211);
    expect(captureRowBytes({ vocabulary: 32_000, k: 64, dtype: 'q8' })).toBe(187);
  });

  it('read any rows of a window, and know which were not stored', () => {
    const wanted = Uint8Array.from({ length: 22 }, (_, i) => (i % 3 === 1 ? 1 : 0));
    const count = wanted.reduce((sum, one) => sum + one, 0);
    const rows = topRows(count, 2);
    const teacher = openCapturedTeacher(save(bytesOf(headerOf(), wanted, rows)), expected);
    let row = 0;
    for (let w = 0; w < 2; w++) {
      for (let i = 0; i < 11; i++) {
        const one = teacher.rows(w, i, i + 1);
        expect(teacher.has(w, i)).toBe(wanted[w * 11 + i] === 1);
        if (wanted[w * 11 + i] === 0) expect([one.ids[0], one.leftover[0]]).toEqual([-1, 1]);
        else expect(one.ids).toEqual(rows.ids.subarray(row * K, ++row * K));
      }
    }
    expect(teacher.rows(1, 2, 10).ids.subarray(2 * K, 3 * K)).toEqual(teacher.rows(1, 4, 5).ids);
    teacher.close();
  });

  it('hold lists that are shorter than k', () => {
    const rows = topRows(22, 3);
    rows.ids.fill(-1, 5 * K + 3, 6 * K);
    for (const dtype of CAPTURE_DTYPES) {
      const teacher = openCapturedTeacher(save(bytesOf(headerOf({ dtype }), ALL, rows)), expected);
      expect(teacher.rows(0, 5, 6).ids).toEqual(rows.ids.subarray(5 * K, 6 * K));
      teacher.close();
    }
  });

  it('unite shards in any order, and refuse gaps and strangers', () => {
    const rows = topRows(11, 4);
    const one = save(bytesOf(headerOf({ stored: 1 }), ALL.subarray(11), rows));
    const two = save(bytesOf(headerOf({ stored: 1, first: 1 }), ALL.subarray(11), rows));
    const teacher = openCapturedTeacher([two, one], expected);
    expect(teacher.rows(1, 0, 11).ids).toEqual(teacher.rows(0, 0, 11).ids);
    teacher.close();
    expect(() => openCapturedTeacher([two], expected)).toThrow('no file holds windows 0 to 0');
    expect(() => openCapturedTeacher([one], expected)).toThrow('no file of the capture holds windows 1 to 1');
    expect(() => openCapturedTeacher([one, one, two], expected)).toThrow('repeats windows 0 to 0');
    const other = save(bytesOf(headerOf({ stored: 1, first: 1, modelSha256: 'zz' }), ALL.subarray(11), rows));
    expect(() => openCapturedTeacher([one, other], expected)).toThrow('modelSha256 is b2 and zz');
  });

  it('state both sides of a mismatch', () => {
    const path = save(bytesOf(headerOf(), ALL, topRows(22, 5)));
    const opened = (changes: Partial<CaptureExpectations>) => () =>
      openCapturedTeacher(path, { ...expected, ...changes });
    expect(opened({ vocabulary: 70_000 })).toThrow(/vocabulary of 70001 and the student one of 70000/);
    expect(opened({ dataSha256: 'ff' })).toThrow(/hash c3, but these have ff/);
    expect(opened({ tokenizerSha256: 'ee' })).toThrow(/tokenizer a1, but the student's is ee/);
  });

  it('leave out classes that the student lacks', () => {
    const rows = topRows(22, 6);
    const path = save(bytesOf(headerOf({ dtype: 'f32' }), ALL, rows));
    const teacher = openCapturedTeacher(path, { ...expected, vocabulary: 40_000, align: 'truncate' });
    const back = teacher.rows(0, 0, 11);
    teacher.close();
    for (let r = 0; r < 11; r++) {
      const kept = Array.from(rows.ids.subarray(r * K, (r + 1) * K)).filter((id) => id < 40_000);
      expect(Array.from(back.ids.subarray(r * K, r * K + kept.length))).toEqual(kept);
      let mass = back.leftover[r];
      for (let i = 0; i < kept.length; i++) mass += Math.exp(back.logProbs[r * K + i]);
      expect(mass).toBeCloseTo(1, 5);
    }
  });

  it('refuse what is truncated, damaged or something else', () => {
    const whole = bytesOf(headerOf(), ALL, topRows(22, 7));
    expect(() => openCapturedTeacher(save(whole.subarray(0, -5)), expected)).toThrow('truncated capture');
    expect(() => openCapturedTeacher(save(Buffer.from('something else, longer than a preamble')), expected)).toThrow(
      'not a capture',
    );
    const damaged = Buffer.from(whole);
    damaged.fill(255, whole.length - 16 - 40, whole.length - 16 - 20);
    const teacher = openCapturedTeacher(save(damaged), expected);
    expect(() => teacher.rows(1, 10, 11)).toThrow('window 1, stored row 0: damaged');
    teacher.close();
  });

  it('go on where an interrupted run stopped', () => {
    const rows = topRows(22, 8);
    const whole = bytesOf(headerOf(), ALL, rows);
    const path = save(whole.subarray(0, whole.length - 16 - 5 * captureRowBytes(headerOf()) - 9));
    const found = readFileSync(path);
    let kept = found;
    const sink = {
      resumedBytes: found.length,
      write: (bytes: Uint8Array) => appendFileSync(path, bytes),
      truncate: (length: number) => {
        kept = found.subarray(0, length);
        writeFileSync(path, kept);
      },
    };
    const leftover = (bytes: number) => found.subarray(0, bytes);
    const writer = createCapture(sink, headerOf(), ALL, leftover);
    expect(writer.resumedRows).toBe(16);
    const rest = { ids: rows.ids.subarray(16 * K), logProbs: rows.logProbs.subarray(16 * K) };
    writer.append({ kind: 'top', k: K, ...rest, leftover: rows.leftover.subarray(16) }, 6);
    writer.finish();
    expect(readFileSync(path)).toEqual(whole);
    expect(() => createCapture(sink, headerOf({ dataSha256: 'other' }), ALL, leftover)).toThrow('is of another model');
  });

  it('stand in for a model beside the student', async () => {
    const windows = packTexts([{ tokens: Int32Array.from({ length: 23 }, (_, i) => i) }], { length: 11 });
    expect(windows.count).toBe(2);
    const header = headerOf({ dataSha256: windowsSha256(windows) });
    const captured = openCapturedTeacher(save(bytesOf(header, ALL, topRows(22, 9))), {
      ...expected,
      dataSha256: windowsSha256(windows),
    });
    const teacher = capturedLanguageTeacher(captured);
    const labels = windows.labels.slice();
    labels[3] = IGNORED;
    const batch = { tokens: windows.tokens, labels, batch: 2, length: 11, windows: Int32Array.of(1, 0) };
    const block = await (await teacher.begin(batch)).rows(9, 5);
    if (block.kind !== 'top') throw new Error('a capture gives lists');
    expect(block.ids.subarray(0, 2 * K)).toEqual(captured.rows(1, 9, 11).ids);
    expect(block.ids.subarray(2 * K)).toEqual(captured.rows(0, 0, 3).ids);
    await expect(teacher.begin({ ...batch, windows: Int32Array.of(-1, 0) })).rejects.toThrow('--on-policy');
    await teacher.close();
  });
});
