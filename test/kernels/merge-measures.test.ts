import { afterAll, describe, expect, it } from 'vitest';
import type { StoredElements } from '../../src/kernels/merge-dense.js';
import type { MergeElementType } from '../../src/kernels/merge-elements-reference.js';
import {
  importances,
  importancesAtRanks,
  importancesByDigits,
  rowDivergences,
  takeImportant,
} from '../../src/kernels/merge-importance.js';
import { addMeasures, measureTensor, nonFinite } from '../../src/kernels/merge-measures.js';
import { kernelModes, useBestKernels } from './kernel-modes.js';
import { emptyOf, MERGE_TYPES, storedAs, weightsLike } from './stored-elements.js';

afterAll(useBestKernels);

const modes = kernelModes();

/** What every implementation gives, with one and with three threads; one entry if all agree. */
function everywhere(work: (threads: number) => unknown): string[] {
  const found = new Set<string>();
  for (const mode of modes) {
    mode.use();
    for (const threads of mode.name === 'typescript' ? [1] : [1, 3]) {
      found.add(JSON.stringify(work(threads), (_, value) => (typeof value === 'number' ? String(value) : value)));
    }
  }
  return [...found];
}

const part = (tensor: StoredElements, from: number, to: number): StoredElements => {
  const width = { F64: 8, F32: 4, F16: 2, BF16: 2 }[tensor.dtype];
  return { dtype: tensor.dtype, bytes: tensor.bytes.subarray(from * width, to * width) };
};

describe('measureTensor', () => {
  const dtypes: readonly MergeElementType[] = ['BF16', 'F32', 'F16', 'BF16'];

  it('gives the same bits everywhere, with and without base and merged', () => {
    for (const elements of [0, 1, 1031, 17003]) {
      for (const wide of [false, true]) {
        const [base, a, b, merged] = dtypes.map((dtype, i) =>
          storedAs(weightsLike(elements, i + 1), wide && i === 1 ? 'F64' : dtype),
        );
        for (const request of [
          { base, models: [a, b], weights: [1, -0.5], merged },
          { models: [a, b, base] },
          { base, models: [a] },
        ]) {
          expect(everywhere((threads) => measureTensor({ ...request, threads }))).toHaveLength(1);
        }
      }
    }
  });

  it('counts NaN and infinite values, and finds the first', () => {
    const x = weightsLike(20003, 1);
    x[17001] = Number.POSITIVE_INFINITY;
    x[17002] = Number.NaN;
    x[19999] = Number.NaN;
    for (const dtype of MERGE_TYPES) {
      const bad = storedAs(x, dtype);
      const good = storedAs(weightsLike(20003, 2), dtype);
      const results = everywhere((threads) => [
        nonFinite(bad, threads),
        measureTensor({ base: good, models: [good, bad], threads }).modelBad[1],
        nonFinite(good, threads),
      ]);
      const found = { nan: 2, infinite: 1, first: 17001 };
      const expected = [found, found, { nan: 0, infinite: 0, first: -1 }];
      expect(results.map((text) => JSON.parse(text))).toEqual([
        expected.map((bad) => Object.fromEntries(Object.entries(bad).map(([key, value]) => [key, String(value)]))),
      ]);
    }
  });

  it('is what plain sums give', () => {
    const [base, a, b, merged] = [1, 2, 3, 4].map((seed) => weightsLike(501, seed));
    a[3] = base[3];
    const stored = [base, a, b, merged].map((x) => storedAs(x, 'F64'));
    const found = measureTensor({
      base: stored[0],
      models: [stored[1], stored[2]],
      weights: [1, -2],
      merged: stored[3],
    });
    const sum = (term: (i: number) => number): number => base.reduce((total, _, i) => total + term(i), 0);
    expect(found.squares[1]).toBeCloseTo(
      sum((i) => b[i] ** 2),
      12,
    );
    expect(found.dots[1]).toBeCloseTo(
      sum((i) => (a[i] - base[i]) * (b[i] - base[i])),
      12,
    );
    expect(found.changeSquares).toBeCloseTo(
      sum((i) => (merged[i] - base[i]) ** 2),
      12,
    );
    expect(found.conflicts).toBe(sum((i) => Number((a[i] - base[i]) * (-2 * (b[i] - base[i])) < 0)));
    expect(found.compared).toBe(500);
  });

  it('adds up over parts', () => {
    const tensors = [1, 2, 3].map((seed) => storedAs(weightsLike(3000, seed), 'F32'));
    const of = (from: number, to: number) => {
      const [base, model, merged] = tensors.map((tensor) => part(tensor, from, to));
      return measureTensor({ base, models: [model], merged });
    };
    const [whole, added] = [of(0, 3000), addMeasures(of(0, 1100), of(1100, 3000))];
    expect(added.elements).toBe(3000);
    expect(added.conflicts).toBe(whole.conflicts);
    expect(added.changeSquares).toBeCloseTo(whole.changeSquares ?? 0, 12);
    expect(added.dots[0]).toBeCloseTo(whole.dots[0], 12);
  });
});

