import { InputError } from '../errors.js';
import { type LawFloor, liftLaw, likeliestComponent, refitLaw, smoothLaw } from './law-refit.js';
import {
  type DrawSource,
  dimensionOf,
  drawPoint,
  gaussianLaw,
  lawDivergenceNats,
  lawEntropyNats,
  lawSpread,
  type SamplingLaw,
} from './sampling-law.js';

/** A box that points must lie in; infinite sides are open. One entry a coordinate. */
export interface Box {
  readonly low: ArrayLike<number>;
  readonly high: ArrayLike<number>;
}

/** Parameters of the search; defaults are standard practice (de Boer et al. 2005). */
export interface CrossEntropyOptions {
  /** The law that the first round draws from, and every restart. */
  readonly law: SamplingLaw;
  /** Points drawn a round (default 100). */
  readonly samples?: number;
  /** Share rho of the points that are elite, rounded up (default 0.1). */
  readonly eliteShare?: number;
  /** Points as good as the worst elite one: the one drawn first is elite, or all are (default `first`). */
  readonly ties?: 'first' | 'all';
  /**
   * For a mixture: every component has an elite of its own, the best of the points that it answers for most (default
   * false: one elite for all, and the component that contracts first takes over).
   */
  readonly niches?: boolean;
  /** Weight alpha of the elite's parameters against the old ones (default 0.8). */
  readonly smoothing?: number;
  /** Weight of the elite's deviations where it differs. */
  readonly deviationSmoothing?: number;
  /** Rounds at most, restarts included (default 50). */
  readonly maxRounds?: number;
  /** A run has converged when every deviation is below (default 1e-6; 0: never) ... */
  readonly deviationTolerance?: number;
  /** ... and every discrete coordinate's most probable value has at least 1 minus this (default 0.01). */
  readonly indecisionTolerance?: number;
  /** Points outside are not scored and never elite. */
  readonly box?: Box;
  /** Lower bound of deviations, times `decay`^round of the run (default 0.7), and of discrete probabilities. */
  readonly floor?: LawFloor & { readonly decay?: number };
  /** Runs that begin anew from `law` after one has converged or stalled (default 0). */
  readonly restarts?: number;
  /** A run stalls when this many rounds in a row did not improve its best score; only with restarts (default 5). */
  readonly patience?: number;
  /** The search ends when a score reaches it. */
  readonly target?: number;
}

export interface CrossEntropyRound {
  readonly round: number;
  /** 0-based run; restarts raise it. */
  readonly run: number;
  /** Points inside the box. */
  readonly scored: number;
  /** Score gamma of the worst elite point; NaN where none was elite. */
  readonly threshold: number;
  /** Best score of this round, and of all so far. */
  readonly roundBest: number;
  readonly best: number;
  readonly elite: number;
  /** The law after the update, its entropy, and its divergence KL(law || law before). */
  readonly law: SamplingLaw;
  readonly entropyNats: number;
  readonly divergenceNats: number;
}

export interface CrossEntropyResult {
  /** The best point met in any round, [d]. */
  readonly point: Float64Array;
  readonly score: number;
  readonly rounds: readonly CrossEntropyRound[];
  /** Scores that were asked for. */
  readonly evaluations: number;
  readonly runs: number;
  /** True when the target was reached, or the last run's law has contracted to a point. */
  readonly converged: boolean;
}

/** The search as questions and answers: who scores the points, and when, is not its business. */
export interface CrossEntropySearch {
  readonly dimension: number;
  readonly done: boolean;
  /**
   * Draws a round and gives its points inside the box, [count, d] row-major, in the order drawn.
   * @throws InputError when no sample fell in the box
   */
  ask(random: DrawSource): Float64Array;
  /**
   * Takes one score a point of the last `ask`, larger is better. NaN scores are never elite; a round without any elite
   * point leaves the law as it is. Throws RangeError unless there is one score a point.
   */
  tell(scores: ArrayLike<number>): CrossEntropyRound;
  result(): CrossEntropyResult;
}

/** The usual first law of a box: independent normals at its centre with a third of its sides as deviations. */
export function boxLaw(box: Box): SamplingLaw {
  const low = Float64Array.from(box.low);
  return gaussianLaw(
    low.map((value, i) => (value + box.high[i]) / 2),
    low.map((value, i) => (box.high[i] - value) / 3),
  );
}

