/** Knowledge fusion of FuseLLM (Wan et al. 2024) and FuseChat: which model a sequence is learnt from, and the fused loss. */
import { InputError } from '../../errors.js';

/** Cross-entropy that stands for one that is no number, as in FuseChat's choice among sources. */
export const MISSING_CE = 1e5;

/** A distribution over a vocabulary by its entries; they sum to 1. */
export interface SparseDistribution {
  readonly ids: Int32Array;
  readonly probabilities: Float64Array;
}

const known = (ce: number): number => (Number.isNaN(ce) ? MISSING_CE : ce);

/** exp(-ce) of each model, ce the mean cross-entropy of the sequence in nats: its inverse perplexity. */
export function rewards(ces: ArrayLike<number>): Float64Array {
  return Float64Array.from(ces, (ce) => Math.exp(-known(ce)));
}

/**
 * MinCE: the model of the least cross-entropy, which is that of the largest reward; ties go to the lowest index, so to the
 * pivot where it is among them. Cross-entropies that are NaN count as {@link MISSING_CE}.
 */
export function minCeChoice(ces: ArrayLike<number>): number {
  let best = 0;
  for (let model = 1; model < ces.length; model++) if (known(ces[model]) < known(ces[best])) best = model;
  return best;
}

/**
 * Whether a model other than the chosen one lies within `tolerance` nats of it. The authors compute rewards in bfloat16, of
 * which gaps below about 0.008 nats are ties.
 */
export function isNearTie(ces: ArrayLike<number>, tolerance: number): boolean {
  const chosen = minCeChoice(ces);
  for (let model = 0; model < ces.length; model++) {
    if (model !== chosen && known(ces[model]) - known(ces[chosen]) < tolerance) return true;
  }
  return false;
}

/** MinCE as weights: 1 for the choice, 0 for the others. */
export function minCeWeights(ces: ArrayLike<number>): Float64Array {
  const weights = new Float64Array(ces.length);
  weights[minCeChoice(ces)] = 1;
  return weights;
}

/** AvgCE: the softmax over the rewards, not over the negated cross-entropies. */
export function avgCeWeights(ces: ArrayLike<number>): Float64Array {
  const scores = rewards(ces);
  const most = scores.reduce((a, b) => Math.max(a, b), 0);
  const weights = scores.map((score) => Math.exp(score - most));
  const sum = weights.reduce((a, b) => a + b, 0);
  return weights.map((weight) => weight / sum);
}

/**
 * The softmax of the kept logits of a row at a temperature, all other tokens without mass. No entry gives no entry.
 * @throws InputError for a logit that is NaN or +Infinity
 */
export function rowDistribution(ids: Int32Array, logits: ArrayLike<number>, temperature: number): SparseDistribution {
  let most = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < ids.length; i++) {
    if (!(logits[i] < Number.POSITIVE_INFINITY)) throw new InputError(`the logit of token ${ids[i]} is ${logits[i]}`);
    most = Math.max(most, logits[i]);
  }
  const probabilities = Float64Array.from(ids, (_, i) => Math.exp((logits[i] - most) / temperature));
  const sum = probabilities.reduce((a, b) => a + b, 0);
  return { ids, probabilities: probabilities.map((p) => p / sum) };
}

/** The weighted mean of distributions, over the union of their entries in the order in which they come. */
export function mixDistributions(parts: readonly SparseDistribution[], weights: ArrayLike<number>): SparseDistribution {
  const mass = new Map<number, number>();
  parts.forEach(({ ids, probabilities }, part) => {
    if (weights[part] === 0) return;
    ids.forEach((id, i) => {
      mass.set(id, (mass.get(id) ?? 0) + weights[part] * probabilities[i]);
    });
  });
  return { ids: Int32Array.from(mass.keys()), probabilities: Float64Array.from(mass.values()) };
}

/** How far a distribution may be from the sum 1. */
const SUM_TOLERANCE = 1e-3;

