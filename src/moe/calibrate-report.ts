import type { HashedFile } from '../formats/hash.js';
import type { Cell } from '../report/csv.js';
import { expertScores, superExperts } from './reap.js';
import { type MoeStatistics, missingShards, type WatchedOutputs } from './statistics-file.js';
import type { LayerStatistics } from './types.js';

/** Name of the report's schema. */
export const CALIBRATE_SCHEMA = 'merge-moe-calibrate';

/** Fewer tokens than this of an expert are warned about: its means rest on little. */
export const FEW_TOKENS = 32;
/** Places that a warning names. */
const NAMED = 8;

/** What one expert did. Figures of outputs are null where they were not watched. */
export interface ExpertRecord {
  readonly layer: number;
  readonly expert: number;
  /** Tokens routed to it, and their share of all token-slots of the layer. */
  readonly tokens: number;
  readonly usage: number;
  /** Share of the renormalised weights of the chosen. */
  readonly gate_mass: number;
  /** Sum over its tokens of p, and of the norm of its output (REAP's baselines). */
  readonly weighted_frequency: number | null;
  readonly ean_sum: number | null;
  readonly ean_mean: number | null;
  /** Sum of p times norm, p divided by its sum over the chosen. */
  readonly weighted_ean_sum: number | null;
  /** Mean of p times norm: with p divided by its sum over the chosen, and as the router gave it. */
  readonly reap: number | null;
  readonly reap_plain: number | null;
  readonly largest_output: number | null;
  readonly largest_magnitude: number | null;
  readonly super_expert: boolean | null;
}

export const EXPERT_RECORD_COLUMNS = [
  'layer',
  'expert',
  'tokens',
  'usage',
  'gate_mass',
  'weighted_frequency',
  'ean_sum',
  'ean_mean',
  'weighted_ean_sum',
  'reap',
  'reap_plain',
  'largest_output',
  'largest_magnitude',
  'super_expert',
] as const satisfies readonly (keyof ExpertRecord)[];

export function expertRow(record: ExpertRecord): Cell[] {
  return EXPERT_RECORD_COLUMNS.map((column) => record[column]);
}

/** How the tokens of a layer fell to its experts. */
export interface LayerRecord {
  readonly layer: number;
  readonly experts: number;
  readonly top_k: number;
  readonly tokens: number;
  readonly tied_tokens: number;
  readonly fewest_tokens: number;
  readonly median_tokens: number;
  readonly most_tokens: number;
  readonly unused_experts: readonly number[];
}

/** Body of the report. */
export interface CalibrateBody {
  readonly model_type: string;
  readonly model_sha256: string;
  readonly text_sha256: string;
  readonly precision: 'f32' | 'f64';
  readonly outputs: WatchedOutputs;
  readonly shard: { readonly index: number; readonly count: number } | null;
  readonly tokens: number;
  readonly window_tokens: number;
  readonly layers: number;
  readonly experts: number;
  /** Of all experts of all layers. */
  readonly fewest_tokens: number;
  readonly unused_experts: number;
  readonly super_experts: number | null;
  readonly by_layer: readonly LayerRecord[];
  readonly by_expert: readonly ExpertRecord[];
  readonly warnings: readonly string[];
  readonly files: readonly HashedFile[];
}

function layerRecord({ routing }: LayerStatistics): LayerRecord {
  const { layer, experts, topK, tokens, tiedTokens, counts } = routing;
  const sorted = counts.slice().sort();
  return {
    layer,
    experts,
    top_k: topK,
    tokens,
    tied_tokens: tiedTokens,
    fewest_tokens: sorted[0],
    median_tokens: (sorted[(experts - 1) >> 1] + sorted[experts >> 1]) / 2,
    most_tokens: sorted[experts - 1],
    unused_experts: [...counts.keys()].filter((e) => counts[e] === 0),
  };
}

function expertRecords(statistics: LayerStatistics, kept: Int32Array | undefined): ExpertRecord[] {
  const { routing, outputs } = statistics;
  const { layer, tokens, topK, counts, gateMass } = routing;
  const scores = outputs && {
    normal: expertScores(statistics),
    plain: expertScores(statistics, { renormalize: false }),
  };
  return Array.from(counts, (count, e) => ({
    layer,
    expert: e,
    tokens: count,
    usage: count / (tokens * topK),
    gate_mass: gateMass[e] / tokens,
    weighted_frequency: scores ? scores.plain.weightedFrequency[e] : null,
    ean_sum: scores ? scores.plain.eanSum[e] : null,
    ean_mean: scores ? scores.plain.eanMean[e] : null,
    weighted_ean_sum: scores ? scores.normal.weightedEanSum[e] : null,
    reap: scores ? scores.normal.reap[e] : null,
    reap_plain: scores ? scores.plain.reap[e] : null,
    largest_output: outputs && count > 0 ? outputs.largestOutput[e] : null,
    largest_magnitude: outputs && count > 0 ? outputs.largestMagnitude[e] : null,
    super_expert: kept ? kept.includes(e) : null,
  }));
}

/** `layer 3 expert 7 (12)`, the first of them. */
function places(records: readonly ExpertRecord[]): string {
  const named = records
    .slice(0, NAMED)
    .map(({ layer, expert, tokens }) => `layer ${layer} expert ${expert} (${tokens})`);
  const more = records.length - named.length;
  return `${named.join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
}

/** What a user should know before building on statistics. */
export function calibrationWarnings({ header }: MoeStatistics, experts: readonly ExpertRecord[]): string[] {
  const warnings: string[] = [];
  const unused = experts.filter(({ tokens }) => tokens === 0);
  const few = experts.filter(({ tokens }) => tokens > 0 && tokens < FEW_TOKENS);
  if (unused.length > 0) {
    warnings.push(
      `${unused.length} of ${experts.length} experts were never chosen: ${places(unused)}; merging weighs them 0, pruning ` +
        'drops them first; more text may reach them',
    );
  }
  if (few.length > 0) {
    warnings.push(
      `${few.length} of ${experts.length} experts have fewer than ${FEW_TOKENS} tokens: ${places(few)}; their means are ` +
        'uncertain: give more text',
    );
  }
  const missing = missingShards(header);
  if (missing.length > 0 && header.parts.length > 1) warnings.push(`shards are missing: ${missing.join(', ')}`);
  return warnings;
}

/** Body of the report on one run of calibration. */
export function calibrateBody(statistics: MoeStatistics, files: readonly HashedFile[]): CalibrateBody {
  const { header, layers } = statistics;
  const [part] = header.parts;
  const kept = layers.every(({ outputs }) => outputs !== undefined) ? superExperts(layers) : undefined;
  const by_layer = layers.map(layerRecord);
  const by_expert = layers.flatMap((layer, l) => expertRecords(layer, kept?.[l]));
  return {
    model_type: header.modelType,
    model_sha256: header.modelSha256,
    text_sha256: part.textSha256,
    precision: header.precision,
    outputs: header.outputs,
    shard: part.shard.count > 1 ? part.shard : null,
    tokens: header.tokens,
    window_tokens: part.windowTokens,
    layers: layers.length,
    experts: by_expert.length,
    fewest_tokens: by_layer.reduce((least, { fewest_tokens }) => Math.min(least, fewest_tokens), header.tokens),
    unused_experts: by_layer.reduce((sum, { unused_experts }) => sum + unused_experts.length, 0),
    super_experts: kept ? kept.reduce((sum, experts) => sum + experts.length, 0) : null,
    by_layer,
    by_expert,
    warnings: calibrationWarnings(statistics, by_expert),
    files,
  };
}
