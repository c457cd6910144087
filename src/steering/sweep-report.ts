import type { Cell } from '../report/csv.js';
import { ratioMean } from './ratio-mean.js';
import type { SweepCell } from './sweep-cells.js';
import {
  type Change,
  FLAT_SHARE,
  type IntervalMean,
  type LayerVerdict,
  risingRange,
  slopeAtZero,
} from './sweep-verdict.js';

/** Name of the JSON report of `steer sweep`, without its prefix. */
export const SWEEP_SCHEMA = 'steer-sweep';

/** What one cell gave, one number a prompt; NaN where a measure was not taken. */
export interface CellMeasures {
  /** Entropy of the exact forced choice, nats. */
  readonly entropyNats: Float64Array;
  /** Probability of saying one of the actions after the thought. */
  readonly actionMass: Float64Array;
  /** Mean -ln p of the tokens of the fixed thought, nats. */
  readonly thoughtNats: Float64Array;
  /** KL(steered || unsteered) of the first token of the reply, nats. */
  readonly firstTokenKlNats: Float64Array;
  /** Of sampled replies: plug-in and Miller-Madow entropy of the action. */
  readonly sampledEntropyNats: Float64Array;
  readonly sampledMillerMadowNats: Float64Array;
  /** Share of replies whose action could be read. */
  readonly validShare: Float64Array;
  /** Mean -ln p of the replies' tokens under the unsteered model at temperature 1, nats. */
  readonly replyNats: Float64Array;
  /** Different pairs of neighbouring tokens over all pairs, over the replies of a prompt. */
  readonly distinct2: Float64Array;
}

export const MEASURES = [
  'entropyNats',
  'actionMass',
  'thoughtNats',
  'firstTokenKlNats',
  'sampledEntropyNats',
  'sampledMillerMadowNats',
  'validShare',
  'replyNats',
  'distinct2',
] as const satisfies readonly (keyof CellMeasures)[];

/** Measures of a cell before anything was taken. */
export function emptyMeasures(prompts: number): CellMeasures {
  const nan = (): Float64Array => new Float64Array(prompts).fill(Number.NaN);
  return {
    entropyNats: nan(),
    actionMass: nan(),
    thoughtNats: nan(),
    firstTokenKlNats: nan(),
    sampledEntropyNats: nan(),
    sampledMillerMadowNats: nan(),
    validShare: nan(),
    replyNats: nan(),
    distinct2: nan(),
  };
}

/** One row of the table: means over the prompts in which the measure exists. */
export type SweepRow = {
  readonly kind: SweepCell['kind'];
  readonly layer: number | null;
  readonly control: number | null;
  readonly strength: number;
  /** |strength| |v| over the mean norm of the residual stream there. */
  readonly effective_strength: number | null;
  readonly temperature: number;
  readonly action_entropy_nats: number;
  readonly action_entropy_nats_se: number;
  readonly action_entropy_nats_low: number;
  readonly action_entropy_nats_high: number;
  readonly entropy_change_nats: number;
  readonly entropy_change_nats_low: number;
  readonly entropy_change_nats_high: number;
  readonly action_mass: number;
  readonly thought_perplexity: number;
  readonly first_token_kl_nats: number;
  readonly sampled_prompts: number;
  readonly sampled_entropy_nats: number;
  readonly sampled_entropy_nats_low: number;
  readonly sampled_entropy_nats_high: number;
  readonly sampled_entropy_miller_madow_nats: number;
  readonly valid_share: number;
  readonly valid_share_low: number;
  readonly valid_share_high: number;
  readonly reply_perplexity: number;
  readonly distinct_2: number;
};

export const SWEEP_COLUMNS = [
  'kind',
  'layer',
  'control',
  'strength',
  'effective_strength',
  'temperature',
  'action_entropy_nats',
  'action_entropy_nats_se',
  'action_entropy_nats_low',
  'action_entropy_nats_high',
  'entropy_change_nats',
  'entropy_change_nats_low',
  'entropy_change_nats_high',
  'action_mass',
  'thought_perplexity',
  'first_token_kl_nats',
  'sampled_prompts',
  'sampled_entropy_nats',
  'sampled_entropy_nats_low',
  'sampled_entropy_nats_high',
  'sampled_entropy_miller_madow_nats',
  'valid_share',
  'valid_share_low',
  'valid_share_high',
  'reply_perplexity',
  'distinct_2',
] as const satisfies readonly (keyof SweepRow)[];

