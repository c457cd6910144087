import { InputError } from '../errors.js';
import { refitLaw, smoothLaw } from './law-refit.js';
import {
  type DrawSource,
  dimensionOf,
  drawPoint,
  lawDivergenceNats,
  lawEntropyNats,
  logDensity,
  mixtureLaw,
  type SamplingLaw,
} from './sampling-law.js';

/** Estimation of P(S(X) >= level) for X ~ nominal. */
export interface RareEventOptions {
  /** The law f(.; u) that the probability is meant under. */
  readonly nominal: SamplingLaw;
  /** gamma: the event is a score of at least this. */
  readonly level: number;
  /**
   * First law of the proposals (default the nominal one). Proposals may be of another family, as a mixture over the
   * basins of several modes; the likelihood ratio is always against `nominal`.
   */
  readonly proposal?: SamplingLaw;
  /** Points drawn a level (default 1000) and for the estimate (default 10,000). */
  readonly samples?: number;
  readonly finalSamples?: number;
  /** Share rho of a level's points above the next one (default 0.1). */
  readonly eliteShare?: number;
  /** Weight of the fitted parameters against the old ones (default 1). */
  readonly smoothing?: number;
  /** Levels at most; 0: the proposal is used as it is (default 50). */
  readonly maxLevels?: number;
  /**
   * Share of draws from the nominal law in every round (default 0). It bounds every weight by 1 / share, so that the
   * variance is finite and no part of the event can be missed for good.
   */
  readonly defensive?: number;
  /** Points of one `ask` of the estimate at most, which bounds memory (default 65,536). */
  readonly batch?: number;
}

export interface RareEventLevel {
  /** gamma_t: the level of this round. */
  readonly level: number;
  /** The proposal after the update, its entropy, and KL(law || law before). */
  readonly law: SamplingLaw;
  readonly entropyNats: number;
  readonly divergenceNats: number;
  readonly best: number;
  /** Points at or above the level. */
  readonly elite: number;
}

export interface RareEventResult {
  readonly estimate: number;
  /** Sample deviation (n - 1) of I W over the square root of the draws. */
  readonly standardError: number;
  /** standardError / estimate; NaN for an estimate of 0. */
  readonly relativeError: number;
  /** (sum W)^2 / sum W^2 over all draws. */
  readonly effectiveSampleSize: number;
  /** The same over draws in the event. */
  readonly eventEffectiveSampleSize: number;
  /** Share of the estimate that its heaviest draw carries. */
  readonly largestWeightShare: number;
  readonly draws: number;
  /** Draws in the event. */
  readonly hits: number;
  readonly levels: readonly RareEventLevel[];
  /** Whether the levels reached gamma; false: the levels ran out, and the estimate stands on a poor proposal. */
  readonly reached: boolean;
  readonly proposal: SamplingLaw;
}

/** The estimation as questions and answers, as `CrossEntropySearch`. */
export interface RareEventSearch {
  readonly dimension: number;
  readonly phase: 'levels' | 'estimate' | 'done';
  /** Points [count, d] to be scored, larger is rarer. */
  ask(random: DrawSource): Float64Array;
  /** Takes one score a point of the last `ask`; NaN counts as outside the event. */
  tell(scores: ArrayLike<number>): void;
  result(): RareEventResult;
}

interface Sums {
  draws: number;
  hits: number;
  weight: number;
  weightSquares: number;
  event: number;
  eventSquares: number;
  largest: number;
}

const asBelow = (score: number): number => (Number.isNaN(score) ? Number.NEGATIVE_INFINITY : score);

/**
 * Rare-event probability by the cross-entropy method (Rubinstein 1997; de Boer et al. 2005, algorithm 3.1): levels
 * gamma_t = the sorted score at index ceil((1 - rho) N) - 1, capped at gamma; proposals v_t from the points at or above it,
 * weighted by W = f(X; u) / q(X) with q the law they were drawn from; then the mean of I W over fresh draws.
 * @throws InputError for parameters out of range
 */
