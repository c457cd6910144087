import type { Cell } from '../report/csv.js';
import { addCluster, type ClusterSums, createClusters, mergeClusters } from './clustered.js';
import {
  createExactMoments,
  type ExactMoments,
  type ExactMomentsJson,
  exactMomentsFromJson,
  exactMomentsToJson,
  mergeExactMoments,
  momentBytes,
} from './exact-moments.js';
import {
  addLayerRows,
  createLayerStatistics,
  type LayerRows,
  type LayerStatistics,
  mergeLayers,
} from './layer-measures.js';
import type { LayersBatch } from './layers-job.js';
import type { BatchResult } from './window-batches.js';

/** Measures of a layer in the order in which documents keep their sums. */
export const LAYER_MEASURES = [
  'residualNorm',
  'lensEntropyNats',
  'lensKlNats',
  'lensSurprisalNats',
  'lensAgreement',
  'cosineToPrevious',
] as const satisfies readonly (keyof LayerRows)[];

/** Widest residual stream whose covariance is decomposed; the work grows with the cube. */
export const WIDEST_MOMENTS = 1024;
/** Most memory for the moments of all layers; a partial report holds 4/3 of it as text. */
export const MOST_MOMENT_BYTES = 256 << 20;

/** Whether second moments of a model are summed: effective ranks exist then. */
export function takesMoments(hiddenSize: number, layers: number): boolean {
  return hiddenSize <= WIDEST_MOMENTS && (layers + 1) * momentBytes(hiddenSize) <= MOST_MOMENT_BYTES;
}

/** Mergeable statistics of a run over documents; layers 0 (embeddings) to L. */
export interface LayersRun {
  readonly statistics: LayerStatistics;
  /** Spread over documents, `[layers + 1][measures]`. */
  readonly clusters: ClusterSums[][];
  /** Empty where the residual stream is too wide. */
  readonly moments: ExactMoments[];
  documentsRead: number;
  positions: number;
}

export function createLayersRun(layers: number, hiddenSize: number): LayersRun {
  const each = <T>(make: () => T): T[] => Array.from({ length: layers + 1 }, make);
  return {
    statistics: createLayerStatistics(layers + 1),
    clusters: each(() => LAYER_MEASURES.map(createClusters)),
    moments: takesMoments(hiddenSize, layers) ? each(() => createExactMoments(hiddenSize)) : [],
    documentsRead: 0,
    positions: 0,
  };
}

/** Sums of one document: values and their number, `[layers + 1][measures]` flat. */
interface OpenDocument {
  readonly index: number;
  readonly id: string;
  readonly sums: Float64Array;
  readonly counts: Float64Array;
  /** Values that are infinite, which the sums leave out. */
  readonly infinite: Float64Array;
}

/** Adds batches in document order. */
export interface LayersFolder {
  add(batch: BatchResult<LayersBatch>): void;
  /** Ends the last document; call it once. */
  finish(): void;
}

/** Columns of the table of documents: one row a document and layer. */
export const DOCUMENT_LAYER_COLUMNS = [
  'document',
  'document_id',
  'layer',
  'positions',
  'residual_norm',
  'lens_entropy_nats',
  'lens_kl_to_final_nats',
  'lens_surprisal_nats',
  'lens_top1_agreement',
  'cosine_to_previous',
] as const;

/** @param writeRow takes the rows of the table of documents, as each document ends */
export function foldLayers(run: LayersRun, writeRow?: (cells: readonly Cell[]) => void): LayersFolder {
  const measures = LAYER_MEASURES.length;
  const cells = run.clusters.length * measures;
  let open: OpenDocument | undefined;
  const close = (): void => {
    if (!open) return;
    const { index, id, sums, counts, infinite } = open;
    run.clusters.forEach((clusters, layer) => {
      const at = layer * measures;
      clusters.forEach((cluster, k) => {
        addCluster(cluster, sums[at + k], counts[at + k]);
      });
      if (!writeRow) return;
      const means = LAYER_MEASURES.map((_, k) => {
        const count = counts[at + k] + infinite[at + k];
        if (count === 0) return undefined;
        return infinite[at + k] > 0 ? Number.POSITIVE_INFINITY : sums[at + k] / count;
      });
      writeRow([index, id, layer, counts[at], ...means]);
    });
    open = undefined;
  };
  return {
    add({ documents, windows, result }) {
      run.documentsRead += documents.length;
      if (!result) return;
      result.rows.forEach((rows, layer) => {
        addLayerRows(run.statistics, layer, rows);
      });
      result.moments.forEach((moments, layer) => {
        mergeExactMoments(run.moments[layer], moments);
      });
      let first = 0;
      for (const { document, window } of windows) {
        if (open?.index !== document.index) {
          close();
          open = {
            index: document.index,
            id: document.id,
            sums: new Float64Array(cells),
            counts: new Float64Array(cells),
            infinite: new Float64Array(cells),
          };
        }
        const end = first + window.targets.length;
        for (const [layer, rows] of result.rows.entries()) addToDocument(open, layer * measures, rows, first, end);
        run.positions += window.targets.length;
        first = end;
      }
    },
    finish: close,
  };
}

function addToDocument(
  document: OpenDocument,
  at: number,
  rows: Required<LayerRows>,
  first: number,
  end: number,
): void {
  LAYER_MEASURES.forEach((name, k) => {
    const values = rows[name];
    for (let i = first; i < end; i++) {
      const value = values[i];
      if (Number.isNaN(value)) continue;
      if (!Number.isFinite(value)) {
        document.infinite[at + k]++;
        continue;
      }
      document.sums[at + k] += value;
      document.counts[at + k]++;
    }
  });
}

/** Unites runs over disjoint sets of documents. */
export function mergeLayersRuns(parts: readonly LayersRun[], hiddenSize: number): LayersRun {
  const merged = createLayersRun(parts[0].clusters.length - 1, hiddenSize);
  for (const part of parts) {
    mergeLayers(merged.statistics, part.statistics);
    merged.clusters.forEach((clusters, layer) => {
      clusters.forEach((cluster, k) => {
        mergeClusters(cluster, part.clusters[layer][k]);
      });
    });
    merged.moments.forEach((moments, layer) => {
      mergeExactMoments(moments, part.moments[layer]);
    });
    merged.documentsRead += part.documentsRead;
    merged.positions += part.positions;
  }
  return merged;
}

/** Lossless plain form, for partial reports. */
export interface LayersRunJson {
  statistics: LayerStatistics;
  clusters: ClusterSums[][];
  moments: ExactMomentsJson[];
  documents_read: number;
  positions: number;
}

export function layersRunToJson(run: LayersRun): LayersRunJson {
  return {
    statistics: run.statistics,
    clusters: run.clusters,
    moments: run.moments.map(exactMomentsToJson),
    documents_read: run.documentsRead,
    positions: run.positions,
  };
}

export function layersRunFromJson(json: LayersRunJson): LayersRun {
  return {
    statistics: json.statistics,
    clusters: json.clusters,
    moments: json.moments.map(exactMomentsFromJson),
    documentsRead: json.documents_read,
    positions: json.positions,
  };
}
