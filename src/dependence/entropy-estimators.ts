import { didYouMean, InputError } from '../errors.js';
import { type CountProfile, coverageOf, withoutOne } from './count-profile.js';
import { chaoShenEntropy, chaoWangJostEntropy } from './entropy-coverage.js';
import { grassberger1988Entropy, grassbergerEntropy } from './entropy-grassberger.js';
import { ansbEntropy, nsbEntropy } from './entropy-nsb.js';
import { deltaStandardError, jackknifeEntropy, millerMadowEntropy, pluginEntropy } from './entropy-plugin.js';
import { dirichletMoments, jamesSteinEntropy } from './entropy-shrinkage.js';

/** What an estimator says of one set of counts, in nats. */
export interface EntropyEstimate {
  readonly valueNats: number;
  /** Of a posterior law, where the estimator has one. */
  readonly sdNats?: number;
  /** Why the value is not a number, or what it is not fit for. */
  readonly reason?: string;
}

export interface EntropyEstimator {
  readonly name: string;
  /** Whether it needs the number of symbols that can occur; the observed number stands in where none is stated. */
  readonly needsSupport: boolean;
  estimate(profile: CountProfile, support: number): EntropyEstimate;
  /** The value alone, where that is quicker. */
  value(profile: CountProfile, support: number): number;
}

function plain(name: string, value: (profile: CountProfile) => number): EntropyEstimator {
  return { name, needsSupport: false, value, estimate: (profile) => ({ valueNats: value(profile) }) };
}

function dirichletEstimator(concentration: number): EntropyEstimator {
  return {
    name: `dirichlet-${concentration}`,
    needsSupport: true,
    value: (profile, support) => dirichletMoments(profile, support, concentration).meanNats,
    estimate(profile, support) {
      const { meanNats, variance } = dirichletMoments(profile, support, concentration);
      return { valueNats: meanNats, sdNats: Math.sqrt(variance) };
    },
  };
}

/** All estimators of entropy, in the order of the tables. */
export const ENTROPY_ESTIMATORS: readonly EntropyEstimator[] = [
  plain('plugin', pluginEntropy),
  plain('miller-madow', millerMadowEntropy),
  plain('jackknife', jackknifeEntropy),
  plain('grassberger', grassbergerEntropy),
  plain('grassberger-1988', grassberger1988Entropy),
  plain('chao-shen', chaoShenEntropy),
  plain('chao-wang-jost', chaoWangJostEntropy),
  {
    name: 'james-stein',
    needsSupport: true,
    value: (profile, support) => jamesSteinEntropy(profile, support).entropyNats,
    estimate: (profile, support) => ({ valueNats: jamesSteinEntropy(profile, support).entropyNats }),
  },
  dirichletEstimator(1),
  dirichletEstimator(0.5),
  {
    name: 'nsb',
    needsSupport: true,
    value: (profile, support) => nsbEntropy(profile, support).meanNats,
    estimate(profile, support) {
      const { meanNats, sdNats } = nsbEntropy(profile, support);
      return { valueNats: meanNats, sdNats };
    },
  },
  {
    name: 'ansb',
    needsSupport: false,
    value: (profile) => ansbEntropy(profile).meanNats,
    estimate(profile) {
      const { meanNats, sdNats } = ansbEntropy(profile);
      if (Number.isNaN(meanNats)) {
        return { valueNats: meanNats, reason: 'no symbol was seen twice: without coincidences it is undefined' };
      }
      // It is the limit of few coincidences among many symbols, and says nothing of counts that repeat.
      const repeated = profile.total > 2 * profile.observed;
      return {
        valueNats: meanNats,
        sdNats,
        ...(repeated && { reason: 'meant for samples in which few symbols repeat' }),
      };
    },
  },
];

export const DEFAULT_ESTIMATOR = 'grassberger';

/** The estimator of that name, also `dirichlet-A` for any A > 0. Throws InputError for an unknown one. */
export function entropyEstimator(name: string): EntropyEstimator {
  const known = ENTROPY_ESTIMATORS.find((estimator) => estimator.name === name);
  if (known) return known;
  const concentration = Number(/^dirichlet-(.+)$/.exec(name)?.[1]);
  if (concentration > 0 && Number.isFinite(concentration)) return dirichletEstimator(concentration);
  const names = ENTROPY_ESTIMATORS.map((estimator) => estimator.name);
  throw new InputError(
    `--estimator ${name}: no estimator of entropy has this name${didYouMean(name, names)}; known: ${names.join(', ')}, dirichlet-A for A > 0`,
  );
}

