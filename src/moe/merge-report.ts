import type { ErrorRecord } from './error-record.js';
import type { MergeResult } from './merge-job.js';
import type { LayerRecord } from './merge-record.js';

/** Name of the JSON report of `merge-moe merge`, without its prefix. */
export const MERGE_SCHEMA = 'merge-moe-merge';

/** Text that statistics or errors were taken on. */
export type TextRecord = {
  readonly tokens: number;
  readonly window_tokens: number;
  readonly text_sha256: string;
};

/** Predictions of the merged model beside those of the original. */
export type MergePredictions = {
  readonly documents: number;
  readonly tokens: number;
  readonly base_perplexity: number;
  readonly base_perplexity_se: number;
  readonly perplexity: number;
  readonly perplexity_se: number;
  readonly perplexity_ratio: number;
  readonly perplexity_ratio_se: number;
  readonly mean_kl_nats: number;
  readonly mean_kl_nats_se: number;
  readonly p99_kl_nats: number;
  readonly top1_agreement: number;
  readonly top1_agreement_se: number;
};

/** Body of the report of a merge. */
export interface MergeBody {
  readonly model: {
    readonly family: string;
    readonly layout: string;
    readonly layers_with_experts: number;
    readonly experts: number;
    readonly experts_per_token: number;
    readonly runs_here: boolean;
  };
  readonly method: { readonly name: string; readonly kind: 'merge' | 'prune'; readonly reference: string };
  /** Statistics of routing and experts that chose what to merge; null where none were needed. */
  readonly statistics: { readonly tokens: number; readonly parts: number; readonly outputs: string } | null;
  readonly result: Pick<MergeResult, 'config_form' | 'bytes_before' | 'bytes_after' | 'budget'> & {
    readonly expert_parameters_before: number;
    readonly expert_parameters_after: number;
    /** Share of the bytes of all tensors that is saved. */
    readonly saved_share: number;
  };
  /** Texts that statistics, fits and errors were taken on. */
  readonly texts: { readonly calibration: TextRecord | null; readonly held_out: TextRecord | null };
  readonly layers: readonly LayerRecord[];
  /** Errors of the layers' outputs on the calibration text and on unseen text; null without text. */
  readonly errors: {
    readonly calibration: readonly ErrorRecord[] | null;
    readonly held_out: readonly ErrorRecord[] | null;
  };
  readonly evaluation: MergePredictions | null;
  readonly notes: readonly string[];
  readonly warnings: readonly string[];
}

/** Columns of the table: one row an expert of the source. */
export const MERGE_COLUMNS = [
  'layer',
  'expert',
  'group',
  'dominant',
  'dropped',
  'usage',
  'weight',
  'similarity',
  'gain_before',
  'gain',
  'gain_bound',
  'gap',
] as const;

/** Rows of the table of one layer: experts in order. */
export function mergeRows(layer: LayerRecord): (string | number | boolean | null)[][] {
  const rows = new Map<number, (string | number | boolean | null)[]>();
  for (const { group, dominant, members } of layer.groups) {
    for (const { expert, usage, weight, similarity, alignment } of members) {
      const gains = alignment
        ? [alignment.gain_before, alignment.gain, alignment.gain_bound, alignment.gap]
        : [null, null, null, null];
      rows.set(expert, [layer.layer, expert, group, dominant === expert, false, usage, weight, similarity, ...gains]);
    }
  }
  for (const { expert, usage } of layer.dropped) {
    rows.set(expert, [layer.layer, expert, null, false, true, usage, null, null, null, null, null, null]);
  }
  return [...rows.entries()].sort(([a], [b]) => a - b).map(([, row]) => row);
}

/** Expert parameters of all layers before and after. */
export function parameterTotals(layers: readonly LayerRecord[]): { readonly before: number; readonly after: number } {
  return {
    before: layers.reduce((sum, layer) => sum + layer.parameters_before, 0),
    after: layers.reduce((sum, layer) => sum + layer.parameters_after, 0),
  };
}
