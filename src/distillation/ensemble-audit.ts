/** The universality views of an ensemble: mixture, regrets, posterior, weight of a hypothesis, train and test. */
import { InputError } from '../errors.js';
import type { EnsembleRecords } from './ensemble-records.js';
import {
  type Ball,
  ballOf,
  type RegretBounds,
  regretBounds,
  sampleComplexity,
  weightProfile,
} from './hypothesis-weight.js';
import {
  createMixture,
  effectiveNumber,
  estimateDivergences,
  type Mixture,
  priorOf,
  temperedPosterior,
} from './universality.js';

export interface EnsembleOptions {
  /** [models]; uniform when absent. */
  readonly prior?: readonly number[];
  /** Model that the weight of a hypothesis is about. */
  readonly reference?: number;
  /** Radii to list, nats per sample. */
  readonly radii: readonly number[];
  readonly betas: readonly number[];
  /** Records that the posterior is formed on; the others are a test. All when absent. */
  readonly trained?: number;
  /** Regret per sample that is asked for. */
  readonly target?: number;
}

export interface EnsembleModel {
  readonly model: number;
  readonly prior: number;
  readonly total_nats: number;
  readonly posterior: number;
  /** Mixture's total minus this model's; at most the limit -ln prior. */
  readonly regret_nats: number;
  readonly regret_limit_nats: number;
  readonly divergence_nats: number | null;
}

export interface EnsembleAudit {
  readonly models: number;
  readonly records: number;
  readonly trained_records: number;
  readonly prior_normalised_by: number | null;
  readonly mixture: {
    readonly total_nats: number;
    readonly mean_nats: number;
    readonly uniform_average_total_nats: number;
    readonly uniform_average_mean_nats: number;
    readonly best_single_index: number;
    readonly best_single_total_nats: number;
    readonly regret_to_best_nats: number;
    /** total / records: what the online mixture promises a batch learner on average. */
    readonly online_to_batch_mean_nats: number;
  };
  readonly by_model: readonly EnsembleModel[];
  /** exp of the posterior's entropy. */
  readonly effective_models: number;
  readonly concentration: readonly {
    readonly records: number;
    readonly effective_models: number;
    readonly largest_weight: number;
    readonly largest_model: number;
  }[];
  readonly tempered: readonly {
    readonly beta: number;
    readonly effective_models: number;
    readonly posterior: Float64Array;
  }[];
  readonly reference: {
    readonly model: number;
    /** `estimated` from losses on data that the reference is taken to have generated. */
    readonly divergences: 'exact' | 'estimated';
    readonly clamped_models: readonly number[];
    readonly bounds: RegretBounds;
    readonly bound_per_sample_nats: number;
    readonly balls: readonly Ball[];
    readonly target_nats: number | null;
    readonly samples_for_target: number | null;
  } | null;
  readonly test: {
    readonly records: number;
    readonly mixture_mean_nats: number;
    readonly mixture_se_nats: number | null;
    readonly uniform_average_mean_nats: number;
    readonly best_trained_index: number;
    readonly best_trained_mean_nats: number;
  } | null;
}

const largest = (values: Float64Array): number =>
  values.reduce((best, value, m) => (value > values[best] ? m : best), 0);
const least = (values: Float64Array): number => values.reduce((best, value, m) => (value < values[best] ? m : best), 0);

/** Numbers of records at which the posterior is shown: 1, 2, 5, 10, ... and the last. */
function* checkpoints(records: number): Generator<number> {
  for (let unit = 1; unit < records; unit *= 10) {
    for (const step of [1, 2, 5]) if (unit * step < records) yield unit * step;
  }
  yield records;
}

function columnOf({ losses, models, records }: EnsembleRecords, t: number, target: Float64Array): Float64Array {
  for (let m = 0; m < models; m++) target[m] = losses[m * records + t];
  return target;
}

function testOf(source: EnsembleRecords, mixture: Mixture, trained: number): EnsembleAudit['test'] {
  const { models, records, losses } = source;
  const count = records - trained;
  if (count === 0) return null;
  const column = new Float64Array(models);
  const uniform = createMixture(new Float64Array(models).fill(1 / models));
  let sum = 0;
  let squares = 0;
  let average = 0;
  for (let t = trained; t < records; t++) {
    columnOf(source, t, column);
    const loss = mixture.predict(column);
    sum += loss;
    squares += loss * loss;
    average += uniform.predict(column);
  }
  const best = least(mixture.totals);
  const own = losses.subarray(best * records + trained, (best + 1) * records).reduce((a, b) => a + b, 0);
  const variance = Math.max(0, squares - (sum * sum) / count) / (count - 1);
  return {
    records: count,
    mixture_mean_nats: sum / count,
    mixture_se_nats: count > 1 ? Math.sqrt(variance / count) : null,
    uniform_average_mean_nats: average / count,
    best_trained_index: best,
    best_trained_mean_nats: own / count,
  };
}

