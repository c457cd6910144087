import { afterAll, describe, expect, it } from 'vitest';
import {
  countMask,
  countTokens,
  covarianceSummands,
  entropyChangeSummands,
  type HeldTokens,
  type PolicyTokens,
  RESPONSE_FIELD,
  RESPONSE_FIELDS,
  responseCovariances,
  responseFigures,
  settleIds,
  settleValues,
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

function figuresOf(columns: PolicyTokens, threads: number, held?: HeldTokens): Float64Array {
  const figures = new Float64Array(lengths.length * RESPONSE_FIELDS);
  responseFigures(columns, offsets, clip, figures, { threads, ...(held && { held }) });
  return figures;
}

function results(threads: number): Results {
  const summands = new Float64Array(count);
  const omegas = new Float64Array(count);
  const positive = covarianceSummands(tokens, means, summands, threads);
  entropyChangeSummands(tokens, omegas, threads);
  return {
    figures: figuresOf(tokens, threads),
    summands,
    positive,
    omegas,
    sums: sumsAbove(tokens.entropy, offsets, Float64Array.of(2, 1, -1, 0.5, 0.1, 3, 0.2), threads),
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

const one = Float64Array.from(lengths, (_, r) => (r === 0 ? 0 : random.normal()));
const shared = Float64Array.from({ length: count }, (_, i) => one[offsets.findIndex((offset) => offset > i) - 1]);

describe('one advantage a response', () => {
  for (const mode of modes) {
    it(`is the same advantage at every token: ${mode.name}`, () => {
      mode.use();
      const { advantage: _, ...others } = tokens;
      const figures = figuresOf({ ...others, responseAdvantage: one }, 2);
      const wanted = figuresOf({ ...others, advantage: shared }, 1);
      for (let i = 0; i < wanted.length; i++) expect(figures[i]).toBeCloseTo(wanted[i], 10);
      const counted = mask.reduce((sum, bit) => sum + bit, 0);
      const held = {
        at: 2,
        logProb: new Float64Array(counted + 2),
        entropy: new Float64Array(counted + 2),
        ids: { from: Int32Array.from(mask, (_, i) => i), into: new Int32Array(counted + 2) },
      };
      expect(figuresOf({ ...others, responseAdvantage: one }, 3, held)).toEqual(figures);
      expect(held.logProb.subarray(2)).toEqual(tokens.logProb.filter((_, i) => mask[i] === 1));
      expect(held.entropy.subarray(2)).toEqual(tokens.entropy.filter((_, i) => mask[i] === 1));
      expect(held.ids.into.subarray(2)).toEqual(held.ids.from.filter((i) => mask[i] === 1));
      const summands = new Float64Array(count);
      const full = new Uint8Array(count).fill(1);
      const dense = tokens.entropy.map((value) => (Number.isNaN(value) ? 1 : value));
      const positive = covarianceSummands({ logProb: dense, advantage: shared, mask: full }, means, summands);
      expect(responseCovariances(dense, one, offsets, means, dense, 2)).toBe(positive);
      expect(dense).toEqual(summands);
    });
  }
});

describe('what stands under the mask', () => {
  for (const mode of modes) {
    it(`becomes 0, and the rest is held against its range: ${mode.name}`, () => {
      mode.use();
      const values = tokens.entropy.slice();
      expect(settleValues(values, mask, [-1, 100])).toBe(true);
      expect(values).toEqual(tokens.entropy.map((value) => (Number.isNaN(value) ? 0 : value)));
      expect(settleValues(values, mask, [-1, 0.1])).toBe(false);
      expect(settleValues(tokens.entropy.slice(), undefined, [-1, 100])).toBe(false);
      const ids = Int32Array.of(3, -1, 4);
      expect(settleIds(ids, Uint8Array.of(1, 0, 1))).toBe(true);
      expect([...ids]).toEqual([3, 0, 4]);
      expect(settleIds(Int32Array.of(3, -1), undefined)).toBe(false);
      const counts = new Int32Array(2);
      expect(countMask(Uint8Array.of(1, 0, 1, 1), Int32Array.of(0, 1, 4), counts)).toBe(true);
      expect([...counts]).toEqual([1, 2]);
      expect(countMask(Uint8Array.of(2), Int32Array.of(0, 1), new Int32Array(1))).toBe(false);
    });
  }
});

describe('countTokens', () => {
  for (const mode of modes) {
    it(`counts by id, and leaves tables alone that are too short: ${mode.name}`, () => {
      mode.use();
      const tables = { counts: new Float64Array(6), entropies: new Float64Array(3) };
      const entropy = Float64Array.of(1, 2, Number.NaN, 4, 5);
      const counted = Uint8Array.of(1, 1, 0, 1, 1);
      expect(countTokens(Int32Array.of(0, 2, 2, 3, 0), entropy, counted, 2, tables)).toBe(false);
      expect([...tables.counts]).toEqual([0, 0, 0, 0, 0, 0]);
      expect(countTokens(Int32Array.of(0, 2, 2, -1, 0), entropy, counted, 2, tables)).toBe(true);
      expect([...tables.counts]).toEqual([2, 1, 0, 0, 1, 1]);
      expect([...tables.entropies]).toEqual([5, 0, 2]);
    });
  }
});

describe('columns that do not fit', () => {
  it('are refused', () => {
    const short = new Float64Array(1);
    const figures = new Float64Array(lengths.length * RESPONSE_FIELDS);
    expect(() => responseFigures({ mask, entropy: short }, offsets, clip, figures)).toThrow('entropy');
    expect(() => responseFigures({ mask }, Int32Array.of(0, count + 1), clip, figures)).toThrow('offset');
    expect(() => responseFigures({ mask }, offsets, clip, short)).toThrow('figures');
    const held = { at: 0, entropy: short };
    for (const mode of natives) {
      mode.use();
      expect(() => responseFigures(tokens, offsets, clip, figures, { held })).toThrow('room');
    }
    expect(() => covarianceSummands(tokens, means, short)).toThrow(RangeError);
  });
});
