import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  type Codes,
  type ColumnBlock,
  type ColumnTest,
  classColumnInformation,
  classOutcomeInformation,
  codesInformation,
  kernelInformation,
  regularBins,
} from '../../src/kernels/column-information.js';
import {
  classInformation,
  densityScratch,
  kernelPlaces,
  kernelInformation as kernelReference,
} from '../../src/kernels/column-information-reference.js';
import { columnSpread } from '../../src/kernels/column-scale.js';
import { createRandom } from '../../src/random.js';
import { kernelModes, useBestKernels } from './kernel-modes.js';

const N = 120;

/** Normal, skewed, heavy-tailed, clumped columns and copies of the outcome, beside an outcome. */
function sample(n = N): { block: ColumnBlock; outcome: Float64Array } {
  const random = createRandom(7);
  const outcome = Float64Array.from({ length: n }, () => random.normal());
  const makers: ((i: number) => number)[] = [
    () => random.normal(),
    (i) => Math.abs(outcome[i]) + 0.2 * random.normal(),
    () => Math.exp(2 * random.normal()),
    () => random.normal() / Math.max(1e-3, Math.abs(random.normal())),
    (i) => outcome[i],
    (i) => (i % 10 === 0 ? random.normal() : 3),
    (i) => 1e9 + i,
  ];
  const values = new Float64Array(makers.length * n);
  makers.forEach((make, j) => {
    for (let i = 0; i < n; i++) values[j * n + i] = make(i);
  });
  return { block: { values, count: makers.length, n }, outcome };
}

function someCodes(levels: number, n = N): Codes {
  const random = createRandom(11);
  return { codes: Int32Array.from({ length: n }, (_, i) => (i < levels ? i : random.integer(levels))), levels };
}

function someTest(count: number, stopAfter: number, n = N, replicates = 9): ColumnTest {
  const random = createRandom(13);
  const orders = new Int32Array(replicates * n);
  for (let b = 0; b < replicates; b++) orders.set(random.permutation(n), b * n);
  const counts = { exceedances: new Int32Array(count), drawn: new Int32Array(count) };
  return { orders, replicates, stopAfter, ...counts, sums: new Float64Array(2 * count) };
}

/** All figures and tests that the kernels give. */
function everything(threads: number): { nats: number[]; counts: number[] } {
  const { block, outcome } = sample();
  const classes = someCodes(3);
  const nats: number[] = [];
  const counts: number[] = [];
  const measure = (run: (out: Float64Array, test?: ColumnTest) => void): void => {
    const out = new Float64Array(block.count);
    run(out);
    for (const stopAfter of [0, 2]) {
      const test = someTest(block.count, stopAfter);
      run(out, test);
      counts.push(...test.exceedances, ...test.drawn);
      nats.push(...test.sums);
    }
    nats.push(...out);
  };
  const bins = regularBins(block, threads);
  counts.push(...bins.levels, ...bins.codes);
  measure((out, test) => codesInformation(bins, classes, out, test, threads));
  for (const rule of ['silverman', 'unit'] as const)
    measure((out, test) => kernelInformation(block, outcome, { points: 60, rule, threads }, out, test));
  measure((out, test) => classOutcomeInformation(block, classes, { points: 101, threads }, out, test));
  measure((out, test) => classColumnInformation(bins, outcome, { points: 101, threads }, out, test));
  return { nats, counts };
}

