import { describe, expect, it } from 'vitest';
import { permuteNeurons } from '../../src/moe/alignment.js';
import { createCombination, createFisherCombination, memberWeights } from '../../src/moe/combine.js';
import type { ExpertMatrices, ExpertShape } from '../../src/moe/types.js';
import { createRandom } from '../../src/random.js';
import { randomExpert } from './random-experts.js';

const shape: ExpertShape = { hidden: 5, width: 7, gated: true, activation: 'silu' };
const plain: ExpertShape = { ...shape, gated: false, activation: 'relu' };

const single = ({ gate, up, down }: ExpertMatrices): ExpertMatrices => ({
  ...(gate && { gate: Float32Array.from(gate) }),
  up: Float32Array.from(up),
  down: Float32Array.from(down),
});

function close(actual: ArrayLike<number> | undefined, expected: ArrayLike<number>): void {
  expect(actual?.length).toBe(expected.length);
  for (let i = 0; i < expected.length; i++) expect(actual?.[i]).toBeCloseTo(expected[i], 12);
}

describe('weighted mean', () => {
  const [a, b, c] = [1, 2, 3].map((key) => randomExpert(shape, key));

  it('is sum w W / sum w in every matrix, and / (sum w + epsilon) as the released code has it', () => {
    for (const epsilon of [0, 1e-3]) {
      const sum = createCombination(shape);
      sum.add(a, 0.2);
      sum.add(b, 0.5);
      sum.add(c, 0.1);
      const merged = sum.finish(epsilon);
      for (const name of ['gate', 'up', 'down'] as const) {
        const [x, y, z] = [a, b, c].map((expert) => expert[name] ?? expert.up);
        close(
          merged[name],
          x.map((value, i) => (0.2 * value + 0.5 * y[i] + 0.1 * z[i]) / (0.8 + epsilon)),
        );
      }
    }
  });

  it('takes neurons in the order of a permutation', () => {
    const permutation = createRandom(1).permutation(shape.width);
    const sum = createCombination(shape);
    sum.add(a, 1);
    sum.add(b, 3, permutation);
    const merged = sum.finish();
    sum.add(a, 1);
    sum.add(permuteNeurons(b, shape, permutation), 3);
    expect(merged).toEqual(sum.finish());
  });

  it('of one expert, or of equal ones, is that expert to the last bit', () => {
    const sum = createCombination(plain);
    const one = single(randomExpert(plain, 4));
    sum.add(one, 0.0371);
    expect(sum.finish()).toEqual(one);
    for (const weight of [0.02, 0.31, 0.11]) sum.add(one, weight);
    expect(sum.finish()).toEqual(one);
    const double = randomExpert(plain, 4);
    sum.add(double, 0.0371);
    expect(sum.finish()).toEqual(double);
  });

  it('the released epsilon shrinks an expert that is alone', () => {
    const sum = createCombination(plain);
    const one = randomExpert(plain, 4);
    sum.add(one, 0.02);
    close(
      sum.finish(1e-3).up,
      one.up.map((value) => (0.02 / 0.021) * value),
    );
  });

  it('a member of weight 0 says nothing, even infinity', () => {
    const sum = createCombination(plain);
    const infinite = { up: new Float64Array(35).fill(Number.POSITIVE_INFINITY), down: new Float64Array(35) };
    const one = randomExpert(plain, 4);
    sum.add(infinite, 0);
    sum.add(one, 0.5);
    expect(sum.finish()).toEqual(one);
  });

  it('does not depend on threads, and begins anew after each mean', () => {
    const results = [1, 3].map((threads) => {
      const sum = createCombination(shape, { threads });
      sum.add(single(c), 2);
      sum.finish();
      sum.add(single(a), 0.3);
      sum.add(single(b), 0.6);
      return sum.finish();
    });
    expect(results[0]).toEqual(results[1]);
    expect(results[0].up).toBeInstanceOf(Float32Array);
  });

  it('may take the memory of a member', () => {
    const sum = createCombination(shape);
    const [own, other] = [single(a), single(b)];
    sum.add(own, 0.3);
    sum.add(other, 0.6);
    const expected = sum.finish();
    sum.add(own, 0.3);
    sum.add(other, 0.6);
    const merged = sum.finish(0, own);
    expect(merged).toEqual(expected);
    expect(merged.up).toBe(own.up);
    sum.add(b, 1);
    expect(() => sum.finish(0, randomExpert(plain, 1))).toThrow('the memory of the mean lacks a gate matrix');
  });

  it('refuses nothing, weights that are no weights, and other shapes', () => {
    const sum = createCombination(shape);
    expect(() => sum.finish()).toThrow('a mean of no experts');
    sum.add(a, 0);
    expect(() => sum.finish()).toThrow('weights are all zero');
    expect(() => sum.add(a, -1)).toThrow("a member's weight is -1");
    expect(() => sum.add(a, Number.NaN)).toThrow("a member's weight is NaN");
    expect(() => sum.add(randomExpert(plain, 1), 1)).toThrow('lacks a gate');
  });
});

