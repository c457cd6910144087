import { InputError } from '../errors.js';
import type { Points } from '../kernels/neighbours.js';
import type { Random } from '../random.js';
import { type Convergence, meansOf, type NullMethod, type TestResult } from './discrete-analysis.js';
import type { EstimateWithError } from './entropy-estimators.js';
import {
  frenzelPompe,
  kozachenkoLeonenko,
  ksg1,
  ksg2,
  mixedInformation,
  type NeighbourEstimate,
  type NeighbourSettings,
} from './neighbour-information.js';
import { judgeAgainst } from './permutation.js';
import { drawOrder, type Exchange } from './row-orders.js';

/** A measure from nearest neighbours over some variables. */
export interface NeighbourEstimator {
  readonly name: string;
  readonly allowsTies: boolean;
  estimate(variables: readonly Points[], settings: NeighbourSettings): NeighbourEstimate;
}

const KSG1: NeighbourEstimator = { name: 'ksg1', allowsTies: false, estimate: ([x, y], s) => ksg1(x, y, s) };
const KSG2: NeighbourEstimator = { name: 'ksg2', allowsTies: false, estimate: ([x, y], s) => ksg2(x, y, s) };
const MIXED: NeighbourEstimator = {
  name: 'mixed',
  allowsTies: true,
  estimate: ([x, y], s) => mixedInformation(x, y, s),
};

/** Estimators of each measure; the first is the default. */
export const NEIGHBOUR_ESTIMATORS = {
  differential_entropy: [
    { name: 'kozachenko-leonenko', allowsTies: false, estimate: kozachenkoLeonenko },
  ] as readonly NeighbourEstimator[],
  mutual_information: [KSG1, KSG2, MIXED] as readonly NeighbourEstimator[],
  mixed_information: [MIXED] as readonly NeighbourEstimator[],
  conditional_mutual_information: [
    { name: 'frenzel-pompe', allowsTies: false, estimate: ([x, y, z], s) => frenzelPompe(x, y, z, s) },
  ] as readonly NeighbourEstimator[],
} as const;

/** Whether an estimator of that name works on points and not on counts. */
export function isNeighbourEstimator(name: string): boolean {
  return Object.values(NEIGHBOUR_ESTIMATORS).some((known) => known.some((estimator) => estimator.name === name));
}

/** Ties beyond this share of the points are refused. */
const MOST_TIES = 0.01;

/** @throws InputError when there are fewer points than k neighbours and one more need */
export function checkNeighbours(rows: number, k: number, what: string): void {
  if (rows >= k + 2) return;
  throw new InputError(
    `${what}: ${rows} samples, but k = ${k} neighbours need at least ${k + 2}; lower --k or give more rows`,
  );
}

/**
 * @throws InputError when more than 1 % of the points have k others at their very place, unless the estimator knows ties
 */
function checkTies(
  found: NeighbourEstimate,
  estimator: NeighbourEstimator,
  rows: number,
  k: number,
  what: string,
): void {
  const share = found.zeroDistances / rows;
  if (estimator.allowsTies || share <= MOST_TIES) return;
  throw new InputError(
    `${what}: ${found.zeroDistances} of ${rows} points (${(100 * share).toPrecision(3)} %) lie on ${k} others, which ${estimator.name} does not allow; ` +
      'break the ties with --jitter 1e-10 --seed S, take --estimator mixed, or --as symbols',
  );
}

const takeRows = ({ data, columns }: Points, rows: Int32Array): Points => {
  const taken = new Float64Array(rows.length * columns);
  for (let i = 0; i < rows.length; i++) {
    for (let j = 0; j < columns; j++) taken[i * columns + j] = data[rows[i] * columns + j];
  }
  return { data: taken, rows: rows.length, columns };
};

/** Into how many equal parts the rows are split. */
const SPLITS = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64];
/** The standard error comes from splits of at most this many parts. */
const ERROR_SPLITS = 12;

