import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  type AdamStep,
  adamStep,
  addInto,
  type DecaySegments,
  lionStep,
  momentumStep,
  scaleBuffer,
  sumOfSquares,
} from '../../src/kernels/optimizer-steps.js';
import {
  adamStepReference,
  lionStepReference,
  momentumStepReference,
  SQUARES_BLOCK,
  squaresOfBlocksReference,
} from '../../src/kernels/optimizer-steps-reference.js';
import { createRandom } from '../../src/random.js';
import { kernelModes, useBestKernels } from './kernel-modes.js';

type Reals = Float32Array | Float64Array;

const LENGTHS = [0, 1, 31, 1003, 33001];

/** Normals of magnitudes from subnormal to large, with zeros of both signs among them. */
function spread<T extends Reals>(array: T, seed: number): T {
  const random = createRandom(seed);
  for (let i = 0; i < array.length; i++) {
    const kind = random.integer(12);
    const wide = array instanceof Float32Array ? 44 : 315;
    array[i] = random.normal() * (kind === 0 ? 10 ** -(random.uniform() * wide) : kind === 1 ? 0 : 1);
  }
  return array;
}

/** Uneven stretches, an empty one among them. */
function stretches(n: number): DecaySegments {
  const ends = [Math.floor(n / 5), Math.floor(n / 5), Math.floor(n / 2), n];
  return { ends: Float64Array.from(ends), factors: Float64Array.from([0.9995, 7, 1, 0.37]) };
}

const same = (a: Reals, b: Reals): boolean =>
  Buffer.from(a.buffer, a.byteOffset, a.byteLength).equals(Buffer.from(b.buffer, b.byteOffset, b.byteLength));

interface Buffers {
  readonly values: Reals;
  readonly gradients: Reals;
  readonly first: Reals;
  readonly second: Reals;
}

function buffersOf(Kind: typeof Float32Array | typeof Float64Array, n: number): Buffers {
  const second = spread(new Kind(n), 4);
  for (let i = 0; i < n; i++) second[i] = Math.abs(second[i]);
  return {
    values: spread(new Kind(n), 1),
    gradients: spread(new Kind(n), 2),
    first: spread(new Kind(n), 3),
    second,
  };
}

const copies = (b: Buffers): Buffers => ({
  values: b.values.slice(),
  gradients: b.gradients.slice(),
  first: b.first.slice(),
  second: b.second.slice(),
});

const ADAM: AdamStep = {
  gradientScale: 0.013,
  beta1: 0.9,
  beta2: 0.999,
  epsilon: 1e-8,
  stepSize: 0.0031,
  rootScale: 1.7,
  coupled: false,
  clear: false,
};
const STEP = { gradientScale: 0.013, learningRate: 0.01, clear: false };

/** Each step beside its reference. */
const STEPS: readonly [string, (b: Buffers, s: DecaySegments, threads?: number) => void][] = [
  ...[false, true].flatMap((coupled) =>
    [false, true].map((clear): (typeof STEPS)[number] => [
      `adam coupled ${coupled} clear ${clear}`,
      (b, s, threads) =>
        threads === undefined
          ? adamStepReference(b.values, b.gradients, b.first, b.second, s, { ...ADAM, coupled, clear })
          : adamStep(b.values, b.gradients, b.first, b.second, s, { ...ADAM, coupled, clear }, threads),
    ]),
  ),
  ...[false, true].map((nesterov): (typeof STEPS)[number] => [
    `momentum nesterov ${nesterov}`,
    (b, s, threads) => {
      const step = { ...STEP, momentum: 0.9, nesterov, clear: nesterov };
      if (threads === undefined) momentumStepReference(b.values, b.gradients, b.first, s, step);
      else momentumStep(b.values, b.gradients, b.first, s, step, threads);
    },
  ]),
  [
    'descent',
    (b, s, threads) => {
      const step = { ...STEP, momentum: 0, nesterov: false };
      if (threads === undefined) momentumStepReference(b.values, b.gradients, undefined, s, step);
      else momentumStep(b.values, b.gradients, undefined, s, step, threads);
    },
  ],
  [
    'lion',
    (b, s, threads) => {
      const step = { ...STEP, beta1: 0.9, beta2: 0.99 };
      if (threads === undefined) lionStepReference(b.values, b.gradients, b.first, s, step);
      else lionStep(b.values, b.gradients, b.first, s, step, threads);
    },
  ],
];

