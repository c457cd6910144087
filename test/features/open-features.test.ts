import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { openFeatures } from '../../src/features/open-features.js';
import { arrayMatrix, eachBlock, loadMatrix } from '../../src/formats/feature-matrix.js';
import { labelsFrom, readLabels, takeLabels } from '../../src/formats/labels.js';
import { createNpyWriter } from '../../src/formats/npy.js';

const folder = mkdtempSync(join(tmpdir(), 'features-'));
afterAll(() => rmSync(folder, { recursive: true }));

function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

function npy(name: string, shape: number[], data: Float32Array | Float64Array | Int32Array): string {
  const path = join(folder, name);
  const dtype = data instanceof Float32Array ? 'F32' : data instanceof Float64Array ? 'F64' : 'I32';
  const writer = createNpyWriter(path, { dtype, shape });
  writer.write(new Uint8Array(data.buffer));
  writer.commit();
  return path;
}

describe('feature matrices', () => {
  it('reads arrays by rows, in f32 and f64', async () => {
    const values = Float32Array.from({ length: 12 }, (_, i) => i / 7);
    const matrix = await openFeatures({ kind: 'file', path: npy('a.npy', [4, 3], values) });
    expect([matrix.rows, matrix.columns, matrix.dtype]).toEqual([4, 3, 'F32']);
    expect(loadMatrix(matrix)).toEqual(Float64Array.from(values));
    const direct = new Float32Array(6);
    matrix.readRows(1, 2, direct);
    expect(direct).toEqual(values.slice(3, 9));
    expect(loadMatrix(matrix, Int32Array.of(3, 0)).subarray(0, 3)).toEqual(Float64Array.from(values.slice(9)));
    expect(() => matrix.readRows(3, 2, direct)).toThrow(RangeError);
    matrix.close();
  });

  it('takes a vector for one column and refuses three axes and no rows', async () => {
    const vector = await openFeatures({ kind: 'file', path: npy('v.npy', [3], Int32Array.of(1, 2, 3)) });
    expect([vector.rows, vector.columns]).toEqual([3, 1]);
    expect([...loadMatrix(vector)]).toEqual([1, 2, 3]);
    const cube = npy('cube.npy', [1, 2, 3], new Float64Array(6));
    await expect(openFeatures({ kind: 'file', path: cube })).rejects.toThrow(/must be \[rows, columns\].*\[1, 2, 3\]/);
    const none = npy('none.npy', [0, 3], new Float64Array(0));
    await expect(openFeatures({ kind: 'file', path: none })).rejects.toThrow(/is empty/);
  });

  it('reads tables, all columns or some', async () => {
    const path = file('t.csv', 'a,b,name\n1,2,x\n3,4,y\n');
    const matrix = await openFeatures({ kind: 'file', path, except: ['name'] });
    expect(matrix.columnNames).toEqual(['a', 'b']);
    expect([...loadMatrix(matrix)]).toEqual([1, 2, 3, 4]);
    const some = await openFeatures({ kind: 'file', path, columns: ['b'] });
    expect([...loadMatrix(some)]).toEqual([2, 4]);
    await expect(openFeatures({ kind: 'file', path })).rejects.toThrow(/column "name" holds "x", which is no number/);
    await expect(openFeatures({ kind: 'file', path, columns: ['bb'] })).rejects.toThrow(/no column "bb"; did you mean/);
  });

  it('reads lists of numbers in JSON lines', async () => {
    const path = file('e.jsonl', '{"id":"p","embedding":[1,2]}\n{"id":"q","embedding":[3,4]}\n');
    const matrix = await openFeatures({ kind: 'file', path, columns: ['embedding'] });
    expect(matrix.columnNames).toEqual(['embedding[0]', 'embedding[1]']);
    const ragged = file('r.jsonl', '{"embedding":[1,2]}\n{"embedding":[3]}\n');
    await expect(openFeatures({ kind: 'file', path: ragged })).rejects.toThrow(/holds 1 features, the first row 2/);
  });

  it('counts rows that are not finite and names the first', async () => {
    const path = file('nan.csv', 'a,b\n1,2\n3,\n4,inf\n5,6\n');
    const matrix = await openFeatures({ kind: 'file', path });
    const message = /2 of 4 rows hold NaN or an infinite value, the first is row 1, column "b" \(NaN\)/;
    expect(() => loadMatrix(matrix)).toThrow(message);
    await expect(eachBlock(matrix, 2, 'f64', () => undefined)).rejects.toThrow(message);
  });

  it('visits blocks in order', async () => {
    const matrix = arrayMatrix('m', Float64Array.of(1, 2, 3, 4, 5), 5, 1);
    const seen: number[][] = [];
    await eachBlock(matrix, 2, 'f32', (block, start, count) => {
      seen.push([start, count, ...block]);
    });
    expect(seen).toEqual([
      [0, 2, 1, 2],
      [2, 2, 3, 4],
      [4, 1, 5],
    ]);
  });
});

describe('labels', () => {
  it('takes whole numbers and texts for classes, in a fixed order', () => {
    expect(labelsFrom([10, 2, 10], 'x')).toEqual({
      kind: 'classes',
      codes: Int32Array.of(1, 0, 1),
      names: ['2', '10'],
    });
    expect(labelsFrom(['b', 'a'], 'x')).toEqual({ kind: 'classes', codes: Int32Array.of(1, 0), names: ['a', 'b'] });
    expect(labelsFrom([0.5, 1], 'x')).toEqual({ kind: 'numbers', values: Float64Array.of(0.5, 1) });
    expect(labelsFrom([0, 1], 'x', 'numbers').kind).toBe('numbers');
    expect(() => labelsFrom([1, ''], 'x.csv')).toThrow(/x\.csv: row 1 has no label/);
    expect(() => labelsFrom(['a'], 'x.csv', 'numbers')).toThrow(/no number/);
  });

  it('reads vectors, lines and columns', async () => {
    const vector = npy('y.npy', [3], Int32Array.of(1, 0, 1));
    expect(await readLabels(vector)).toMatchObject({ codes: Int32Array.of(1, 0, 1) });
    expect(await readLabels(file('y.txt', 'cat\ndog\n'))).toMatchObject({ names: ['cat', 'dog'] });
    const table = file('y.csv', 'id,label\na,1\nb,2\n');
    expect(await readLabels(table)).toMatchObject({ names: ['1', '2'] });
    await expect(readLabels(table, { column: 'lable' })).rejects.toThrow(/did you mean "label"/);
    const taken = takeLabels(await readLabels(table), [1, 1]);
    expect(taken).toMatchObject({ codes: Int32Array.of(1, 1) });
  });
});
