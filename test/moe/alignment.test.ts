import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.js';
import { alignExpert, alignGroup, alignmentGains, expertDistance, permuteNeurons } from '../../src/moe/alignment.js';
import { runExpert } from '../../src/moe/expert-function.js';
import type { ExpertMatrices, ExpertShape } from '../../src/moe/types.js';
import { createRandom } from '../../src/random.js';
import { normals, randomExpert } from './random-experts.js';

const gated: ExpertShape = { hidden: 6, width: 9, gated: true, activation: 'silu' };
const plain: ExpertShape = { hidden: 6, width: 9, gated: false, activation: 'relu' };

const single = ({ gate, up, down }: ExpertMatrices): ExpertMatrices => ({
  ...(gate && { gate: Float32Array.from(gate) }),
  up: Float32Array.from(up),
  down: Float32Array.from(down),
});

/** Every permutation of 0..n-1. */
function permutations(n: number): Int32Array[] {
  if (n === 0) return [new Int32Array(0)];
  return permutations(n - 1).flatMap((rest) =>
    Array.from({ length: n }, (_, at) => Int32Array.from([...rest.subarray(0, at), n - 1, ...rest.subarray(at)])),
  );
}

describe.each([
  ['SwiGLU', gated],
  ['ReLU', plain],
] as const)('alignment of %s experts', (_, shape) => {
  const reference = randomExpert(shape, 1);
  const target = randomExpert(shape, 2);

  it('finds a planted permutation, and the expert comes to lie on its reference', () => {
    const planted = createRandom(7).permutation(shape.width);
    const { permutation, distanceBefore, distanceAfter, gain, bound, gap } = alignExpert(
      reference,
      permuteNeurons(reference, shape, planted),
      shape,
    );
    // Neuron planted[i] of the reference lies at i; it goes back to its place.
    planted.forEach((neuron, i) => {
      expect(permutation[neuron]).toBe(i);
    });
    expect(distanceBefore).toBeGreaterThan(1);
    expect(distanceAfter).toBe(0);
    expect(gap).toBeLessThanOrEqual(1e-9 * bound);
    expect(gain).toBeLessThanOrEqual(bound);
  });

  it('leaves the function of the aligned expert as it was, and brings it nearer', () => {
    const { permutation, distanceBefore, distanceAfter } = alignExpert(reference, target, shape);
    const aligned = permuteNeurons(target, shape, permutation);
    const x = normals(5 * shape.hidden, 9);
    const before = runExpert(target, shape, x, 5);
    runExpert(aligned, shape, x, 5).forEach((value, i) => {
      expect(value).toBeCloseTo(before[i], 12);
    });
    expect(distanceAfter).toBeLessThan(distanceBefore);
    expect(expertDistance(reference, aligned, shape)).toBeCloseTo(distanceAfter, 10);
    expect(expertDistance(reference, target, shape)).toBe(distanceBefore);
  });

  it('half of what the distance falls by is what the gain rises by', () => {
    const { gainBefore, gain, distanceBefore, distanceAfter } = alignExpert(reference, target, shape);
    expect(gain - gainBefore).toBeCloseTo((distanceBefore - distanceAfter) / 2, 10);
  });

  it('is the nearest of all permutations', () => {
    const small = { ...shape, hidden: 3, width: 5 };
    fc.assert(
      fc.property(fc.integer({ min: 10, max: 1000 }), (key) => {
        const [a, b] = [randomExpert(small, key), randomExpert(small, key + 1)];
        const distances = permutations(5).map((pi) => expertDistance(a, permuteNeurons(b, small, pi), small));
        expect(alignExpert(a, b, small).distanceAfter).toBeCloseTo(Math.min(...distances), 10);
      }),
      { numRuns: 10 },
    );
  });

  it('single precision gives the same permutation, in memory of the caller, with any number of threads', () => {
    const wide = { ...shape, hidden: 40, width: 90 };
    const [a, b] = [randomExpert(wide, 3), randomExpert(wide, 4)];
    const double = alignExpert(a, b, wide).permutation;
    const gains = new Float32Array(90 * 90).fill(Number.NaN);
    expect(alignExpert(single(a), single(b), wide, { gains, threads: 1 }).permutation).toEqual(double);
    expect(alignExpert(single(a), single(b), wide, { threads: 3 }).permutation).toEqual(double);
    const again = alignmentGains(single(a), single(b), wide, { threads: 3 });
    expect(again.every((value, at) => value === gains[at])).toBe(true);
  });

  it('greedy gives a permutation whose gain is below the optimum and above none', () => {
    const wide = { ...shape, hidden: 10, width: 60 };
    const [a, b] = [randomExpert(wide, 5), randomExpert(wide, 6)];
    const best = alignExpert(a, b, wide);
    const greedy = alignExpert(a, b, wide, { mode: 'greedy' });
    expect(greedy.gain).toBeLessThan(best.gain);
    expect(greedy.gain).toBeGreaterThan(0.9 * best.gain);
    expect(greedy.bound).toBeGreaterThanOrEqual(best.gain * (1 - 1e-12));
  });
});

