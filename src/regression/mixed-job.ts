import { InputError } from '../errors.js';
import { openFeatures } from '../features/open-features.js';
import { type FeatureSource, loadMatrix } from '../formats/feature-matrix.js';
import type { ComputeReference } from '../kernels/compute-thread.js';
import { type ClusteredFit, type ClusteredFitOptions, fitClustered } from './clustered-t.js';
import { type ClusteredData, errorCorrelation, factorCluster, gatherClusters } from './clusters.js';
import { type EffectErrors, effectErrors } from './effect-errors.js';
import type { EffectPenalty } from './generalised-least-squares.js';
import { fitJoint, type JointFit } from './joint-model.js';
import type { Penalty } from './penalty.js';
import { freedomOfQ } from './tsallis.js';

/** How the degrees of freedom are known. */
export type Freedom =
  | { readonly kind: 'estimate' }
  | { readonly kind: 'fixed'; readonly m: number }
  | { readonly kind: 'q'; readonly q: number };

export interface MixedArguments {
  readonly source: FeatureSource;
  readonly outcome: { readonly name: string; readonly values: Float64Array };
  /** Code of every row's cluster, and the clusters' names. */
  readonly group: { readonly codes: Int32Array; readonly names: readonly string[]; readonly name: string };
  /** Names of columns with a random effect; `1` is the intercept. */
  readonly random: readonly string[];
  readonly intercept: boolean;
  readonly freedom: Freedom;
  readonly correlation: number;
  readonly penalty?: Penalty;
  readonly tolerance: number;
  readonly maxIterations: number;
  /** Whether the profile of m is fitted anew at every point. */
  readonly profile: boolean;
  readonly maxMemoryBytes: number;
}

export interface FittedModel {
  readonly theta: Float64Array;
  readonly psi: Float64Array;
  readonly sigma2: number;
  readonly m: number;
  readonly logLikelihood: number;
  readonly distances2: Float64Array;
  readonly weights: Float64Array;
  readonly blups: Float64Array;
  readonly iterations: number;
  readonly converged: boolean;
  readonly errors: EffectErrors;
}

export interface MixedResult {
  readonly effectNames: readonly string[];
  readonly randomNames: readonly string[];
  readonly clusterNames: readonly string[];
  readonly clusterSizes: Int32Array;
  readonly observations: number;
  readonly fit: FittedModel;
  /** The same model with normal clusters. */
  readonly gaussian: FittedModel;
  /** Log-likelihood with everything else fitted anew at each m; empty when not asked for. */
  readonly profile: readonly { readonly m: number; readonly logLikelihood: number }[];
  /** All observations as one vector, at the scale matrices of the clustered fit. */
  readonly joint: JointFit;
}

/** Degrees of freedom of the two profiles. */
const PROFILE = [2.01, 2.5, 3, 4, 5, 6, 8, 12, 16, 24, 32, 50, 100, 200];
const JOINT_PROFILE = [1, 2, 4, 8, 16, 64, 256, 1000, 1e6];
const LEAST_CLUSTERS = 3;

const plain = (fit: ClusteredFit, errors: EffectErrors): FittedModel => {
  const { theta, psi, sigma2, m, logLikelihood, distances2, weights, blups, iterations, converged } = fit;
  return { theta, psi, sigma2, m, logLikelihood, distances2, weights, blups, iterations, converged, errors };
};

/**
 * Fits the clustered q-Gaussian model and, beside it, the normal one and the joint one. Runs in a thread of its own.
 * @throws InputError for rows that do not fit, unknown random effects, fewer than 3 clusters, q out of range, collinear
 *   fixed effects
 */
export async function fitMixedEffects(
  args: MixedArguments,
  progress: (done: { step: number; of: number; label: string }) => void,
): Promise<MixedResult> {
  const { data, effectNames } = await openClusters(args);
  const correlation = errorCorrelation(args.correlation);
  const m = freedomOf(args.freedom, data);
  const effectPenalty = penaltyOn(args, effectNames.length);
  const of = 2 + (args.profile ? PROFILE.length : 0);
  let step = 0;
  const common: ClusteredFitOptions = {
    correlation,
    tolerance: args.tolerance,
    maxIterations: args.maxIterations,
    ...(effectPenalty && { effectPenalty }),
  };
  progress({ step: step++, of, label: 'normal' });
  const gaussian = fitClustered(data, { ...common, m: Number.POSITIVE_INFINITY });
  progress({ step: step++, of, label: 'q-Gaussian' });
  const fit = fitClustered(data, {
    ...common,
    ...(m !== undefined && { m }),
    start: { theta: gaussian.theta, psi: steady(gaussian), sigma2: gaussian.sigma2, m: m ?? 8 },
  });
  const profile = args.profile
    ? PROFILE.map((at) => {
        progress({ step: step++, of, label: `m = ${at}` });
        const { theta, sigma2 } = fit;
        const start = { theta, psi: steady(fit), sigma2, m: at };
        return { m: at, logLikelihood: fitClustered(data, { ...common, m: at, start }).logLikelihood };
      })
    : [];
  const active = (theta: Float64Array): Uint8Array | undefined =>
    effectPenalty && Uint8Array.from(theta, (value) => (value === 0 ? 0 : 1));
  const solves = data.clusters.map((cluster) => factorCluster(cluster, fit, correlation));
  return {
    effectNames,
    randomNames: args.random.map((name) => (name === '1' ? '(intercept)' : name)),
    clusterNames: data.clusters.map(({ name }) => name),
    clusterSizes: Int32Array.from(data.clusters, ({ n }) => n),
    observations: data.observations,
    fit: plain(fit, effectErrors(data, fit, active(fit.theta))),
    gaussian: plain(gaussian, effectErrors(data, gaussian, active(gaussian.theta))),
    profile,
    joint: fitJoint(data, solves, JOINT_PROFILE, effectPenalty),
  };
}

