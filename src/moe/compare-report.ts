import type { ErrorRecord } from './error-record.js';
import type { MergeBody, MergePredictions, TextRecord } from './merge-report.js';

/** Name of the JSON report of `merge-moe compare`, without its prefix. */
export const COMPARE_SCHEMA = 'merge-moe-compare';

/** One way to a smaller model, and what it costs. */
export type CompareRow = {
  /** As asked for: a method and its options. */
  readonly name: string;
  readonly method: string;
  readonly kind: 'merge' | 'prune' | 'compress';
  /** Experts kept in a layer, on average; null for compression, which keeps all. */
  readonly experts: number | null;
  readonly config_form: string;
  readonly bytes: number;
  readonly saved_share: number;
  readonly expert_parameters: number;
  /** Means over the layers of the errors on unseen text; see {@link ErrorRecord}. */
  readonly mean_relative_error: number;
  readonly mean_expert_error: number | null;
  readonly mean_routing_error: number | null;
  readonly layers: readonly ErrorRecord[];
  readonly predictions: MergePredictions;
  readonly warnings: readonly string[];
};

/** Body of the report of a comparison. */
export interface CompareBody {
  readonly model: MergeBody['model'];
  readonly texts: MergeBody['texts'] & { readonly held_out: TextRecord };
  readonly original: {
    readonly bytes: number;
    readonly expert_parameters: number;
    readonly perplexity: number;
    readonly perplexity_se: number;
  };
  readonly rows: readonly CompareRow[];
}

export const COMPARE_COLUMNS = [
  'name',
  'method',
  'kind',
  'experts',
  'bytes',
  'saved_share',
  'expert_parameters',
  'mean_relative_error',
  'mean_expert_error',
  'mean_routing_error',
  'perplexity',
  'perplexity_se',
  'mean_kl_nats',
  'mean_kl_nats_se',
  'p99_kl_nats',
  'top1_agreement',
  'top1_agreement_se',
] as const;

export function compareTableRow({ predictions, ...row }: CompareRow): (string | number | null)[] {
  const all: Readonly<Record<(typeof COMPARE_COLUMNS)[number], string | number | null>> = { ...row, ...predictions };
  return COMPARE_COLUMNS.map((column) => all[column]);
}

/** Mean of a figure of the layers; null where one of them does not have it. */
export function meanOfLayers(
  layers: readonly ErrorRecord[],
  key: 'relative_error' | 'expert_error' | 'routing_error',
): number | null {
  let sum = 0;
  for (const layer of layers) {
    const value = layer[key];
    if (value === null) return null;
    sum += value;
  }
  return layers.length === 0 ? 0 : sum / layers.length;
}
