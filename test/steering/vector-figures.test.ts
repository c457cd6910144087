import { describe, expect, it } from 'vitest';
import { createRandom } from '../../src/random.js';
import { memoryStore } from '../../src/steering/activation-store.js';
import { contrastVector } from '../../src/steering/contrast-vectors.js';
import { permutedVector, randomVector, shuffledVector } from '../../src/steering/controls.js';
import { entropyQuartiles } from '../../src/steering/entropy-quartiles.js';
import { contrastOfSteps, eastLayer, type StepTable } from '../../src/steering/entropy-vectors.js';
import { areaUnderCurve, clusteredCorrelation, correlation, randomFolds } from '../../src/steering/held-out.js';
import { MEAN_DIFFERENCE } from '../../src/steering/methods/mean-difference.js';
import { activationNorms, formatVectorScale, parseVectorScale, scaleVector } from '../../src/steering/scaling.js';
import { cosine, norm } from '../../src/steering/vector-measures.js';

const normals = (seed: number, length: number): Float64Array => {
  const random = createRandom(seed);
  return Float64Array.from({ length }, () => random.normal());
};

describe('controls', () => {
  const v = normals(1, 200);

  it('keep the norm, change the direction, and follow the seed', () => {
    for (const control of [shuffledVector, randomVector]) {
      expect(norm(control(v, 3))).toBeCloseTo(norm(v), 5);
      expect(Math.abs(cosine(control(v, 3), v))).toBeLessThan(0.25);
      expect(control(v, 3)).toEqual(control(v, 3));
      expect(control(v, 3)).not.toEqual(control(v, 4));
    }
    expect([...shuffledVector(v, 3)].sort()).toEqual([...Float32Array.from(v)].sort());
    expect(permutedVector([5, 6, 7], [2, 0, 1])).toEqual(Float64Array.of(7, 5, 6));
  });
});

describe('scales', () => {
  const rows = normals(2, 60);
  const v = Float64Array.of(3, 4, 0);
  const norms = activationNorms(rows, 3, v);

  it('set the length and leave the direction', () => {
    expect(scaleVector(v, { kind: 'raw' }, norms)).toBe(v);
    expect(norm(scaleVector(v, { kind: 'unit' }, norms))).toBeCloseTo(1, 12);
    let [length, projection] = [0, 0];
    for (let r = 0; r < 20; r++) {
      length += norm(rows.subarray(3 * r, 3 * r + 3)) / 20;
      projection += Math.abs(rows[3 * r] * 0.6 + rows[3 * r + 1] * 0.8) / 20;
    }
    expect(norm(scaleVector(v, { kind: 'residual-fraction', fraction: 0.1 }, norms))).toBeCloseTo(0.1 * length, 12);
    expect(norm(scaleVector(v, { kind: 'mean-projection' }, norms))).toBeCloseTo(projection, 12);
    expect(() => scaleVector(new Float64Array(3), { kind: 'unit' }, norms)).toThrow('no direction');
  });

  it('are read as they are written', () => {
    for (const text of ['unit', 'raw', 'mean-projection', 'residual-fraction:0.25']) {
      expect(formatVectorScale(parseVectorScale(text))).toBe(text);
    }
    expect(parseVectorScale('resid-fraction:2')).toEqual({ kind: 'residual-fraction', fraction: 2 });
    for (const text of ['unti', 'residual-fraction', 'residual-fraction:-1', 'unit:2', 'residual-fraction:1:2']) {
      expect(() => parseVectorScale(text)).toThrow(`--scale ${text}`);
    }
  });
});