describe.each(kernelModes())('$name', (mode) => {
  beforeAll(() => mode.use());
  afterAll(useBestKernels);

  it('equals the reference, and itself with any number of threads', () => {
    const found = everything(1);
    expect(everything(3)).toEqual(found);
    kernelModes()[0].use();
    const reference = everything(1);
    mode.use();
    expect(found.counts).toEqual(reference.counts);
    found.nats.forEach((value, i) => {
      expect(Math.abs(value - reference.nats[i])).toBeLessThan(1e-12 * Math.max(1, reference.nats[i]));
    });
  });

  it('sees nothing in independent codes and all of H(X) in equal ones', () => {
    const codes = Int32Array.from({ length: 64 }, (_, i) => i % 4);
    const other = Int32Array.from({ length: 64 }, (_, i) => (i >> 2) % 4);
    const nats = new Float64Array(2);
    const block = { codes: Int32Array.from([...codes, ...other]), levels: new Int32Array([4, 4]), count: 2, n: 64 };
    codesInformation(block, { codes, levels: 4 }, nats);
    expect(nats[0]).toBeCloseTo(Math.log(4), 12);
    expect(nats[1]).toBeCloseTo(0, 12);
  });

  it('gathers many points on the grid before it smooths them', () => {
    const n = 9000;
    const random = createRandom(3);
    const outcome = Float64Array.from({ length: n }, () => random.normal());
    const values = outcome.map((y) => 0.6 * y + 0.8 * random.normal());
    const nats = new Float64Array(1);
    kernelInformation({ values, count: 1, n }, outcome, { points: 51, rule: 'silverman' }, nats);
    const places = [values, outcome].map((x) => kernelPlaces(x, 51, 'silverman'));
    const exact = kernelReference(places[0], places[1], densityScratch(51), undefined, 'direct');
    expect(nats[0]).toBeCloseTo(exact, 12);
    // I of a normal pair is -log(1 - r^2) / 2; the kernel widens both variables and so weakens their link.
    const gaussian = -0.5 * Math.log(1 - 0.36);
    expect(nats[0]).toBeGreaterThan(0.85 * gaussian);
    expect(nats[0]).toBeLessThan(1.1 * gaussian);
  });
});

describe('smoothing', () => {
  it.each([40, 300])('is the same cell by cell and through Fourier transforms, %i points', (points) => {
    const { block, outcome } = sample();
    const scratch = densityScratch(points);
    const b = kernelPlaces(outcome, points, 'silverman');
    for (let j = 0; j < 4; j++) {
      const a = kernelPlaces(block.values.subarray(j * N, (j + 1) * N), points, 'silverman');
      const direct = kernelReference(a, b, scratch, undefined, 'direct');
      expect(kernelReference(a, b, scratch, undefined, 'fft')).toBeCloseTo(direct, 12);
    }
  });

  it('keeps the marginals, so that a shift, a scale and an exchange change nothing', () => {
    const { block, outcome } = sample();
    const x = block.values.subarray(N, 2 * N);
    const of = (a: Float64Array, b: Float64Array): number =>
      kernelReference(kernelPlaces(a, 80, 'silverman'), kernelPlaces(b, 80, 'silverman'), densityScratch(80));
    const plain = of(x, outcome);
    expect(
      of(
        x.map((v) => 3 * v - 40),
        outcome.map((v) => 1e-3 * v),
      ),
    ).toBeCloseTo(plain, 9);
    expect(of(outcome, x)).toBeCloseTo(plain, 12);
  });
});

describe('bandwidths', () => {
  it('are those of Silverman, and fall back where half of the values are equal', () => {
    const values = Float64Array.from({ length: 9 }, (_, i) => i);
    expect(columnSpread(values).silverman).toBeCloseTo(1.8692607078355594, 12);
    const clumped = Float64Array.from({ length: 100 }, (_, i) => (i < 60 ? 0 : i));
    expect(columnSpread(clumped).silverman).toBeGreaterThan(1);
    const lone = Float64Array.from({ length: 200 }, (_, i) => (i === 199 ? 5 : 0));
    expect(columnSpread(lone).silverman).toBeGreaterThan(0);
    expect(columnSpread(new Float64Array(10)).silverman).toBe(0);
  });

  it('leave out classes of two points, and give a constant class the pooled width', () => {
    const x = Float64Array.from({ length: 40 }, (_, i) => (i % 2 === 0 ? 1 : i));
    const codes = Int32Array.from({ length: 40 }, (_, i) => i % 2);
    const nats = classInformation(x, codes, 2, 200);
    expect(nats).toBeGreaterThan(0.3);
    expect(nats).toBeLessThan(Math.log(2));
    const three = Int32Array.from(codes, (c, i) => (i === 7 || i === 9 ? 2 : c));
    expect(Number.isFinite(classInformation(x, three, 3, 200))).toBe(true);
  });
});
