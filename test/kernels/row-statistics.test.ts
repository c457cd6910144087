import { readdirSync, readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.js';
import { type LogitFormat, type RowStatistics, rowStatistics, topMass } from '../../src/kernels/row-statistics.js';
import { kernelModes, useBestKernels } from './kernel-modes.js';
import { blockOf } from './logit-rows.js';

const golden = new URL('../../fixtures/golden/token-measures/', import.meta.url);

interface Tensor {
  readonly shape: number[];
  readonly dtype: string;
  readonly data: (number | string)[];
}

interface GoldenCase {
  readonly case: string;
  readonly inputs: { readonly logits: Tensor; readonly targets: Tensor; readonly topk: number[] };
  readonly expected: Record<string, Tensor>;
  readonly tolerance: { readonly rtol: number; readonly atol: number };
}

const numbers = (tensor: Tensor): number[] =>
  tensor.data.map((v) => (v === '-inf' ? -Infinity : v === 'inf' ? Infinity : Number(v)));

const FORMATS: Record<string, LogitFormat> = { float64: 'F64', float32: 'F32', float16: 'F16', bfloat16: 'BF16' };

/** The fields of a golden case, out of the statistics. */
function measured(s: RowStatistics): Record<string, Float64Array> {
  return {
    nll: s.surprisalNats,
    entropy: s.entropyNats,
    varentropy: s.varentropyNats2,
    'renyi_0.5': s.renyiNats[0],
    renyi_2: s.renyiNats[1],
    min_entropy: s.minEntropyNats,
    hartley: s.hartleyNats,
    tsallis_2: s.tsallis[1],
    topk_mass_1: topMass(s, 1),
    topk_mass_5: topMass(s, 5),
    topk_mass_10: topMass(s, 10),
    margin_top1_top2: s.margin,
    target_rank: s.rank,
    normalized_entropy: s.normalizedEntropy,
    self_certainty_kl_uniform_p: s.selfCertaintyNats,
    fisher_rao_to_uniform: s.fisherRao,
    surprisal_minus_entropy: s.surprisalNats.map((v, i) => v - s.entropyNats[i]),
  };
}

describe.each(kernelModes())('row statistics, $name', (mode) => {
  beforeAll(mode.use);
  afterAll(useBestKernels);

  it.each(readdirSync(golden))('agrees with the golden case %s', (file) => {
    const item: GoldenCase = JSON.parse(readFileSync(new URL(file, golden), 'utf8'));
    const [rows, columns] = item.inputs.logits.shape;
    const dtype = FORMATS[item.inputs.logits.dtype];
    const block = blockOf(numbers(item.inputs.logits), dtype, rows, columns);
    const targets = Int32Array.from(numbers(item.inputs.targets));
    const actual = measured(rowStatistics(block, { targets }));
    const { rtol, atol } = item.tolerance;
    for (const [name, tensor] of Object.entries(item.expected)) {
      if (name === 'aggregate') continue;
      expect(Object.keys(actual)).toContain(name);
      numbers(tensor).forEach((value, r) => {
        const got = actual[name][r];
        if (Math.abs(value) === Infinity) expect(got, `${name}[${r}]`).toBe(value);
        else
          expect(Math.abs(got - value), `${name}[${r}] ${got} ${value}`).toBeLessThanOrEqual(
            atol + rtol * Math.abs(value),
          );
      });
    }
  });

  it.each(['F64', 'F32', 'F16', 'BF16'] as const)('gives the closed forms of a uniform row, %s', (dtype) => {
    const size = 1000;
    const s = rowStatistics(blockOf(new Float64Array(size).fill(-3.25), dtype, 1, size), { targets: Int32Array.of(7) });
    const digits = dtype === 'F64' ? 12 : 6;
    expect(s.entropyNats[0]).toBeCloseTo(Math.log(size), digits);
    expect(s.surprisalNats[0]).toBeCloseTo(Math.log(size), digits);
    expect(s.logSumExp[0]).toBeCloseTo(-3.25 + Math.log(size), digits);
    expect(s.varentropyNats2[0]).toBeLessThan(1e-12);
    expect(s.rank[0]).toBe(1);
    expect(s.normalizedEntropy[0]).toBeCloseTo(1, digits);
    expect(s.selfCertaintyNats[0]).toBeCloseTo(0, digits);
    expect(s.renyiNats[0][0]).toBeCloseTo(Math.log(size), digits);
    expect(s.tsallis[1][0]).toBeCloseTo(1 - 1 / size, digits);
    expect([...s.topColumns]).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(s.margin[0]).toBe(0);
  });

  it.each(['F64', 'F32', 'F16', 'BF16'] as const)('gives exact zeros for one finite logit among masks, %s', (dtype) => {
    const values = new Float64Array(300).fill(-Infinity);
    values[211] = 5.5;
    const s = rowStatistics(blockOf(values, dtype, 1, 300), { targets: Int32Array.of(211) });
    expect(s.entropyNats[0]).toBe(0);
    expect(s.varentropyNats2[0]).toBe(0);
    expect(s.surprisalNats[0]).toBe(0);
    expect(s.logSumExp[0]).toBe(5.5);
    expect(s.supportSize[0]).toBe(1);
    expect(s.hartleyNats[0]).toBe(0);
    expect(s.selfCertaintyNats[0]).toBe(0);
    expect(s.topColumns[0]).toBe(211);
    expect(s.topColumns[1]).toBe(-1);
    expect(s.topLogProbs[1]).toBe(-Infinity);
    expect(s.margin[0]).toBe(1);
    expect(topMass(s, 64)[0]).toBe(1);
  });

  it.each([
    ['F64', 1e-12],
    ['F32', 1e-6],
    ['F16', 1e-6],
    ['BF16', 1e-6],
  ] as const)('gives the closed forms of a two-level row, %s', (dtype, tolerance) => {
    // One logit `gap` above 4999 equal ones: p = 1/(1 + 4999 e^-gap), the rest share 1 - p.
    for (const gap of [0.5, 4, 9, 12]) {
      const size = 5000;
      const values = new Float64Array(size).fill(1.5);
      values[4321] = 1.5 + gap;
      const s = rowStatistics(blockOf(values, dtype, 1, size), {
        targets: Int32Array.of(3),
        renyiOrders: [0.5, 2, 3.5],
      });
      const rest = (size - 1) * Math.exp(-gap);
      const p = 1 / (1 + rest);
      const each = Math.exp(-gap) * p;
      const entropy = -p * Math.log(p) - (size - 1) * each * Math.log(each);
      const varentropy = p * (1 - p) * gap * gap;
      // Lanes of f32 keep a sum to 1e-7 of itself, so logarithms of sums are good to that in nats, not in ratio.
      const close = (actual: number, wanted: number, name: string): void =>
        expect(Math.abs(actual - wanted), `${name}, gap ${gap}: ${actual} ${wanted}`).toBeLessThan(
          tolerance * Math.max(dtype === 'F64' ? 0 : 1, Math.abs(wanted)),
        );
      close(s.entropyNats[0], entropy, 'entropy');
      close(s.varentropyNats2[0], varentropy, 'varentropy');
      close(s.surprisalNats[0], -Math.log(each), 'surprisal');
      [0.5, 2, 3.5].forEach((order, k) => {
        const sum = p ** order + (size - 1) * each ** order;
        close(s.renyiNats[k][0], Math.log(sum) / (1 - order), `renyi ${order}`);
        close(s.tsallis[k][0], (1 - sum) / (order - 1), `tsallis ${order}`);
      });
      expect(s.rank[0]).toBe(2);
      expect(s.topColumns[0]).toBe(4321);
      expect(s.topColumns[1]).toBe(0);
    }
  });

  it('gives Shannon at order 1, Hartley at 0 and the maximum at Infinity', () => {
    const values = [1, 0.5, -Infinity, -2];
    const orders = [1, 0, Infinity];
    const s = rowStatistics(blockOf(values, 'F64', 1, 4), { renyiOrders: orders });
    expect(s.renyiNats[0][0]).toBe(s.entropyNats[0]);
    expect(s.renyiNats[1][0]).toBeCloseTo(Math.log(3), 14);
    expect(s.renyiNats[2][0]).toBe(s.minEntropyNats[0]);
    expect(s.tsallis[1][0]).toBe(2);
  });

  it('keeps the varentropy of rows where one pass would cancel', () => {
    // Two values a hair apart, far from a peak's worth of curvature: V = p (1-p) gap^2 with gap 1e-6.
    const values = Float64Array.from({ length: 512 }, (_, i) => 20 + (i % 2) * 1e-6);
    const s = rowStatistics(blockOf(values, 'F64', 1, 512));
    expect(Math.abs(s.varentropyNats2[0] / 0.25e-12 - 1)).toBeLessThan(1e-6);
  });

  it('counts a vocabulary of one as certain', () => {
    const s = rowStatistics(blockOf([3], 'F32', 1, 1), { targets: Int32Array.of(0) });
    expect([s.entropyNats[0], s.normalizedEntropy[0], s.surprisalNats[0], s.rank[0]]).toEqual([0, 0, 0, 1]);
  });

  it('bears logits at the ends of the range', () => {
    const lowest = -3.4028234663852886e38;
    const s = rowStatistics(blockOf([lowest, 2, lowest, 2, lowest, -1e30, 2, lowest], 'F32', 1, 8), {
      targets: Int32Array.of(0),
    });
    expect(s.entropyNats[0]).toBeCloseTo(Math.log(3), 6);
    expect(s.supportSize[0]).toBe(3);
    expect(s.hartleyNats[0]).toBeCloseTo(Math.log(3), 14);
    expect(s.selfCertaintyNats[0]).toBeCloseTo((-4 * lowest) / 8, -33);
    expect(s.surprisalNats[0]).toBe(-lowest);
    expect(s.rank[0]).toBe(5);
    const wide = rowStatistics(blockOf([1.7e308, -1.7e308], 'F64', 1, 2));
    expect([wide.entropyNats[0], wide.varentropyNats2[0]]).toEqual([0, 0]);
  });

  it('follows a maximum that keeps growing along the row', () => {
    const values = Float64Array.from({ length: 20000 }, (_, i) => i / 100);
    const decay = Math.exp(-0.01);
    const z = (1 - decay ** 20000) / (1 - decay);
    for (const dtype of ['F64', 'F32'] as const) {
      const s = rowStatistics(blockOf(values, dtype, 1, 20000));
      const entropy = Math.log(z) + (0.01 * decay) / (1 - decay);
      expect(Math.abs(s.entropyNats[0] / entropy - 1)).toBeLessThan(dtype === 'F64' ? 1e-12 : 1e-6);
      expect(Math.abs(s.varentropyNats2[0] / ((0.01 ** 2 * decay) / (1 - decay) ** 2) - 1)).toBeLessThan(
        dtype === 'F64' ? 1e-11 : 1e-5,
      );
      expect([...s.topColumns.subarray(0, 3)]).toEqual([19999, 19998, 19997]);
    }
  });

  it.each(['F64', 'F32', 'F16', 'BF16'] as const)('names row and column of NaN and +inf, %s', (dtype) => {
    for (const hostile of [Number.NaN, Infinity]) {
      for (const column of [0, 1, 63, 64, 100, 4095, 4096, 5000, 5002]) {
        const columns = 5003;
        const values = Float64Array.from({ length: 3 * columns }, (_, i) => (i % 17) - 8);
        values[columns + column] = hostile;
        values[2 * columns + 5] = Number.NaN;
        const call = (): unknown => rowStatistics(blockOf(values, dtype, 3, columns), { measures: 'entropy' });
        expect(call).toThrow(InputError);
        expect(call).toThrow(`logits: row 1, column ${column} is ${hostile}; logits must be finite or -Infinity`);
      }
    }
  });

  it('finds a NaN that is alone among masks', () => {
    const values = new Float64Array(200).fill(-Infinity);
    values[150] = Number.NaN;
    expect(() => rowStatistics(blockOf(values, 'F32', 1, 200), { name: 'scores' })).toThrow(
      'scores: row 0, column 150',
    );
  });

  it('refuses a row with nothing in it', () => {
    const values = new Float64Array(64).fill(-Infinity, 32);
    expect(() => rowStatistics(blockOf(values, 'F64', 2, 32))).toThrow('row 1 has empty support');
    expect(() => rowStatistics(blockOf(values, 'F64', 2, 32))).toThrow(InputError);
  });

  it('leaves what a target would give open where there is none', () => {
    const s = rowStatistics(blockOf([0, 1, 2, 3], 'F32', 2, 2), { targets: Int32Array.of(-1, 0) });
    expect([s.surprisalNats[0], s.rank[0], s.rank[1]]).toEqual([Number.NaN, Number.NaN, 2]);
  });
});

describe('row statistics', () => {
  it('refuses orders and sizes that mean nothing', () => {
    const block = blockOf([0, 1], 'F64', 1, 2);
    expect(() => rowStatistics(block, { renyiOrders: [-1] })).toThrow(InputError);
    expect(() => rowStatistics(block, { topK: 65 })).toThrow(InputError);
    expect(() => rowStatistics(block, { measures: 'entropy', renyiOrders: [2] })).toThrow(InputError);
    expect(() => rowStatistics({ ...block, columns: 3 })).toThrow(RangeError);
    expect(() => rowStatistics({ ...block, dtype: 'F32' })).toThrow(TypeError);
  });
});
