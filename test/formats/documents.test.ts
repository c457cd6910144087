import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.js';
import { type DocumentOptions, readDocuments, readRecords } from '../../src/formats/documents.js';
import { createInputLedger, expandSources } from '../../src/formats/inputs.js';
import { collect, sha256, temporaryFolder } from './collect.js';

const folder = temporaryFolder();
const file = (name: string, content: string | Uint8Array): string => {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
};
const texts = async (sources: string[], options: DocumentOptions = {}): Promise<(string | undefined)[]> =>
  (await collect(readDocuments(sources, options))).map((document) => document.text);

describe('readDocuments', () => {
  const rows = [
    { id: 'a', text: 'one' },
    { id: 'b', text: 'zwei\nzeilen' },
    { id: 'c', text: 'три 🙂' },
  ];
  const jsonl = `${rows.map((row) => JSON.stringify(row)).join('\n')}\n`;
  const csv = 'id,text\na,one\nb,"zwei\nzeilen"\nc,три 🙂\n';
  const expected = rows.map((row) => row.text);

  it('reads the same documents from JSONL, CSV, TSV and their gzipped forms', async () => {
    const sources = [
      file('a.jsonl', jsonl),
      file('a.csv', csv),
      file('a.tsv', csv.replaceAll(',', '\t')),
      file('a.jsonl.gz', gzipSync(jsonl)),
      file('a.csv.gz', gzipSync(csv)),
      file('disguised.jsonl', gzipSync(jsonl)),
      // Members of a gzip file follow one another (RFC 1952, section 2.2).
      file('members.jsonl.gz', Buffer.concat([gzipSync(jsonl.slice(0, 10)), gzipSync(jsonl.slice(10))])),
    ];
    for (const source of sources) {
      const documents = await collect(readDocuments([source]));
      expect(documents.map(({ id, text, index }) => ({ id, text, index }))).toEqual(
        rows.map((row, index) => ({ ...row, index })),
      );
    }
    expect(await texts(sources)).toEqual(sources.flatMap(() => expected));
  });

  it('reads a plain text as one document, as lines or as blocks', async () => {
    const path = file('t.txt', 'one\ntwo\r\n\n\nthree\n');
    const whole = await collect(readDocuments([path]));
    expect(whole).toMatchObject([{ id: path, index: 0, text: 'one\ntwo\r\n\n\nthree\n' }]);
    expect(await texts([path], { textSplit: 'line' })).toEqual(['one', 'two', 'three']);
    const blocks = await collect(readDocuments([path], { textSplit: 'block' }));
    expect(blocks.map(({ text, line }) => [text, line])).toEqual([
      ['one\ntwo', 1],
      ['three', 5],
    ]);
  });

  it.each(['snappy', 'gzip', 'zstd', 'brotli', 'lz4', 'none'])('reads Parquet compressed with %s', async (codec) => {
    const documents = await collect(readDocuments([`fixtures/parquet/documents-${codec}.parquet`]));
    expect(documents).toHaveLength(40);
    for (const [i, document] of documents.entries()) {
      expect(document).toMatchObject({ id: `doc-${i}`, index: i, record: { year: 1900 + i } });
      expect(document.text).toBe(`Document ${i}: naïve café, 日本語, 🙂 ${'word '.repeat(i % 7)}`);
      expect(Array.from(document.inputIds ?? [])).toEqual(Array.from({ length: (i % 5) + 1 }, (_, k) => k));
    }
  });

  it('counts over all files, stops at the limit and splits into shards', async () => {
    const sources = [
      file('1.jsonl', jsonl),
      'fixtures/parquet/documents-zstd.parquet',
      file('2.csv', csv),
      file('3.txt', 'end'),
    ];
    const all = await collect(readDocuments(sources));
    expect(all.map((document) => document.index)).toEqual(Array.from({ length: 47 }, (_, i) => i));
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 50 }), fc.integer({ min: 1, max: 60 }), async (count, limit) => {
        const shards = [];
        for (let index = 0; index < count; index++) {
          const part = await collect(readDocuments(sources, { shard: { index, count }, limit }));
          for (const document of part) expect(document.index % count).toBe(index);
          shards.push(...part);
        }
        expect(shards.sort((a, b) => a.index - b.index)).toEqual(all.slice(0, limit));
      }),
      { numRuns: 8 },
    );
  });

  it('takes token ids with no text', async () => {
    const path = file('ids.jsonl', '{"input_ids":[1,2,3]}\n{"input_ids":[]}\n');
    const documents = await collect(readDocuments([path]));
    expect(documents.map(({ text, inputIds }) => [text, Array.from(inputIds ?? [])])).toEqual([
      [undefined, [1, 2, 3]],
      [undefined, []],
    ]);
  });

  it.each([
    ['not JSON', 'bad.jsonl', '{"text":"a"}\n{"text":\n', /bad\.jsonl:2: this line is not JSON/],
    [
      'a JSON list',
      'list.jsonl',
      '[1]\n',
      /list\.jsonl:1: this line holds an array; each line must be one JSON object/,
    ],
    [
      'a missing field',
      'miss.jsonl',
      '{"text":"a"}\n\n{"texts":"b"}\n',
      /miss\.jsonl:3: no field "text" \(fields: texts\); did you mean "texts"\?/,
    ],
    ['a number as text', 'num.jsonl', '{"text":1}\n', /num\.jsonl:1: field "text" holds a number, a string is needed/],
    ['half a surrogate pair', 'sur.jsonl', '{"text":"\\ud800x"}\n', /sur\.jsonl:1: .* unpaired surrogate/],
    [
      'invalid UTF-8',
      'utf.jsonl',
      Buffer.concat([Buffer.from('{"text":"'), Buffer.from([0xc3, 0x28])]),
      /utf\.jsonl: invalid UTF-8 at byte 9/,
    ],
    ['an empty file', 'empty.jsonl', '', /empty\.jsonl: is empty/],
    ['an empty text', 'empty.txt', '', /empty\.txt: is empty/],
    ['no record', 'blank.jsonl', '\n\n', /blank\.jsonl: holds no record/],
    ['only a header', 'head.csv', 'id,text\n', /head\.csv: holds no record/],
    ['an unknown extension', 'a.jsnl', '{}', /a\.jsnl: unknown extension "\.jsnl"; did you mean "jsonl"\?/],
    [
      'a truncated gzip',
      'cut.jsonl.gz',
      gzipSync(jsonl).subarray(0, 40),
      /cut\.jsonl\.gz: the gzip stream is truncated/,
    ],
    ['a false gzip', 'not.txt.gz', 'plain', /not\.txt\.gz: named \.gz but not gzip/],
    ['a ragged CSV', 'rag.csv', 'id,text\na,b\nc\n', /rag\.csv:3: not readable as CSV/],
    ['an open quote', 'quote.csv', 'id,text\na,"b\n', /quote\.csv:\d+: not readable as CSV/],
    ['two columns of one name', 'twin.csv', 'text,text\na,b\n', /twin\.csv:1: two columns are named "text"/],
    ['invalid UTF-8 in CSV', 'utf.csv', Buffer.from('text\nab\xff\n', 'latin1'), /utf\.csv: invalid UTF-8 at byte 7/],
    [
      'a negative token id',
      'neg.jsonl',
      '{"input_ids":[1,-2]}\n',
      /neg\.jsonl:1: field "input_ids", entry 1: -2 is not a token id/,
    ],
    ['no Parquet', 'no.parquet', 'PAR1 but no more', /no\.parquet: not a readable Parquet file/],
  ])('names the place of %s', async (_, name, content, message) => {
    const reading = collect(readDocuments([file(name, content)]));
    await expect(reading).rejects.toThrow(message);
    await expect(reading).rejects.toBeInstanceOf(InputError);
  });

  it('names a missing file with its nearest neighbour, a folder, and a pattern with no match', async () => {
    file('training.jsonl', jsonl);
    await expect(texts([join(folder, 'trainin.jsonl')])).rejects.toThrow(
      /no such file; did you mean "training\.jsonl"\?/,
    );
    await expect(texts([folder])).rejects.toThrow(/is a directory; name its files/);
    await expect(texts([join(folder, '*.nothing')])).rejects.toThrow(/no file matches/);
    await expect(texts([])).rejects.toThrow(/no input file/);
  });

  it('refuses every damaged Parquet file with one line', { timeout: 60_000 }, async () => {
    const bytes = readFileSync('fixtures/parquet/documents-snappy.parquet');
    const before = process.memoryUsage().rss;
    let seed = 12345;
    const random = (bound: number): number => {
      seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
      return (seed >>> 8) % bound;
    };
    for (let run = 0; run < 300; run++) {
      const damaged = Buffer.from(run % 3 === 0 ? bytes.subarray(0, random(bytes.length)) : bytes);
      for (let k = 0; k <= random(3) && damaged.length > 0; k++) damaged[random(damaged.length)] = random(256);
      const path = file('fuzz.parquet', damaged);
      try {
        await collect(readRecords([path]));
      } catch (error) {
        expect(error).toBeInstanceOf(InputError);
        expect((error as Error).message).not.toContain('\n');
      }
    }
    expect(process.memoryUsage().rss - before).toBeLessThan(300e6);
  });

  it('answers any JSONL with records or one line of error', async () => {
    const piece = fc.oneof(
      fc.json({ maxDepth: 3 }),
      fc.constantFrom('{"text":"x"}', '\n', '\r\n', '{', '"', '\\', '\ufeff', '{"__proto__":1,"text":"p"}'),
      fc.string({ unit: 'binary', maxLength: 5 }),
    );
    const bytes = fc.oneof(
      fc.array(piece).map((parts) => Buffer.from(parts.join(''))),
      fc.uint8Array({ maxLength: 30 }),
    );
    await fc.assert(
      fc.asyncProperty(bytes, async (content) => {
        const path = file('fuzz.jsonl', content);
        try {
          for (const document of await collect(readDocuments([path]))) expect(typeof document.text).toBe('string');
        } catch (error) {
          expect(error).toBeInstanceOf(InputError);
          expect((error as Error).message).not.toContain('\n');
        }
      }),
      { numRuns: 300 },
    );
  });
});

