import type { BudgetRule } from './budget.js';
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

/** Experts with fewer tokens than this are named: their statistics are little more than noise. */
const FEW_TOKENS = 32;

/** What became of experts that no token chose, and layers whose experts saw few. */
export function usageWarnings(layers: readonly LayerRecord[]): string[] {
  return layers.flatMap((layer) => {
    const unused = layer.never_used ?? [];
    const dropped = new Set(layer.dropped.map(({ expert }) => expert));
    const gone = unused.filter((expert) => dropped.has(expert));
    const joined = unused.filter((expert) => !dropped.has(expert));
    const parts = [
      ...(joined.length > 0
        ? [`experts ${joined.join(', ')} were never used and stand in their groups with no weight`]
        : []),
      ...(gone.length > 0 ? [`experts ${gone.join(', ')} were never used and are dropped`] : []),
      ...(layer.fewest_tokens !== null && layer.fewest_tokens < FEW_TOKENS
        ? [`some experts saw ${layer.fewest_tokens} tokens or few more: give more calibration text`]
        : []),
    ];
    return parts.length > 0 ? [`layer ${layer.layer}: ${parts.join('; ')}`] : [];
  });
}

/** What should be known of a budget over layers. */
export function budgetNotes(budget: BudgetRule): string[] {
  if (budget === 'uniform') return [];
  return ['usage is a share within its layer: under a budget over layers those with flat routing keep few experts'];
}