describe('importance', () => {
  it('gives the same bits everywhere', () => {
    for (const [rows, columns] of [
      [1, 1],
      [3, 7],
      [40, 129],
      [2, 40001],
    ]) {
      for (const dtype of MERGE_TYPES) {
        const elements = rows * columns;
        const a = storedAs(weightsLike(elements, 1), dtype);
        const b = storedAs(weightsLike(elements, 2), dtype === 'F64' ? 'F32' : 'BF16');
        const results = everywhere((threads) => {
          const divergences = rowDivergences(a, b, rows, threads);
          const ranks = [0, 0.25, 1].map((q) => Math.floor(q * (elements - 1)));
          const cuts = importancesAtRanks(a, b, divergences, ranks, threads);
          const output = emptyOf(elements, 'F32');
          const taken = takeImportant(a, b, divergences, cuts[1], output, threads);
          const all = importances(a, b, divergences, threads);
          return [
            [...divergences],
            cuts,
            taken,
            Buffer.from(output.bytes).toString('base64'),
            Buffer.from(all.buffer).toString('base64'),
          ];
        });
        expect(results).toHaveLength(1);
      }
    }
  });

  it('finds the order statistics that sorting finds, ties and NaN among them', () => {
    const a = weightsLike(5000, 1).map((x) => Math.round(x * 40) / 40);
    const b = weightsLike(5000, 2).map((x) => Math.round(x * 40) / 40);
    b[7] = Number.NaN;
    const [x, y] = [storedAs(a, 'F32'), storedAs(b, 'F32')];
    const divergences = rowDivergences(x, y, 50);
    const all = importances(x, y, divergences);
    const sorted = [...all].sort((p, q) => (Number.isNaN(p) ? 1 : Number.isNaN(q) ? -1 : p - q));
    const ranks = [0, 1249, 2499];
    expect(importancesAtRanks(x, y, divergences, ranks)).toEqual(ranks.map((rank) => sorted[rank]));
    expect(importancesAtRanks(x, y, divergences, [4999])).toEqual([Number.NaN]);
    const counted = everywhere((threads) => importancesByDigits(x, y, divergences, [...ranks, 4999].slice(1), threads));
    expect(counted).toEqual([JSON.stringify([sorted[1249], sorted[2499], Number.NaN].map(String))]);
  });

  it('is the divergence of softmax rows', () => {
    const columns = 300;
    const [a, b] = [weightsLike(2 * columns, 1).map((x) => 100 * x), weightsLike(2 * columns, 2).map((x) => 100 * x)];
    const softmax = (x: Float64Array): Float64Array => {
      const e = x.map((value) => Math.exp(value - Math.max(...x)));
      const total = e.reduce((sum, value) => sum + value, 0);
      return e.map((value) => value / total + 1e-8);
    };
    const found = rowDivergences(storedAs(a, 'F64'), storedAs(b, 'F64'), 2);
    for (const row of [0, 1]) {
      const [q, p] = [a, b].map((x) => softmax(x.subarray(row * columns, (row + 1) * columns)));
      const expected = p.reduce((sum, value, i) => sum + value * Math.log(value / q[i]), 0);
      expect(found[row] / expected).toBeCloseTo(1, 12);
    }
  });
});