describe('standard input', () => {
  const rows = '{"text":"a"}\n{"text":"b"}\n';
  it.each([
    ['JSONL', Buffer.from(rows), ['a', 'b']],
    ['gzipped JSONL', gzipSync(rows), ['a', 'b']],
    ['CSV', Buffer.from('id,text\n1,a\n2,b\n'), ['a', 'b']],
    ['text', Buffer.from('a\nb\n'), ['a\nb\n']],
  ])('is recognised as %s', async (_, bytes, expected) => {
    const ledger = createInputLedger(Readable.from([bytes.subarray(0, 7), bytes.subarray(7)]));
    expect(await texts(['-'], { ledger })).toEqual(expected);
    expect(await ledger.digests()).toEqual([{ path: '-', sha256: sha256(bytes), bytes: bytes.length }]);
  });

  it('is hashed to its end when the limit stops early', async () => {
    const chunks = Array.from({ length: 50 }, (_, i) => Buffer.from(`{"text":"${'x'.repeat(1000)}${i}"}\n`));
    const ledger = createInputLedger(Readable.from(chunks));
    expect(await texts(['-'], { ledger, limit: 2 })).toHaveLength(2);
    const bytes = Buffer.concat(chunks);
    expect(await ledger.digests()).toEqual([{ path: '-', sha256: sha256(bytes), bytes: bytes.length }]);
  });

  it('cannot be Parquet, which needs random access', async () => {
    const ledger = createInputLedger(Readable.from([readFileSync('fixtures/parquet/documents-none.parquet')]));
    await expect(texts(['-'], { ledger })).rejects.toThrow(/parquet needs random access; write it to a file/);
  });
});