function isInside(box: Box | undefined, x: Float64Array, at: number, dimension: number): boolean {
  if (box === undefined) return true;
  for (let i = 0; i < dimension; i++) if (!(x[at + i] >= box.low[i] && x[at + i] <= box.high[i])) return false;
  return true;
}

function checkOptions(options: Required<Pick<CrossEntropyOptions, 'samples' | 'eliteShare' | 'smoothing'>>): void {
  const { samples, eliteShare, smoothing } = options;
  if (!(Number.isInteger(samples) && samples > 0)) throw new InputError(`samples ${samples}: a whole number above 0`);
  if (!(eliteShare > 0 && eliteShare <= 1)) throw new InputError(`elite share ${eliteShare}: a number in (0, 1]`);
  if (!(smoothing > 0 && smoothing <= 1)) throw new InputError(`smoothing ${smoothing}: a number in (0, 1]`);
}

/** Indices of the elite of `scores` among `candidates` (ascending), best first, ties by index. */
function eliteOf(
  scores: ArrayLike<number>,
  candidates: readonly number[],
  wanted: number,
  ties: 'first' | 'all',
): number[] {
  const order = candidates.filter((i) => !Number.isNaN(scores[i]));
  order.sort((a, b) => (scores[a] === scores[b] ? a - b : scores[b] - scores[a]));
  let count = Math.min(wanted, order.length);
  if (ties === 'all' && count > 0) {
    while (count < order.length && scores[order[count]] === scores[order[count - 1]]) count++;
  }
  return order.slice(0, count);
}

/** Best first over all niches, where every component of the mixture has chosen among its own points. */
function nichedElite(
  law: SamplingLaw,
  points: Float64Array,
  scores: ArrayLike<number>,
  options: { readonly eliteShare: number; readonly ties: 'first' | 'all' },
): number[] {
  const niches = law.kind === 'mixture' ? law.components.map((): number[] => []) : [];
  for (let i = 0; i < scores.length; i++) niches[likeliestComponent(law, points, i * dimensionOf(law))]?.push(i);
  const chosen = niches.flatMap((own) =>
    eliteOf(scores, own, Math.ceil(options.eliteShare * own.length), options.ties),
  );
  return chosen.sort((a, b) => (scores[a] === scores[b] ? a - b : scores[b] - scores[a]));
}

const sequence = (length: number): number[] => Array.from({ length }, (_, i) => i);

/**
 * Maximisation by the cross-entropy method (Rubinstein 1999; de Boer et al. 2005): draw points, refit the law to the
 * elite ones by weighted likelihood, smooth. Against collapse before the optimum: a floor that falls, restarts.
 * @throws InputError for parameters out of range
 */
