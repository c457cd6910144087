import { readFileSync } from 'node:fs';
import { parse } from 'csv-parse/sync';
import type { HashedFile } from '../../formats/hash.js';
import { encodeSafetensors } from '../../formats/safetensors-writer.js';
import { quartileBins } from '../../linalg/quartile-bins.js';
import { writeHashed } from '../../models/model-directory.js';
import {
  type EntropyAttention,
  type EntropyAttentionSettings,
  LEAST_TEMPERATURE,
  type ObservedEntropies,
  TEMPERATURE,
  THRESHOLD,
} from '../attention-entropy.js';
import type { DecoderStudent } from '../decoder-student.js';
import { unfoldableQueries } from '../folded-queries.js';
import type { Student, TokenBatch } from '../types.js';
import { type TokenWindows, windowBatches } from './token-data.js';

/** File of temperatures and thresholds in a written directory. */
export const ATTENTION_FILE = 'attention.safetensors';

/** Temperatures and thresholds of a student as they are. */
export interface AttentionValues {
  /** `[layers, heads, positions]`. */
  readonly temperatures?: { readonly values: Float64Array; readonly positions: number };
  /** `[layers, heads]`. */
  readonly thresholds?: Float64Array;
}

/** What a run with trained attention holds on to. */
export interface TrainedAttention {
  readonly settings: EntropyAttentionSettings;
  readonly layers: number;
  readonly heads: number;
  /** Why the temperatures are not part of the queries' weights; undefined where they are, or where there are none. */
  readonly notFolded: string | undefined;
  /** Mean entropies of the heads since the last call. */
  take(): ObservedEntropies;
  values(): AttentionValues;
}

/** Why temperatures cannot be written into the weights; undefined where they can. */
function reasonNotToFold(student: DecoderStudent, settings: EntropyAttentionSettings): string | undefined {
  if (settings.temperatures === undefined) return undefined;
  if (settings.temperatures.positions > 1) return 'they differ by position';
  return unfoldableQueries(student.description);
}

/** The temperatures and thresholds as they are now, of all layers in their order, and why they cannot be folded, if so. */
export function trainedAttention(
  student: DecoderStudent,
  attention: EntropyAttention,
  settings: EntropyAttentionSettings,
): TrainedAttention {
  const { layers } = student.description;
  const { heads } = layers[0].attention;
  const joined = (role: string): Float64Array => {
    const parts = student.extras.map((extras) => extras.get(role)?.values ?? new Float64Array(0));
    const all = new Float64Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) {
      all.set(part, at);
      at += part.length;
    }
    return all;
  };
  return {
    settings,
    layers: layers.length,
    heads,
    notFolded: reasonNotToFold(student, settings),
    take: () => attention.take(),
    values() {
      // Single precision may round an end of the range to the outside.
      const temperatures = joined(TEMPERATURE).map((t) => Math.max(LEAST_TEMPERATURE, t));
      const positions = temperatures.length / (layers.length * heads);
      return {
        ...(settings.temperatures && { temperatures: { values: temperatures, positions } }),
        ...(settings.regulariser && { thresholds: joined(THRESHOLD) }),
      };
    },
  };
}

/**
 * Writes temperatures and thresholds beside a model, as `analyze-entropy attention` reads them. Temperatures that are part
 * of the weights are called `folded_temperatures`, so that nobody applies them twice.
 */
export function writeAttention(directory: string, attention: TrainedAttention, folded: boolean): HashedFile {
  const { layers, heads } = attention;
  const { temperatures, thresholds } = attention.values();
  const tensors = [];
  if (temperatures) {
    const { positions } = temperatures;
    tensors.push({
      name: folded ? 'folded_temperatures' : 'temperatures',
      dtype: 'F64' as const,
      shape: positions === 1 ? [layers, heads] : [layers, heads, positions],
      data: temperatures.values,
    });
  }
  if (thresholds) {
    tensors.push({ name: 'thresholds', dtype: 'F64' as const, shape: [layers, heads], data: thresholds });
  }
  return writeHashed(directory, ATTENTION_FILE, encodeSafetensors(tensors));
}

/** Attention of a run in its report. Entropies are nats. */
export interface AttentionTrainingBody {
  readonly measured_on: 'held-out' | 'training';
  readonly queries: number;
  /** T of log T. */
  readonly context_size_tokens: number;
  readonly temperatures: {
    readonly per: 'head' | 'position';
    /** They are part of the written weights. */
    readonly folded: boolean;
    readonly not_folded_because: string | null;
    readonly least: number;
    readonly greatest: number;
  } | null;
  readonly regulariser: {
    readonly variant: 'code' | 'algorithm1';
    readonly gamma: number;
    readonly lambda: number;
    readonly thresholds: 'learnt' | 'fixed';
  } | null;
  /** Shares of the heads in quarters of log T, and of the largest head entropy. */
  readonly shares: { readonly before: HeadShares; readonly after: HeadShares };
  readonly heads: readonly TrainedHead[];
  /** Before the first step and at every evaluation. */
  readonly curve: readonly { readonly step: number; readonly layer_entropy_nats: readonly number[] }[];
}

export interface HeadShares {
  readonly of_log_context: readonly number[];
  readonly of_largest: readonly number[];
}

export interface TrainedHead {
  readonly layer: number;
  readonly head: number;
  readonly entropy_nats_before: number;
  readonly entropy_nats: number;
  readonly share_of_log_context_before: number;
  readonly share_of_log_context: number;
  /** Quarter of log T, 0 to 3. */
  readonly absolute_bin_before: number;
  readonly absolute_bin: number;
  /** Geometric mean over positions. */
  readonly temperature: number | null;
  readonly threshold: number | null;
}

