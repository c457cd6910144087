import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type NumericTableOptions, readNumericTable } from '../../src/formats/numeric-table.js';

/** Reads a text in chunks of `size` bytes. */
async function read(text: string | Uint8Array, options: Partial<NumericTableOptions> = {}, size = 7) {
  const bytes = typeof text === 'string' ? new TextEncoder().encode(text) : text;
  async function* chunks(): AsyncGenerator<Uint8Array> {
    for (let at = 0; at < bytes.length; at += size) yield bytes.slice(at, at + size);
  }
  const rows: number[][] = [];
  const texts: string[][] = [];
  let names: readonly string[] = [];
  let all: readonly string[] = [];
  const count = await readNumericTable(
    chunks(),
    't.csv',
    { delimiter: ',', ...options },
    {
      onHeader(taken, wanted) {
        names = taken;
        all = wanted;
      },
      onRow(values, cells, row) {
        expect(row).toBe(rows.length);
        rows.push([...values]);
        texts.push([...cells]);
      },
    },
  );
  expect(count).toBe(rows.length);
  return { rows, texts, names, all };
}

describe('readNumericTable', () => {
  it('reads numbers in every spelling to the last bit, whatever the chunks', async () => {
    const cells = ['1', '-2.5', '+3e2', '1e-400', '4.9e-324', '0.1', '123456789012345678901', '.5', '7.', '1E5', ' 8 '];
    const values = cells.map(Number);
    const table = `${cells.map((_, i) => `c${i}`).join(',')}\n${cells.join(',')}\n`;
    for (const size of [1, 2, 3, 64]) expect((await read(table, {}, size)).rows).toEqual([values]);
  });

  it('agrees with Number for any double', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.double({ noNaN: true, noDefaultInfinity: true }), { minLength: 1 }),
        async (list) => {
          const { rows } = await read(`x\n${list.join('\n')}\n`, {}, 11);
          expect(rows.map(([x]) => x)).toEqual(list.map((x) => (Object.is(x, -0) ? 0 : x)));
        },
      ),
      { numRuns: 60 },
    );
  });

  it('takes missing and infinite values as such', async () => {
    const { rows } = await read('a,b,c,d,e,f,g\n,NA,nan,null,inf,-Infinity,.\n');
    expect(rows).toEqual([[NaN, NaN, NaN, NaN, Infinity, -Infinity, NaN]]);
  });

  it('knows quotes, carriage returns, blank lines, a byte order mark and a last line without end', async () => {
    const table = '\ufeff"a ""x""",b\r\n\r\n"1",2\r\n\n3,"4"';
    for (const size of [1, 4, 50]) {
      const { rows, names } = await read(table, {}, size);
      expect(names).toEqual(['a "x"', 'b']);
      expect(rows).toEqual([
        [1, 2],
        [3, 4],
      ]);
    }
    expect((await read('a,b\n1,', {}, 4)).rows).toEqual([[1, NaN]]);
    expect((await read('a,b\n1,', {}, 3)).rows).toEqual([[1, NaN]]);
  });

  it('takes columns by name, texts apart, and shares of the columns', async () => {
    const table = 'id,x,class,y,z\nr1,1,"u,v",2,3\nr2,4,w,5,6\n';
    const { rows, texts, names, all } = await read(table, {
      text: ['class', 'id'],
      takes: (i) => i % 2 === 0,
    });
    expect(names).toEqual(['x', 'z']);
    expect(all).toEqual(['x', 'y', 'z']);
    expect(rows).toEqual([
      [1, 3],
      [4, 6],
    ]);
    expect(texts).toEqual([
      ['u,v', 'r1'],
      ['w', 'r2'],
    ]);
    expect((await read(table, { columns: ['z'], except: ['id'] })).rows).toEqual([[3], [6]]);
    expect((await read(table, { columns: ['z'], limit: 1 })).rows).toEqual([[3]]);
    expect((await read('a\tb\n1\t2\n', { delimiter: '\t' })).rows).toEqual([[1, 2]]);
  });

  it.each([
    ['', 't.csv: is empty'],
    ['a,b\n1,2\n3\n', 't.csv:3: 1 cells, the header names 2 columns'],
    ['a,b\n1,2,3\n', 't.csv:2: 3 cells, the header names 2 columns'],
    ['a,b\n1,x2\n', 't.csv:2: column "b" holds "x2", which is no number'],
    ['a,a\n1,2\n', 'two columns are named "a"'],
  ])('refuses %j', async (table, message) => {
    await expect(read(table)).rejects.toThrow(message);
  });

  it('names the nearest column, and invalid UTF-8', async () => {
    await expect(read('price,size\n1,2\n', { text: ['prise'] })).rejects.toThrow(
      'no column "prise"; did you mean "price"?',
    );
    await expect(read(Uint8Array.from([0x61, 0xff, 0x0a]))).rejects.toThrow('not valid UTF-8');
  });
});
