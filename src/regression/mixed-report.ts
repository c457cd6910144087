import type { Cell } from '../report/csv.js';
import type { FittedModel, MixedResult } from './mixed-job.js';
import { covarianceFactor, qOfFreedom } from './tsallis.js';

/** Name of the report's schema. */
export const MIXED_SCHEMA = 'mixed-effects';

export interface EffectRow {
  readonly effect: string;
  readonly theta: number;
  /** From the expected information. */
  readonly theta_se: number | null;
  readonly theta_sandwich_se: number | null;
  readonly z: number | null;
  readonly theta_gaussian: number;
  readonly theta_gaussian_se: number | null;
  readonly theta_joint: number;
}

export interface ClusterRow {
  readonly cluster: string;
  readonly observations: number;
  readonly weight: number;
  readonly mahalanobis2: number;
  readonly mahalanobis2_per_observation: number;
  readonly q: number | null;
  /** Predicted random effects, in the order of `random_effects`. */
  readonly blups: readonly number[];
}

export interface MixedBody {
  readonly observations: number;
  readonly clusters: number;
  readonly fixed_effects: readonly EffectRow[];
  readonly random_effects: readonly string[];
  /** Rows of Psi. */
  readonly psi: readonly (readonly number[])[];
  readonly sigma2: number;
  readonly error_correlation: number;
  readonly degrees_of_freedom: number;
  readonly degrees_of_freedom_known: 'estimated' | 'given';
  /** Where the likelihood, everything else fitted anew, is within 1.92 of its largest. */
  readonly degrees_of_freedom_interval: readonly [number, number] | null;
  readonly covariance_factor: number;
  readonly log_likelihood: number;
  readonly log_likelihood_gaussian: number;
  readonly psi_gaussian: readonly (readonly number[])[];
  readonly sigma2_gaussian: number;
  readonly likelihood_ratio_over_gaussian: number;
  readonly iterations: number;
  readonly converged: boolean;
  readonly penalty: { readonly kind: string; readonly lambda: number; readonly selected: number } | null;
  readonly outlying_clusters: readonly string[];
  readonly cluster_weights: readonly ClusterRow[];
  readonly profile: readonly { readonly m: number; readonly log_likelihood: number }[];
  readonly joint_model: {
    readonly scale_multiplier: number;
    readonly profile: readonly { readonly m: number; readonly q: number; readonly log_likelihood: number }[];
    readonly note: string;
  };
  readonly warnings: readonly string[];
}

export interface MixedReportSettings {
  readonly estimated: boolean;
  readonly errorCorrelation: number;
  readonly penalty: { readonly kind: string; readonly lambda: number } | null;
}

/** A cluster of less weight than this is called outlying. */
const OUTLYING = 0.5;
/** Half of the 95 % point of chi-square with one degree of freedom. */
const HALF_CHI2_95 = 1.920729410347062;

const JOINT_NOTE =
  'all observations as one q-Gaussian vector: theta is that of normal generalised least squares whatever q is, and the ' +
  'profiled likelihood rises with m without end, so q is not identifiable from one vector; the clustered model is the one to use';

const orNull = (value: number): number | null => (Number.isNaN(value) ? null : value);

function matrixRows(values: Float64Array): number[][] {
  const r = Math.sqrt(values.length);
  return Array.from({ length: r }, (_, a) => Array.from(values.subarray(a * r, (a + 1) * r)));
}

/** Ends of the profile interval by linear interpolation between the points; the ends of the range where it is flat. */
export function profileInterval(
  profile: readonly { readonly m: number; readonly logLikelihood: number }[],
  best: { readonly m: number; readonly logLikelihood: number },
): readonly [number, number] | null {
  if (profile.length === 0) return null;
  const points = [...profile.filter(({ m }) => m !== best.m), best].sort((a, b) => a.m - b.m);
  const at = points.indexOf(best);
  const drop = best.logLikelihood - HALF_CHI2_95;
  const end = (step: number): number => {
    for (let k = at; k + step >= 0 && k + step < points.length; k += step) {
      const inner = points[k];
      const outer = points[k + step];
      if (outer.logLikelihood >= drop) continue;
      const share = (inner.logLikelihood - drop) / (inner.logLikelihood - outer.logLikelihood);
      return Math.exp(Math.log(inner.m) + share * (Math.log(outer.m) - Math.log(inner.m)));
    }
    return step < 0 ? points[0].m : points[points.length - 1].m;
  };
  return [end(-1), end(1)];
}

