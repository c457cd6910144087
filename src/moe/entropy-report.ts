import type { BootstrapInterval } from '../linalg/bootstrap.js';
import type { Cell } from '../report/csv.js';
import { type ReportObject, reportObject } from '../report/values.js';
import {
  BOOTSTRAPPED,
  expertPairs,
  groupedLoad,
  type RoutingMeasure,
  type RoutingTotals,
  routingMeasures,
  sharesOf,
  tokenErrors,
  usageMeasures,
} from './routing-measures.js';
import {
  mergeRoutingRuns,
  type RoutingIntervals,
  type RoutingRun,
  type RoutingRunJson,
  routingIntervals,
  routingRunFromJson,
  routingTotals,
} from './routing-run.js';

/** Name of the report's schema. */
export const ROUTING_SCHEMA = 'merge-moe-entropy';

export type EntropyUnit = 'nats' | 'bits';

/** What an entropy in nats is multiplied by. */
export const perNat = (unit: EntropyUnit): number => (unit === 'nats' ? 1 : 1 / Math.LN2);

/** Where the logits came from, and how they are shown. */
export interface RoutingSetting {
  readonly source: 'model' | 'statistics' | 'logits' | 'hidden states';
  readonly unit: EntropyUnit;
  readonly seed: number;
  /** How a text was cut; null where there is none. */
  readonly convention: ReportObject | null;
  /** Type of the model, where it is known. */
  readonly modelType: string | null;
  /** Tokens that a mask left out. */
  readonly maskedTokens: number;
}

/** Measures whose name carries the unit. */
const ENTROPIES: ReadonlySet<RoutingMeasure> = new Set<RoutingMeasure>([
  'mean_token_entropy',
  'std_token_entropy',
  'mean_topk_weight_entropy',
  'usage_entropy',
  'usage_kl_to_uniform',
  'mean_probability_entropy',
  'token_expert_mutual_information',
  'gate_mass_entropy',
  'co_activation_kl',
]);

const MEASURES = [
  'mean_token_entropy',
  'std_token_entropy',
  'mean_token_entropy_normalized',
  'mean_topk_weight_entropy',
  'usage_entropy',
  'effective_experts_usage',
  'inverse_simpson_usage',
  'usage_kl_to_uniform',
  'usage_cv',
  'usage_gini',
  'max_over_mean_load',
  'mean_probability_entropy',
  'token_expert_mutual_information',
  'gate_mass_entropy',
  'effective_experts_gate_mass',
  'switch_balance_loss',
  'router_z_loss',
  'co_activation_kl',
] as const satisfies readonly RoutingMeasure[];

const TOKEN_ERRORS = ['mean_token_entropy', 'usage_entropy', 'effective_experts_usage'] as const;

/** The name of a measure with its unit. */
export function measureKey(measure: RoutingMeasure, unit: EntropyUnit): string {
  return ENTROPIES.has(measure) ? `${measure}_${unit}` : measure;
}

const scaleOf = (measure: RoutingMeasure, unit: EntropyUnit): number => (ENTROPIES.has(measure) ? perNat(unit) : 1);

/** A pair of experts that stands out. */
export interface PairReport {
  readonly experts: readonly [number, number];
  readonly tokens: number;
  readonly share_of_pairs: number;
  readonly expected_share: number;
  /** Share over expected share. */
  readonly lift: number;
}

/** The same usage, summed over the experts of before that became one. */
export interface MergedUsageReport {
  /** Merged experts. */
  readonly experts: number;
  /** Token-slots of each, [G], and the share of all slots that went to dropped experts. */
  readonly usage_counts: Float64Array;
  readonly dropped_share: number;
  /** `usage_entropy_<unit>`, what the sums lost of that of before (`entropy_lost_<unit>`), and the rest without unit. */
  readonly measures: Readonly<Record<string, number>>;
}

/** One layer. Measures stand under {@link measureKey}, with `_se` (tokens) and `_document_se`, `_low`, `_high`. */
export interface RoutingLayerReport {
  readonly layer: number;
  readonly experts: number;
  readonly top_k: number;
  readonly score: string;
  readonly tokens: number;
  readonly tied_tokens: number;
  readonly measures: Readonly<Record<string, number>>;
  readonly dead_experts: readonly number[];
  /** [E] each: token-slots, their shares, mean p, and share of the renormalised weights. */
  readonly usage_counts: Float64Array;
  readonly usage: Float64Array;
  readonly mean_probability: Float64Array;
  readonly gate_mass: Float64Array;
  /** Tokens by entropy over ln E, in equal bins of [0, 1]. */
  readonly token_entropy_histogram: Float64Array;
  /** Pairs that were chosen more often than usage explains, by their contribution to `co_activation_kl`. */
  readonly strongest_pairs: readonly PairReport[];
  /** Tokens that chose both, [E, E]; usage counts on the diagonal. */
  readonly co_activation: Float64Array;
  /** Merged models whose router chooses among the experts of before. */
  readonly merged?: MergedUsageReport;
}