/** @throws InputError for a model that is not among so many */
export function checkReference(reference: number | undefined, models: number): void {
  if (reference === undefined || (reference >= 0 && reference < models)) return;
  throw new InputError(`--reference ${reference}: the models are 0 to ${models - 1}`);
}

/**
 * @throws InputError for a prior or reference that does not fit, or a record to which every model gives probability 0
 */
export function auditEnsemble(source: EnsembleRecords, options: EnsembleOptions): EnsembleAudit {
  const { models, records } = source;
  const { reference } = options;
  const trained = options.trained ?? records;
  if (trained < 1 || trained > records) {
    throw new InputError(`--train-records ${trained}: there are ${records} records`);
  }
  checkReference(reference, models);
  const { weights: prior, normalisedBy } = priorOf(models, options.prior);
  const mixture = createMixture(prior);
  const shown = new Set(checkpoints(trained));
  const concentration: EnsembleAudit['concentration'][number][] = [];
  const column = new Float64Array(models);
  for (let t = 0; t < trained; t++) {
    mixture.observe(columnOf(source, t, column));
    if (!shown.has(t + 1)) continue;
    const posterior = mixture.posterior();
    const top = largest(posterior);
    const figures = {
      effective_models: effectiveNumber(posterior),
      largest_weight: posterior[top],
      largest_model: top,
    };
    concentration.push({ records: t + 1, ...figures });
  }
  const posterior = mixture.posterior();
  const { totals, total } = mixture;
  const best = least(totals);
  const exact = reference === undefined ? undefined : source.divergencesFrom?.(reference);
  const estimated =
    reference === undefined || exact !== undefined ? undefined : estimateDivergences(reference, totals, trained);
  const divergences = exact ?? estimated?.values;
  return {
    ...{ models, records, trained_records: trained, prior_normalised_by: normalisedBy ?? null },
    mixture: {
      total_nats: total,
      mean_nats: total / trained,
      uniform_average_total_nats: mixture.averageTotal,
      uniform_average_mean_nats: mixture.averageTotal / trained,
      best_single_index: best,
      best_single_total_nats: totals[best],
      regret_to_best_nats: total - totals[best],
      online_to_batch_mean_nats: total / trained,
    },
    by_model: Array.from(prior, (weight, model) => ({
      model,
      prior: weight,
      total_nats: totals[model],
      posterior: posterior[model],
      regret_nats: total - totals[model],
      regret_limit_nats: -Math.log(weight),
      divergence_nats: divergences?.[model] ?? null,
    })),
    effective_models: effectiveNumber(posterior),
    concentration,
    tempered: options.betas.map((beta) => {
      const tempered = temperedPosterior(prior, totals, beta);
      return { beta, effective_models: effectiveNumber(tempered), posterior: tempered };
    }),
    reference:
      reference === undefined || divergences === undefined
        ? null
        : referenceOf(reference, divergences, prior, trained, options, estimated?.clamped),
    test: testOf(source, mixture, trained),
  };
}

function referenceOf(
  model: number,
  divergences: Float64Array,
  prior: Float64Array,
  samples: number,
  { radii, target }: EnsembleOptions,
  clamped: readonly number[] | undefined,
): EnsembleAudit['reference'] {
  const profile = weightProfile(divergences, prior);
  const bounds = regretBounds(profile, samples);
  // Every observed divergence is a radius at which the weight changes.
  const listed = [...new Set([...radii, ...profile.divergences])].filter(Number.isFinite).sort((a, b) => a - b);
  return {
    model,
    divergences: clamped === undefined ? 'exact' : 'estimated',
    clamped_models: clamped ?? [],
    bounds,
    bound_per_sample_nats: bounds.ball_nats / samples,
    balls: listed.map((radius) => ballOf(profile, radius, samples)),
    target_nats: target ?? null,
    samples_for_target: target === undefined ? null : (sampleComplexity(profile, target) ?? null),
  };
}