export const sweepTableRow = (row: SweepRow): Cell[] => SWEEP_COLUMNS.map((column) => row[column]);

/** A strength that brings the mean entropy to the target. */
export type TargetResult = {
  readonly layer: number;
  readonly target_nats: number;
  /** Null where no tested range holds the target. */
  readonly strength: number | null;
  readonly action_entropy_nats: number | null;
  readonly evaluations: number;
};

/** What the search over layers and strengths found. */
export type SearchResult = {
  readonly objective: string;
  readonly layer: number;
  readonly strength: number;
  readonly score: number;
  readonly action_entropy_nats: number;
  readonly action_mass: number;
  readonly evaluations: number;
  readonly rounds: readonly {
    readonly round: number;
    readonly threshold: number;
    readonly best_score: number;
    readonly strength_mean: number;
    readonly strength_deviation: number;
    readonly layer_probabilities: readonly number[];
  }[];
};

/** Body of the report. */
export interface SweepBody {
  readonly prompts: number;
  /** Runs that the prompts come from: what intervals draw anew. */
  readonly runs: number;
  /** What stands between prompt and action, and the actions' texts. */
  readonly thought: string;
  readonly actions: readonly string[];
  readonly max_entropy_nats: number;
  readonly layers: readonly {
    readonly layer: number;
    readonly vector_norm: number;
    readonly residual_norm: number;
  }[];
  readonly unsteered: SweepRow;
  readonly rows: readonly SweepRow[];
  readonly verdicts: readonly LayerVerdict[];
  readonly targets: readonly TargetResult[];
  readonly search: SearchResult | null;
  readonly assumptions: readonly string[];
}

/** How intervals are made: the run of each prompt, and the seed. */
export interface SweepClusters {
  /** Index of the run that each prompt belongs to. */
  readonly runOf: Int32Array;
  readonly runs: number;
  readonly seed: number;
}

const NO_INTERVAL: IntervalMean = { mean: Number.NaN, se: Number.NaN, low: Number.NaN, high: Number.NaN };

/**
 * Mean over prompts with its 95 % percentile interval, 1,000 resamples (specification of steering, section 1.4). Runs are
 * drawn, not prompts: those of one run are not independent.
 */
export function clusteredMean(values: Float64Array, clusters: SweepClusters): IntervalMean {
  const sums = new Float64Array(2 * clusters.runs);
  values.forEach((value, p) => {
    if (Number.isNaN(value)) return;
    sums[2 * clusters.runOf[p]] += value;
    sums[2 * clusters.runOf[p] + 1] += 1;
  });
  const found = ratioMean(sums, { seed: clusters.seed });
  return found ? { ...NO_INTERVAL, mean: found.mean, ...found.interval } : NO_INTERVAL;
}

const difference = (a: Float64Array, b: Float64Array): Float64Array => a.map((value, i) => value - b[i]);

/** Norms by layer, for effective strengths. */
export type LayerNorms = ReadonlyMap<number, { readonly vector: number; readonly residual: number }>;

