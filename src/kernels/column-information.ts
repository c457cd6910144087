import {
  classInformation as classReference,
  codesInformation as codesReference,
  densityScratch,
  kernelPlaces,
  kernelInformation as kernelReference,
  regularBins as regularBinsReference,
} from './column-information-reference.js';
import type { BandwidthRule } from './column-scale.js';
import { kernelThreads, nativeKernels } from './native.js';

/** Columns `[count, n]`, one after another: column j is `values.subarray(j * n, (j + 1) * n)`. */
export interface ColumnBlock {
  readonly values: Float64Array;
  readonly count: number;
  readonly n: number;
}

/** The same for discrete variables: codes 0..levels[j]-1. */
export interface CodeBlock {
  readonly codes: Int32Array;
  readonly levels: Int32Array;
  readonly count: number;
  readonly n: number;
}

/** One discrete variable. */
export interface Codes {
  readonly codes: Int32Array;
  readonly levels: number;
}

/**
 * A permutation test that goes on: `orders` `[replicates, n]` are permutations of the observations of the outcome. A
 * column whose replicates reached its figure `stopAfter` times (0: never) draws no more.
 */
export interface ColumnTest {
  readonly orders: Int32Array;
  readonly replicates: number;
  readonly stopAfter: number;
  /** How many replicates reached the figure of the column so far, `[count]`; goes on. */
  readonly exceedances: Int32Array;
  /** How many replicates were drawn so far, `[count]`; goes on. */
  readonly drawn: Int32Array;
  /** Sums of the replicates and of their squares, `[count, 2]`; goes on. */
  readonly sums: Float64Array;
}

/** A replicate that equals the figure but for rounding counts as reaching it. */
const TIE = 1e-12;

function checkBlock(length: number, count: number, n: number): void {
  if (length < count * n) throw new RangeError(`${count} columns of ${n} do not fit ${length} values`);
}

/** Measures every column, or tests the figures that `nats` already holds. */
function eachColumn(
  count: number,
  n: number,
  nats: Float64Array,
  test: ColumnTest | undefined,
  measure: (column: number) => (order?: Int32Array) => number,
): void {
  for (let j = 0; j < count; j++) {
    const of = measure(j);
    if (test === undefined) {
      nats[j] = of();
      continue;
    }
    for (let b = 0; b < test.replicates; b++) {
      if (test.stopAfter > 0 && test.exceedances[j] >= test.stopAfter) break;
      const replicate = of(test.orders.subarray(b * n, (b + 1) * n));
      if (replicate >= nats[j] - TIE) test.exceedances[j]++;
      test.drawn[j]++;
      test.sums[2 * j] += replicate;
      test.sums[2 * j + 1] += replicate * replicate;
    }
  }
}

type TestArguments = [Int32Array | null, number, number, Int32Array | null, Int32Array | null, Float64Array | null];

const testArguments = (test: ColumnTest | undefined): TestArguments =>
  test === undefined
    ? [null, 0, 0, null, null, null]
    : [test.orders, test.replicates, test.stopAfter, test.exceedances, test.drawn, test.sums];

/** Equal bins of every column by the rule of Birge & Rozenholc (2006), D = 2..99. No column may be constant. */
export function regularBins(block: ColumnBlock, threads?: number): CodeBlock {
  const { values, count, n } = block;
  checkBlock(values.length, count, n);
  const codes = new Int32Array(count * n);
  const levels = new Int32Array(count);
  const native = nativeKernels();
  if (native !== undefined) native.regularBins(values, count, n, codes, levels, kernelThreads(threads));
  else
    for (let j = 0; j < count; j++)
      levels[j] = regularBinsReference(values.subarray(j * n, (j + 1) * n), codes.subarray(j * n, (j + 1) * n));
  return { codes, levels, count, n };
}

/**
 * Plug-in mutual information, in nats, of coded columns with a coded outcome.
 * @param nats `[count]`, written; with `test` it is read, and only the counts of the test are written
 */