function warningsOf(result: MixedResult, settings: MixedReportSettings, interval: readonly [number, number] | null) {
  const { fit, gaussian } = result;
  const warnings: string[] = [];
  if (!fit.converged)
    warnings.push(`the q-Gaussian fit stopped after ${fit.iterations} iterations; raise --max-iterations`);
  if (!gaussian.converged) {
    warnings.push(`the normal fit stopped after ${gaussian.iterations} iterations; raise --max-iterations`);
  }
  if (settings.estimated && fit.m >= 199) {
    warnings.push(
      'the degrees of freedom are at their upper end 200: the clusters show no tails, and the normal model does',
    );
  } else if (settings.estimated && fit.m <= 2.02) {
    warnings.push('the degrees of freedom are at their lower end 2.01: the covariance is hardly finite');
  }
  if (interval !== null && interval[1] / interval[0] > 30) {
    warnings.push(
      `the degrees of freedom are hardly determined: ${interval.map((m) => m.toPrecision(3)).join(' to ')}`,
    );
  }
  const smallest = Math.sqrt(fit.psi.length);
  for (let a = 0; a < smallest; a++) {
    if (fit.psi[a * (smallest + 1)] < 1e-6 * fit.sigma2) {
      warnings.push(`the random effect of ${result.randomNames[a]} has no spread; leave it out of --random`);
    }
  }
  return warnings;
}

/** The body of the report. */
export function mixedBody(result: MixedResult, settings: MixedReportSettings): MixedBody {
  const { fit, gaussian, joint } = result;
  const interval = settings.estimated ? profileInterval(result.profile, fit) : null;
  const weights = clusterRows(result);
  return {
    observations: result.observations,
    clusters: result.clusterNames.length,
    fixed_effects: result.effectNames.map((effect, j) => effectRow(effect, j, fit, gaussian, joint.theta)),
    random_effects: result.randomNames,
    psi: matrixRows(fit.psi),
    sigma2: fit.sigma2,
    error_correlation: settings.errorCorrelation,
    degrees_of_freedom: fit.m,
    degrees_of_freedom_known: settings.estimated ? 'estimated' : 'given',
    degrees_of_freedom_interval: interval,
    covariance_factor: Number.isFinite(fit.m) ? covarianceFactor(fit.m) : 1,
    log_likelihood: fit.logLikelihood,
    log_likelihood_gaussian: gaussian.logLikelihood,
    psi_gaussian: matrixRows(gaussian.psi),
    sigma2_gaussian: gaussian.sigma2,
    likelihood_ratio_over_gaussian: 2 * (fit.logLikelihood - gaussian.logLikelihood),
    iterations: fit.iterations,
    converged: fit.converged,
    penalty: settings.penalty && {
      ...settings.penalty,
      selected: result.effectNames.filter((name, j) => name !== '(intercept)' && fit.theta[j] !== 0).length,
    },
    outlying_clusters: weights.filter(({ weight }) => weight < OUTLYING).map(({ cluster }) => cluster),
    cluster_weights: weights,
    profile: result.profile.map(({ m, logLikelihood }) => ({ m, log_likelihood: logLikelihood })),
    joint_model: {
      scale_multiplier: joint.scaleMultiplier,
      profile: joint.profile.map(({ m, q, logLikelihood }) => ({ m, q, log_likelihood: logLikelihood })),
      note: JOINT_NOTE,
    },
    warnings: warningsOf(result, settings, interval),
  };
}

function effectRow(effect: string, j: number, fit: FittedModel, gaussian: FittedModel, joint: Float64Array): EffectRow {
  const se = fit.errors.information[j];
  return {
    effect,
    theta: fit.theta[j],
    theta_se: orNull(se),
    theta_sandwich_se: orNull(fit.errors.sandwich[j]),
    z: orNull(fit.theta[j] / se),
    theta_gaussian: gaussian.theta[j],
    theta_gaussian_se: orNull(gaussian.errors.information[j]),
    theta_joint: joint[j],
  };
}

function clusterRows({ fit, clusterNames, clusterSizes, randomNames }: MixedResult): ClusterRow[] {
  const r = randomNames.length;
  return clusterNames.map((cluster, i) => ({
    cluster,
    observations: clusterSizes[i],
    weight: fit.weights[i],
    mahalanobis2: fit.distances2[i],
    mahalanobis2_per_observation: fit.distances2[i] / clusterSizes[i],
    q: Number.isFinite(fit.m) ? qOfFreedom(fit.m, clusterSizes[i]) : null,
    blups: Array.from(fit.blups.subarray(i * r, (i + 1) * r)),
  }));
}

export const EFFECT_COLUMNS = [
  'effect',
  'theta',
  'theta_se',
  'theta_sandwich_se',
  'z',
  'theta_gaussian',
  'theta_gaussian_se',
  'theta_joint',
] as const;

export function effectTable(body: MixedBody): Cell[][] {
  return body.fixed_effects.map((row) => EFFECT_COLUMNS.map((key) => row[key]));
}

const CLUSTER_COLUMNS = [
  'cluster',
  'observations',
  'weight',
  'mahalanobis2',
  'mahalanobis2_per_observation',
  'q',
] as const;

/** Columns of the table of clusters: a prediction for every random effect follows the others. */
export function clusterColumns(random: readonly string[]): string[] {
  return [...CLUSTER_COLUMNS, ...random.map((name) => `blup_${name === '1' ? 'intercept' : name}`)];
}

export function clusterTable(body: MixedBody): Cell[][] {
  return body.cluster_weights.map((row) => [...CLUSTER_COLUMNS.map((key) => row[key]), ...row.blups]);
}