/** Windows that entropies are measured on where no text is held out. */
const MEASURED_WINDOWS = 64;

/** Measures the entropies of a student between its steps. */
export interface AttentionWatch {
  /** Names of the figures of an evaluation: mean entropy of every layer. */
  readonly figureNames: readonly string[];
  /** Before the held-out text passes. */
  begin(): void;
  /** Behind it; without such text some windows of the training text pass now. */
  end(): Promise<ObservedEntropies>;
  figures(entropies: ObservedEntropies): Record<string, number>;
}

/** Names of the mean entropies of the layers. */
const layerNames = (layers: number): string[] =>
  Array.from({ length: layers }, (_, layer) => `layer_${layer}_attention_entropy_nats`);

/** Mean over the heads of every layer, nats. */
function layerMeans({ means }: ObservedEntropies, heads: number): number[] {
  return Array.from({ length: means.length / heads }, (_, layer) => {
    const own = means.subarray(layer * heads, (layer + 1) * heads);
    return own.reduce((sum, mean) => sum + mean, 0) / heads;
  });
}

/** Observes the entropies of attention between `begin` and `end`: on the held-out text, or on some windows of the training text. */
export function createAttentionWatch(
  student: Student<TokenBatch>,
  attention: TrainedAttention,
  text: { readonly windows: TokenWindows; readonly heldOut?: TokenWindows | undefined; readonly batchSize: number },
): AttentionWatch {
  const { windows, heldOut, batchSize } = text;
  const { layers, heads } = attention;
  const figureNames = layerNames(layers);
  return {
    figureNames,
    begin() {
      attention.take();
    },
    async end() {
      if (heldOut) return attention.take();
      attention.take();
      const batches = windowBatches(windows, batchSize);
      const count = Math.min(batches.perEpoch, Math.ceil(MEASURED_WINDOWS / batchSize));
      for (let index = 0; index < count; index++) await student.evaluate(await batches.batch(index), () => undefined);
      return attention.take();
    },
    figures(entropies) {
      const means = layerMeans(entropies, heads);
      return Object.fromEntries(figureNames.map((name, layer) => [name, means[layer]]));
    },
  };
}

/** Reads back the mean entropies of the layers at every evaluation of a run. */
export function readLayerCurve(metricsPath: string, { layers }: TrainedAttention): AttentionTrainingBody['curve'] {
  const rows: Record<string, string>[] = parse(readFileSync(metricsPath), { columns: true });
  const names = layerNames(layers).map((name) => `eval_${name}`);
  return rows.flatMap((row) => {
    if (!row[names[0]]) return [];
    return [{ step: Number(row.step), layer_entropy_nats: names.map((name) => Number(row[name])) }];
  });
}

export interface AttentionCourse {
  readonly before: ObservedEntropies;
  readonly after: ObservedEntropies;
  readonly measuredOn: 'held-out' | 'training';
  readonly contextSize: number;
  readonly curve: AttentionTrainingBody['curve'];
}

/** What the report says of attention before and after training. */
export function attentionTrainingBody(trained: TrainedAttention, course: AttentionCourse): AttentionTrainingBody {
  const { settings, notFolded } = trained;
  const { before, after, contextSize } = course;
  const { heads } = trained;
  const { temperatures, thresholds } = trained.values();
  const most = Math.log(contextSize);
  const { regulariser } = settings;
  const bins = [before, after].map(({ means }) => quartileBins(means, most));
  const sharesOf = ({ means }: ObservedEntropies, absolute: number): HeadShares => ({
    of_log_context: [...bins[absolute].fractions],
    of_largest: [...quartileBins(means).fractions],
  });
  return {
    measured_on: course.measuredOn,
    queries: after.queries,
    context_size_tokens: contextSize,
    temperatures: temperatures
      ? {
          per: temperatures.positions === 1 ? 'head' : 'position',
          folded: notFolded === undefined,
          not_folded_because: notFolded ?? null,
          least: temperatures.values.reduce((least, t) => Math.min(least, t)),
          greatest: temperatures.values.reduce((greatest, t) => Math.max(greatest, t)),
        }
      : null,
    regulariser: regulariser
      ? {
          variant: regulariser.reduction,
          gamma: regulariser.gamma,
          lambda: regulariser.lambda,
          thresholds: regulariser.learn ? 'learnt' : 'fixed',
        }
      : null,
    shares: { before: sharesOf(before, 0), after: sharesOf(after, 1) },
    heads: Array.from(after.means, (entropy, at) => ({
      layer: Math.floor(at / heads),
      head: at % heads,
      entropy_nats_before: before.means[at],
      entropy_nats: entropy,
      share_of_log_context_before: before.means[at] / most,
      share_of_log_context: entropy / most,
      absolute_bin_before: bins[0].bins[at],
      absolute_bin: bins[1].bins[at],
      temperature: temperatures ? geometricMean(temperatures.values, at, temperatures.positions) : null,
      threshold: thresholds ? thresholds[at] : null,
    })),
    curve: course.curve.length > 0 ? [{ step: 0, layer_entropy_nats: layerMeans(before, heads) }, ...course.curve] : [],
  };
}

function geometricMean(values: Float64Array, head: number, positions: number): number {
  const own = values.subarray(head * positions, (head + 1) * positions);
  return Math.exp(own.reduce((sum, t) => sum + Math.log(t), 0) / positions);
}