export interface SplitEstimates {
  readonly convergence: Convergence;
  readonly estimates: readonly EstimateWithError[];
}

/**
 * Every estimator on disjoint parts of the rows. The spread over m parts of N/m rows is m times the variance at N when
 * the variance falls as 1/N, and pooling over m gives the standard error (Holmes & Nemenman 2019); the means show how the
 * bias falls.
 * @param wanted the estimator whose ties are refused; others are listed without a value where they meet too many
 */
export function splitEstimates(
  estimators: readonly NeighbourEstimator[],
  wanted: string,
  variables: readonly Points[],
  settings: NeighbourSettings,
  what: string,
  random: Random,
  onPart: () => void,
): SplitEstimates {
  const [{ rows }] = variables;
  const least = Math.max(16, 4 * settings.k);
  const splits = SPLITS.filter((parts) => parts === 1 || Math.floor(rows / parts) >= least);
  const order = random.permutation(rows);
  const lines: Convergence['lines'][number][] = [];
  const estimates: EstimateWithError[] = [];
  const ascending = [...splits].reverse();
  const sizes = Int32Array.from(ascending, (parts) => Math.floor(rows / parts));
  for (const estimator of estimators) {
    const whole = estimator.estimate(variables, settings);
    if (estimator.name === wanted) checkTies(whole, estimator, rows, settings.k, what);
    const common = { estimator: estimator.name };
    if (!estimator.allowsTies && whole.zeroDistances / rows > MOST_TIES) {
      const reason = `${whole.zeroDistances} of ${rows} points are tied`;
      estimates.push({ ...common, valueNats: Number.NaN, reason, seNats: null, seMethod: null });
      continue;
    }
    const mean = new Float64Array(ascending.length);
    const se = new Float64Array(ascending.length);
    let pooled = 0;
    let freedom = 0;
    ascending.forEach((parts, s) => {
      const size = sizes[s];
      const values = Float64Array.from({ length: parts }, (_, part) => {
        onPart();
        if (parts === 1) return whole.valueNats;
        const own = order.subarray(part * size, (part + 1) * size);
        return estimator.estimate(
          variables.map((variable) => takeRows(variable, own)),
          settings,
        ).valueNats;
      });
      const found = meansOf(values, 1, parts);
      mean[s] = found.mean[0];
      se[s] = found.se[0];
      if (parts > 1 && parts <= ERROR_SPLITS) {
        // se² = s²/parts, and s²/parts estimates the variance at all rows with parts - 1 degrees of freedom.
        pooled += (parts - 1) * found.se[0] ** 2;
        freedom += parts - 1;
      }
    });
    const known = freedom > 0 ? Math.sqrt(pooled / freedom) : null;
    // One part has no spread of its own: its error is the pooled one.
    se[ascending.length - 1] = known ?? 0;
    lines.push({ estimator: estimator.name, mean, se });
    estimates.push({ ...common, valueNats: whole.valueNats, seNats: known, seMethod: known === null ? null : 'split' });
  }
  return { convergence: { sizes, subsamples: Math.max(...splits), lines }, estimates };
}

/** Shuffles the rows of one variable against the others and estimates anew. */
export function testNeighbours(
  estimator: NeighbourEstimator,
  variables: readonly Points[],
  exchanged: number,
  observed: number,
  exchange: Exchange,
  replicates: number,
  settings: NeighbourSettings,
  random: Random,
  onReplicate: () => void,
): TestResult {
  const [{ rows }] = variables;
  const nullValues = Float64Array.from({ length: replicates }, (_, b) => {
    onReplicate();
    const order = drawOrder(exchange, rows, random.fork(b));
    const shuffled = variables.map((variable, v) => (v === exchanged ? takeRows(variable, order) : variable));
    return estimator.estimate(shuffled, settings).valueNats;
  });
  return {
    ...judgeAgainst(observed, nullValues),
    method: exchange.kind satisfies NullMethod,
    exact: false,
    replicates,
    singleStrata: null,
    nullValues,
    asymptotic: null,
  };
}
