import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { SteeringVectors, VectorOrigin } from '../../src/steering/types.js';
import {
  averageBlocks,
  chooseBlocks,
  combineVectors,
  cosineMatrix,
  mergeBlocks,
  type NamedVectors,
  orthogonalise,
  unitVectors,
} from '../../src/steering/vector-algebra.js';
import { dot, norm } from '../../src/steering/vector-measures.js';

const named = (name: string, directions: Record<number, number[]>, origin: VectorOrigin = {}): NamedVectors => {
  const map = new Map(Object.entries(directions).map(([block, list]) => [Number(block), Float32Array.from(list)]));
  return { name, vectors: { hiddenSize: [...map.values()][0].length, directions: map, origin, assumptions: [] } };
};
const plain = ({ directions }: SteeringVectors): unknown => [...directions].map(([block, v]) => [block, [...v]]);
const vector = (): fc.Arbitrary<number[]> =>
  fc.array(fc.double({ min: -10, max: 10, noNaN: true }), { minLength: 5, maxLength: 5 });

describe('algebra of vectors', () => {
  it('adds, subtracts and scales block by block', () => {
    const a = named('a', { 1: [1, 2], 3: [4, 5] }, { modelType: 'llama', method: 'east', scale: 'raw' });
    const b = named('b', { 1: [10, 20], 2: [7, 8] }, { modelType: 'llama', method: 'lat' });
    const sum = combineVectors([
      { ...a, weight: 1 },
      { ...b, weight: -0.5 },
    ]);
    expect(plain(sum)).toEqual([
      [1, [-4, -8]],
      [2, [-3.5, -4]],
      [3, [4, 5]],
    ]);
    expect(sum.origin).toEqual({ modelType: 'llama', scale: 'combined' });
    expect(() => combineVectors([{ ...a, weight: 1e39 }])).toThrow(/too large/);
  });

  it('takes out the span of others', () => {
    fc.assert(
      fc.property(vector(), vector(), vector(), (x, p, q) => {
        const others = [named('p', { 2: p }), named('q', { 2: q })];
        try {
          const rest = orthogonalise(named('x', { 2: x }), others).directions.get(2) ?? new Float32Array();
          for (const { vectors } of others) {
            const other = vectors.directions.get(2) ?? new Float32Array();
            expect(Math.abs(dot(rest, other))).toBeLessThanOrEqual(1e-6 * norm(other) * Math.max(norm(x), 1e-30));
          }
        } catch (error) {
          expect((error as Error).message).toMatch(/nothing is left/);
        }
      }),
      { numRuns: 200 },
    );
    const x = named('x', { 1: [1, 1, 0] });
    expect(plain(orthogonalise(x, [named('p', { 1: [3, 0, 0] }), named('q', { 1: [6, 0, 0] })]))).toEqual([
      [1, [0, 1, 0]],
    ]);
    expect(() => orthogonalise(x, [named('p', { 1: [-2, -2, 0] })])).toThrow(/nothing is left/);
    expect(() => orthogonalise(x, [named('p', { 2: [1, 0, 0] })])).toThrow(/block 1/);
  });

  it('unites blocks, averages them, chooses among them', () => {
    const a = named('a', { 4: [1, 2] }, { layers: 8 });
    const b = named('b', { 2: [3, 6] }, { layers: 8 });
    expect(plain(mergeBlocks([a, b]))).toEqual([
      [2, [3, 6]],
      [4, [1, 2]],
    ]);
    expect(() => mergeBlocks([a, a])).toThrow(/both have a vector for block 4/);
    expect(plain(averageBlocks([a, b], 3))).toEqual([[3, [2, 4]]]);
    expect(() => averageBlocks([a, b], 8)).toThrow(/0 to 7/);
    expect(plain(chooseBlocks({ name: 'm', vectors: mergeBlocks([a, b]) }, [4]))).toEqual([[4, [1, 2]]]);
    expect(() => chooseBlocks(a, [5])).toThrow(/it holds 4/);
  });

  it('normalises, and compares every vector with every other', () => {
    const a = named('a', { 1: [3, 4], 0: [-6, -8] });
    expect(plain(unitVectors(a))).toEqual([
      [0, [Math.fround(-0.6), Math.fround(-0.8)]],
      [1, [Math.fround(0.6), Math.fround(0.8)]],
    ]);
    expect(() => unitVectors(named('z', { 1: [0, 0] }))).toThrow(/zero/);
    const { entries, cosines } = cosineMatrix([a, named('b', { 5: [4, -3] })]);
    expect(entries).toEqual([
      { name: 'a', block: 0, norm: 10 },
      { name: 'a', block: 1, norm: 5 },
      { name: 'b', block: 5, norm: 5 },
    ]);
    expect([...cosines]).toEqual(
      [1, -1, 0, -1, 1, 0, 0, 0, 1].map((value) => (value === 0 ? expect.closeTo(0) : value)),
    );
  });

  it.each([
    [{ modelType: 'qwen2' }, [1, 2]],
    [{ modelSha256: 'b' }, [1, 2]],
    [{ layers: 9 }, [1, 2]],
    [{}, [1, 2, 3]],
  ])('refuses vectors of different models: %j', (origin, list) => {
    const a = named('a', { 1: [1, 2] }, { modelType: 'llama', layers: 8, modelSha256: 'a' });
    const other = named('b', { 1: list }, origin);
    expect(() =>
      combineVectors([
        { ...a, weight: 1 },
        { ...other, weight: 1 },
      ]),
    ).toThrow(/model/);
    expect(() => cosineMatrix([a, other])).toThrow(/model/);
  });
});