export interface RoutingBody {
  readonly source: RoutingSetting['source'];
  readonly unit: EntropyUnit;
  readonly model_type: string | null;
  readonly convention: ReportObject | null;
  /** Null where it is not known which tokens are of one document. */
  readonly documents: number | null;
  readonly tokens: number;
  readonly masked_tokens: number;
  readonly layers: number;
  /** Means over the layers, and totals. */
  readonly summary: Readonly<Record<string, number>>;
  readonly bootstrap?: {
    readonly level: number;
    readonly resamples: number;
    readonly units: number;
    readonly seed: number;
  };
  readonly by_layer: readonly RoutingLayerReport[];
}

const STRONGEST_PAIRS = 5;

function strongestPairs(totals: RoutingTotals): PairReport[] {
  return expertPairs(totals)
    .filter(({ share, expectedShare }) => share > expectedShare)
    .map((pair) => ({ pair, gain: pair.share * Math.log(pair.share / pair.expectedShare) }))
    .sort((a, b) => b.gain - a.gain || a.pair.expert - b.pair.expert || a.pair.other - b.pair.other)
    .slice(0, STRONGEST_PAIRS)
    .map(({ pair: { expert, other, tokens, share, expectedShare } }) => ({
      experts: [expert, other],
      tokens,
      share_of_pairs: share,
      expected_share: expectedShare,
      lift: share / expectedShare,
    }));
}

function layerMeasures(
  totals: RoutingTotals,
  intervals: RoutingIntervals | undefined,
  unit: EntropyUnit,
): Record<string, number> {
  const found = routingMeasures(totals);
  const errors = tokenErrors(totals);
  const measures: Record<string, number> = {};
  for (const name of MEASURES) {
    const key = measureKey(name, unit);
    const scale = scaleOf(name, unit);
    measures[key] = found[name] * scale;
    const error = TOKEN_ERRORS.find((other) => other === name);
    if (error !== undefined) measures[`${key}_se`] = errors[error] * scale;
    const interval: BootstrapInterval | undefined = intervals?.[name];
    if (interval === undefined) continue;
    measures[`${key}_document_se`] = interval.se * scale;
    measures[`${key}_document_low`] = interval.low * scale;
    measures[`${key}_document_high`] = interval.high * scale;
  }
  return measures;
}

function mergedUsage({ counts, expertMap }: RoutingTotals, unit: EntropyUnit): MergedUsageReport | undefined {
  if (expertMap === undefined) return undefined;
  const experts = Math.max(...expertMap) + 1;
  const load = groupedLoad(counts, expertMap, experts);
  const before = usageMeasures(counts);
  const after = usageMeasures(load);
  const slots = counts.reduce((sum, count) => sum + count, 0);
  const dropped = counts.reduce((sum, count, e) => (expertMap[e] < 0 ? sum + count : sum), 0);
  return {
    experts,
    usage_counts: load,
    dropped_share: dropped / slots,
    measures: {
      [`usage_entropy_${unit}`]: after.entropyNats * perNat(unit),
      [`entropy_lost_${unit}`]: (before.entropyNats - after.entropyNats) * perNat(unit),
      effective_experts_usage: after.effectiveExperts,
      max_over_mean_load: after.maxOverMean,
    },
  };
}

function layerReport(
  totals: RoutingTotals,
  intervals: RoutingIntervals | undefined,
  unit: EntropyUnit,
): RoutingLayerReport {
  const merged = mergedUsage(totals, unit);
  return {
    layer: totals.layer,
    experts: totals.experts,
    top_k: totals.topK,
    score: totals.score,
    tokens: totals.tokens,
    tied_tokens: totals.tiedTokens,
    measures: layerMeasures(totals, intervals, unit),
    dead_experts: usageMeasures(totals.counts).dead,
    usage_counts: totals.counts,
    usage: sharesOf(totals.counts),
    mean_probability: sharesOf(totals.probabilitySum),
    gate_mass: sharesOf(totals.gateMass),
    token_entropy_histogram: totals.entropyHistogram,
    strongest_pairs: strongestPairs(totals),
    co_activation: totals.coActivation,
    ...(merged && { merged }),
  };
}

function summaryOf(layers: readonly RoutingLayerReport[], unit: EntropyUnit): Record<string, number> {
  const values = (key: string): number[] => layers.map(({ measures }) => measures[key]);
  const mean = (list: readonly number[]): number => list.reduce((sum, value) => sum + value, 0) / list.length;
  const effective = values('effective_experts_usage');
  const entropies = (['mean_token_entropy', 'usage_entropy', 'token_expert_mutual_information'] as const).map(
    (name): [string, number] => {
      const key = measureKey(name, unit);
      return [key, mean(values(key))];
    },
  );
  return {
    ...Object.fromEntries(entropies),
    mean_token_entropy_normalized: mean(values('mean_token_entropy_normalized')),
    effective_experts_usage: mean(effective),
    least_effective_experts_usage: Math.min(...effective),
    max_over_mean_load: Math.max(...values('max_over_mean_load')),
    usage_gini: mean(values('usage_gini')),
    switch_balance_loss: mean(values('switch_balance_loss')),
    dead_experts: layers.reduce((sum, { dead_experts }) => sum + dead_experts.length, 0),
    tied_tokens: layers.reduce((sum, { tied_tokens }) => sum + tied_tokens, 0),
  };
}