export function startRareEvent(options: RareEventOptions): RareEventSearch {
  const { nominal, level, samples = 1000, finalSamples = 10_000, eliteShare = 0.1, smoothing = 1 } = options;
  const { maxLevels = 50, defensive = 0, batch = 65_536 } = options;
  const dimension = dimensionOf(nominal);
  if (Number.isNaN(level)) throw new InputError('the level of a rare event must be a number');
  if (!(eliteShare > 0 && eliteShare < 1)) throw new InputError(`elite share ${eliteShare}: a number in (0, 1)`);
  if (!(defensive >= 0 && defensive < 1)) throw new InputError(`defensive share ${defensive}: a number in [0, 1)`);
  if (!(smoothing > 0 && smoothing <= 1)) throw new InputError(`smoothing ${smoothing}: a number in (0, 1]`);
  if (!(samples >= 2 && finalSamples >= 2)) throw new InputError('a rare event needs at least 2 samples');
  let law = options.proposal ?? nominal;
  if (dimensionOf(law) !== dimension) throw new RangeError('proposal and nominal law differ in dimension');
  const guarded = (): SamplingLaw =>
    defensive > 0 ? mixtureLaw([1 - defensive, defensive], [law, nominal], true) : law;
  let phase: RareEventSearch['phase'] = maxLevels > 0 ? 'levels' : 'estimate';
  const levels: RareEventLevel[] = [];
  let reached = maxLevels === 0;
  let asked: Float64Array | undefined;
  let drawnFrom = guarded();
  const sums: Sums = { draws: 0, hits: 0, weight: 0, weightSquares: 0, event: 0, eventSquares: 0, largest: 0 };

  const weightsOf = (points: Float64Array): Float64Array => {
    const weights = new Float64Array(points.length / dimension);
    for (let i = 0; i < weights.length; i++) {
      const above = logDensity(nominal, points, i * dimension);
      // Where the nominal law has no mass a draw counts for nothing, whatever the proposal says.
      weights[i] =
        above === Number.NEGATIVE_INFINITY ? 0 : Math.exp(above - logDensity(drawnFrom, points, i * dimension));
    }
    return weights;
  };

  const updateLevel = (points: Float64Array, scores: ArrayLike<number>): void => {
    const weights = weightsOf(points);
    // Points without nominal mass must not pull the level up.
    const usable = Float64Array.from(weights, (weight, i) =>
      weight > 0 ? asBelow(scores[i]) : Number.NEGATIVE_INFINITY,
    );
    const sorted = usable.slice().sort();
    const found = sorted[Math.ceil((1 - eliteShare) * sorted.length) - 1];
    const current = Math.min(level, found);
    let elite = 0;
    for (let i = 0; i < weights.length; i++) {
      if (usable[i] >= current && usable[i] > Number.NEGATIVE_INFINITY) elite++;
      else weights[i] = 0;
    }
    const before = law;
    law = smoothLaw(law, refitLaw(law, { points, weights }), smoothing);
    levels.push({
      level: current,
      law,
      entropyNats: lawEntropyNats(law),
      divergenceNats: lawDivergenceNats(law, before),
      best: sorted[sorted.length - 1],
      elite,
    });
    reached = current >= level;
    if (reached || levels.length >= maxLevels) phase = 'estimate';
  };

  const addDraws = (points: Float64Array, scores: ArrayLike<number>): void => {
    const weights = weightsOf(points);
    for (let i = 0; i < weights.length; i++) {
      const weight = weights[i];
      sums.weight += weight;
      sums.weightSquares += weight * weight;
      if (!(scores[i] >= level) || weight === 0) continue;
      sums.hits++;
      sums.event += weight;
      sums.eventSquares += weight * weight;
      if (weight > sums.largest) sums.largest = weight;
    }
    sums.draws += weights.length;
    if (sums.draws >= finalSamples) phase = 'done';
  };

  return {
    dimension,
    get phase() {
      return phase;
    },
    ask(random) {
      const count = phase === 'levels' ? samples : Math.min(batch, finalSamples - sums.draws);
      drawnFrom = guarded();
      asked = new Float64Array(count * dimension);
      for (let i = 0; i < count; i++) drawPoint(drawnFrom, random, asked, i * dimension);
      return asked.slice();
    },
    tell(scores) {
      if (asked === undefined || scores.length * dimension !== asked.length) {
        throw new RangeError(`${scores.length} scores for ${(asked?.length ?? 0) / dimension} points`);
      }
      if (phase === 'levels') updateLevel(asked, scores);
      else addDraws(asked, scores);
      asked = undefined;
    },
    result: () => ({ ...figuresOf(sums), levels, reached, proposal: drawnFrom }),
  };
}

function figuresOf(sums: Sums): Omit<RareEventResult, 'levels' | 'reached' | 'proposal'> {
  const { draws, hits, weight, weightSquares, event, eventSquares, largest } = sums;
  const estimate = event / draws;
  const variance = Math.max(0, eventSquares - draws * estimate * estimate) / (draws - 1);
  const standardError = Math.sqrt(variance / draws);
  return {
    estimate,
    standardError,
    relativeError: estimate > 0 ? standardError / estimate : Number.NaN,
    effectiveSampleSize: weightSquares > 0 ? (weight * weight) / weightSquares : 0,
    eventEffectiveSampleSize: eventSquares > 0 ? (event * event) / eventSquares : 0,
    largestWeightShare: event > 0 ? largest / event : Number.NaN,
    draws,
    hits,
  };
}

/**
 * The estimation with a score in the same thread.
 * @param score of one point [d], larger is rarer; the array must not be kept
 */
export function rareEventProbability(
  score: (x: Float64Array) => number,
  random: DrawSource,
  options: RareEventOptions,
): RareEventResult {
  const search = startRareEvent(options);
  while (search.phase !== 'done') {
    const points = search.ask(random);
    const scores = new Float64Array(points.length / search.dimension);
    for (let i = 0; i < scores.length; i++) {
      scores[i] = score(points.subarray(i * search.dimension, (i + 1) * search.dimension));
    }
    search.tell(scores);
  }
  return search.result();
}

/** The estimation with scores that are awaited, a batch at a time. */
export async function rareEventProbabilityAsync(
  score: (points: Float64Array, count: number) => Promise<ArrayLike<number>>,
  random: DrawSource,
  options: RareEventOptions,
): Promise<RareEventResult> {
  const search = startRareEvent(options);
  while (search.phase !== 'done') {
    const points = search.ask(random);
    search.tell(await score(points, points.length / search.dimension));
  }
  return search.result();
}
