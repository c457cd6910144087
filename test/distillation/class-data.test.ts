import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { featureScale, readClassData, takeRows } from '../../src/distillation/class-data.js';
import { drawRows, readClassFiles, splitRows } from '../../src/distillation/class-splits.js';
import { encodeNpy } from '../../src/formats/npy.js';

const folder = mkdtempSync(join(tmpdir(), 'surprisal-'));
afterAll(() => rmSync(folder, { recursive: true }));
const file = (name: string, content: string | Uint8Array): string => {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
};

const TABLE = 'a,b,label\n1,2,0\n3,4,2\n5,7,1\n';

describe('class data', () => {
  it('reads a table whose labels stand in a column', async () => {
    const data = await readClassData({ path: file('t.csv', TABLE) });
    expect(data).toMatchObject({ rows: 3, dims: [2], classes: ['0', '1', '2'], columnNames: ['a', 'b'] });
    expect([...data.features]).toEqual([1, 2, 3, 4, 5, 7]);
    expect([...data.labels]).toEqual([0, 2, 1]);
  });

  it('gives text labels the order of their names, and keeps it for other rows', async () => {
    const path = file('names.csv', 'x,species\n1,setosa\n2,virginica\n3,setosa\n');
    const data = await readClassData({ path, labelColumn: 'species' });
    expect(data.classes).toEqual(['setosa', 'virginica']);
    const other = file('other.csv', 'x,species\n1,virginica\n');
    expect([...(await readClassData({ path: other, labelColumn: 'species' }, data.classes)).labels]).toEqual([1]);
    const unknown = file('unknown.csv', 'x,species\n1,virginica\n2,versicolor\n');
    await expect(readClassData({ path: unknown, labelColumn: 'species' }, data.classes)).rejects.toThrow(
      'row 1 has the label "versicolor", which no training row has',
    );
  });

  it('knows ignored rows and refuses labels out of range', async () => {
    const data = await readClassData({ path: file('ignored.csv', 'a,y\n1,0\n2,-100\n3,1\n') });
    expect([...data.labels]).toEqual([0, -100, 1]);
    expect(data.classes).toEqual(['0', '1']);
    await expect(readClassData({ path: file('negative.csv', 'a,y\n1,0\n2,-1\n') })).rejects.toThrow(
      'row 1 has the label -1',
    );
    await expect(readClassData({ path: file('beyond.csv', 'a,y\n1,0\n2,7\n') }, ['0', '1'])).rejects.toThrow(
      'row 1 has the label 7, but there are 2 classes (0 to 1)',
    );
    const gap = await readClassData({ path: file('gap.csv', 'a,y\n1,0\n2,2\n') });
    expect(gap.warnings[0]).toContain('no row has the label 1');
  });

  it('takes images as arrays, channels first', async () => {
    const pixels = Float32Array.from({ length: 2 * 5 * 6 * 3 }, (_, i) => i);
    const labels = file('y.npy', encodeNpy(Float32Array.of(1, 0), [2]));
    const last = await readClassData({ path: file('last.npy', encodeNpy(pixels, [2, 5, 6, 3])), labels });
    expect(last.dims).toEqual([3, 5, 6]);
    for (const [n, c, h, w] of [
      [0, 0, 0, 0],
      [1, 2, 4, 5],
      [1, 1, 0, 3],
    ]) {
      expect(last.features[((n * 3 + c) * 5 + h) * 6 + w]).toBe(pixels[((n * 5 + h) * 6 + w) * 3 + c]);
    }
    const first = await readClassData({
      path: file('last.npy', encodeNpy(pixels, [2, 5, 6, 3])),
      labels,
      channels: 'first',
    });
    expect(first.dims).toEqual([5, 6, 3]);
    const grey = await readClassData({ path: file('grey.npy', encodeNpy(pixels.subarray(0, 60), [2, 5, 6])), labels });
    expect(grey.dims).toEqual([1, 5, 6]);
    const flat = await readClassData({
      path: file('flat.npy', encodeNpy(pixels.subarray(0, 60), [2, 30])),
      labels,
      image: [5, 6],
    });
    expect(flat.features).toEqual(grey.features);
    await expect(
      readClassData({ path: file('flat.npy', encodeNpy(pixels.subarray(0, 60), [2, 30])), labels, image: [5, 5] }),
    ).rejects.toThrow('an image of 5 x 5 has 25 values, but a row has 30');
  });

  it('says what is wrong with a file', async () => {
    await expect(readClassData({ path: file('none.csv', 'a,b\n1,2\n') })).rejects.toThrow('--label-column');
    await expect(readClassData({ path: file('word.csv', 'a,y\nfast,0\n') })).rejects.toThrow('holds "fast"');
    await expect(readClassData({ path: file('nan.csv', 'a,y\n1,0\nnan,1\n') })).rejects.toThrow('the first is row 1');
    await expect(readClassData({ path: file('x.npy', encodeNpy(new Float32Array(4), [2, 2])) })).rejects.toThrow(
      '--labels',
    );
    const short = file('short.txt', '0\n');
    await expect(
      readClassData({ path: file('x.npy', encodeNpy(new Float32Array(4), [2, 2])), labels: short }),
    ).rejects.toThrow('1 labels');
  });

  it('joins files and splits by class', async () => {
    const rows = (n: number, shift: number): string =>
      `a,y\n${Array.from({ length: n }, (_, i) => `${i + shift},${i % 3}`).join('\n')}\n`;
    const data = await readClassFiles([{ path: file('p.csv', rows(30, 0)) }, { path: file('q.csv', rows(60, 100)) }]);
    expect(data.rows).toBe(90);
    expect(data.features[30]).toBe(100);
    const [rest, held] = splitRows(data, [{ name: 'held-out', share: 0.2 }], 4);
    expect(held.rows?.length).toBe(18);
    expect(rest.rows?.length).toBe(72);
    const classes = Array.from(held.rows ?? [], (row) => data.labels[row]);
    expect([0, 1, 2].map((label) => classes.filter((own) => own === label).length)).toEqual([6, 6, 6]);
    expect(splitRows(data, [{ name: 'held-out', share: 0.2 }], 4)[1].rows).toEqual(held.rows);
    expect(() => splitRows(data, [{ name: 'held-out', share: 0.01 }], 4)).toThrow('too few to take held-out rows');
    const drawn = drawRows(rest.rows ?? new Int32Array(), 10, 1);
    expect(new Set(drawn).size).toBe(10);
    expect(drawn.every((row) => rest.rows?.includes(row))).toBe(true);
    expect([...takeRows(data, Int32Array.of(31, 0)).features]).toEqual([101, 0]);
  });

  it('scales by training rows; what does not vary becomes 0', async () => {
    const data = await readClassData({ path: file('s.csv', 'a,b,y\n1,5,0\n3,5,1\n') });
    const { mean, inverse } = featureScale(data, 'columns');
    expect([...mean]).toEqual([2, 5]);
    expect([...inverse]).toEqual([1, 0]);
    const all = featureScale(data, 'all');
    expect(all.mean[0]).toBe(3.5);
    expect(all.inverse[1]).toBeCloseTo(
      1 / Math.sqrt((2.5 ** 2 + 3 * 1.5 ** 2 - 2 * 1.5 ** 2 + 0.5 ** 2 + 1.5 ** 2) / 4),
      10,
    );
  });
});
