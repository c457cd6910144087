import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'csv-parse/sync';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Cell, createTable } from '../../src/report/csv.js';
import { openMergedTable } from '../../src/report/merge-tables.js';
import type { TableFormat } from '../../src/report/table-format.js';
import { collect, temporaryFolder } from '../formats/collect.js';

const folder = temporaryFolder();

function write(name: string, columns: string[], rows: readonly (readonly Cell[])[], format?: TableFormat): string {
  const path = join(folder, name);
  const table = createTable(path, columns, { force: true, format });
  for (const row of rows) table.write(row);
  table.commit();
  return path;
}

describe('createTable', () => {
  const cell = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.double(),
    fc.integer(),
    fc.constantFrom('a,b', '"', 'x\ny', ' '),
  );

  it('writes CSV that reads back to the same texts and the same f64', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.integer(), cell, cell), { maxLength: 20 }), (rows) => {
        const path = write('t.csv', ['a', 'b', 'c'], rows);
        const [header, ...read] = parse(readFileSync(path, 'utf8'), { bom: false }) as string[][];
        expect(header).toEqual(['a', 'b', 'c']);
        expect(read).toHaveLength(rows.length);
        for (const [i, row] of rows.entries()) {
          for (const [k, value] of row.entries()) {
            if (typeof value === 'number' && Number.isFinite(value)) expect(Number(read[i][k]) === value).toBe(true);
            else if (typeof value === 'string') expect(Buffer.from(read[i][k]).equals(Buffer.from(value))).toBe(true);
          }
        }
      }),
      { numRuns: 100 },
    );
  });

  it('names non-finite numbers and leaves missing cells empty', () => {
    const rows: Cell[][] = [
      [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN],
      [null, undefined, true],
      [12n, 0.1, 1e300],
    ];
    expect(readFileSync(write('n.csv', ['a', 'b', 'c'], rows), 'utf8')).toBe(
      'a,b,c\ninf,-inf,nan\n,,true\n12,0.1,1e+300\n',
    );
    const jsonl = readFileSync(write('n.jsonl', ['a', 'b', 'c'], rows), 'utf8').split('\n');
    expect(jsonl[0]).toBe('{"a":"inf","b":"-inf","c":"nan"}');
    expect(JSON.parse(jsonl[1])).toEqual({ a: null, b: null, c: true });
    expect(JSON.parse(readFileSync(write('n.json', ['a', 'b', 'c'], rows), 'utf8'))).toHaveLength(3);
    expect(JSON.parse(readFileSync(write('none.json', ['a'], []), 'utf8'))).toEqual([]);
    expect(readFileSync(write('none.csv', ['a', 'b'], []), 'utf8')).toBe('a,b\n');
    expect(readFileSync(write('odd.data', ['a'], [[1]], 'jsonl'), 'utf8')).toBe('{"a":1}\n');
  });

  it('appears only when it is complete', () => {
    const path = join(folder, 'partial.csv');
    const table = createTable(path, ['a']);
    for (let i = 0; i < 50_000; i++) table.write([i]);
    expect(existsSync(path)).toBe(false);
    table.abort();
    expect(readdirSync(folder).filter((name) => name.includes('partial'))).toEqual([]);
    expect(() => createTable(write('there.csv', ['a'], []), ['a'])).toThrow(/already exists/);
    expect(() => createTable(join(folder, 'x.xlsx'), ['a'])).toThrow(/extension names no table format/);
  });
});

describe('openMergedTable', () => {
  const columns = ['document', 'position', 'token'];
  const documents = Array.from({ length: 23 }, (_, d) =>
    Array.from({ length: (d * 7) % 5 }, (_, p): Cell[] => [d, p, `t"${d},${p}\\n`]),
  );

  it.each(['csv', 'jsonl', 'json'] as const)('gives the bytes of the undivided run, from %s', async (format) => {
    const whole = readFileSync(write(`whole.${format}`, columns, documents.flat()));
    for (const count of [1, 2, 4, 25]) {
      const paths = Array.from({ length: count }, (_, i) =>
        write(`part-${i}.${format}`, columns, documents.filter((_, d) => d % count === i).flat()),
      );
      const merged = await openMergedTable(paths.reverse(), undefined, 'document');
      const rows = await collect(merged.rows());
      expect(readFileSync(write(`united.${format}`, [...merged.columns], rows)).equals(whole)).toBe(true);
    }
  });

  it('refuses parts that overlap, differ or are out of order', async () => {
    const a = write('a.csv', columns, [
      [0, 0, 'x'],
      [2, 0, 'y'],
    ]);
    const merge = async (...paths: string[]): Promise<unknown> =>
      collect((await openMergedTable(paths, undefined, 'document')).rows());
    await expect(merge(a, write('b.csv', columns, [[2, 1, 'z']]))).rejects.toThrow(
      /both hold document 2; the parts overlap/,
    );
    await expect(merge(a, write('c.csv', ['document', 'other'], [[1, 0]]))).rejects.toThrow(/different columns/);
    await expect(
      merge(
        write('d.csv', columns, [
          [3, 0, 'x'],
          [1, 0, 'y'],
        ]),
      ),
    ).rejects.toThrow(/d\.csv:3: "document" falls from 3 to 1/);
    await expect(merge(write('e.csv', ['documents'], [[1]]))).rejects.toThrow(
      /no column "document"; did you mean "documents"/,
    );
    const bad = join(folder, 'f.csv');
    writeFileSync(bad, 'document\nx\n');
    await expect(merge(bad)).rejects.toThrow(/f\.csv:2: column "document" holds "x", an index is needed/);
  });
});