describe('held-out figures', () => {
  it('count pairs for the area under the curve, ties half', () => {
    const side = (scores: number[]) => ({ scores, clusterOf: scores.map((_, i) => i) });
    expect(areaUnderCurve(side([2, 3]), side([0, 1]), 2).value).toBe(1);
    expect(areaUnderCurve(side([1, 2]), side([1, 0]), 2).value).toBe(0.875);
    expect(areaUnderCurve(side([]), side([1]), 1).value).toBeNaN();
  });

  it('give the area a standard error that is right on average', () => {
    const areas: number[] = [];
    let errors = 0;
    for (let seed = 0; seed < 300; seed++) {
      const x = normals(seed, 60);
      // What the members of a pair have in common makes their scores dependent.
      const score = (i: number, s: number): number =>
        x[i] + x[20 + i] * (s === 1 ? 0.5 : -0.5) + (s === 1 ? 0.4 : 0) + 0.3 * x[40 + i] * s;
      const side = (s: number) => ({
        scores: Array.from({ length: 20 }, (_, i) => score(i, s)),
        clusterOf: Array.from({ length: 20 }, (_, i) => i),
      });
      const { value, se } = areaUnderCurve(side(1), side(0), 20);
      areas.push(value);
      errors += se / 300;
    }
    const mean = areas.reduce((a, b) => a + b, 0) / 300;
    const sd = Math.sqrt(areas.reduce((sum, a) => sum + (a - mean) ** 2, 0) / 299);
    expect(errors / sd).toBeGreaterThan(0.85);
    expect(errors / sd).toBeLessThan(1.15);
  });

  it('correlate, with intervals over clusters', () => {
    const x = normals(4, 40);
    const y = x.map((value, i) => 2 * value + (i % 3) * 0.1);
    const clusters = Array.from({ length: 8 }, (_, k) => Array.from({ length: 5 }, (_, i) => 5 * k + i));
    const { value, low, high, se } = clusteredCorrelation(x, y, clusters, 0);
    expect(value).toBeCloseTo(correlation(x, y), 12);
    expect(low).toBeLessThan(value);
    expect(high).toBeGreaterThan(value);
    expect(se).toBeGreaterThan(0);
    expect(clusteredCorrelation(x, y, [clusters.flat()], 0).se).toBeNaN();
    expect(
      correlation(
        x,
        x.map(() => 1),
      ),
    ).toBeNaN();
  });

  it('cut folds of almost equal size', () => {
    const folds = randomFolds(11, 4, 0);
    expect(folds.flat().sort((a, b) => a - b)).toEqual(Array.from({ length: 11 }, (_, i) => i));
    expect(Math.max(...folds.map((f) => f.length)) - Math.min(...folds.map((f) => f.length))).toBeLessThanOrEqual(1);
  });

  it('find the outer quartiles, and say where there are none', () => {
    const h = Float64Array.of(0.1, 0.9, 0.5, 0.4, 0.6);
    expect(entropyQuartiles(h, [0, 1, 2, 3, 4])).toEqual({ upper: [1, 4], lower: [0, 3] });
    expect(entropyQuartiles(Float64Array.of(1, 1, 1, 1, 2), [0, 1, 2, 3, 4])).toBeUndefined();
  });
});

const WIDTH = 6;

/** Activations of runs whose first coordinate goes with the entropy, at two layers of which the second is noise. */
function loggedRuns(seed: number, runs = 8, steps = 10): { table: StepTable; store: ReturnType<typeof memoryStore> } {
  const random = createRandom(seed);
  const store = memoryStore([0, 3], WIDTH, runs * steps);
  const entropyNats = Float64Array.from({ length: runs * steps }, () => random.uniform());
  for (let row = 0; row < runs * steps; row++) {
    const values = Float32Array.from({ length: 2 * WIDTH }, () => random.normal());
    // Runs lie far apart, which centring takes out.
    for (let i = 0; i < WIDTH; i++) values[i] += 20 * Math.floor(row / steps);
    values[0] += 4 * entropyNats[row];
    store.write(row, values);
  }
  const rowsOf = (run: number): Int32Array => Int32Array.from({ length: steps }, (_, t) => run * steps + t);
  const table = {
    names: Array.from({ length: runs }, (_, run) => String(run)),
    runs: Array.from({ length: runs }, (_, run) => rowsOf(run)),
    entropyNats,
  };
  return { table, store };
}

const SHARED = { scale: { kind: 'raw' }, multiplier: 2, seed: 0, permutations: 19 } as const;

