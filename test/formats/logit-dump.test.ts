import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { compareLogits } from '../../src/entropy/compare.js';
import { compareStored } from '../../src/entropy/compare-stored.js';
import { InputError } from '../../src/errors.js';
import { createLlamaCppLogits, isLlamaCppLogits, openLlamaCppLogits } from '../../src/formats/llama-cpp-logits.js';
import { decodeLogProbs, encodeLogProbs } from '../../src/formats/log-prob-codes.js';
import { createLogitDump, dumpRowBytes, isLogitDump, openLogitDump } from '../../src/formats/logit-dump.js';
import { createRandom } from '../../src/random.js';

const folder = mkdtempSync(join(tmpdir(), 'logit-dump-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const VOCABULARY = 101;

function logits(seed: number, rows: number, scale = 3): Float32Array {
  const random = createRandom(seed);
  return Float32Array.from({ length: rows * VOCABULARY }, () => scale * random.normal());
}

function sink(): { write(bytes: Uint8Array): void; bytes(): Buffer } {
  const parts: Buffer[] = [];
  return { write: (bytes) => void parts.push(Buffer.from(bytes)), bytes: () => Buffer.concat(parts) };
}

const ids = (count: number, f: (i: number) => number): Int32Array => Int32Array.from({ length: count }, (_, i) => f(i));
const header = {
  vocabulary: VOCABULARY,
  modelSha256: 'aa',
  dataSha256: 'bb',
  parameters: { convention: 'hf', stride: 4 },
};

function writeDump(name: string, rows: Float32Array): string {
  const out = sink();
  const dump = createLogitDump(out, header);
  const count = rows.length / VOCABULARY;
  for (let i = 0; i < count; i += 5) {
    const n = Math.min(5, count - i);
    dump.append(
      rows.subarray(i * VOCABULARY, (i + n) * VOCABULARY),
      ids(n, (k) => (i + k) >> 2),
      ids(n, (k) => (i + k) & 3),
      ids(n, (k) => ((i + k) * 17) % VOCABULARY),
    );
  }
  dump.finish();
  const path = join(folder, name);
  writeFileSync(path, out.bytes());
  return path;
}

describe('16-bit log-probabilities', () => {
  it('are within half a step of the row, clipped 16 nats below the largest', () => {
    const row = logits(1, 1, 12);
    const codes = new Uint16Array(VOCABULARY);
    const coded = encodeLogProbs(row, 0, VOCABULARY, codes, 0);
    const out = new Float64Array(VOCABULARY);
    decodeLogProbs(codes, 0, VOCABULARY, coded, { mass: coded.tailMass, count: coded.tailCount }, out);
    const max = Math.max(...row);
    const step = 16 / 65_535;
    expect(coded.scale).toBeCloseTo(step, 9);
    let tail = 0;
    for (let i = 0; i < VOCABULARY; i++) {
      const exact = row[i] - coded.logSumExp;
      if (codes[i] === 0) {
        expect(row[i]).toBeLessThanOrEqual(max - 16 + step);
        tail += Math.exp(exact);
      } else expect(Math.abs(out[i] - exact)).toBeLessThan(0.51 * step + 2e-6);
    }
    expect(coded.tailMass).toBeCloseTo(tail, 15);
    expect(coded.tailCount).toBeGreaterThan(10);
    expect(codes[row.indexOf(max)]).toBe(65_535);
  });

  it('code an even row and masked entries', () => {
    const codes = new Uint16Array(4);
    const even = encodeLogProbs(Float64Array.of(2, 2, 2, 2), 0, 4, codes, 0);
    expect([...codes, even.scale]).toEqual([0, 0, 0, 0, 0]);
    const out = new Float64Array(4);
    decodeLogProbs(codes, 0, 4, even, { mass: even.tailMass, count: even.tailCount }, out);
    for (const value of out) expect(value).toBeCloseTo(-Math.log(4), 14);
    const no = Number.NEGATIVE_INFINITY;
    const masked = encodeLogProbs(Float64Array.of(no, 0, 0, no), 0, 4, codes, 0);
    decodeLogProbs(codes, 0, 4, masked, { mass: masked.tailMass, count: masked.tailCount }, out);
    expect([out[0], out[3]]).toEqual([no, no]);
    expect(out[1]).toBeCloseTo(-Math.LN2, 6);
    expect(masked.entropyNats).toBeCloseTo(Math.LN2, 14);
  });
});

describe('dump of this program', () => {
  const rows = logits(3, 23, 6);
  const path = writeDump('base.dump', rows);

  it('gives back header and any range of rows', () => {
    const dump = openLogitDump(path);
    expect(dump.header).toEqual(header);
    expect([dump.rows, dump.vocabulary]).toEqual([23, VOCABULARY]);
    const some = dump.readRows(6, 9);
    expect([...some.documents]).toEqual([...ids(9, (k) => (6 + k) >> 2)]);
    expect([...some.positions]).toEqual([...ids(9, (k) => (6 + k) & 3)]);
    expect([...some.targets]).toEqual([...ids(9, (k) => ((6 + k) * 17) % VOCABULARY)]);
    const codes = new Uint16Array(VOCABULARY);
    const coded = encodeLogProbs(rows, 7 * VOCABULARY, VOCABULARY, codes, 0);
    expect([...some.codes.subarray(VOCABULARY, 2 * VOCABULARY)]).toEqual([...codes]);
    expect(some.exact?.entropyNats[1]).toBe(coded.entropyNats);
    expect(() => dump.readRows(20, 4)).toThrow(RangeError);
    dump.close();
    expect([isLogitDump(path), isLlamaCppLogits(path)]).toEqual([true, false]);
  });

  it('compares like the logits themselves, up to the code', () => {
    const candidate = logits(4, 23, 6).map((x, i) => 0.1 * x + rows[i]);
    const dump = openLogitDump(path);
    const stored = compareStored(dump.readRows(0, 23), candidate);
    dump.close();
    const direct = compareLogits(
      rows,
      candidate,
      VOCABULARY,
      ids(23, (k) => (k * 17) % VOCABULARY),
    );
    for (let i = 0; i < 23; i++) {
      expect(Math.abs(stored.klNats[i] - direct.klNats[i])).toBeLessThan(3e-4);
      expect(Math.abs(stored.reverseKlNats[i] - direct.reverseKlNats[i])).toBeLessThan(3e-4);
      expect(Math.abs(stored.jensenShannonNats[i] - direct.jensenShannonNats[i])).toBeLessThan(3e-4);
      expect(stored.codedKlNats[i]).toBeCloseTo(direct.codedKlNats[i], 6);
      expect(stored.baseSurprisalNats[i]).toBeCloseTo(direct.baseSurprisalNats[i], 12);
      expect(stored.baseEntropyNats[i]).toBeCloseTo(direct.baseEntropyNats[i], 12);
      expect(stored.baseTop[i]).toBe(direct.baseTop[i]);
    }
  });

  it('refuses a candidate of another vocabulary', () => {
    const dump = openLogitDump(path);
    expect(() => compareStored(dump.readRows(0, 2), new Float32Array(2 * 100))).toThrow(/one tokenizer/);
    dump.close();
  });

  it('refuses truncated files and foreign ones', () => {
    const bytes = readFileSync(path);
    for (const cut of [0, 10, 20, 60, bytes.length - dumpRowBytes(VOCABULARY), bytes.length - 1]) {
      const short = join(folder, 'short.dump');
      writeFileSync(short, bytes.subarray(0, cut));
      expect(() => openLogitDump(short), `cut at ${cut}`).toThrow(InputError);
    }
    const foreign = join(folder, 'foreign.dump');
    writeFileSync(foreign, Buffer.alloc(100, 1));
    expect(() => openLogitDump(foreign)).toThrow(/not a logit dump/);
  });

  it('meets a mutated header with an error or with rows, never with anything else', () => {
    const bytes = readFileSync(path);
    const mutated = join(folder, 'mutated.dump');
    fc.assert(
      fc.property(fc.nat(bytes.length - 1), fc.nat(255), (at, value) => {
        const copy = Buffer.from(bytes);
        copy[at % 240] = value;
        writeFileSync(mutated, copy);
        try {
          const dump = openLogitDump(mutated);
          try {
            expect(dump.readRows(0, dump.rows).rows).toBe(dump.rows);
          } finally {
            dump.close();
          }
        } catch (error) {
          expect(error).toBeInstanceOf(InputError);
        }
      }),
      { numRuns: 150 },
    );
  });
});

describe('base file of llama.cpp', () => {
  const context = 8;
  const tokens = ids(2 * context, (i) => (i * 5) % VOCABULARY);
  const rows = logits(8, 6, 2);

  function write(): string {
    const out = sink();
    const writer = createLlamaCppLogits(out, context, VOCABULARY, tokens);
    writer.append(rows.subarray(0, 4 * VOCABULARY));
    writer.append(rows.subarray(4 * VOCABULARY));
    writer.finish();
    const path = join(folder, 'base.kld');
    writeFileSync(path, out.bytes());
    return path;
  }

  it('has the layout that llama.cpp writes', () => {
    const bytes = readFileSync(write());
    expect(bytes.toString('latin1', 0, 8)).toBe('_logits_');
    expect([8, 12, 16].map((at) => bytes.readInt32LE(at))).toEqual([context, VOCABULARY, 2]);
    expect(bytes.readInt32LE(20 + 4 * 3)).toBe(15);
    // An odd vocabulary is rounded up to whole pairs of codes; 2 floats stand before them; 3 rows a chunk.
    const row = 2 * (4 + VOCABULARY + 1);
    expect(bytes.length).toBe(20 + 4 * 16 + 6 * row);
    const at = 20 + 4 * 16 + 4 * row;
    const scale = bytes.readFloatLE(at);
    const minimum = bytes.readFloatLE(at + 4);
    const own = rows.subarray(4 * VOCABULARY, 5 * VOCABULARY);
    const logSum = Math.log(own.reduce((sum, x) => sum + Math.exp(x), 0));
    for (let i = 0; i < VOCABULARY; i++) {
      const decoded = scale * bytes.readUInt16LE(at + 8 + 2 * i) + minimum;
      expect(Math.abs(decoded - (own[i] - logSum))).toBeLessThan(scale / 2 + 2e-6);
    }
  });

  it('is read with the targets of the scored positions', () => {
    const path = write();
    const base = openLlamaCppLogits(path);
    expect([base.rows, base.chunks, base.context]).toEqual([6, 2, context]);
    expect([...base.tokens]).toEqual([...tokens]);
    const stored = base.readRows(1, 4);
    expect([...stored.positions]).toEqual([6, 7, 13, 14]);
    expect([...stored.targets]).toEqual([6, 7, 13, 14].map((position) => tokens[position]));
    const same = compareStored(base.readRows(0, 6), rows);
    for (const kl of same.klNats) expect(kl).toBeLessThan(1e-7);
    for (const kl of same.codedKlNats) expect(Math.abs(kl)).toBeLessThan(1e-4);
    base.close();
    expect([isLlamaCppLogits(path), isLogitDump(path)]).toEqual([true, false]);
  });

  it('refuses sizes that the header does not explain, before any allocation', () => {
    const bytes = readFileSync(write());
    const broken = join(folder, 'broken.kld');
    const cases: [string, Buffer][] = [
      ['truncated', bytes.subarray(0, bytes.length - 2)],
      ['too long', Buffer.concat([bytes, Buffer.alloc(2)])],
      ['few', bytes.subarray(0, 12)],
    ];
    for (const [word, content] of cases) {
      writeFileSync(broken, content);
      expect(() => openLlamaCppLogits(broken)).toThrow(new RegExp(word));
    }
    const huge = Buffer.from(bytes);
    huge.writeInt32LE(2 ** 31 - 1, 8);
    huge.writeInt32LE(2 ** 31 - 1, 16);
    writeFileSync(broken, huge);
    expect(() => openLlamaCppLogits(broken)).toThrow(/truncated/);
    huge.writeInt32LE(-5, 12);
    writeFileSync(broken, huge);
    expect(() => openLlamaCppLogits(broken)).toThrow(/impossible header/);
  });

  it('refuses scales that are no numbers', () => {
    const bytes = readFileSync(write());
    bytes.writeFloatLE(Number.NaN, 20 + 64);
    const broken = join(folder, 'broken.kld');
    writeFileSync(broken, bytes);
    const base = openLlamaCppLogits(broken);
    expect(() => base.readRows(0, 1)).toThrow(/row 0 is damaged/);
    base.close();
  });

  it('is not finished with rows missing', () => {
    const writer = createLlamaCppLogits(sink(), context, VOCABULARY, tokens);
    writer.append(rows.subarray(0, VOCABULARY));
    expect(() => writer.finish()).toThrow(/1 rows.*6/);
  });
});