export function startCrossEntropy(options: CrossEntropyOptions): CrossEntropySearch {
  const { samples = 100, eliteShare = 0.1, ties = 'first', smoothing = 0.8, maxRounds = 50, box } = options;
  const { deviationTolerance = 1e-6, indecisionTolerance = 0.01, restarts = 0, patience = 5 } = options;
  checkOptions({ samples, eliteShare, smoothing });
  const dimension = dimensionOf(options.law);
  const wantedElite = Math.ceil(eliteShare * samples);
  let law = options.law;
  const rounds: CrossEntropyRound[] = [];
  let asked: Float64Array | undefined;
  let point = new Float64Array(dimension).fill(Number.NaN);
  let best = Number.NEGATIVE_INFINITY;
  let evaluations = 0;
  let run = 0;
  let runBest = Number.NEGATIVE_INFINITY;
  let roundsWithoutGain = 0;
  let roundsOfRun = 0;
  let converged = false;
  let done = maxRounds <= 0;

  /** Where the run stands after a round; begins the next one where it is over. */
  const endOfRound = (): void => {
    const { deviation, indecision } = lawSpread(law, options.floor?.probability);
    const contracted = deviation < deviationTolerance && indecision < indecisionTolerance;
    converged = contracted || (options.target !== undefined && best >= options.target);
    const over = contracted || (restarts > 0 && roundsWithoutGain >= patience);
    if (options.target !== undefined && best >= options.target) done = true;
    else if (over && run < restarts) {
      run++;
      runBest = Number.NEGATIVE_INFINITY;
      roundsWithoutGain = 0;
      roundsOfRun = 0;
      law = options.law;
    } else if (over) done = true;
    if (rounds.length >= maxRounds) done = true;
  };

  return {
    dimension,
    get done() {
      return done;
    },
    ask(random) {
      const drawn = new Float64Array(samples * dimension);
      let count = 0;
      for (let i = 0; i < samples; i++) {
        drawPoint(law, random, drawn, count * dimension);
        if (isInside(box, drawn, count * dimension, dimension)) count++;
      }
      if (count === 0) {
        throw new InputError(
          `no sample fell in the box in round ${rounds.length + 1}; begin nearer to it or draw more than ${samples}`,
        );
      }
      asked = drawn.slice(0, count * dimension);
      return asked.slice();
    },
    tell(scores) {
      if (asked === undefined || scores.length * dimension !== asked.length) {
        throw new RangeError(`${scores.length} scores for ${(asked?.length ?? 0) / dimension} points`);
      }
      const points = asked;
      asked = undefined;
      evaluations += scores.length;
      const elite =
        options.niches && law.kind === 'mixture'
          ? nichedElite(law, points, scores, { eliteShare, ties })
          : eliteOf(scores, sequence(scores.length), wantedElite, ties);
      const before = law;
      const roundBest = elite.length > 0 ? scores[elite[0]] : Number.NaN;
      roundsWithoutGain = roundBest > runBest ? 0 : roundsWithoutGain + 1;
      if (roundBest > runBest) runBest = roundBest;
      if (roundBest > best) {
        best = roundBest;
        point = points.slice(elite[0] * dimension, (elite[0] + 1) * dimension);
      }
      if (elite.length > 0) {
        const chosen = new Float64Array(elite.length * dimension);
        elite.forEach((index, k) => {
          chosen.set(points.subarray(index * dimension, (index + 1) * dimension), k * dimension);
        });
        const fitted = refitLaw(law, { points: chosen, weights: new Float64Array(elite.length).fill(1) });
        law = smoothLaw(law, fitted, smoothing, options.deviationSmoothing);
        if (options.floor) law = liftLaw(law, floorAt(options.floor, roundsOfRun));
      }
      const round = {
        round: rounds.length,
        run,
        scored: scores.length,
        threshold: elite.length > 0 ? scores[elite[elite.length - 1]] : Number.NaN,
        roundBest,
        best,
        elite: elite.length,
        law,
        entropyNats: lawEntropyNats(law),
        divergenceNats: lawDivergenceNats(law, before),
      };
      rounds.push(round);
      roundsOfRun++;
      endOfRound();
      return round;
    },
    result: () => ({ point, score: best, rounds, evaluations, runs: run + 1, converged }),
  };
}

/** The floor of a round: deviations shrink by `decay` (default 0.7) a round, so that they do not forbid convergence. */
function floorAt(floor: NonNullable<CrossEntropyOptions['floor']>, round: number): LawFloor {
  const factor = (floor.decay ?? 0.7) ** round;
  const { deviation, probability } = floor;
  return {
    ...(deviation !== undefined && {
      deviation: typeof deviation === 'number' ? deviation * factor : Array.from(deviation, (value) => value * factor),
    }),
    ...(probability !== undefined && { probability }),
  };
}

/**
 * The search with a score in the same thread.
 * @param score of one point [d], larger is better; the array must not be kept
 */
export function crossEntropyMethod(
  score: (x: Float64Array) => number,
  random: DrawSource,
  options: CrossEntropyOptions,
): CrossEntropyResult {
  const search = startCrossEntropy(options);
  while (!search.done) {
    const points = search.ask(random);
    const scores = new Float64Array(points.length / search.dimension);
    for (let i = 0; i < scores.length; i++) {
      scores[i] = score(points.subarray(i * search.dimension, (i + 1) * search.dimension));
    }
    search.tell(scores);
  }
  return search.result();
}

/**
 * The search with scores that are awaited, a whole round at a time (an engine, another process).
 * @param score gives one score a point of [count, d]
 */
export async function crossEntropyMethodAsync(
  score: (points: Float64Array, count: number) => Promise<ArrayLike<number>>,
  random: DrawSource,
  options: CrossEntropyOptions,
  onRound?: (round: CrossEntropyRound) => void,
): Promise<CrossEntropyResult> {
  const search = startCrossEntropy(options);
  while (!search.done) {
    const points = search.ask(random);
    const round = search.tell(await score(points, points.length / search.dimension));
    onRound?.(round);
  }
  return search.result();
}
