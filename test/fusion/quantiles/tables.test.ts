import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { encodeNpy } from '../../../src/formats/npy.js';
import { type ForecastSource, readForecasts } from '../../../src/fusion/quantiles/forecast-data.js';
import { growingRows } from '../../../src/fusion/quantiles/forecast-storage.js';
import { drawSplits, rowsOfSplit } from '../../../src/fusion/quantiles/splits.js';
import { temporaryFolder } from '../../formats/collect.js';

const folder = temporaryFolder();
const MEMORY = 1 << 28;
const COLUMNS = { id: 'id', outcome: 'y', model: 'model', level: 'tau', quantile: 'q', features: [] };

function table(name: string, text: string, extra: Partial<Extract<ForecastSource, { kind: 'table' }>> = {}) {
  const path = join(folder, name);
  writeFileSync(path, text);
  return readForecasts({ kind: 'table', paths: [path], layout: 'auto', columns: COLUMNS, ...extra }, MEMORY);
}

describe('tables of forecasts', () => {
  it('long and wide tables hold the same, whatever the order of the levels', async () => {
    const long = await table(
      'l.csv',
      'id,model,tau,q,y\na,A,0.9,5,3\na,A,0.1,1,3\na,B,0.1,2,3\nb,A,0.1,7,\nb,B,0.9,8,\nb,B,0.1,6,\nb,B,0.1,6,\n',
    );
    const wide = await table('w.csv', 'id,B@0.9,y,A@0.9,A@0.1,B@0.1\na,,3,5,1,2\nb,8,,,7,6\n');
    expect([long.layout, wide.layout]).toEqual(['long', 'wide']);
    expect([long.levelsSorted, wide.levelsSorted, long.duplicateLevels]).toEqual([false, false, 1]);
    expect(long.models).toEqual(['A', 'B']);
    expect(wide.models).toEqual(['B', 'A']);
    expect(Array.from(long.values)).toEqual([1, 5, 2, Number.NaN, 7, Number.NaN, 6, 8]);
    expect(Array.from(wide.values)).toEqual([2, Number.NaN, 1, 5, 6, 8, 7, Number.NaN]);
    expect(Array.from(long.levels)).toEqual([0.1, 0.9]);
    expect(Array.from(wide.outcomes)).toEqual([3, Number.NaN]);
    expect(wide.ids).toEqual(['a', 'b']);
  });

  it('reads features and splits, and refuses those that change within a sample', async () => {
    const columns = { ...COLUMNS, features: ['x'], split: 's' };
    const text = 'id,model,tau,q,y,x,s\na,A,0.5,1,1,0.5,train\na,B,0.5,1,1,0.5,train\nb,A,0.5,1,2,,test\n';
    const data = await table('f.csv', text, { columns });
    expect(Array.from(data.features?.values ?? [])).toEqual([0.5, Number.NaN]);
    expect(Array.from(data.splits ?? [])).toEqual([1, 3]);
    await expect(table('g.csv', text.replace('1,1,0.5,train\na,B', '1,1,0.7,train\na,B'), { columns })).rejects.toThrow(
      'sample "a" has another x than before',
    );
    await expect(table('h.csv', text.replace('a,B,0.5,1,1', 'a,B,0.5,1,9'), { columns })).rejects.toThrow('another y');
    await expect(table('i.csv', text.replace('test', 'tset'), { columns })).rejects.toThrow('did you mean "test"');
  });

  it.each([
    ['a.csv', 'id,model,tau,q,y\na,A,0,1,1\n', 'a.csv:2: quantile level 0; levels must lie strictly between 0 and 1'],
    ['b.csv', 'id,y,A@1\na,1,2\n', 'quantile level 1'],
    ['c.csv', 'id,y,A@0.5\na,1,two\n', 'column "A@0.5" holds "two", which is no number'],
    ['d.csv', 'id,yy,A@0.5\na,1,2\n', 'no column "y"; did you mean "yy"?'],
    ['e.csv', 'id,model,level,q,y\na,A,0.5,1,1\n', 'no column "tau"'],
    ['f2.csv', 'id,y,A@0.5,A@0.50\na,1,2,2\n', 'columns "A@0.5" and "A@0.50" are one model at one level'],
    ['g2.csv', 'id,model,tau,q,y\na,A,0.5,1,1\na,A,0.5,2,1\n', 'two forecasts, 1 and 2'],
    ['h2.csv', 'id,y,A@0.5\na,,2\n', 'no row has an outcome'],
    ['i2.csv', 'id,y,A@0.5\na,1,inf\n', 'row "a": model A at level 0.5 is infinite'],
  ])('refuses %s', async (name, text, message) => {
    await expect(table(name, text)).rejects.toThrow(message);
  });

  it('reads arrays, sorts their levels, and refuses shapes that do not go together', async () => {
    const write = (name: string, data: number[], shape: number[]): string => {
      const path = join(folder, name);
      writeFileSync(path, encodeNpy(Float64Array.from(data), shape));
      return path;
    };
    const path = write('z.npy', [2, 1, 4, 3, 6, 5, 8, 7], [2, 2, 2]);
    const source = { kind: 'arrays', path, outcomes: write('y.npy', [1, 2], [2]), levels: [0.9, 0.1] } as const;
    const data = await readForecasts({ ...source, features: write('x.npy', [1, 2], [2, 1]) }, MEMORY);
    expect(Array.from(data.values)).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    expect([data.levelsSorted, data.models, data.features?.names]).toEqual([false, ['model0', 'model1'], ['x0']]);
    await expect(readForecasts({ ...source, levels: [0.5] }, MEMORY)).rejects.toThrow(
      'holds 2 levels, but --levels names 1',
    );
    await expect(readForecasts({ ...source, models: ['A'] }, MEMORY)).rejects.toThrow('holds 2 models');
    await expect(readForecasts({ ...source, outcomes: write('y3.npy', [1, 2, 3], [3]) }, MEMORY)).rejects.toThrow(
      'holds [3, 1], but',
    );
    await expect(readForecasts({ ...source, path: write('z2.npy', [1, 2], [2, 1]) }, MEMORY)).rejects.toThrow(
      'forecasts must be [rows, models, levels]',
    );
    await expect(readForecasts(source, 40)).rejects.toThrow('over half of --max-memory');
  });

  it('holds many rows in single precision', () => {
    const rows = growingRows(4, 6000, 'here');
    for (let i = 0; i < 65; i++) {
      const at = rows.add();
      rows.data[at] = i + 0.1;
    }
    expect(rows.take()).toBeInstanceOf(Float32Array);
    expect([rows.take().length, rows.data[4 * 64]]).toEqual([260, Math.fround(64.1)]);
    expect(rows.data[4 * 64 + 1]).toBeNaN();
    expect(() => {
      for (let i = 0; i < 1000; i++) rows.add();
    }).toThrow('--max-memory');
  });

  it('draws seeded splits of the rows that have an outcome', () => {
    const outcomes = Float64Array.from({ length: 11 }, (_, i) => (i === 4 ? Number.NaN : i));
    const settings = { shares: [0.5, 0.2, 0.3], by: 'random', seed: 5 } as const;
    const codes = drawSplits(outcomes, settings);
    expect(codes[4]).toBe(0);
    expect((['train', 'calibration', 'test'] as const).map((split) => rowsOfSplit(codes, split).length)).toEqual([
      5, 2, 3,
    ]);
    expect(drawSplits(outcomes, settings)).toEqual(codes);
    const order = drawSplits(outcomes, { ...settings, by: 'order' });
    expect(Array.from(rowsOfSplit(order, 'test'))).toEqual([8, 9, 10]);
  });
});
