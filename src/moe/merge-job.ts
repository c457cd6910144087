import { InputError } from '../errors.js';
import type { AtomicOptions } from '../formats/atomic.js';
import type { Engine } from '../models/engine.js';
import type { LanguageModel } from '../models/language-model.js';
import { engineOf, type LayerStreamOptions } from '../models/layer-streams.js';
import { createRandom } from '../random.js';
import type { ReportHead } from '../report/json.js';
import type { ReportValue } from '../report/values.js';
import { type ExpertGradients, openGradients } from './expert-gradients.js';
import { openExpertModel } from './expert-layout.js';
import type { ExpertModel } from './expert-model.js';
import { type LayerTask, type MergeRun, mergeLayer } from './merge-layer.js';
import { comparesExperts } from './merge-needs.js';
import type { LayerRecord } from './merge-record.js';
import type { MergeSettings } from './merge-settings.js';
import { type ConfigForm, keepsEveryExpert, type MergedPlan } from './merged-config.js';
import { copyUnchanged, createMergedModel } from './merged-writer.js';
import { methodLayers } from './method-layers.js';
import type { MethodGrouping } from './methods/method.js';
import { expertMethod } from './methods/registry.js';
import { createStreamCursor, type StreamCursor } from './stream-cursor.js';
import type { LayerGrouping, LayerStatistics } from './types.js';

/** Everything that a merge takes, structured-cloneable. */
export interface MergeArguments {
  /** Directory of the model, and of the result. */
  readonly source: string;
  readonly out: string;
  readonly settings: MergeSettings;
  /** Of every layer with experts, in order. */
  readonly statistics?: readonly LayerStatistics[];
  /** Text that runs through the model again, where settings need it. */
  readonly text?: LayerStreamOptions & { readonly windows: readonly Int32Array[] };
  /** Safetensors files of gradients, for a mean by Fisher information. */
  readonly gradients?: readonly string[];
  /** Bytes that gains, correlations and merged experts may take. */
  readonly memoryBytes: number;
  readonly maxShardBytes?: number;
  /** Heads the manifest; a run that resumes must repeat it. */
  readonly head: Omit<ReportHead, 'name'>;
  readonly write: AtomicOptions;
  readonly threads: number;
}

export interface MergeResult {
  readonly layers: readonly LayerRecord[];
  readonly budget: { readonly wanted: number; readonly kept: number; readonly threshold: number | null } | null;
  readonly config_form: ConfigForm;
  /** Bytes of all tensors. */
  readonly bytes_before: number;
  readonly bytes_after: number;
  readonly notes: readonly string[];
  readonly warnings: readonly string[];
}

/** Progress of a merge. */
export interface MergeProgress {
  readonly layer: number;
  readonly done: number;
  readonly layers: number;
}

/** A merge whose settings take the text: beside the engine, in its thread. */
export function mergeWithText(
  model: LanguageModel,
  args: MergeArguments,
  progress: (value: unknown) => void,
): Promise<MergeResult> {
  return mergeExperts(args, engineOf(model), progress);
}

/** A merge from weights and statistics alone. */
export function mergeFromStatistics(args: MergeArguments, progress: (value: unknown) => void): Promise<MergeResult> {
  return mergeExperts(args, undefined, progress);
}

async function mergeExperts(
  args: MergeArguments,
  engine: Engine | undefined,
  progress: (value: unknown) => void,
): Promise<MergeResult> {
  const model = openExpertModel(args.source);
  const { text } = args;
  const gradients = args.gradients && openGradients(model, args.gradients);
  const cursor = engine && text ? createStreamCursor(engine, text.windows, text) : undefined;
  try {
    const opened = { model, ...(cursor && { cursor }), ...(gradients && { gradients }) };
    return await mergeOpened(args, opened, engine?.precision ?? 'f32', progress);
  } finally {
    cursor?.close();
    gradients?.close();
    model.close();
  }
}

interface Opened {
  readonly model: ExpertModel;
  readonly cursor?: StreamCursor;
  readonly gradients?: ExpertGradients;
}