describe('input digests', () => {
  it('are of the whole files, with a limit, a shard, gzip and random access', async () => {
    const long = Array.from({ length: 20_000 }, (_, i) => `{"text":"line ${i} ${'x'.repeat(40)}"}`).join('\n');
    const contents: [string, Buffer][] = [
      ['long.jsonl', Buffer.from(long)],
      ['long.jsonl.gz', gzipSync(long)],
      ['p.parquet', readFileSync('fixtures/parquet/documents-gzip.parquet')],
      ['unread.txt', Buffer.from('never reached')],
    ];
    const paths = contents.map(([name, bytes]) => file(name, bytes));
    const expected = contents.map(([, bytes], i) => ({ path: paths[i], sha256: sha256(bytes), bytes: bytes.length }));
    for (const options of [{}, { limit: 3 }, { limit: 20_001 }, { shard: { index: 1, count: 3 } }]) {
      const ledger = createInputLedger();
      await collect(readDocuments(paths, { ...options, ledger }));
      expect(await ledger.digests()).toEqual(expected);
    }
  });

  it('come out of a pipe that can be read only once', async () => {
    const path = join(folder, 'pipe.jsonl');
    const made = spawn('mkfifo', [path]);
    await new Promise((resolve) => made.on('close', resolve));
    const bytes = Buffer.from('{"text":"a"}\n'.repeat(100_000));
    const writer = import('node:fs/promises').then((fs) => fs.writeFile(path, bytes));
    const ledger = createInputLedger();
    expect(await texts([path], { ledger, limit: 1 })).toEqual(['a']);
    expect(await ledger.digests()).toEqual([{ path, sha256: sha256(bytes), bytes: bytes.length }]);
    await writer;
  });
});

describe('expandSources', () => {
  it('expands patterns in the order of their names and keeps names that look like patterns', async () => {
    mkdirSync(join(folder, 'g'));
    for (const name of ['b.txt', 'a.txt', '[x].txt']) file(join('g', name), name);
    const inner = (name: string): string => join(folder, 'g', name);
    expect(await expandSources([join(folder, 'g', '*.txt'), inner('[x].txt')])).toEqual([
      inner('[x].txt'),
      inner('a.txt'),
      inner('b.txt'),
      inner('[x].txt'),
    ]);
  });
});

describe('memory', () => {
  it('stays flat over a 64 MB gzipped JSONL', { timeout: 60_000 }, async () => {
    const line = `{"id":"row","text":"${'lorem ipsum dolor sit amet '.repeat(40)}"}\n`;
    const block = gzipSync(line.repeat(1000), { level: 1 });
    const path = file(
      'big.jsonl.gz',
      Buffer.concat(Array.from({ length: Math.ceil(64e6 / (line.length * 1000)) }, () => block)),
    );
    let rows = 0;
    let base = 0;
    let peak = 0;
    for await (const document of readDocuments([path])) {
      if (document.text?.length !== 40 * 27) throw new Error('wrong text');
      if (++rows % 2000 !== 0) continue;
      const { rss } = process.memoryUsage();
      // The first quarter warms allocator and compiler up.
      if (rows <= 14_000) base = Math.max(base, rss);
      peak = Math.max(peak, rss);
    }
    expect(rows).toBeGreaterThan(55_000);
    expect(peak - base).toBeLessThan(40e6);
  });
});