export const FIT_MIXED_EFFECTS: ComputeReference<MixedArguments, MixedResult> = {
  module: import.meta.url,
  job: fitMixedEffects,
};

/** Psi moved a little off the boundary, from which EM steps could not leave. */
function steady({ psi, sigma2 }: { psi: Float64Array; sigma2: number }): Float64Array {
  const r = Math.sqrt(psi.length);
  return psi.map((value, k) => (k % (r + 1) === 0 ? value + 1e-3 * sigma2 : value));
}

function freedomOf(freedom: Freedom, data: ClusteredData): number | undefined {
  if (freedom.kind === 'estimate') return undefined;
  if (freedom.kind === 'fixed') return freedom.m;
  // q is that of the largest cluster; its limit 1 + 2/n is the lowest there.
  const largest = data.clusters.reduce((most, cluster) => (cluster.n > most.n ? cluster : most));
  return freedomOfQ(freedom.q, largest.n, `cluster ${largest.name}`);
}

function penaltyOn(args: MixedArguments, effects: number): EffectPenalty | undefined {
  if (args.penalty === undefined) return undefined;
  const penalised = new Uint8Array(effects).fill(1);
  if (args.intercept) penalised[0] = 0;
  return { penalty: args.penalty, penalised };
}

async function openClusters(args: MixedArguments): Promise<{ data: ClusteredData; effectNames: string[] }> {
  const matrix = await openFeatures(args.source);
  try {
    const { rows, columns, name } = matrix;
    for (const [what, count] of [
      [args.outcome.name, args.outcome.values.length],
      [args.group.name, args.group.codes.length],
    ] as const) {
      if (count !== rows)
        throw new InputError(`${what}: ${count} values, but ${name} has ${rows} rows; give one a row`);
    }
    const names = matrix.columnNames ?? Array.from({ length: columns }, (_, j) => `column_${j}`);
    const chosen = args.random.map((effect) => {
      if (effect === '1') return -1;
      const at = names.indexOf(effect);
      if (at < 0)
        throw new InputError(`--random ${effect}: ${name} has no such column; it has ${names.slice(0, 12).join(', ')}`);
      return at;
    });
    const values = loadMatrix(matrix);
    const first = args.intercept ? 1 : 0;
    const p = columns + first;
    const x = new Float64Array(rows * p);
    const z = new Float64Array(rows * chosen.length);
    for (let i = 0; i < rows; i++) {
      if (first === 1) x[i * p] = 1;
      x.set(values.subarray(i * columns, (i + 1) * columns), i * p + first);
      chosen.forEach((at, k) => {
        z[i * chosen.length + k] = at < 0 ? 1 : values[i * columns + at];
      });
    }
    const data = gatherClusters(args.outcome.values, x, z, args.group.codes, args.group.names);
    if (data.clusters.length < LEAST_CLUSTERS) {
      throw new InputError(
        `${args.group.name}: ${data.clusters.length} ${data.clusters.length === 1 ? 'cluster' : 'clusters'}; the spread among clusters needs at least ${LEAST_CLUSTERS}`,
      );
    }
    if (p >= rows && args.penalty === undefined) {
      throw new InputError(`${name}: ${p} fixed effects for ${rows} rows; leave columns out, or give a --penalty`);
    }
    const widest = data.clusters.reduce((most, { n }) => Math.max(most, n), 0);
    const needed = 8 * (4 * rows * p + data.clusters.reduce((sum, { n }) => sum + n * n, 0) + 4 * widest * widest);
    if (needed > args.maxMemoryBytes) {
      throw new InputError(`${name}: the fit needs ${Math.ceil(needed / 2 ** 20)} MiB; raise --max-memory`);
    }
    return { data, effectNames: [...(first === 1 ? ['(intercept)'] : []), ...names] };
  } finally {
    matrix.close();
  }
}
