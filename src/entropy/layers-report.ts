import type { Cell } from '../report/csv.js';
import { type ReportObject, reportObject } from '../report/values.js';
import { clusterError } from './clustered.js';
import { exactMomentMeasures } from './exact-moments.js';
import { totalOf } from './exact-sum.js';
import { layerFigures, type SpectrumMeasures } from './layer-measures.js';
import { type LayersRun, type LayersRunJson, layersRunFromJson, mergeLayersRuns } from './layers-run.js';

/** Name of the report's schema. */
export const LAYERS_SCHEMA = 'layers';

export interface LayersSetting {
  readonly convention: ReportObject;
  readonly hiddenSize: number;
  readonly vocabularySize: number;
}

const MEASURE_KEYS = [
  'residual_norm',
  'lens_entropy_nats',
  'lens_kl_to_final_nats',
  'lens_surprisal_nats',
  'lens_top1_agreement',
  'cosine_to_previous',
] as const;

type MeasureKey = (typeof MEASURE_KEYS)[number];

/** Mean of a measure, its standard error over positions, and over documents. Absent at a layer where it has no meaning. */
type MeasureFigures = { [K in MeasureKey | `${MeasureKey}_se` | `${MeasureKey}_document_se`]?: number };

/** Spectrum of the residual stream; null where it is too wide or positions are too few. */
interface SpectrumFigures {
  effective_rank: number | null;
  effective_rank_uncentred: number | null;
  spectrum_entropy_nats: number | null;
  participation_ratio: number | null;
  stable_rank: number | null;
  top_eigenvalue_share: number | null;
  top_eigenvalue_share_uncentred: number | null;
}

/** Layer 0 is the embeddings, layer k the output of block k. */
export interface LayerReport extends MeasureFigures, SpectrumFigures {
  layer: number;
  residual_norm_std: number;
}

export interface LayersBody {
  convention: ReportObject;
  layers: number;
  hidden_size: number;
  vocabulary_size: number;
  documents: number;
  positions: number;
  mean_entropy_nats: number;
  mean_nll_nats: number;
  /** First layer whose lens and the final layer have the same likeliest token at half of the positions or more. */
  half_agreement_layer: number;
  /** First layer whose divergence from the final distribution is at most half of that of the embeddings. */
  half_divergence_layer: number;
  effective_rank_measured: boolean;
  by_layer: LayerReport[];
}

function spectrumOf(run: LayersRun, layer: number): SpectrumFigures {
  const moments = run.moments[layer];
  const take = (centred: boolean): SpectrumMeasures | undefined => {
    return moments && exactMomentMeasures(moments, centred);
  };
  const centred = take(true);
  const uncentred = take(false);
  return {
    effective_rank: centred?.effectiveRank ?? null,
    effective_rank_uncentred: uncentred?.effectiveRank ?? null,
    spectrum_entropy_nats: centred?.entropyNats ?? null,
    participation_ratio: centred?.participationRatio ?? null,
    stable_rank: centred?.stableRank ?? null,
    top_eigenvalue_share: centred?.topShare ?? null,
    top_eigenvalue_share_uncentred: uncentred?.topShare ?? null,
  };
}

/** Makes the body of the report from the statistics of all documents, in one process or united from shards. */
export function layersBody(run: LayersRun, setting: LayersSetting): LayersBody {
  const figures = layerFigures(run.statistics) as Partial<Record<string, number>>[];
  const byLayer = figures.map((found, layer): LayerReport => {
    const measures: Record<string, number> = {};
    MEASURE_KEYS.forEach((key, k) => {
      const sums = run.statistics.layers[layer][k];
      if (sums.count === 0) return;
      measures[key] = found[key] ?? Number.NaN;
      measures[`${key}_se`] = found[`${key}_se`] ?? Number.NaN;
      measures[`${key}_document_se`] =
        sums.infinite > 0 ? Number.NaN : clusterError(run.clusters[layer][k], totalOf(sums.sum), sums.count);
    });
    const norms = run.statistics.layers[layer][0];
    return {
      layer,
      ...measures,
      residual_norm_std: (measures.residual_norm_se ?? Number.NaN) * Math.sqrt(norms.count - 1),
      ...spectrumOf(run, layer),
    };
  });
  const last = byLayer[byLayer.length - 1];
  const divergence = byLayer.map((layer) => layer.lens_kl_to_final_nats ?? Number.NaN);
  return {
    convention: setting.convention,
    layers: byLayer.length - 1,
    hidden_size: setting.hiddenSize,
    vocabulary_size: setting.vocabularySize,
    documents: run.documentsRead,
    positions: run.positions,
    mean_entropy_nats: last.lens_entropy_nats ?? Number.NaN,
    mean_nll_nats: last.lens_surprisal_nats ?? Number.NaN,
    half_agreement_layer: firstLayer(byLayer, (layer) => (layer.lens_top1_agreement ?? 0) >= 0.5),
    half_divergence_layer: firstLayer(byLayer, (_, k) => divergence[k] <= divergence[0] / 2),
    effective_rank_measured: run.moments.length > 0,
    by_layer: byLayer,
  };
}

/** Index of the first layer for which it holds; NaN for none (a shard without positions). */
function firstLayer(layers: readonly LayerReport[], holds: (layer: LayerReport, index: number) => boolean): number {
  const found = layers.findIndex(holds);
  return found < 0 ? Number.NaN : found;
}

/** Columns of the table of layers. */
export const LAYER_COLUMNS = [
  'layer',
  'residual_norm',
  'residual_norm_se',
  'residual_norm_document_se',
  'residual_norm_std',
  ...MEASURE_KEYS.slice(1).flatMap((key) => [key, `${key}_se`, `${key}_document_se`] as const),
  'effective_rank',
  'effective_rank_uncentred',
  'spectrum_entropy_nats',
  'participation_ratio',
  'stable_rank',
  'top_eigenvalue_share',
  'top_eigenvalue_share_uncentred',
] as readonly (keyof LayerReport)[];

/** Rows of the table of layers. */
export function* layerRows(body: LayersBody): Generator<Cell[]> {
  for (const layer of body.by_layer) yield LAYER_COLUMNS.map((column) => layer[column]);
}

/** Unites the shards of a run; the bytes are those of a run without shards. */
export function mergeLayersReports(
  parts: readonly { readonly report: Readonly<Record<string, unknown>>; readonly partial: unknown }[],
): ReportObject {
  const { convention, hidden_size, vocabulary_size } = parts[0].report as {
    convention: ReportObject;
    hidden_size: number;
    vocabulary_size: number;
  };
  const runs = parts.map((part) => layersRunFromJson(part.partial as LayersRunJson));
  return reportObject(
    layersBody(mergeLayersRuns(runs, hidden_size), {
      convention,
      hiddenSize: hidden_size,
      vocabularySize: vocabulary_size,
    }),
  );
}