async function mergeOpened(
  args: MergeArguments,
  { model, cursor, gradients }: Opened,
  precision: 'f32' | 'f64',
  progress: (value: unknown) => void,
): Promise<MergeResult> {
  const { settings, statistics, threads, memoryBytes } = args;
  const method = expertMethod(settings.method);
  const layers = methodLayers({
    model,
    settings,
    threads,
    memoryBytes,
    precision,
    ...(statistics && { statistics }),
    ...(cursor && { cursor }),
  });
  const merged = layers.map(({ layer }) => !settings.excluded.includes(layer));
  const grouped = await method.group({ layers, merged, settings });
  const { groupings } = grouped;
  const options = {
    ...args.write,
    head: args.head,
    ...(args.maxShardBytes !== undefined && { maxShardBytes: args.maxShardBytes }),
  };
  if (keepsEveryExpert(groupings) && settings.topK === undefined) {
    copyUnchanged(model, args.out, options);
    const bytes = tensorBytes(model);
    return {
      layers: [],
      budget: budgetRecord(grouped),
      config_form: 'standard',
      bytes_before: bytes,
      bytes_after: bytes,
      notes: [...model.notes, 'every expert is kept: the files are copied as they are'],
      warnings: [...grouped.warnings],
    };
  }
  const writer = createMergedModel(model, args.out, planOf(model, groupings, settings), options);
  const run: MergeRun = {
    model,
    writer,
    settings,
    threads,
    memoryBytes,
    precision,
    random: createRandom(settings.seed),
    ...(cursor && { cursor }),
    ...(gradients && { gradients }),
  };
  try {
    const records: LayerRecord[] = [];
    const done = writer.doneLayers();
    for (const [index, layer] of layers.entries()) {
      const finished = done.get(layer.layer) as LayerRecord | undefined;
      const compared = comparesExperts(method) && merged[index] && groupings[index].dominants.length < layer.experts;
      const task: LayerTask = {
        index,
        grouping: groupings[index],
        usage: layer.usage,
        ...(layer.statistics && { statistics: layer.statistics }),
        ...(grouped.silhouettes && { silhouette: grouped.silhouettes[index] }),
        ...(compared && { similarity: await layer.similarity() }),
      };
      const record = finished ?? (await mergeLayer(run, task));
      if (!finished) writer.finishLayer(layer.layer, record as unknown as ReportValue);
      records.push(record);
      progress({ layer: layer.layer, done: index + 1, layers: layers.length } satisfies MergeProgress);
    }
    const result: MergeResult = {
      layers: records,
      budget: budgetRecord(grouped),
      config_form: writer.configForm,
      bytes_before: writer.bytesBefore,
      bytes_after: writer.bytesAfter,
      notes: [...model.notes, ...writer.notes],
      warnings: [...grouped.warnings, ...records.flatMap(({ warnings }) => warnings)],
    };
    writer.commit();
    return result;
  } catch (error) {
    // Wrong input stays wrong; after a full disk or a signal, what is finished is of use to a run that resumes.
    writer.abort(error instanceof InputError);
    throw error;
  }
}

function budgetRecord({ budget, groupings }: MethodGrouping): MergeResult['budget'] {
  if (!budget) return null;
  const kept = groupings.reduce((sum, { dominants }) => sum + dominants.length, 0);
  return { wanted: budget.wanted, kept, threshold: budget.threshold ?? null };
}

function tensorBytes({ store }: ExpertModel): number {
  let bytes = 0;
  for (const { byteLength } of store.tensors.values()) bytes += byteLength;
  return bytes;
}

/** What is stored of every layer. */
function planOf(model: ExpertModel, groupings: readonly LayerGrouping[], settings: MergeSettings): MergedPlan {
  const { router: form, topK } = settings;
  return {
    form,
    ...(topK !== undefined && { topK }),
    layers: groupings.map(({ layer, labels, dominants }, index) => ({
      layer,
      experts: form === 'expanded' ? model.layers[index].experts : dominants.length,
      routerRows: form === 'reduced' ? dominants.length : model.layers[index].experts,
      ...(form === 'remap' && { map: labels }),
    })),
  };
}