describe('weights of members', () => {
  const usage = [0.4, 0, 0.35, 0.25];

  it('by usage, alike, reversed, of the dominant alone', () => {
    expect([...memberWeights('usage', usage, [0, 2, 3]).weights]).toEqual([0.4, 0.35, 0.25]);
    expect([...memberWeights('mean', usage, [0, 2]).weights]).toEqual([1, 1]);
    expect([...memberWeights('reversed', usage, [0, 1]).weights]).toEqual([0.6, 1]);
    expect([...memberWeights('dominant', usage, [0, 2, 3], { dominant: 2 }).weights]).toEqual([0, 1, 0]);
  });

  it('random ones are positive and follow their stream', () => {
    const draw = (): Float64Array => memberWeights('random', usage, [0, 1, 2], { random: createRandom(4) }).weights;
    expect(draw()).toEqual(draw());
    expect(draw().every((weight) => weight > 0 && weight <= 1)).toBe(true);
  });

  it('a group that was never used gets equal weights, and says so', () => {
    const { weights, warning } = memberWeights('usage', [0, 0, 1], [0, 1]);
    expect([...weights]).toEqual([1, 1]);
    expect(warning).toContain('experts 0, 1 all have weight 0');
  });

  it('wants what it needs', () => {
    expect(() => memberWeights('random', usage, [0])).toThrow('stream of numbers');
    expect(() => memberWeights('dominant', usage, [0, 1], { dominant: 3 })).toThrow('the dominant 3 is no member');
  });
});

describe('Fisher-weighted mean', () => {
  const [a, b] = [1, 2].map((key) => randomExpert(plain, key));
  const filled = (up: number, down: number): ExpertMatrices => ({
    up: new Float64Array(35).fill(up),
    down: new Float64Array(35).fill(down),
  });

  it('weighs entry by entry; entries without information get the plain mean', () => {
    const fisher = [filled(1, 0), filled(3, 0)];
    fisher[0].up[4] = 0;
    const sum = createFisherCombination(plain);
    sum.add(a, fisher[0]);
    sum.add(b, fisher[1]);
    const merged = sum.finish();
    close(
      merged.up,
      a.up.map((value, i) => (i === 4 ? b.up[i] : (value + 3 * b.up[i]) / 4)),
    );
    close(
      merged.down,
      a.down.map((value, i) => (value + b.down[i]) / 2),
    );
  });

  it('has the epsilon of the released code', () => {
    const sum = createFisherCombination(plain);
    sum.add(a, filled(1, 1));
    close(
      sum.finish(1e-6).up,
      a.up.map((value) => value / (1 + 1e-6)),
    );
  });

  it('permutes information with its expert', () => {
    const permutation = createRandom(1).permutation(plain.width);
    const fisher = { up: a.up.map(Math.abs), down: b.down.map(Math.abs) };
    const [left, right] = [createFisherCombination(plain), createFisherCombination(plain)];
    left.add(b, fisher, permutation);
    left.add(a, filled(1, 1));
    right.add(permuteNeurons(b, plain, permutation), permuteNeurons(fisher, plain, permutation));
    right.add(a, filled(1, 1));
    expect(left.finish()).toEqual(right.finish());
  });

  it('refuses negative information', () => {
    expect(() => createFisherCombination(plain).add(a, filled(-1, 1))).toThrow('Fisher information -1');
  });
});
