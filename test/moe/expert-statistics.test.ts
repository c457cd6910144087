import { describe, expect, it } from 'vitest';
import { addExpertStatistics, createExpertSums } from '../../src/moe/expert-statistics.js';
import type { ExpertStatistics } from '../../src/moe/types.js';
import { createRandom } from '../../src/random.js';

const SIZES = { experts: 3, hidden: 5, width: 4 };
const { experts: E, hidden: H, width: I } = SIZES;

interface Data {
  readonly rows: number;
  /** [rows, H], [E, rows, I], [E, rows, H]. */
  readonly x: Float64Array;
  readonly inner: Float64Array;
  readonly outputs: Float64Array;
  /** Expert of each row, with p and its share. */
  readonly chosen: Int32Array;
  readonly weights: Float64Array;
}

function dataOf(rows: number): Data {
  const random = createRandom(7);
  const normal = (length: number): Float64Array => Float64Array.from({ length }, () => random.normal());
  const weights = normal(rows).map((value) => 1 / (1 + Math.exp(value)));
  // Expert 2 sees nothing.
  const chosen = Int32Array.from({ length: rows }, (_, t) => (t * t) % 2);
  return { rows, x: normal(rows * H), inner: normal(E * rows * I), outputs: normal(E * rows * H), chosen, weights };
}

/** Adds rows from..to-1, in pieces of `step`. */
function collect(data: Data, from: number, to: number, step: number): ExpertStatistics {
  const sums = createExpertSums(4, SIZES, { everywhere: true, threads: 2 });
  for (let first = from; first < to; first += step) {
    const count = Math.min(step, to - first);
    const piece = (values: Float64Array, width: number, e: number): Float64Array =>
      values.subarray((e * data.rows + first) * width, (e * data.rows + first + count) * width);
    const x = data.x.subarray(first * H, (first + count) * H);
    sums.addInputs(x, count);
    const outputs = new Float64Array(E * count * H);
    for (let e = 0; e < E; e++) {
      const rows = Int32Array.from({ length: count }, (_, t) => t).filter((t) => data.chosen[first + t] === e);
      const weights = Float64Array.from(rows, (t) => data.weights[first + t]);
      const output = piece(data.outputs, H, e);
      outputs.set(output, e * count * H);
      const hidden = piece(data.inner, I, e);
      sums.addChosen(e, { inputs: { x, rows }, hidden, output, at: rows, weights, shares: weights.map((p) => 2 * p) });
    }
    sums.addEverywhere(outputs, count);
  }
  return sums.finish();
}

/** Every field by its definition. */
function plain({ rows, x, inner, outputs, chosen, weights }: Data): Record<string, number[]> {
  const tokens = Array.from({ length: rows }, (_, t) => t);
  const own = (e: number): number[] => tokens.filter((t) => chosen[t] === e);
  const sum = (values: number[]): number => values.reduce((a, b) => a + b, 0);
  const grid = (columns: number, value: (e: number, j: number) => number): number[] =>
    Array.from({ length: E * columns }, (_, at) => value(Math.floor(at / columns), at % columns));
  const output = (e: number, t: number): number[] => [...outputs.subarray((e * rows + t) * H, (e * rows + t + 1) * H)];
  const norm = (e: number, t: number): number => Math.hypot(...output(e, t));
  return {
    inputSum: grid(H, (e, j) => sum(own(e).map((t) => x[t * H + j]))),
    inputAbsoluteSum: grid(H, (e, j) => sum(own(e).map((t) => Math.abs(x[t * H + j])))),
    inputSquareSum: grid(H, (e, j) => sum(own(e).map((t) => x[t * H + j] ** 2))),
    hiddenSquareSum: grid(I, (e, j) => sum(own(e).map((t) => inner[(e * rows + t) * I + j] ** 2))),
    outputNormSum: grid(1, (e) => sum(own(e).map((t) => norm(e, t)))),
    weightedNormSum: grid(1, (e) => sum(own(e).map((t) => weights[t] * norm(e, t)))),
    renormalizedNormSum: grid(1, (e) => sum(own(e).map((t) => 2 * weights[t] * norm(e, t)))),
    weightSum: grid(1, (e) => sum(own(e).map((t) => weights[t]))),
    largestOutput: grid(1, (e) => Math.max(...own(e).flatMap((t) => output(e, t)))),
    largestMagnitude: grid(1, (e) => Math.max(0, ...own(e).flatMap((t) => output(e, t).map(Math.abs)))),
    allInputSquareSum: Array.from({ length: H }, (_, j) => sum(tokens.map((t) => x[t * H + j] ** 2))),
    outputSum: grid(H, (e, j) => sum(tokens.map((t) => output(e, t)[j]))),
    outputGram: grid(E, (i, j) => sum(tokens.flatMap((t) => output(i, t).map((v, c) => v * output(j, t)[c])))),
  };
}

function expectClose(found: ExpertStatistics, expected: Record<string, number[]>): void {
  const { everywhere, layer, ...rest } = found;
  expect(layer).toBe(4);
  const actual: Record<string, Float64Array | number> = { ...rest, ...everywhere };
  for (const [key, values] of Object.entries(expected)) {
    const entries = actual[key] as Float64Array;
    expect(entries.length, key).toBe(values.length);
    for (const [i, value] of values.entries()) {
      if (Number.isFinite(value)) expect(entries[i], `${key}[${i}]`).toBeCloseTo(value, 11);
      else expect(entries[i], `${key}[${i}]`).toBe(value);
    }
  }
}

describe('expert statistics', () => {
  const data = dataOf(50);

  it('are the sums of their definitions, also of an expert without tokens', () => {
    const found = collect(data, 0, 50, 50);
    expectClose(found, plain(data));
    expect(found.everywhere?.tokens).toBe(50);
    expect([found.largestOutput[2], found.largestMagnitude[2], found.weightSum[2]]).toEqual([-Infinity, 0, 0]);
  });

  it('are the same bits however the rows come', () => {
    const whole = collect(data, 0, 50, 50);
    for (const step of [1, 7, 16, 33]) expect(collect(data, 0, 50, step)).toEqual(whole);
  });

  it('of parts add up', () => {
    const united = addExpertStatistics(collect(data, 0, 21, 21), collect(data, 21, 50, 29));
    expectClose(united, plain(data));
    const { everywhere: _, ...routed } = united;
    expect(() => addExpertStatistics(united, routed)).toThrow(/layer 4.*one has no outputs of all experts/);
    expect(() => addExpertStatistics(united, { ...united, layer: 5 })).toThrow(/layers 4 and 5/);
  });

  it('refuse outputs that are not finite', () => {
    const sums = createExpertSums(4, SIZES);
    const output = new Float64Array(H).fill(Number.POSITIVE_INFINITY);
    expect(() => sums.addChosen(1, { output, at: [0], weights: [1], shares: [1] })).toThrow(/layer 4, expert 1/);
    expect(() => sums.addEverywhere(output, 1)).toThrow(RangeError);
  });
});
