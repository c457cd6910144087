import { createRandom, type Random } from '../../random.js';
import type { Aggregator } from './aggregator.js';
import { adaptiveMargins, levelMargins, type Margins, marginTable } from './crossing-penalty.js';
import {
  batchRowsOf,
  evaluateAggregator,
  type TrainingLoss,
  type TrainingSettings,
  trainAggregator,
} from './training.js';
import type { Forecasts } from './weight-forms.js';

export const MARGIN_KINDS = ['single', 'vec', 'adapt'] as const;
export type MarginKind = (typeof MARGIN_KINDS)[number];

/** What one trial of the random search draws. */
export interface TrialSettings {
  readonly crossing: number;
  /** The margin (`single`) or the scale of the level margins. */
  readonly margin: number;
  readonly learningRate: number;
  readonly hidden: number;
  readonly layers: number;
  readonly dropout: number;
}

export interface Trial extends TrialSettings {
  readonly validation: number;
  readonly bestSteps: number;
}

export interface SearchSettings {
  readonly margins: MarginKind;
  readonly smoothing: number;
  readonly trials: number;
  readonly validationShare: number;
  readonly training: Omit<TrainingSettings, 'batchRows' | 'learningRate'>;
  /** Fixed instead of drawn. */
  readonly crossing?: number;
  readonly seed: number;
}

/** Values of the authors' search. */
const CROSSINGS = [0.5, 1, 2, 5, 10];
const SCALES = [1e-1, 1e-2, 1e-3, 1e-4];
const LEARNING_RATES = [1e-3, 5e-4];
const HIDDEN = [64, 128];
const LAYERS = [2, 3];
const DROPOUTS = [0, 0.05, 0.1];
const [LEAST_MARGIN, MOST_MARGIN] = [1e-4, 9.9e-3];

const pick = <T>(random: Random, from: readonly T[]): T => from[random.integer(from.length)];

export function drawTrial(random: Random, margins: MarginKind, crossing?: number): TrialSettings {
  const drawn = pick(random, CROSSINGS);
  return {
    crossing: crossing ?? drawn,
    margin:
      margins === 'single' ? LEAST_MARGIN + random.uniform() * (MOST_MARGIN - LEAST_MARGIN) : pick(random, SCALES),
    learningRate: margins === 'single' ? LEARNING_RATES[0] : pick(random, LEARNING_RATES),
    hidden: pick(random, HIDDEN),
    layers: pick(random, LAYERS),
    dropout: pick(random, DROPOUTS),
  };
}

export interface SearchResult {
  readonly parameters: Float64Array;
  readonly aggregator: Aggregator;
  readonly chosen: Trial;
  readonly trials: readonly Trial[];
  /** Mean pinball loss of the final weights on all rows of the fit. */
  readonly objective: number;
  readonly fitRows: number;
  readonly validationRows: number;
}

/**
 * Random search over penalty, margin, learning rate and network; the validation loss chooses, and the chosen settings
 * are trained anew on all rows for the best number of steps.
 * @param make an aggregator of the trial's network
 */
export function searchWeights(
  forecasts: Forecasts,
  outcomes: Float64Array,
  levels: Float64Array,
  rows: Int32Array,
  make: (trial: TrialSettings) => Aggregator,
  settings: SearchSettings,
  progress: (done: number, of: number) => void = () => undefined,
): SearchResult {
  const root = createRandom(settings.seed);
  const random = (key: number): Random => root.fork(key);
  const order = random(0).permutation(rows.length);
  const held = Math.min(rows.length - 1, Math.max(1, Math.round(settings.validationShare * rows.length)));
  const validation = order
    .subarray(0, held)
    .map((at) => rows[at])
    .sort();
  const fit = order
    .subarray(held)
    .map((at) => rows[at])
    .sort();
  const levelNumbers =
    settings.margins === 'adapt'
      ? adaptiveMargins(forecasts.values, outcomes, forecasts.models, levels, fit)
      : levelMargins(levels);
  const lossOf = (trial: TrialSettings): TrainingLoss => {
    const margins: Margins =
      settings.margins === 'single'
        ? { kind: 'single', margin: trial.margin }
        : { kind: 'levels', margins: levelNumbers, scale: trial.margin };
    return {
      levels,
      smoothing: settings.smoothing,
      crossing: trial.crossing,
      margins: marginTable(margins, levels.length),
    };
  };
  const trials: Trial[] = [];
  for (let t = 0; t < settings.trials; t++) {
    const trial = drawTrial(random(100 + t), settings.margins, settings.crossing);
    const run = trainAggregator(
      make(trial),
      outcomes,
      fit,
      validation,
      lossOf(trial),
      { ...settings.training, learningRate: trial.learningRate, batchRows: batchRowsOf(fit.length) },
      random(10_000 + t),
    );
    trials.push({ ...trial, validation: run.validation, bestSteps: run.bestSteps });
    progress(t + 1, settings.trials + 1);
  }
  const place = trials.reduce((best, trial, t) => (trial.validation < trials[best].validation ? t : best), 0);
  const chosen = trials[place];
  const aggregator = make(chosen);
  const final = trainAggregator(
    aggregator,
    outcomes,
    rows,
    new Int32Array(0),
    lossOf(chosen),
    {
      ...settings.training,
      learningRate: chosen.learningRate,
      batchRows: batchRowsOf(rows.length),
      mostSteps: chosen.bestSteps,
    },
    random(10_000 + place),
  );
  progress(settings.trials + 1, settings.trials + 1);
  return {
    parameters: final.parameters,
    aggregator,
    chosen,
    trials,
    objective: evaluateAggregator(aggregator, final.parameters, outcomes, rows, levels),
    fitRows: fit.length,
    validationRows: validation.length,
  };
}