export function codesInformation(
  block: CodeBlock,
  outcome: Codes,
  nats: Float64Array,
  test?: ColumnTest,
  threads?: number,
): void {
  const { codes, levels, count, n } = block;
  checkBlock(codes.length, count, n);
  const native = nativeKernels();
  if (native !== undefined) {
    native.codesInformation(
      codes,
      levels,
      count,
      n,
      outcome.codes,
      outcome.levels,
      ...testArguments(test),
      nats,
      kernelThreads(threads),
    );
    return;
  }
  eachColumn(count, n, nats, test, (j) => {
    const own = codes.subarray(j * n, (j + 1) * n);
    return (order) => codesReference(own, levels[j], outcome.codes, outcome.levels, order);
  });
}

/**
 * Mutual information, in nats, of continuous columns with a continuous outcome from their joint kernel density: robust
 * scaling, linear binning on a grid of `points` x `points`, the radial Epanechnikov kernel. The native kernel sums cell
 * by cell; the reference takes that or Fourier transforms, whichever costs less.
 * @param nats as for `codesInformation`
 */
export function kernelInformation(
  block: ColumnBlock,
  outcome: Float64Array,
  options: { readonly points: number; readonly rule: BandwidthRule; readonly threads?: number },
  nats: Float64Array,
  test?: ColumnTest,
): void {
  const { values, count, n } = block;
  const { points, rule } = options;
  checkBlock(values.length, count, n);
  const native = nativeKernels();
  if (native !== undefined) {
    native.kernelInformation(
      values,
      count,
      n,
      outcome,
      points,
      rule === 'unit' ? 1 : 0,
      ...testArguments(test),
      nats,
      kernelThreads(options.threads),
    );
    return;
  }
  const scratch = densityScratch(points);
  const places = kernelPlaces(outcome, points, rule);
  eachColumn(count, n, nats, test, (j) => {
    const own = kernelPlaces(values.subarray(j * n, (j + 1) * n), points, rule);
    return (order) => kernelReference(own, places, scratch, order);
  });
}

/** Mutual information of continuous columns with a discrete outcome, from the kernel density of every class. */
export function classOutcomeInformation(
  block: ColumnBlock,
  outcome: Codes,
  options: { readonly points: number; readonly threads?: number },
  nats: Float64Array,
  test?: ColumnTest,
): void {
  const { values, count, n } = block;
  checkBlock(values.length, count, n);
  const levels = new Int32Array(count).fill(outcome.levels);
  const native = nativeKernels();
  if (native !== undefined) {
    const threads = kernelThreads(options.threads);
    native.classInformation(
      values,
      outcome.codes,
      levels,
      count,
      n,
      0,
      options.points,
      ...testArguments(test),
      nats,
      threads,
    );
    return;
  }
  eachColumn(count, n, nats, test, (j) => {
    const own = values.subarray(j * n, (j + 1) * n);
    return (order) => classReference(own, outcome.codes, outcome.levels, options.points, order, 'codes');
  });
}

/** The same with the roles exchanged: discrete columns, a continuous outcome. */
export function classColumnInformation(
  block: CodeBlock,
  outcome: Float64Array,
  options: { readonly points: number; readonly threads?: number },
  nats: Float64Array,
  test?: ColumnTest,
): void {
  const { codes, levels, count, n } = block;
  checkBlock(codes.length, count, n);
  const native = nativeKernels();
  if (native !== undefined) {
    const threads = kernelThreads(options.threads);
    native.classInformation(outcome, codes, levels, count, n, 1, options.points, ...testArguments(test), nats, threads);
    return;
  }
  eachColumn(count, n, nats, test, (j) => {
    const own = codes.subarray(j * n, (j + 1) * n);
    return (order) => classReference(outcome, own, levels[j], options.points, order, 'values');
  });
}