/** Makes the body of the report from the totals of every layer. */
export function bodyOfTotals(
  totals: readonly RoutingTotals[],
  setting: RoutingSetting,
  documents: number | null = null,
  bootstrap?: ReturnType<typeof routingIntervals>,
): RoutingBody {
  const { unit, seed } = setting;
  const byLayer = totals.map((layer, place) => layerReport(layer, bootstrap?.layers[place], unit));
  return {
    source: setting.source,
    unit,
    model_type: setting.modelType,
    convention: setting.convention,
    documents,
    tokens: Math.max(0, ...totals.map(({ tokens }) => tokens)),
    masked_tokens: setting.maskedTokens,
    layers: totals.length,
    summary: summaryOf(byLayer, unit),
    ...(bootstrap && { bootstrap: { level: 0.95, resamples: bootstrap.resamples, units: bootstrap.units, seed } }),
    by_layer: byLayer,
  };
}

/** The same from a run over documents, in one process or united from shards. */
export function bodyOfRun(run: RoutingRun, setting: RoutingSetting, documentsKnown: boolean): RoutingBody {
  const intervals = documentsKnown ? routingIntervals(run, setting.seed) : undefined;
  return bodyOfTotals(routingTotals(run), setting, documentsKnown ? run.documentsRead : null, intervals);
}

/** Columns of the table of layers. */
export function layerColumns(unit: EntropyUnit): string[] {
  const columns = ['layer', 'experts', 'top_k', 'score', 'tokens', 'tied_tokens'];
  for (const name of MEASURES) {
    const key = measureKey(name, unit);
    columns.push(key);
    if (TOKEN_ERRORS.some((other) => other === name)) columns.push(`${key}_se`);
    if (name in BOOTSTRAPPED) columns.push(`${key}_document_se`, `${key}_document_low`, `${key}_document_high`);
  }
  return [...columns, 'dead_experts'];
}

/** Rows of the table of layers; empty cells where there are no documents to draw. */
export function* layerRows(body: RoutingBody): Generator<Cell[]> {
  for (const layer of body.by_layer) {
    const { layer: index, experts, top_k, score, tokens, tied_tokens } = layer;
    const head: Record<string, Cell> = { layer: index, experts, top_k, score, tokens, tied_tokens };
    yield layerColumns(body.unit).map((column) => {
      return column === 'dead_experts' ? layer.dead_experts.length : (head[column] ?? layer.measures[column]);
    });
  }
}

/** Columns of the table of experts: one row a layer and expert. */
export const EXPERT_COLUMNS = ['layer', 'expert', 'count', 'usage', 'usage_se', 'mean_probability', 'gate_mass'];

/** Rows of the table of experts. `usage_se` takes tokens as independent: f k is the share of tokens that chose it. */
export function* expertRows(body: RoutingBody): Generator<Cell[]> {
  for (const { layer, tokens, top_k, usage_counts, usage, mean_probability, gate_mass } of body.by_layer) {
    for (let e = 0; e < usage.length; e++) {
      const share = usage[e] * top_k;
      const error = tokens > 1 ? Math.sqrt((share * (1 - share)) / (tokens - 1)) / top_k : Number.NaN;
      yield [layer, e, usage_counts[e], usage[e], error, mean_probability[e], gate_mass[e]];
    }
  }
}

/** Columns of the table of pairs: one row a layer and pair of experts. */
export const PAIR_COLUMNS = ['layer', 'expert', 'other', 'tokens', 'share_of_pairs', 'expected_share', 'lift'];

/** Rows of the table of pairs. */
export function* pairRows(totals: readonly RoutingTotals[]): Generator<Cell[]> {
  for (const layer of totals) {
    for (const { expert, other, tokens, share, expectedShare } of expertPairs(layer)) {
      yield [layer.layer, expert, other, tokens, share, expectedShare, share / expectedShare];
    }
  }
}

/** Unites the shards of a run; the bytes are those of a run without shards. */
export function mergeRoutingReports(
  parts: readonly { readonly report: Readonly<Record<string, unknown>>; readonly partial: unknown }[],
): ReportObject {
  const { report } = parts[0];
  const { seed } = report.parameters as { seed: number };
  const run = mergeRoutingRuns(parts.map(({ partial }) => routingRunFromJson(partial as RoutingRunJson)));
  const setting: RoutingSetting = {
    source: 'model',
    unit: report.unit as EntropyUnit,
    seed,
    convention: report.convention as ReportObject,
    modelType: report.model_type as string,
    maskedTokens: 0,
  };
  return reportObject(bodyOfRun(run, setting, true));
}
