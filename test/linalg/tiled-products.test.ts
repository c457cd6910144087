import { afterAll, describe, expect, it } from 'vitest';
import type { Floats } from '../../src/formats/feature-matrix.js';
import { openProducts, type ProductForm, type ProductShape } from '../../src/linalg/tiled-products.js';
import { createRandom } from '../../src/random.js';

const products = [1, 2, 4].map((threads) => openProducts({ threads }));
afterAll(async () => {
  for (const each of products) await each.close();
});

const drawn = (() => {
  const random = createRandom(1);
  return Float64Array.from({ length: 100_003 }, () => random.normal());
})();

/** Normal numbers, repeated with a period that is no extent of a test. */
function normals(length: number, start: number, single: boolean): Floats {
  const data = single ? new Float32Array(length) : new Float64Array(length);
  for (let i = 0; i < length; i++) data[i] = drawn[(start * 7919 + i) % drawn.length];
  return data;
}

function plainProduct(form: ProductForm, a: Floats, b: Floats, { m, n, k }: ProductShape): Float64Array {
  const c = new Float64Array(m * n);
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      for (let l = 0; l < k; l++) {
        c[i * n + j] += (form === 'tn' ? a[l * m + i] : a[i * k + l]) * (form === 'nt' ? b[j * k + l] : b[l * n + j]);
      }
    }
  }
  return c;
}

const FORMS: readonly ProductForm[] = ['nt', 'nn', 'tn'];
const bytes = (data: Floats): Buffer => Buffer.from(data.buffer, data.byteOffset, data.byteLength);

describe('products of tiles', () => {
  it.each(FORMS)('%s agree with plain sums, in memory that starts anywhere', async (form) => {
    for (const single of [false, true]) {
      for (const [m, n, k] of [
        [1, 1, 1],
        [7, 5, 3],
        [1, 33, 300],
        [33, 1, 300],
        [70, 81, 150],
        [3, 4, 0],
      ]) {
        const a = normals(m * k + 3, 1, single).subarray(3);
        const b = normals(n * k + 5, 2, single).subarray(5);
        const target = normals(m * n + 2, 3, single).subarray(1);
        const last = target[m * n];
        await products[1].multiply(form, a, b, { m, n, k }, target);
        const expected = plainProduct(form, a, b, { m, n, k });
        const worst = expected.reduce((most, value, i) => Math.max(most, Math.abs(target[i] - value)), 0);
        expect(worst).toBeLessThan((single ? 1e-5 : 1e-13) * Math.sqrt(k + 1));
        expect(target[m * n]).toBe(last);
      }
    }
  });

  it.each(FORMS)('%s give the same bits on 1, 2 and 4 threads', async (form) => {
    const shapes = [
      [1024, 1024, 64],
      [1024, 1024, 384],
      [64, 1024, 1024],
      [2, 1024, 1024],
      [2, 2, 1024],
      [3, 17, 1000],
      [5, 3, 4096],
      [64, 30, 1024],
      [30, 64, 1024],
      [64, 977, 1024],
      [70, 80, 2000],
      [16, 16, 4096],
      [512, 512, 1024],
      [384, 384, 1024],
      [977, 1024, 65],
      [1, 1024, 300],
      [1024, 1, 300],
    ];
    for (const single of [false, true]) {
      for (const [m, n, k] of shapes) {
        const a = normals(m * k, 4, single);
        const b = normals(n * k, 5, single);
        const [one, ...more] = await Promise.all(products.map((each) => each.multiply(form, a, b, { m, n, k })));
        for (const other of more) expect(bytes(other).equals(bytes(one)), `${[m, n, k]} ${single}`).toBe(true);
      }
    }
  });

  it('give a row the same bits whatever the other rows', async () => {
    for (const single of [false, true]) {
      for (const form of ['nt', 'nn'] as const) {
        for (const n of [1024, 300, 31]) {
          const k = 1024;
          const a = normals(64 * k, 6, single);
          const b = normals(n * k, 7, single);
          const whole = await products[1].multiply(form, a, b, { m: 64, n, k });
          for (const m of [2, 3, 8, 17, 32, 63]) {
            for (const each of products) {
              const part = await each.multiply(form, a, b, { m, n, k });
              expect(bytes(part).equals(bytes(whole.subarray(0, m * n))), `${form} ${m} ${n} ${single}`).toBe(true);
            }
          }
        }
      }
    }
  });

  it('refuse operands that are too short', async () => {
    await expect(products[0].product(new Float64Array(5), 2, new Float64Array(6), 2, 3)).rejects.toThrow(RangeError);
  });
});
