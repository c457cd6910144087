import { describe, expect, it } from 'vitest';
import type { BaselineSettings } from '../../../src/quantization/baselines/baseline.js';
import { methodBits, quantizeTensor } from '../../../src/quantization/baselines/composed.js';
import { dynamicLevels, normalFloatLevels } from '../../../src/quantization/baselines/nf4.js';
import { findMethod, methodNames } from '../../../src/quantization/baselines/registry.js';
import { createRandom } from '../../../src/random.js';

const ROWS = 256;
const COLUMNS = 3072;
const random = createRandom(4);
const gaussian = Float32Array.from({ length: ROWS * COLUMNS }, () => random.normal());

function measured(name: string, settings: BaselineSettings): { db: number; bpw: number } {
  const task = { weights: gaussian, rows: ROWS, columns: COLUMNS, name: 'w', seed: 1n };
  const { decoded, storedBits } = quantizeTensor(findMethod(name), settings, task);
  let energy = 0;
  let error = 0;
  for (let i = 0; i < gaussian.length; i++) {
    energy += gaussian[i] ** 2;
    error += (gaussian[i] - decoded[i]) ** 2;
  }
  return { db: 10 * Math.log10(energy / error), bpw: storedBits / gaussian.length };
}

describe('on Gaussian weights', () => {
  it.each([
    ['lloyd-max', { bits: 2 }, 9.3, 2 + 16 / COLUMNS],
    ['lloyd-max', { bits: 3 }, 14.616, 3 + 16 / COLUMNS],
    ['lloyd-max', { bits: 4 }, 20.222, 4 + 16 / COLUMNS],
    // The mean over five draws of numpy. The specification's draw (2.33, 11.30, 18.66) is up to 0.05 dB above it: the
    // largest of 128 weights varies more between draws than the figures of the other methods do.
    ['rtn', { bits: 2, group: 128 }, 2.304, 2.125],
    ['rtn', { bits: 3, group: 128 }, 11.247, 3.125],
    ['rtn', { bits: 4, group: 128 }, 18.611, 4.125],
    ['rtn-asymmetric', { bits: 2, group: 128 }, 5.99, 2.125 + 2 / 128],
    ['rtn-asymmetric', { bits: 3, group: 128 }, 13.35, 3.125 + 3 / 128],
    ['rtn-asymmetric', { bits: 4, group: 128 }, 19.98, 4.125 + 4 / 128],
    ['rtn-asymmetric', { bits: 2, group: 32 }, 7.83, 2.5 + 2 / 32],
    ['rtn-asymmetric', { bits: 3, group: 32 }, 15.23, 3.5 + 3 / 32],
    ['rtn-asymmetric', { bits: 4, group: 32 }, 21.87, 4.5 + 4 / 32],
    ['rtn-clipped', { bits: 3, group: 128 }, 14.2, 3.125],
    ['rtn-clipped', { bits: 4, group: 128 }, 19.96, 4.125],
    ['nf4', {}, 20.74, 4.5],
  ])('%s %o has %f dB', (name, settings, db, bpw) => {
    const result = measured(name, settings as BaselineSettings);
    expect(Math.abs(result.db - db)).toBeLessThan(0.05);
    expect(result.bpw).toBeCloseTo(bpw, 12);
  });

  it('clips two bits better than a search that stops at two fifths of the range', () => {
    expect(measured('rtn-clipped', { bits: 2, group: 128 }).db).toBeGreaterThan(8.15);
  });

  it('doubly quantised NF4 counts its scales', () => {
    const { db, bpw } = measured('nf4-double', {});
    const blocks = gaussian.length / 64;
    expect(bpw).toBeCloseTo(4 + (8 * blocks + (32 * blocks) / 256 + 32) / gaussian.length, 12);
    expect(db).toBeGreaterThan(20.5);
  });
});

describe('levels', () => {
  it('of NormalFloat4 are the published ones', () => {
    const published = [
      -1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
      -0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
      0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1,
    ];
    const levels = normalFloatLevels();
    for (const [i, level] of published.entries()) expect(levels[i]).toBeCloseTo(level, 6);
  });

  it('of the dynamic code are 256 and distinct', () => {
    expect(new Set(dynamicLevels()).size).toBe(256);
  });
});

describe('every method', () => {
  const rows = 4;
  const columns = 256;
  const weights = Float32Array.from({ length: rows * columns }, () => 0.05 * random.normal());
  const activations = Float64Array.from({ length: 600 * columns }, (_, i) => random.normal() * (1 + (i % 7)));
  const hessian = new Float64Array(columns * columns);
  for (let t = 0; t < 600; t++) {
    for (let i = 0; i < columns; i++) {
      for (let j = 0; j < columns; j++) {
        hessian[i * columns + j] += (2 / 600) * activations[t * columns + i] * activations[t * columns + j];
      }
    }
  }
  const task = { weights, rows, columns, name: 'w', seed: 3n, moments: () => ({ hessian, tokens: 600 }) };
  const loss = (decoded: Float32Array): number => {
    let sum = 0;
    for (let r = 0; r < rows; r++) {
      for (let i = 0; i < columns; i++) {
        for (let j = 0; j < columns; j++) {
          const at = r * columns;
          sum += (weights[at + i] - decoded[at + i]) * hessian[i * columns + j] * (weights[at + j] - decoded[at + j]);
        }
      }
    }
    return sum;
  };

  it('stores what it foresaw, repeats itself, and feedback lowers the loss', () => {
    for (const name of methodNames()) {
      const method = findMethod(name);
      const settings = method.baseline.settings.find(({ bits }) => bits === 3) ?? method.baseline.settings[0];
      const first = quantizeTensor(method, settings, task);
      expect(first.storedBits, name).toBe(methodBits(method, settings, rows, columns));
      expect(first.decoded, name).toEqual(quantizeTensor(method, settings, task).decoded);
      if (!method.feedback || method.baseline.fit(task, settings).blockColumns === 256) continue;
      const plain = quantizeTensor(findMethod(name.replace('-feedback', '')), settings, task);
      expect(loss(first.decoded), name).toBeLessThan(loss(plain.decoded));
    }
  });

  it('names what it does not know', () => {
    expect(() => findMethod('rtn-fedback')).toThrow(/did you mean "rtn-feedback"/);
  });
});