describe('gains', () => {
  it('are inner products of neurons, term by term', () => {
    const [a, b] = [randomExpert(gated, 1), randomExpert(gated, 2)];
    const { hidden: H, width: I } = gated;
    const term = (name: 'gate' | 'up' | 'down', i: number, j: number): number => {
      let sum = 0;
      for (let h = 0; h < H; h++) {
        const at = (neuron: number): number => (name === 'down' ? h * I + neuron : neuron * H + h);
        sum += (a[name] ?? a.up)[at(i)] * (b[name] ?? b.up)[at(j)];
      }
      return sum;
    };
    const norm = (values: ArrayLike<number>): number => Math.hypot(...Array.from(values));
    const all = alignmentGains(a, b, gated);
    const readers = alignmentGains(a, b, gated, { includeDown: false });
    const balanced = alignmentGains(a, b, gated, { balance: true });
    for (const [i, j] of [
      [0, 0],
      [3, 7],
      [8, 1],
    ]) {
      const [g, u, d] = (['gate', 'up', 'down'] as const).map((name) => term(name, i, j));
      expect(readers[i * I + j]).toBeCloseTo(g + u, 12);
      expect(all[i * I + j]).toBeCloseTo(g + u + d, 12);
      const shares = (['gate', 'up', 'down'] as const).map((name) => norm(a[name] ?? []) * norm(b[name] ?? []));
      expect(balanced[i * I + j]).toBeCloseTo(g / shares[0] + u / shares[1] + d / shares[2], 12);
    }
  });

  it('balanced, a matrix of zeros has no say', () => {
    const a = randomExpert(plain, 1);
    const zero = { up: a.up, down: new Float64Array(a.down.length) };
    const gains = alignmentGains(a, zero, plain, { balance: true });
    expect(gains.every(Number.isFinite)).toBe(true);
  });

  it('dead neurons stay in their order', () => {
    const dead = { up: new Float64Array(54), down: new Float64Array(54) };
    expect([...alignExpert(randomExpert(plain, 1), dead, plain).permutation]).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
  });

  it('a group is aligned to one of its experts, which stays', () => {
    const experts = [1, 2, 3].map((key) => randomExpert(gated, key));
    const alignments = alignGroup(experts, 1, gated);
    expect([...alignments[1].permutation]).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
    expect(alignments[2]).toEqual(alignExpert(experts[1], experts[2], gated));
  });
});

describe('what does not fit', () => {
  const a = randomExpert(gated, 1);

  it('memory: the modes that would fit are named', () => {
    expect(() => alignExpert(a, a, gated, { maxBytes: 100 })).toThrow(InputError);
  });

  it('weights that are no numbers', () => {
    const broken = { ...a, up: a.up.slice().fill(Number.NaN, 5, 6) };
    expect(() => alignExpert(a, broken, gated)).toThrow(InputError);
  });

  it('shapes and permutations', () => {
    expect(() => alignExpert(a, randomExpert(plain, 1), gated)).toThrow('the target lacks a gate matrix');
    expect(() => alignExpert(a, a, plain)).toThrow('the reference has a gate matrix, its layer has none');
    expect(() => alignExpert(a, a, { ...gated, width: 8 })).toThrow('54 entries where [8, 6] has 48');
    expect(() => permuteNeurons(a, gated, Int32Array.of(0, 1))).toThrow('a permutation of 2 neurons, not 9');
    const twice = Int32Array.of(0, 1, 2, 3, 4, 5, 6, 7, 7);
    expect(() => permuteNeurons(a, gated, twice)).toThrow('holds 7 twice');
    expect(() =>
      permuteNeurons(
        a,
        gated,
        twice.map((place) => place + 2),
      ),
    ).toThrow('holds 9');
  });
});