describe.each(kernelModes())('steps of optimisers, $name', ({ use }) => {
  beforeAll(use);
  afterAll(useBestKernels);

  it.each(STEPS)('%s: the bits of the reference, whatever the number of threads', (_, step) => {
    for (const Kind of [Float32Array, Float64Array]) {
      for (const n of LENGTHS) {
        const start = buffersOf(Kind, n);
        const expected = copies(start);
        step(expected, stretches(n));
        for (const threads of [1, 3]) {
          const actual = copies(start);
          step(actual, stretches(n), threads);
          for (const name of ['values', 'gradients', 'first', 'second'] as const)
            expect(same(actual[name], expected[name]), `${name} of ${n}`).toBe(true);
        }
      }
    }
  });

  it('keeps NaN in sight and no subnormal moment', () => {
    const n = 40;
    const b = buffersOf(Float32Array, n);
    b.first.fill(1e-39);
    b.second.fill(1e-40);
    b.gradients.fill(0);
    b.gradients[5] = Number.NaN;
    adamStep(b.values, b.gradients, b.first, b.second, stretches(n), ADAM);
    for (let i = 0; i < n; i++) {
      if (i === 5) expect([b.values[i], b.first[i], b.second[i]]).toEqual([Number.NaN, Number.NaN, Number.NaN]);
      else expect([b.first[i], b.second[i]]).toEqual([0, 0]);
    }
  });

  it('squares, sums and factors by their definitions', () => {
    for (const Kind of [Float32Array, Float64Array]) {
      for (const n of [...LENGTHS, SQUARES_BLOCK, SQUARES_BLOCK + 1]) {
        const x = spread(new Kind(n), 6);
        const blocks = new Float64Array(Math.ceil(n / SQUARES_BLOCK));
        squaresOfBlocksReference(x, blocks);
        let expected = 0;
        for (const block of blocks) expected += block;
        let plain = 0;
        for (const value of x) plain += value * value;
        for (const threads of [1, 3]) expect(sumOfSquares(x, threads)).toBe(expected);
        expect(Math.abs(expected - plain)).toBeLessThanOrEqual(1e-12 * plain);
        const y = spread(new Kind(n), 7);
        const sum = x.slice();
        addInto(sum, y, 3);
        for (let i = 0; i < n; i++) y[i] += x[i];
        expect(same(sum, y)).toBe(true);
        const scaled = x.slice();
        scaleBuffer(scaled, 1 / 3, 3);
        const factor = x instanceof Float32Array ? Math.fround(1 / 3) : 1 / 3;
        for (let i = 0; i < n; i++) x[i] *= factor;
        expect(same(scaled, x)).toBe(true);
      }
    }
  });

  it('refuses buffers that do not fit', () => {
    const b = buffersOf(Float64Array, 8);
    const adam = (values: Reals, segments: DecaySegments): void =>
      adamStep(values, b.gradients, b.first, b.second, segments, ADAM);
    expect(() => adam(new Float64Array(7), stretches(7))).toThrow('buffers of 7 and 8');
    expect(() => adam(new Float32Array(8), stretches(8))).toThrow('two precisions');
    expect(() => adam(b.values, stretches(9))).toThrow('stretches of 9 entries over 8');
    const backwards = { ends: Float64Array.from([8, 3]), factors: Float64Array.from([1, 1]) };
    expect(() => adam(b.values, backwards)).toThrow('behind one');
    expect(() => addInto(b.values, new Float64Array(3))).toThrow(RangeError);
  });
});
