import type { AttentionBatch } from './attention-job.js';
import { createPenalties, mergePenalties, type PenaltySums } from './attention-penalty.js';
import {
  type AttentionJson,
  type AttentionStatistics,
  attentionFromJson,
  attentionToJson,
  createAttentionStatistics,
  headFigures,
  mergeAttention,
} from './attention-statistics.js';
import { addCluster, type ClusterSums, clusterError, createClusters, mergeClusters } from './clustered.js';
import { totalOf } from './exact-sum.js';
import type { BatchResult } from './window-batches.js';

/** Sums of one document over all heads: entropies, entropies / log(visible keys), and the rows of both. */
export const DOCUMENT_WIDTH = 4;

/** Mergeable statistics of a run over documents. */
export interface AttentionRun {
  readonly statistics: AttentionStatistics;
  /** Spread over documents, heads in the order `[layers, heads]`. */
  readonly clusters: ClusterSums[];
  /** By document index: `DOCUMENT_WIDTH` sums. Documents without tokens have none. */
  readonly documents: Map<number, Float64Array>;
  documentsRead: number;
  /** Queries whose rows were measured. */
  queries: number;
  /** Penalties of the regulariser by head, where one is asked for. */
  penalties?: PenaltySums[];
  /** Sums behind the gradient by temperatures, `[layers * heads, positions]`; not in the plain form. */
  temperatureSums?: Float64Array;
}

export function createAttentionRun(layers: number, heads: number): AttentionRun {
  return {
    statistics: createAttentionStatistics(layers, heads),
    clusters: Array.from({ length: layers * heads }, createClusters),
    documents: new Map(),
    documentsRead: 0,
    queries: 0,
  };
}

/** Sums of the document whose windows are arriving; it enters the spread when the next one begins. */
interface OpenDocument {
  readonly index: number;
  readonly entropy: Float64Array;
  readonly rows: Float64Array;
}

/** Adds batches in document order. */
export interface AttentionFolder {
  add(batch: BatchResult<AttentionBatch>): void;
  /** Ends the last document; call it once. */
  finish(): void;
}

export function foldAttention(run: AttentionRun): AttentionFolder {
  const width = run.clusters.length;
  let open: OpenDocument | undefined;
  const close = (): void => {
    if (!open) return;
    for (let i = 0; i < width; i++) addCluster(run.clusters[i], open.entropy[i], open.rows[i]);
    open = undefined;
  };
  return {
    add({ documents, windows, result }) {
      run.documentsRead += documents.length;
      if (!result) return;
      mergeAttention(run.statistics, result.statistics);
      if (result.penalties) {
        run.penalties ??= createPenalties(width);
        mergePenalties(run.penalties, result.penalties);
      }
      if (result.temperatureSums) {
        run.temperatureSums ??= new Float64Array(result.temperatureSums.length);
        for (let i = 0; i < run.temperatureSums.length; i++) run.temperatureSums[i] += result.temperatureSums[i];
      }
      windows.forEach(({ document, window }, w) => {
        if (open?.index !== document.index) {
          close();
          open = { index: document.index, entropy: new Float64Array(width), rows: new Float64Array(width) };
        }
        let sums = run.documents.get(document.index);
        if (!sums) {
          sums = new Float64Array(DOCUMENT_WIDTH);
          run.documents.set(document.index, sums);
        }
        run.queries += window.targets.length;
        for (let i = 0; i < width; i++) {
          const entropy = result.entropySums[w * width + i];
          const rows = result.rowCounts[w * width + i];
          open.entropy[i] += entropy;
          open.rows[i] += rows;
          sums[0] += entropy;
          sums[2] += rows;
        }
        sums[1] += result.normalisedSums[w];
        sums[3] += result.normalisedCounts[w];
      });
    },
    finish: close,
  };
}

/** The run over one batch whose windows are documents of their own, `queries` each. */
export function runOfSequences(batch: AttentionBatch, queries: number): AttentionRun {
  const { layers, heads } = batch.statistics;
  const run = createAttentionRun(layers, heads);
  const width = layers * heads;
  mergeAttention(run.statistics, batch.statistics);
  if (batch.penalties) run.penalties = batch.penalties;
  batch.normalisedSums.forEach((normalised, w) => {
    const sums = new Float64Array(DOCUMENT_WIDTH);
    for (let i = 0; i < width; i++) {
      const entropy = batch.entropySums[w * width + i];
      const rows = batch.rowCounts[w * width + i];
      addCluster(run.clusters[i], entropy, rows);
      sums[0] += entropy;
      sums[2] += rows;
    }
    sums[1] = normalised;
    sums[3] = batch.normalisedCounts[w];
    run.documents.set(w, sums);
    run.documentsRead++;
    run.queries += queries;
  });
  return run;
}

/** Standard error of each head's mean entropy with documents as units, nats; NaN below two documents. */
export function documentErrors(run: AttentionRun): Float64Array {
  return Float64Array.from(run.clusters, (clusters, i) => {
    const sums = run.statistics.sums[i];
    return clusterError(clusters, totalOf(sums.entropy), sums.rows);
  });
}

/** Below so many documents their spread says little, and reading does not stop. */
const LEAST_DOCUMENTS = 8;

/** Whether every head's mean entropy has a standard error below `target`, over queries and over documents. */
export function isPrecise(run: AttentionRun, contextSize: number, target: number): boolean {
  if (run.documents.size < LEAST_DOCUMENTS) return false;
  const figures = headFigures(run.statistics, contextSize);
  return documentErrors(run).every((error, i) => error < target && figures[i].entropy_nats_se < target);
}

/** Unites runs over disjoint sets of documents. */
export function mergeAttentionRuns(parts: readonly AttentionRun[]): AttentionRun {
  const merged = createAttentionRun(parts[0].statistics.layers, parts[0].statistics.heads);
  for (const part of parts) {
    mergeAttention(merged.statistics, part.statistics);
    merged.clusters.forEach((clusters, i) => {
      mergeClusters(clusters, part.clusters[i]);
    });
    for (const [index, sums] of part.documents) {
      if (merged.documents.has(index)) throw new RangeError(`document ${index} is in two parts`);
      merged.documents.set(index, sums);
    }
    if (part.penalties) {
      merged.penalties ??= createPenalties(merged.clusters.length);
      mergePenalties(merged.penalties, part.penalties);
    }
    merged.documentsRead += part.documentsRead;
    merged.queries += part.queries;
  }
  return merged;
}

/** Lossless plain form, for partial reports. */
export interface AttentionRunJson {
  attention: AttentionJson;
  clusters: ClusterSums[];
  documents: [number, number[]][];
  documents_read: number;
  queries: number;
  penalties?: PenaltySums[];
}

export function documentsInOrder(run: AttentionRun): [number, Float64Array][] {
  return [...run.documents].sort((a, b) => a[0] - b[0]);
}

export function attentionRunToJson(run: AttentionRun): AttentionRunJson {
  return {
    attention: attentionToJson(run.statistics),
    clusters: run.clusters,
    documents: documentsInOrder(run).map(([index, sums]) => [index, [...sums]]),
    documents_read: run.documentsRead,
    queries: run.queries,
    ...(run.penalties && { penalties: run.penalties }),
  };
}

export function attentionRunFromJson(json: AttentionRunJson): AttentionRun {
  return {
    statistics: attentionFromJson(json.attention),
    clusters: json.clusters,
    documents: new Map(json.documents.map(([index, sums]) => [index, Float64Array.from(sums)])),
    documentsRead: json.documents_read,
    queries: json.queries,
    ...(json.penalties && { penalties: json.penalties }),
  };
}