/**
 * The weighted mean of whole distributions.
 * @param distributions [entries, models]: the same entry of all models side by side
 * @param weights [models]
 */
export function mixDense(distributions: Float64Array, weights: ArrayLike<number>): Float64Array {
  const models = weights.length;
  const mixed = new Float64Array(distributions.length / models);
  for (let v = 0; v < mixed.length; v++) {
    for (let k = 0; k < models; k++) mixed[v] += weights[k] * distributions[v * models + k];
  }
  return mixed;
}

/** @throws InputError where a distribution does not sum to 1 within 1e-3 */
export function checkDistribution({ probabilities }: SparseDistribution, place: string): void {
  const sum = probabilities.reduce((a, b) => a + b, 0);
  if (Math.abs(sum - 1) <= SUM_TOLERANCE) return;
  throw new InputError(`${place}: the probabilities sum to ${sum}, not to 1`);
}

/** Entropy in nats. */
export function distributionEntropy({ probabilities }: SparseDistribution): number {
  let sum = 0;
  for (const p of probabilities) if (p > 0) sum -= p * Math.log(p);
  return sum;
}

/** KL(q || p) in nats; Infinity where q has mass and p has none. */
export function distributionDivergence(q: SparseDistribution, p: SparseDistribution): number {
  const other = new Map<number, number>();
  p.ids.forEach((id, i) => {
    other.set(id, p.probabilities[i]);
  });
  let sum = 0;
  q.ids.forEach((id, i) => {
    const mass = q.probabilities[i];
    if (mass > 0) sum += mass * (Math.log(mass) - Math.log(other.get(id) ?? 0));
  });
  return sum;
}

export const FUSION_LOSSES = ['ce', 'kl'] as const;
/** What a row of the student costs against the fused target: -Σ q ln p, or Σ q (ln q - ln p). */
export type FusionLoss = (typeof FUSION_LOSSES)[number];

function logNormaliser(logits: ArrayLike<number>): number {
  let most = Number.NEGATIVE_INFINITY;
  for (let v = 0; v < logits.length; v++) most = Math.max(most, logits[v]);
  let sum = 0;
  for (let v = 0; v < logits.length; v++) sum += Math.exp(logits[v] - most);
  return most + Math.log(sum);
}

/**
 * L_fusion of one row, in nats.
 * @param logits [vocabulary], the student's
 */
export function fusionRowLoss(logits: ArrayLike<number>, target: SparseDistribution, kind: FusionLoss): number {
  const normaliser = logNormaliser(logits);
  let sum = 0;
  target.ids.forEach((id, i) => {
    const q = target.probabilities[i];
    if (q > 0) sum -= q * (logits[id] - normaliser - (kind === 'kl' ? Math.log(q) : 0));
  });
  return sum;
}

/** -ln p of the label. */
export function labelRowLoss(logits: ArrayLike<number>, label: number): number {
  return logNormaliser(logits) - logits[label];
}

export const LAMBDA_SCHEDULES = ['constant', 'decay', 'soft'] as const;
/**
 * How the weight λ of the language modelling loss behaves: as it is, growing linearly to 1 over the run
 * (`hard_and_decay`), or by how well the sources know the sequence (`soft`).
 */
export type LambdaSchedule = (typeof LAMBDA_SCHEDULES)[number];

/** `hard_and_decay`: λ + (1 - λ) step / steps. */
export function decayedLambda(lambda: number, step: number, steps: number): number {
  return lambda + ((1 - lambda) * step) / steps;
}

/**
 * `soft`: 1 - Σ_k w_k s_k of a sequence, w the weights of the strategy and s the rewards: for MinCE 1 - the largest reward.
 * For AvgCE the authors take the plain mean of the rewards; pass uniform weights.
 */
export function softLambda(ces: ArrayLike<number>, weights: ArrayLike<number>): number {
  return rewards(ces).reduce((rest, reward, k) => rest - weights[k] * reward, 1);
}
