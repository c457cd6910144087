import { regularBins } from '../../src/kernels/column-information.js';
import { gaussianInformation, linfoot, pearson } from '../../src/linalg/correlation.js';
import { type EstimatorName, type EstimatorSettings, measureBlock } from '../../src/screening/estimators.js';
import { rankColumns } from '../../src/screening/ranking.js';
import { type Outcome, outcomeOfValues, splitBlock } from '../../src/screening/variables.js';
import type { Json } from './harness.js';
import { float64, keysOf, number, shapeOf, tensor } from './tensors.js';

const LEVELS = 10;

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  if (inputs.kernel !== undefined && inputs.kernel !== 'epanechnikov') throw new TypeError(`kernel ${inputs.kernel}`);
  const [n, count] = shapeOf(inputs.X, 'X');
  const rows = float64(inputs.X, 'X');
  const values = Float64Array.from({ length: n * count }, (_, k) => rows[(k % n) * count + Math.floor(k / n)]);
  const column = (j: number): Float64Array => values.subarray(j * n, (j + 1) * n);
  const outcome: Outcome = outcomeOfValues(float64(inputs.y, 'y'), 'y', LEVELS);
  const block = splitBlock({ values, count, n }, LEVELS);
  const grid = number(inputs.grid, 'grid');
  const information = (estimator: EstimatorName, more: Partial<EstimatorSettings> = {}): Float64Array => {
    const nats = new Float64Array(count);
    const settings = { grid, classGrid: grid, rule: 'silverman' as const, neighbours: 3, seed: 0, threads: 2 };
    measureBlock(estimator, block, outcome, { ...settings, ...more }, nats);
    return nats;
  };
  const vector = (entries: ArrayLike<number>): unknown => tensor([entries.length], entries);
  const kernel = information('kernel');
  const bins = regularBins(block.continuous).levels;
  const levels = new Int32Array(count);
  block.continuousAt.forEach((j, k) => {
    levels[j] = bins[k];
  });
  block.discreteAt.forEach((j, k) => {
    levels[j] = block.discrete.levels[k];
  });
  const r = Array.from({ length: count }, (_, j) => (outcome.values ? pearson(column(j), outcome.values) : Number.NaN));
  const ranking = rankColumns(kernel);
  const gaps = Array.from(ranking.subarray(1), (j, k) => kernel[ranking[k]] - kernel[j]);
  const named: Record<string, unknown> = {
    num_bins_outcome: outcome.codes.levels,
    num_bins_covariates: Array.from(levels),
    binning_mi: vector(information('binned')),
    fftkde_mi: vector(kernel),
    fftkde_mi_silverman: vector(kernel),
    fftkde_mi_unit_bandwidth: vector(information('kernel', { rule: 'unit' })),
    pearson_abs: vector(r.map(Math.abs)),
    gaussian_mi_from_pearson: vector(r.map(gaussianInformation)),
    ranking_desc: Array.from(ranking),
    ranking_min_gap: Math.min(...gaps),
    linfoot: vector(Array.from(kernel, linfoot)),
  };
  const result: Record<string, unknown> = {};
  for (const key of keysOf(wanted)) {
    const neighbours = /^ksg1_k(\d+)$/.exec(key);
    if (neighbours !== null) result[key] = vector(information('ksg', { neighbours: Number(neighbours[1]) }));
    else if (key in named) result[key] = named[key];
  }
  return result;
}