/** The row of a cell beside the unsteered model. */
export function sweepRow(
  cell: SweepCell,
  measures: CellMeasures,
  unsteered: CellMeasures,
  norms: LayerNorms,
  clusters: SweepClusters,
): SweepRow {
  const of = (name: keyof CellMeasures): IntervalMean => clusteredMean(measures[name], clusters);
  const entropy = of('entropyNats');
  const change = clusteredMean(difference(measures.entropyNats, unsteered.entropyNats), clusters);
  const sampled = of('sampledEntropyNats');
  const valid = of('validShare');
  const norm = cell.layer === null ? undefined : norms.get(cell.layer);
  return {
    kind: cell.kind,
    layer: cell.layer,
    control: cell.control,
    strength: cell.strength,
    effective_strength: norm ? (Math.abs(cell.strength) * norm.vector) / norm.residual : null,
    temperature: cell.temperature,
    action_entropy_nats: entropy.mean,
    action_entropy_nats_se: entropy.se,
    action_entropy_nats_low: entropy.low,
    action_entropy_nats_high: entropy.high,
    entropy_change_nats: change.mean,
    entropy_change_nats_low: change.low,
    entropy_change_nats_high: change.high,
    action_mass: of('actionMass').mean,
    thought_perplexity: Math.exp(of('thoughtNats').mean),
    first_token_kl_nats: of('firstTokenKlNats').mean,
    sampled_prompts: measures.validShare.filter((value) => !Number.isNaN(value)).length,
    sampled_entropy_nats: sampled.mean,
    sampled_entropy_nats_low: sampled.low,
    sampled_entropy_nats_high: sampled.high,
    sampled_entropy_miller_madow_nats: of('sampledMillerMadowNats').mean,
    valid_share: valid.mean,
    valid_share_low: valid.low,
    valid_share_high: valid.high,
    reply_perplexity: Math.exp(of('replyNats').mean),
    distinct_2: of('distinct2').mean,
  };
}

/** Entropy curve of one vector or control over ascending strengths, zero included. */
interface Curve {
  readonly strengths: readonly number[];
  readonly cells: readonly CellMeasures[];
}

function curveOf(
  cells: readonly SweepCell[],
  measures: readonly CellMeasures[],
  wanted: Pick<SweepCell, 'kind' | 'layer' | 'control'>,
): Curve {
  const own = cells
    .map((cell, i) => ({ strength: cell.strength, cell, measures: measures[i] }))
    .filter(({ cell }) => cell.kind === wanted.kind && cell.layer === wanted.layer && cell.control === wanted.control);
  const points = [...own, { strength: 0, measures: measures[0] }].sort((a, b) => a.strength - b.strength);
  return { strengths: points.map(({ strength }) => strength), cells: points.map((point) => point.measures) };
}

function growth(curve: Curve, from: number, to: number, clusters: SweepClusters): Change {
  const at = (strength: number): Float64Array => curve.cells[curve.strengths.indexOf(strength)].entropyNats;
  return { strength: to, ...clusteredMean(difference(at(to), at(from)), clusters) };
}

/** Whether a layer's vector raises the entropy step by step, and whether its controls do too. */
export function layerVerdict(
  layer: number,
  cells: readonly SweepCell[],
  measures: readonly CellMeasures[],
  clusters: SweepClusters,
): LayerVerdict {
  const curve = curveOf(cells, measures, { kind: 'vector', layer, control: null });
  const means = curve.cells.map(({ entropyNats }) => clusteredMean(entropyNats, clusters).mean);
  const [first, last] = risingRange(curve.strengths, means);
  const [from, to] = [curve.strengths[first], curve.strengths[last]];
  const own = growth(curve, from, to, clusters);
  const controls = (kind: 'random' | 'shuffled'): number[] => {
    const copies = new Set(cells.filter((cell) => cell.kind === kind && cell.layer === layer).map((c) => c.control));
    return [...copies].map(
      (control) => growth(curveOf(cells, measures, { kind, layer, control }), from, to, clusters).mean,
    );
  };
  const [random, shuffled] = [controls('random'), controls('shuffled')];
  const all = [...random, ...shuffled];
  const largest = (values: readonly number[]): number | null =>
    values.length === 0 ? null : values.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a));
  const rises = last > first && own.low > 0;
  return {
    layer,
    rising_from: from,
    rising_to: to,
    growth_nats: own.mean,
    growth_low_nats: own.low,
    growth_high_nats: own.high,
    rises,
    slope_nats_per_strength: slopeAtZero(curve.strengths, means),
    random_growth_nats: largest(random),
    shuffled_growth_nats: largest(shuffled),
    controls_as_large: all.length === 0 ? null : all.filter((value) => value >= own.mean).length / all.length,
    controls_flat: all.length === 0 ? null : rises && all.every((value) => Math.abs(value) < FLAT_SHARE * own.mean),
  };
}
