import type { Cell } from '../report/csv.js';
import type { ActivationRow } from './activation-file.js';
import type { LayerFigures, LayerVector } from './layer-figures.js';

export const COMPUTE_SCHEMA = 'steer-compute';

/** Body of the report of steer compute. */
export interface ComputeBody {
  readonly method: string;
  readonly kind: 'steps' | 'pairs';
  /** Activations relative to their run, to the mean of all, or as they are (east). */
  readonly centring: string;
  readonly scale: string;
  readonly sign: string;
  readonly read_token: string;
  /** Where entropies came from: counts, completions, logged, exact, sampled; `none` for pairs. */
  readonly entropy_source: string;
  readonly model_type: string;
  readonly model_sha256: string;
  readonly model_layers: number;
  readonly hidden_size: number;
  readonly multiplier: number;
  readonly runs: number;
  readonly steps: number;
  /** Rows of the data without a parsed action, which are left out. */
  readonly steps_left_out: number;
  readonly pairs: number;
  /** Most completions of a step; 0 where counts are not known. */
  readonly completions: number;
  /** Z: sum of the entropies. */
  readonly total_entropy_nats: number;
  readonly mean_entropy_nats: number;
  readonly entropy_sd_nats: number;
  readonly tokens_read: number;
  readonly by_layer: readonly LayerFigures[];
  /** Cosine of the vectors of neighbouring layers, one fewer than layers. */
  readonly cosine_to_next_layer: readonly number[];
  /** What a user should know before the numbers are believed. */
  readonly warnings: readonly string[];
  /** What the format of the vector file does not hold. */
  readonly notes: readonly string[];
}

/** Columns of `--table`: one row a layer and step (or pair member). */
export const COMPUTE_COLUMNS = [
  'layer',
  'row',
  'run',
  'step',
  'side',
  'n_valid',
  'counts',
  'entropy_nats',
  'projection',
  'held_out_projection',
] as const;

/** Rows of `--table`. */
export function* computeTable(
  layers: readonly LayerVector[],
  rows: readonly ActivationRow[],
  kind: ComputeBody['kind'],
): Generator<Cell[]> {
  for (const { layer, projections, heldOutProjections } of layers) {
    for (const [i, row] of rows.entries()) {
      yield [
        layer,
        kind === 'pairs' ? Math.floor(row.index / 2) : row.index,
        row.run ?? null,
        row.step ?? null,
        kind === 'pairs' ? (i % 2 === 0 ? 'positive' : 'negative') : null,
        row.counts?.reduce((sum, count) => sum + count, 0) ?? null,
        row.counts?.join(' ') ?? null,
        row.entropyNats ?? null,
        projections[i],
        heldOutProjections[i],
      ];
    }
  }
}

/** What standard output shows. */
export function computeSummary({ kind, by_layer }: ComputeBody): {
  header: string[];
  rows: (string | number)[][];
} {
  const all: readonly (readonly [string, keyof LayerFigures])[] =
    kind === 'steps'
      ? [
          ['held-out correlation', 'held_out_correlation'],
          ['±', 'held_out_correlation_se'],
          ['permuted', 'permuted_correlation_mean'],
          ['p', 'permutation_p'],
          ['in sample', 'correlation'],
          ['AUC of quartiles', 'separation_auc'],
        ]
      : [
          ['held-out AUC', 'separation_auc'],
          ['±', 'separation_auc_se'],
          ['pairs right', 'pair_accuracy'],
          ['explained', 'explained_variance_ratio'],
          ['cos mean difference', 'cosine_mean_difference'],
        ];
  const shown = all.filter(([, key]) => by_layer.some((layer) => Number.isFinite(layer[key])));
  return {
    header: ['layer', '|v|', '|v| / |z|', ...shown.map(([title]) => title)],
    rows: by_layer.map((layer) => [
      layer.layer,
      layer.vector_norm,
      layer.norm_ratio,
      ...shown.map(([, key]) => layer[key]),
    ]),
  };
}
