import {
  type CodeBlock,
  type ColumnTest,
  classColumnInformation,
  classOutcomeInformation,
  codesInformation,
  kernelInformation,
  regularBins,
} from '../kernels/column-information.js';
import type { BandwidthRule } from '../kernels/column-scale.js';
import { createRandom } from '../random.js';
import { ksgInformation, ksgVariable } from './ksg.js';
import type { MixedBlock, Outcome } from './variables.js';

/** Kernel densities, bins by Birge and Rozenholc, nearest neighbours. */
export type EstimatorName = 'kernel' | 'binned' | 'ksg';

export const ESTIMATORS: readonly EstimatorName[] = ['kernel', 'binned', 'ksg'];

export interface EstimatorSettings {
  /** Points of the grid of two continuous variables, and of a class and a continuous one. */
  readonly grid: number;
  readonly classGrid: number;
  readonly rule: BandwidthRule;
  readonly neighbours: number;
  readonly seed: number;
  readonly threads: number;
}

export const DEFAULT_GRID = 300;
export const DEFAULT_CLASS_GRID = 500;

/** A part of a block, its figures and its share of a test. */
type Part = (nats: Float64Array, test: ColumnTest | undefined) => void;

/**
 * Mutual information, in nats, of every column of a block with the outcome; with `test` the figures in `nats` are tested and
 * only its counts are written. Constant columns keep what is there. `ksg` gives NaN unless both variables are continuous.
 */
export function measureBlock(
  estimator: EstimatorName,
  block: MixedBlock,
  outcome: Outcome,
  settings: EstimatorSettings,
  nats: Float64Array,
  test?: ColumnTest,
): void {
  const { continuous, discrete } = block;
  const { threads } = settings;
  const onPart = (at: Int32Array, part: Part): void => {
    if (at.length > 0) measurePart(at, part, nats, test);
  };
  const categories = (codes: CodeBlock): Part => {
    return (out, own) => codesInformation(codes, outcome.codes, out, own, threads);
  };
  if (estimator === 'binned') {
    if (continuous.count > 0) onPart(block.continuousAt, categories(regularBins(continuous, threads)));
    onPart(block.discreteAt, categories(discrete));
    return;
  }
  const { values } = outcome;
  if (estimator === 'ksg') {
    onPart(block.continuousAt, (out, own) => neighbourPart(block, outcome, settings, out, own));
    if (test === undefined) for (const j of block.discreteAt) nats[j] = Number.NaN;
    return;
  }
  if (outcome.kind === 'discrete' || values === undefined) {
    onPart(block.continuousAt, (out, own) =>
      classOutcomeInformation(continuous, outcome.codes, { points: settings.classGrid, threads }, out, own),
    );
    onPart(block.discreteAt, categories(discrete));
    return;
  }
  onPart(block.continuousAt, (out, own) =>
    kernelInformation(continuous, values, { points: settings.grid, rule: settings.rule, threads }, out, own),
  );
  onPart(block.discreteAt, (out, own) =>
    classColumnInformation(discrete, values, { points: settings.classGrid, threads }, out, own),
  );
}

/** Runs a part on its columns alone and puts its figures where they belong. */
function measurePart(at: Int32Array, part: Part, nats: Float64Array, test: ColumnTest | undefined): void {
  const own = Float64Array.from(at, (j) => nats[j]);
  if (test === undefined) {
    part(own, undefined);
    at.forEach((j, k) => {
      nats[j] = own[k];
    });
    return;
  }
  const share: ColumnTest = {
    ...test,
    exceedances: Int32Array.from(at, (j) => test.exceedances[j]),
    drawn: Int32Array.from(at, (j) => test.drawn[j]),
    sums: Float64Array.from({ length: 2 * at.length }, (_, k) => test.sums[2 * at[k >> 1] + (k & 1)]),
  };
  part(own, share);
  at.forEach((j, k) => {
    test.exceedances[j] = share.exceedances[k];
    test.drawn[j] = share.drawn[k];
    test.sums[2 * j] = share.sums[2 * k];
    test.sums[2 * j + 1] = share.sums[2 * k + 1];
  });
}

const TIE = 1e-12;

function neighbourPart(
  block: MixedBlock,
  outcome: Outcome,
  settings: EstimatorSettings,
  nats: Float64Array,
  test: ColumnTest | undefined,
): void {
  const { values, count, n } = block.continuous;
  if (outcome.kind === 'discrete' || outcome.values === undefined) {
    if (test === undefined) nats.fill(Number.NaN);
    return;
  }
  // One stream for the outcome and one for columns: the noise of a column depends neither on its place nor on its shard.
  const random = createRandom(settings.seed);
  const y = ksgVariable(outcome.values, random.fork(1));
  for (let j = 0; j < count; j++) {
    const x = ksgVariable(values.subarray(j * n, (j + 1) * n), random.fork(2));
    if (test === undefined) {
      nats[j] = ksgInformation(x, y, settings.neighbours);
      continue;
    }
    for (let b = 0; b < test.replicates; b++) {
      if (test.stopAfter > 0 && test.exceedances[j] >= test.stopAfter) break;
      const value = ksgInformation(x, y, settings.neighbours, test.orders.subarray(b * n, (b + 1) * n));
      if (value >= nats[j] - TIE) test.exceedances[j]++;
      test.drawn[j]++;
      test.sums[2 * j] += value;
      test.sums[2 * j + 1] += value * value;
    }
  }
}
