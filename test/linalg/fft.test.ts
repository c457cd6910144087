import { describe, expect, it } from 'vitest';
import { complexPlan, fastLength, imageConvolver, realPlan } from '../../src/linalg/fft.js';
import { createRandom } from '../../src/random.js';

const normals = (n: number, seed: number): Float64Array => {
  const random = createRandom(seed);
  return Float64Array.from({ length: n }, () => random.normal());
};

function slowTransform(re: Float64Array, im: Float64Array): { re: Float64Array; im: Float64Array } {
  const n = re.length;
  const out = { re: new Float64Array(n), im: new Float64Array(n) };
  for (let k = 0; k < n; k++) {
    for (let j = 0; j < n; j++) {
      const angle = (-2 * Math.PI * ((j * k) % n)) / n;
      out.re[k] += re[j] * Math.cos(angle) - im[j] * Math.sin(angle);
      out.im[k] += re[j] * Math.sin(angle) + im[j] * Math.cos(angle);
    }
  }
  return out;
}

const furthest = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Math.max(...Array.from(a, (value, i) => Math.abs(value - b[i])));

describe('complex transforms', () => {
  it.each([1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 15, 16, 20, 25, 27, 30, 36, 60, 64, 90, 100, 125, 180, 360])(
    'equal the sum that defines them, length %i',
    (n) => {
      const re = normals(n, 1);
      const im = normals(n, 2);
      const slow = slowTransform(re, im);
      complexPlan(n).forward(re, im);
      expect(furthest(re, slow.re)).toBeLessThan(1e-12 * n);
      expect(furthest(im, slow.im)).toBeLessThan(1e-12 * n);
    },
  );

  it('refuses a length with another prime factor', () => {
    expect(() => complexPlan(14)).toThrow('14 is not a product of 2, 3 and 5');
  });
});

describe('real transforms', () => {
  it.each([2, 4, 6, 10, 18, 32, 50, 360, 1000])('are the first half of the complex one and invert, length %i', (n) => {
    const x = normals(n, 3);
    const slow = slowTransform(x, new Float64Array(n));
    const re = new Float64Array(n / 2 + 1);
    const im = new Float64Array(n / 2 + 1);
    const plan = realPlan(n);
    plan.forward(x, re, im);
    expect(furthest(re, slow.re)).toBeLessThan(1e-11 * n);
    expect(furthest(im, slow.im)).toBeLessThan(1e-11 * n);
    const back = new Float64Array(n);
    plan.inverse(re, im, back);
    expect(furthest(back, x)).toBeLessThan(1e-13 * n);
  });

  it('needs an even length', () => {
    expect(() => realPlan(9)).toThrow('even length');
  });
});

describe('convolution of images', () => {
  it('equals the direct cyclic sum, for several images with one plan', () => {
    const [height, width] = [15, 12];
    const convolver = imageConvolver(height, width);
    const kernel = normals(height * width, 4);
    convolver.setKernel(kernel);
    for (const seed of [5, 6]) {
      const image = normals(height * width, seed);
      const direct = new Float64Array(height * width);
      for (let y = 0; y < height; y++)
        for (let x = 0; x < width; x++)
          for (let v = 0; v < height; v++)
            for (let u = 0; u < width; u++) {
              const from = ((y - v + height) % height) * width + ((x - u + width) % width);
              direct[y * width + x] += kernel[v * width + u] * image[from];
            }
      convolver.convolve(image);
      expect(furthest(image, direct)).toBeLessThan(1e-11);
    }
  });
});

it('pads to the next product of 2, 3 and 5', () => {
  expect([1, 7, 11, 301, 449, 511, 1025].map((n) => fastLength(n))).toEqual([1, 8, 12, 320, 450, 512, 1080]);
  expect([1, 9, 15, 405].map((n) => fastLength(n, true))).toEqual([2, 10, 16, 432]);
});