describe('vectors of steps', () => {
  const { table, store } = loggedRuns(1);

  it.each(['run', 'global', 'none'] as const)('hold each run out exactly, centred by %s', (centring) => {
    const settings = { ...SHARED, centring };
    const whole = eastLayer(store, 0, table, settings);
    for (const left of [0, 5]) {
      const keep = table.runs.map((_, run) => run).filter((run) => run !== left);
      const others = {
        names: keep.map((run) => table.names[run]),
        runs: keep.map((_, i) => Int32Array.from({ length: 10 }, (_, t) => 10 * i + t)),
        entropyNats: Float64Array.from(
          keep.flatMap((run) => [...table.runs[run]]),
          (row) => table.entropyNats[row],
        ),
      };
      const rest = memoryStore([0], WIDTH, 70);
      keep.forEach((run, i) => {
        table.runs[run].forEach((row, t) => {
          rest.write(10 * i + t, store.read(0, [row]));
        });
      });
      const { vector } = eastLayer(rest, 0, others, settings);
      const rows = store.read(0, table.runs[left]);
      const projected = Float64Array.from({ length: 10 }, (_, t) =>
        vector.reduce((sum, value, i) => sum + value * rows[t * WIDTH + i], 0),
      );
      const mean = projected.reduce((a, b) => a + b, 0) / 10;
      table.runs[left].forEach((row, t) => {
        expect(whole.heldOutProjections[row]).toBeCloseTo(projected[t] - mean, 3);
      });
    }
  });

  it('tell a layer that knows the entropy from one that does not', () => {
    const settings = { ...SHARED, centring: 'run' } as const;
    const [knows, noise] = [0, 1].map((place) => eastLayer(store, place, table, settings).figures);
    expect(knows.layer).toBe(0);
    expect(noise.layer).toBe(3);
    expect(knows.held_out_correlation).toBeGreaterThan(0.5);
    expect(knows.held_out_correlation).toBeLessThanOrEqual(knows.correlation);
    expect(knows.permutation_p).toBe(0.05);
    expect(knows.separation_auc).toBeGreaterThan(0.8);
    expect(Math.abs(noise.held_out_correlation)).toBeLessThan(0.35);
    expect(noise.permutation_p).toBeGreaterThan(0.05);
    expect(knows.cosine_mean_difference).toBeGreaterThan(0.8);
    expect(knows.explained_entropy_share).toBeCloseTo(knows.correlation ** 2, 12);
    expect(knows.effective_strength).toBeCloseTo(2 * knows.norm_ratio, 12);
  });

  it('cannot hold out a single run', () => {
    const one = { ...table, names: ['0'], runs: [Int32Array.from({ length: 80 }, (_, row) => row)] };
    const { figures, vector } = eastLayer(store, 1, one, { ...SHARED, centring: 'run' });
    expect(figures.held_out_correlation).toBeNaN();
    expect(figures.correlation).toBeGreaterThan(0);
    expect(norm(vector)).toBeGreaterThan(0);
  });

  it('can be a contrast of entropy quartiles', () => {
    const settings = { ...SHARED, method: MEAN_DIFFERENCE };
    const { figures, vector } = contrastOfSteps(store, 0, table, settings);
    expect(figures.cosine_mean_difference).toBeCloseTo(1, 12);
    expect(figures.held_out_correlation).toBeGreaterThan(0.5);
    expect(Math.abs(vector[0])).toBeGreaterThan(0.9 * norm(vector));
    const flat = { ...table, entropyNats: table.entropyNats.map((_, i) => (i === 0 ? 1 : 0.5)) };
    expect(() => contrastOfSteps(store, 0, flat, settings)).toThrow('use --method east');
  });

  it('scale the vector and the projections alike', () => {
    const scaled = eastLayer(store, 0, table, {
      ...SHARED,
      centring: 'run',
      scale: { kind: 'residual-fraction', fraction: 0.1 },
    });
    expect(scaled.figures.norm_ratio).toBeCloseTo(0.1, 12);
    const raw = eastLayer(store, 0, table, { ...SHARED, centring: 'run' });
    const factor = scaled.figures.vector_norm / raw.figures.vector_norm;
    expect(scaled.projections[7]).toBeCloseTo(factor * raw.projections[7], 10);
    expect(scaled.figures.correlation).toBe(raw.figures.correlation);
  });
});

describe('vectors of pairs', () => {
  it('are judged on pairs that they have not seen', () => {
    const random = createRandom(5);
    const fill = (shift: number) => {
      const store = memoryStore([2], WIDTH, 60);
      for (let row = 0; row < 60; row++) {
        const values = Float32Array.from({ length: WIDTH }, () => random.normal());
        values[1] += row % 2 === 0 ? shift : 0;
        store.write(row, values);
      }
      return contrastVector(store, 0, { ...SHARED, method: MEAN_DIFFERENCE });
    };
    const apart = fill(6);
    expect(apart.figures.separation_auc).toBeGreaterThan(0.99);
    expect(apart.figures.pair_accuracy).toBe(1);
    expect(apart.figures.correlation).toBeNaN();
    // Without a difference the seen pairs would still be separated; unseen ones are not.
    const alike = fill(0);
    expect(Math.abs(alike.figures.separation_auc - 0.5)).toBeLessThan(4 * alike.figures.separation_auc_se);
  });
});
