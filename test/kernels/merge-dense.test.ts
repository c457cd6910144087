import { afterAll, describe, expect, it } from 'vitest';
import {
  allElements,
  combineElements,
  type ElementGroups,
  gramOfElements,
  groupCount,
  type StoredElements,
  swapNear,
} from '../../src/kernels/merge-dense.js';
import { loadElements, type MergeElementType, storeElements } from '../../src/kernels/merge-elements-reference.js';
import { createRandom } from '../../src/random.js';
import { kernelModes, useBestKernels } from './kernel-modes.js';
import { emptyOf, MERGE_TYPES, storedAs, weightsLike } from './stored-elements.js';

afterAll(useBestKernels);

const modes = kernelModes();

/** What every implementation gives, with one and with three threads: one hexadecimal text if all agree. */
function everywhere(work: (threads: number) => Uint8Array | Float64Array): string[] {
  const found = new Set<string>();
  for (const mode of modes) {
    mode.use();
    for (const threads of mode.name === 'typescript' ? [1] : [1, 3]) {
      const result = work(threads);
      found.add(Buffer.from(result.buffer, result.byteOffset, result.byteLength).toString('base64'));
    }
  }
  return [...found];
}

/** Three inputs of mixed types; the odd values stay out of Gram matrices, where they only test overflow. */
function inputsOf(elements: number, dtypes: readonly MergeElementType[], odd: boolean): StoredElements[] {
  return dtypes.map((dtype, i) => storedAs(weightsLike(elements, i + 1, odd), dtype));
}

const MIXES: readonly (readonly MergeElementType[])[] = [
  ['F64', 'F32'],
  ['F32', 'F32'],
  ['F16', 'F16'],
  ['BF16', 'BF16'],
  ['BF16', 'F16', 'F32'],
  ['F16', 'F64', 'BF16', 'BF16', 'F32', 'F32'],
];

describe('combineElements', () => {
  it.each(MIXES)('gives the same bits everywhere (%s %s %s)', (...dtypes) => {
    const used = dtypes.filter((dtype) => dtype !== undefined);
    for (const [rows, columns] of [
      [1, 1],
      [3, 7],
      [5, 1029],
      [2, 4097],
    ]) {
      const inputs = inputsOf(rows * columns, used, true);
      for (const along of ['all', 'rows', 'columns'] as const) {
        const groups: ElementGroups = { rows, columns, along };
        const coefficients = weightsLike(inputs.length * groupCount(groups), 9).map((value) => 20 * value);
        for (const relative of [false, true]) {
          const dtype = MERGE_TYPES[(columns + used.length) % 4];
          const results = everywhere((threads) => {
            const output = emptyOf(rows * columns, dtype);
            combineElements(inputs, coefficients, output, groups, { relative, threads });
            return output.bytes;
          });
          expect(results).toHaveLength(1);
        }
      }
    }
  });

  it('stores every type as dtypes do, NaN as the positive quiet one, infinities by overflow', () => {
    const values = Float64Array.of(
      1e-45,
      -1e-310,
      65520,
      -1e39,
      Number.NaN,
      Number.NEGATIVE_INFINITY,
      -0,
      1.00390625,
      3,
    );
    for (const dtype of MERGE_TYPES) {
      const results = everywhere((threads) => {
        const output = emptyOf(values.length, dtype);
        const inputs = [storedAs(values, 'F64')];
        combineElements(inputs, Float64Array.of(1), output, allElements(values.length), { threads });
        return output.bytes;
      });
      const direct = emptyOf(values.length, dtype);
      storeElements(values, dtype, 0, values.length, direct.bytes);
      expect(results).toEqual([Buffer.from(direct.bytes).toString('base64')]);
    }
  });

  it('is the weighted sum', () => {
    const [a, b] = [weightsLike(999, 1), weightsLike(999, 2)];
    const output = emptyOf(999, 'F64');
    const inputs = [storedAs(a, 'F64'), storedAs(b, 'F64')];
    combineElements(inputs, Float64Array.of(0.25, -3), output, allElements(999));
    const result = new Float64Array(999);
    loadElements(output.bytes, 'F64', 0, 999, result);
    const expected = a.map((value, i) => 0.25 * value - 3 * b[i]);
    expect(Math.max(...result.map((value, i) => Math.abs(value - expected[i])))).toBeLessThan(1e-15);
  });

  it('refuses lengths that disagree', () => {
    const x = emptyOf(4, 'F32');
    expect(() => combineElements([x], Float64Array.of(1), emptyOf(5, 'F32'), allElements(5))).toThrow(RangeError);
    expect(() => combineElements([x], Float64Array.of(1, 2), emptyOf(4, 'F32'), allElements(4))).toThrow(RangeError);
    expect(() => combineElements([], Float64Array.of(), emptyOf(4, 'F32'), allElements(4))).toThrow(RangeError);
  });
});

describe('gramOfElements', () => {
  it.each(MIXES)('gives the same bits everywhere (%s %s %s)', (...dtypes) => {
    const used = dtypes.filter((dtype) => dtype !== undefined);
    for (const [rows, columns] of [
      [1, 1],
      [3, 7],
      [5, 1029],
      [1, 17003],
      [90, 9],
    ]) {
      const inputs = inputsOf(rows * columns, used, false);
      for (const along of ['all', 'rows', 'columns'] as const) {
        for (const relative of [false, true]) {
          const groups = { rows, columns, along };
          expect(everywhere((threads) => gramOfElements(inputs, groups, { relative, threads }))).toHaveLength(1);
        }
      }
    }
  });

  it('squares a combination that cancels with nothing but its own rounding', () => {
    const a = weightsLike(50001, 1);
    const inputs = [
      storedAs(a, 'F32'),
      storedAs(
        a.map((value) => -2 * value),
        'F32',
      ),
      storedAs(a, 'F32'),
    ];
    const combination = Float64Array.of(1, 1, 1);
    const results = everywhere((threads) => gramOfElements(inputs, allElements(a.length), { combination, threads }));
    expect(results).toEqual([Buffer.from(new Float64Array(1).buffer).toString('base64')]);
  });

  it('is the matrix of dot products, of rows, columns and differences too', () => {
    const [rows, columns] = [4, 33];
    const values = [1, 2, 3].map((seed) => weightsLike(rows * columns, seed));
    const inputs = values.map((value) => storedAs(value, 'F64'));
    const random = createRandom(5);
    for (const along of ['all', 'rows', 'columns'] as const) {
      const groups = { rows, columns, along };
      const gram = gramOfElements(inputs, groups, { relative: true });
      const group = random.integer(groupCount(groups));
      let dot = 0;
      for (let i = 0; i < rows * columns; i++) {
        const of = along === 'all' ? 0 : along === 'rows' ? Math.floor(i / columns) : i % columns;
        if (of === group) dot += (values[1][i] - values[0][i]) * (values[2][i] - values[0][i]);
      }
      expect(gram[3 * group + 1]).toBeCloseTo(dot, 12);
    }
  });
});

describe('swapNear', () => {
  it('gives the same bits everywhere', () => {
    for (const dtypes of MIXES) {
      for (const elements of [0, 1, 1031, 5003]) {
        const [a, b] = inputsOf(elements, dtypes, true);
        const results = everywhere((threads) => {
          const output = emptyOf(elements, dtypes[1]);
          swapNear(a, b, 0.03, output, threads);
          return output.bytes;
        });
        expect(results).toHaveLength(1);
      }
    }
  });
});
