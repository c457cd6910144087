import { afterAll, describe, expect, it } from 'vitest';
import {
  countTokens,
  covarianceSummands,
  entropyChangeSummands,
  RESPONSE_FIELD,
  RESPONSE_FIELDS,
  responseFigures,
  sumsAbove,
} from '../../src/kernels/policy-tokens.js';
import { createRandom } from '../../src/random.js';
import { kernelModes, useBestKernels } from './kernel-modes.js';

afterAll(useBestKernels);

const random = createRandom(11);
const lengths = [5, 0, 1, 64, 300, 7, 8, 9, 1200];
const offsets = Int32Array.from([0, ...lengths].map((_, r) => lengths.slice(0, r).reduce((sum, n) => sum + n, 0)));
const count = offsets[lengths.length];
const mask = Uint8Array.from({ length: count }, (_, i) => (i % 11 === 3 ? 0 : 1));
// Response 5 has nothing that counts.
mask.fill(0, offsets[5], offsets[6]);
const column = (draw: () => number): Float64Array =>
  Float64Array.from(mask, (counts) => (counts === 0 ? Number.NaN : draw()));
const tokens = {
  logProb: column(() => -(Math.abs(random.normal()) ** 3)),
  oldLogProb: column(() => -(Math.abs(random.normal()) ** 3)),
  referenceLogProb: column(() => -Math.abs(random.normal())),
  entropy: column(() => Math.abs(random.normal())),
  advantage: column(() => random.normal()),
  mask,
};
tokens.logProb[0] = -40;
tokens.logProb[1] = 0;
tokens.advantage[4] = 0;
const clip = { low: 0.2, high: 0.28 };
const means = { logProb: -0.9, advantage: 0.1 };

interface Results {
  readonly figures: Float64Array;
  readonly summands: Float64Array;
  readonly positive: number;
  readonly omegas: Float64Array;
  readonly sums: Float64Array;
}

function results(threads: number): Results {
  const summands = new Float64Array(count);
  const omegas = new Float64Array(count);
  const positive = covarianceSummands(tokens, means, summands, threads);
  entropyChangeSummands(tokens, omegas, threads);
  return {
    figures: responseFigures(tokens, offsets, clip, threads),
    summands,
    positive,
    omegas,
    sums: sumsAbove(tokens.entropy, mask, offsets, Float64Array.of(2, 1, -1), threads),
  };
}

const modes = kernelModes();
modes[0].use();
const reference = results(1);

describe('the reference', () => {
  it('is the definition, token by token', () => {
    const { figures } = reference;
    for (const [r, length] of lengths.entries()) {
      const counted = Array.from({ length }, (_, t) => offsets[r] + t).filter((i) => mask[i] === 1);
      const of = (field: number): number => figures[r * RESPONSE_FIELDS + field];
      const sum = (value: (i: number) => number): number => counted.reduce((total, i) => total + value(i), 0);
      const n = counted.length;
      expect(of(RESPONSE_FIELD.count)).toBe(n);
      const meanL = sum((i) => tokens.logProb[i]) / n;
      const meanA = sum((i) => tokens.advantage[i]) / n;
      const products = n === 0 ? 0 : sum((i) => (tokens.logProb[i] - meanL) * (tokens.advantage[i] - meanA));
      expect(of(RESPONSE_FIELD.products)).toBeCloseTo(products, 10);
      const { low, high } = clip;
      const clipped = (i: number): number => {
        const rho = Math.exp(tokens.logProb[i] - tokens.oldLogProb[i]);
        const a = tokens.advantage[i];
        return -a * Math.min(1 + high, Math.max(1 - low, rho)) > -a * rho ? 1 : 0;
      };
      expect(of(RESPONSE_FIELD.clippedHigh) + of(RESPONSE_FIELD.clippedLow)).toBe(sum(clipped));
    }
  });

  it('leaves nothing of what stands under the mask', () => {
    for (const array of [reference.figures, reference.summands, reference.omegas, reference.sums]) {
      expect(array.every(Number.isFinite)).toBe(true);
    }
  });

  it('attributes all of Omega to its quadrants', () => {
    let inQuadrants = 0;
    for (let r = 0; r < lengths.length; r++) {
      for (let q = 0; q < 4; q++) {
        inQuadrants += Math.abs(reference.figures[r * RESPONSE_FIELDS + RESPONSE_FIELD.quadrantOmegas + q]);
      }
    }
    const all = reference.omegas.reduce((sum, omega) => sum + Math.abs(omega), 0);
    expect(inQuadrants / all).toBeCloseTo(1, 12);
  });
});

const natives = modes.slice(1);
describe.skipIf(natives.length === 0)('native kernels', () => {
  for (const mode of natives) {
    it(`agree with the reference: ${mode.name}`, () => {
      mode.use();
      const native = results(2);
      expect(native.positive).toBe(reference.positive);
      expect(native.summands).toEqual(reference.summands);
      const pairs: [Float64Array, Float64Array][] = [
        [native.figures, reference.figures],
        [native.omegas, reference.omegas],
        [native.sums, reference.sums],
      ];
      for (const [got, wanted] of pairs) {
        for (let i = 0; i < wanted.length; i++) {
          expect(Math.abs(got[i] - wanted[i])).toBeLessThanOrEqual(1e-12 * Math.max(1, Math.abs(wanted[i])));
        }
      }
    });
  }

  it('give the same bits for any threads and instruction set', () => {
    const all = natives.flatMap((mode) => {
      mode.use();
      return [1, 2, 3].map(results);
    });
    for (const other of all) expect(other).toEqual(all[0]);
  });
});

describe('countTokens', () => {
  for (const mode of modes) {
    it(`counts by id, and leaves tables alone that are too short: ${mode.name}`, () => {
      mode.use();
      const tables = { all: new Float64Array(3), high: new Float64Array(3), entropies: new Float64Array(3) };
      const entropy = Float64Array.of(1, 2, Number.NaN, 4, 5);
      const counted = Uint8Array.of(1, 1, 0, 1, 1);
      expect(countTokens(Int32Array.of(0, 2, 2, 3, 0), entropy, counted, 2, tables)).toBe(false);
      expect([...tables.all]).toEqual([0, 0, 0]);
      expect(countTokens(Int32Array.of(0, 2, 2, -1, 0), entropy, counted, 2, tables)).toBe(true);
      expect([tables.all, tables.high, tables.entropies].map((table) => [...table])).toEqual([
        [2, 0, 1],
        [1, 0, 1],
        [5, 0, 2],
      ]);
    });
  }
});

describe('columns that do not fit', () => {
  it('are refused', () => {
    const short = new Float64Array(1);
    expect(() => responseFigures({ mask, entropy: short }, offsets, clip)).toThrow('entropy');
    expect(() => responseFigures({ mask }, Int32Array.of(0, count + 1), clip)).toThrow('offset');
    expect(() => covarianceSummands(tokens, means, short)).toThrow(RangeError);
  });
});
