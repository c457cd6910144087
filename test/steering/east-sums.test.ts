import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createRandom } from '../../src/random.js';
import { addStep, type Centring, createRunSums, eastVector, type RunSums } from '../../src/steering/east-sums.js';
import { norm } from '../../src/steering/vector-measures.js';

interface Run {
  readonly z: readonly Float64Array[];
  readonly h: readonly number[];
}

function randomRuns(seed: number, lengths: readonly number[], width = 5, offset = 0): Run[] {
  const random = createRandom(seed);
  return lengths.map((steps) => ({
    z: Array.from({ length: steps }, () => Float64Array.from({ length: width }, () => random.normal() + offset)),
    h: Array.from({ length: steps }, () => random.uniform()),
  }));
}

function sumsOf({ z, h }: Run, name = 'run'): RunSums {
  const sums = createRunSums(name, z[0].length);
  z.forEach((row, t) => {
    addStep(sums, row, h[t]);
  });
  return sums;
}

const east = (runs: readonly Run[], centring?: Centring): Float64Array =>
  eastVector(
    runs.map((run) => sumsOf(run)),
    centring,
  ).vector;

/** Equation 1 as it is written: two passes. */
function twoPasses(runs: readonly Run[]): Float64Array {
  const width = runs[0].z[0].length;
  const u = new Float64Array(width);
  let total = 0;
  for (const { z, h } of runs) {
    const mean = new Float64Array(width);
    for (const row of z) for (let i = 0; i < width; i++) mean[i] += row[i] / z.length;
    z.forEach((row, t) => {
      total += h[t];
      for (let i = 0; i < width; i++) u[i] += h[t] * (row[i] - mean[i]);
    });
  }
  return u.map((value) => value / total);
}

function expectClose(a: ArrayLike<number>, b: ArrayLike<number>, tolerance: number): void {
  let scale = 0;
  for (let i = 0; i < b.length; i++) scale = Math.max(scale, Math.abs(b[i]));
  for (let i = 0; i < b.length; i++) expect(Math.abs(a[i] - b[i])).toBeLessThanOrEqual(tolerance * scale);
}

const LENGTHS = [6, 1, 9, 4];

describe('the entropic direction', () => {
  const runs = randomRuns(1, LENGTHS);
  const u = east(runs);

  it('is equation 1', () => {
    expectClose(u, twoPasses(runs), 1e-13);
  });

  it('does not depend on the order of runs, on an offset of one run, or on the scale of the entropies', () => {
    expectClose(east([...runs].reverse()), u, 1e-12);
    const moved = runs.map((run, k) =>
      k === 2 ? { ...run, z: run.z.map((row) => row.map((x, i) => x + 3 * i)) } : run,
    );
    expectClose(east(moved), u, 1e-12);
    expectClose(east(runs.map(({ z, h }) => ({ z, h: h.map((value) => 7 * value) }))), u, 1e-12);
  });

  it('grows with the activations', () => {
    const doubled = runs.map(({ z, h }) => ({ h, z: z.map((row) => row.map((x) => 2 * x)) }));
    expectClose(
      east(doubled),
      u.map((x) => 2 * x),
      1e-12,
    );
  });

  it('is changed by a run of constant entropy, or of one step, through Z alone', () => {
    const { vector, totalEntropyNats } = eastVector(runs.map((run) => sumsOf(run)));
    for (const steps of [1, 5]) {
      const [extra] = randomRuns(5, [steps]);
      const constant = { z: extra.z, h: extra.z.map(() => 0.5) };
      const share = totalEntropyNats / (totalEntropyNats + 0.5 * steps);
      expectClose(
        east([...runs, constant]),
        vector.map((x) => x * share),
        1e-12,
      );
    }
  });

  it('is the covariance of entropy and activation, weighted by steps', () => {
    const one = randomRuns(3, [7])[0];
    const meanH = one.h.reduce((a, b) => a + b, 0) / 7;
    const meanZ = one.z[0].map((_, i) => one.z.reduce((sum, row) => sum + row[i], 0) / 7);
    const covariance = meanZ.map((mean, i) =>
      one.z.reduce((sum, row, t) => sum + ((one.h[t] - meanH) * (row[i] - mean)) / 7, 0),
    );
    expectClose(
      east([one]),
      covariance.map((value) => value / meanH),
      1e-12,
    );
  });

  it.each([0, 1e4])('in one pass equals two passes, with an offset of %d', (offset) => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 1e6 }), (seed) => {
        const given = randomRuns(seed, [9, 4, 6], 5, offset);
        const { vector } = eastVector(given.map((run) => sumsOf(run)));
        // 1e4 + x rounds x: the exact vector is that of the activations as they are stored.
        const exact = twoPasses(given.map(({ z, h }) => ({ h, z: z.map((row) => row.map((x) => x - offset)) })));
        expectClose(vector, exact, 1e-10);
        expect(norm(vector)).toBeGreaterThan(0);
      }),
      { numRuns: 25 },
    );
  });

  it('with other centrings is their plain sum', () => {
    const total = runs.reduce((sum, { h }) => sum + h.reduce((a, b) => a + b, 0), 0);
    const plain = (centre: (i: number) => number): Float64Array =>
      Float64Array.from(
        { length: 5 },
        (_, i) =>
          runs.reduce((sum, { z, h }) => sum + z.reduce((own, row, t) => own + h[t] * (row[i] - centre(i)), 0), 0) /
          total,
      );
    const rows = runs.flatMap(({ z }) => z);
    expectClose(
      east(runs, 'none'),
      plain(() => 0),
      1e-12,
    );
    expectClose(
      east(runs, 'global'),
      plain((i) => rows.reduce((sum, row) => sum + row[i], 0) / rows.length),
      1e-12,
    );
  });

  it('is refused where nothing follows', () => {
    const [run] = runs;
    expect(() => east([{ ...run, h: run.h.map(() => 0) }])).toThrow('every logged step chose one action');
    expect(() => east([{ ...run, h: run.h.map(() => 0.3) }])).toThrow('all prompts have the same entropy');
    expect(() => east(randomRuns(1, [1, 1, 1]))).toThrow('each of the 3 runs has one step');
    expect(() => east([{ z: run.z.map(() => run.z[0]), h: run.h }])).toThrow('no direction');
    expect(() => eastVector([])).toThrow('no logged step');
    const levels = runs.map(({ z }, k) => ({ z, h: z.map(() => 0.1 * (k + 1)) }));
    expect(() => east(levels)).toThrow('all prompts of a run have the same entropy');
  });

  it('names run and step of a value that is not finite', () => {
    const sums = createRunSums('7', 2);
    addStep(sums, [1, 2], 0.5);
    expect(() => addStep(sums, [1, Number.NaN], 0.5)).toThrow('run 7, step 2 of those counted: entry 1');
    expect(() => addStep(sums, [1, 2], Number.NaN)).toThrow('run 7');
    expect(() => addStep(sums, [1, 2], -1)).toThrow('0 or more');
    expect(() => addStep(sums, [1], 0.5)).toThrow('1 entries where 2');
  });
});