/**
 * Values with one observation left out: `values[g]` when it is of a symbol that was seen `profile.values[g]` times.
 * NaN where nothing would be left.
 */
export function leaveOneOut(profile: CountProfile, support: number, estimator: EntropyEstimator): Float64Array {
  if (profile.total === 1) return new Float64Array(profile.values.length).fill(Number.NaN);
  return profile.values.map((count) => estimator.value(withoutOne(profile, count), support));
}

/** Jackknife standard error sqrt((N-1)/N Σ (H_(i) - mean)²) over observations, from the grouped values. */
export function jackknifeStandardError(profile: CountProfile, left: Float64Array): number {
  const { total, values, multiplicities } = profile;
  let mean = 0;
  for (let g = 0; g < left.length; g++) mean += ((values[g] * multiplicities[g]) / total) * left[g];
  let squares = 0;
  for (let g = 0; g < left.length; g++) squares += values[g] * multiplicities[g] * (left[g] - mean) ** 2;
  return Math.sqrt(((total - 1) / total) * squares);
}

export type EntropyUnit = 'nats' | 'bits';

/** A figure in nats, corrections and all, in the unit of the report. */
export function inUnit(nats: number, unit: EntropyUnit): number {
  return unit === 'bits' ? nats / Math.LN2 : nats;
}

export type ErrorMethod = 'delta' | 'jackknife' | 'posterior' | 'split';

export interface EstimateWithError extends EntropyEstimate {
  readonly estimator: string;
  readonly seNats: number | null;
  readonly seMethod: ErrorMethod | null;
}

/** Above this many distinct counts the jackknife, quadratic in them, is left out. */
const MOST_JACKKNIFED = 5000;

/**
 * Estimators whose error is that of the plug-in value to first order. Grassberger's of 2003 is among them because its G
 * tells odd counts from even ones, which leaving one out would take for variance.
 */
const DELTA_METHOD: ReadonlySet<string> = new Set([
  'plugin',
  'miller-madow',
  'jackknife',
  'grassberger',
  'grassberger-1988',
]);

/** How the standard error of an estimator is found where it has no posterior law; null for none. */
export function errorMethodOf(estimator: EntropyEstimator): 'delta' | 'jackknife' | null {
  if (estimator.name === 'ansb') return null;
  return DELTA_METHOD.has(estimator.name) ? 'delta' : 'jackknife';
}

/**
 * One estimate with its standard error: the standard deviation of the posterior where there is one, the delta method for
 * the plug-in value and its corrections, else the jackknife.
 */
export function estimateWithError(
  profile: CountProfile,
  support: number,
  estimator: EntropyEstimator,
): EstimateWithError {
  const found = estimator.estimate(profile, support);
  const named = { estimator: estimator.name, ...found };
  if (Number.isNaN(found.valueNats)) return { ...named, seNats: null, seMethod: null };
  if (found.sdNats !== undefined) return { ...named, seNats: found.sdNats, seMethod: 'posterior' };
  if (errorMethodOf(estimator) === 'delta') {
    return { ...named, seNats: deltaStandardError(profile), seMethod: 'delta' };
  }
  if (profile.total < 2 || profile.values.length > MOST_JACKKNIFED) return { ...named, seNats: null, seMethod: null };
  const error = jackknifeStandardError(profile, leaveOneOut(profile, support, estimator));
  return { ...named, seNats: error, seMethod: 'jackknife' };
}

/**
 * What the counts say about the estimators, or undefined where there are enough of them.
 * @param unit of the correction that is named: it is (k-1)/(2N) in nats
 */
export function samplingAdvice(
  profile: Pick<CountProfile, 'total' | 'observed' | 'singles'>,
  unit: EntropyUnit,
): string | undefined {
  const { total, observed, singles } = profile;
  if (total / observed >= 2 && singles / total <= 0.5) return undefined;
  const low = inUnit((observed - 1) / (2 * total), unit).toPrecision(3);
  return (
    `undersampled (N/k = ${(total / observed).toPrecision(3)}, coverage ${coverageOf(profile).toPrecision(3)}): ` +
    `prefer nsb (support known) or chao-shen, chao-wang-jost; plugin is low by at least (k-1)/(2N) = ${low} ${unit}`
  );
}
