import { dirname, resolve } from 'node:path';
import { InputError } from '../src/errors.js';
import { resolveModelPath } from '../src/formats/hub.js';
import { expandSources, type InputDigest, type InputLedger } from '../src/formats/inputs.js';
import { hashWindows } from '../src/models/calibration-windows.js';
import type { ModelDescription } from '../src/models/description.js';
import { openModelFiles } from '../src/models/model-files.js';
import { hashModelFiles } from '../src/models/model-hash.js';
import { calibrateToFolder, statisticsReserve } from '../src/moe/calibrate.js';
import { type ErrorRecord, errorRecord } from '../src/moe/error-record.js';
import { openExpertModel } from '../src/moe/expert-layout.js';
import type { ExpertModel } from '../src/moe/expert-model.js';
import { HELD_OUT_ERRORS } from '../src/moe/held-out-job.js';
import {
  type MergeArguments,
  type MergeProgress,
  type MergeResult,
  mergeFromStatistics,
  mergeWithText,
} from '../src/moe/merge-job.js';
import { comfortableBytes, mergeBytes } from '../src/moe/merge-memory.js';
import { textUses } from '../src/moe/merge-needs.js';
import type { TextRecord } from '../src/moe/merge-report.js';
import type { MergeSettings } from '../src/moe/merge-settings.js';
import { readMergedLabels } from '../src/moe/merged-labels.js';
import type { StatisticsNeed } from '../src/moe/methods/method.js';
import { expertMethod } from '../src/moe/methods/registry.js';
import { type MoeStatistics, missingShards, readStatistics, type WatchedOutputs } from '../src/moe/statistics-file.js';
import type { Progress } from '../src/report/progress.js';
import { MOST_CALIBRATION_TOKENS, readCalibrationWindows } from './calibration-text.js';
import { parseInteger } from './edge-values.js';
import { modelDigests } from './model-digests.js';
import { type ModelSession, openModelSession, type Precision, parsePrecision } from './model-session.js';
import { runInThread } from './run-in-thread.js';
import type { RunTimings } from './run-timings.js';
import type { ScoredTextOptions } from './scored-text.js';
import { requireOption, type SharedOptions } from './shared-options.js';

/** Options of the commands that merge, as commander gives them. */
export interface SubjectOptions extends ScoredTextOptions {
  stats?: string[];
  gradients?: string[];
  calibTokens?: string;
  calibLength?: string;
  evalData?: string[];
  evalTokens?: string;
  precision?: string;
}

/** Shared options of the commands that merge. */
export const MERGE_SHARED = [
  'model',
  'data',
  'dataFormat',
  'textSplit',
  'textField',
  'limit',
  'out',
  'report',
  'plot',
  'seed',
  'threads',
  'maxMemory',
  'device',
  'context',
  'stride',
  'assert',
  'baseline',
  'timings',
  'quiet',
  'dryRun',
  'force',
  'resume',
] as const satisfies readonly (keyof SharedOptions)[];

/** Shared options that reading a model and its texts takes. */
export type SubjectShared = Pick<
  SharedOptions,
  | 'model'
  | 'data'
  | 'dataFormat'
  | 'textSplit'
  | 'textField'
  | 'limit'
  | 'threads'
  | 'maxMemory'
  | 'device'
  | 'context'
  | 'stride'
  | 'seed'
>;

/** A model with experts, its statistics or the text to take them on, and the text to judge by. */
export interface MergeSubject {
  readonly spec: string;
  readonly path: string;
  readonly model: ExpertModel;
  /** What the engine would run; absent for families without a forward pass here. */
  readonly description?: ModelDescription;
  readonly data: readonly string[];
  readonly stats: readonly string[];
  readonly gradients: readonly string[];
  readonly evalData: readonly string[];
  readonly tokens?: number;
  readonly length?: number;
  readonly evalTokens?: number;
  readonly precision: Precision;
}

const count = (flag: string, text: string | undefined): number | undefined =>
  text === undefined ? undefined : parseInteger(flag, text, 1);

/** @throws InputError for a dense model, a family that does not run here and texts for it, options without their text */
export async function openMergeSubject(options: SubjectShared, own: SubjectOptions): Promise<MergeSubject> {
  const spec = requireOption(options.model, '--model', 'a model directory with experts');
  const { path } = resolveModelPath(spec, process.env);
  const data = options.data.length > 0 ? await expandSources(options.data) : [];
  const evalData = own.evalData ? await expandSources(own.evalData) : [];
  if ([...data, ...evalData].includes('-')) {
    throw new InputError('texts are read more than once: name files, not standard input (-)');
  }
  const counts = {
    tokens: count('--calib-tokens', own.calibTokens),
    length: count('--calib-length', own.calibLength),
    evalTokens: count('--eval-tokens', own.evalTokens),
  };
  if (data.length === 0 && (counts.tokens ?? counts.length) !== undefined) {
    throw new InputError(`${counts.tokens === undefined ? '--calib-length' : '--calib-tokens'} needs --data`);
  }
  if (evalData.length === 0 && counts.evalTokens !== undefined) throw new InputError('--eval-tokens needs --eval-data');
  const model = openExpertModel(path);
  try {
    if (!model.runs && data.length + evalData.length > 0) {
      throw new InputError(
        `${spec}: no forward pass for ${model.family} here, so no text can run through it: give statistics from ` +
          'elsewhere by --stats, and leave out --data and --eval-data',
      );
    }
    return {
      ...{
        spec,
        path,
        model,
        data,
        evalData,
        stats: own.stats ?? [],
        gradients: own.gradients ?? [],
        precision: parsePrecision(own.precision),
      },
      ...(model.runs && { description: describe(path) }),
      ...Object.fromEntries(Object.entries(counts).filter(([, value]) => value !== undefined)),
    };
  } catch (error) {
    model.close();
    throw error;
  }
}

function describe(path: string): ModelDescription {
  const files = openModelFiles(path);
  files.store.close();
  return files.description;
}

/** Digests of the model's files under the name that the user gave, and the hash that statistics carry. */
export async function hashSubject({
  path,
  spec,
}: MergeSubject): Promise<{ digests: InputDigest[]; modelSha256: string }> {
  const { digests, files } = await modelDigests(spec, path);
  return { digests, modelSha256: hashModelFiles(files) };
}

/** What several steps of a run share. */
export interface MergeContext {
  readonly subject: MergeSubject;
  readonly options: SubjectShared & Pick<SharedOptions, 'quiet' | 'resume'>;
  readonly own: SubjectOptions;
  readonly ledger: InputLedger;
  readonly progress: Progress;
  readonly timings: RunTimings;
  readonly modelSha256: string;
  /** Of merging, see {@link mergeMemory}. */
  readonly memoryBytes: number;
}

/** A model that is ready to be merged: its engine where text runs, and what is known of its layers. */
export interface Calibrated {
  readonly session?: ModelSession;
  readonly text?: { readonly windows: readonly Int32Array[]; readonly record: TextRecord };
  readonly unseen?: { readonly windows: readonly Int32Array[]; readonly record: TextRecord };
  readonly statistics?: MoeStatistics;
  close(): Promise<void>;
}

const WATCHED: Readonly<Record<StatisticsNeed, WatchedOutputs>> = {
  none: 'none',
  routing: 'none',
  outputs: 'routed',
  everywhere: 'all',
};

/** Memory of merges with these settings, beside the engine: what serves them best, up to half of the limit. */
export function mergeMemory(
  { model }: MergeSubject,
  { maxMemory }: Pick<SharedOptions, 'maxMemory'>,
  settings: readonly MergeSettings[],
): number {
  const wanted = settings.map((each) => comfortableBytes(model, each));
  return Math.min(Math.floor(maxMemory / 2), Math.max(mergeBytes(model), ...wanted));
}

/**
 * Reads or takes the statistics that are needed, and reads the texts.
 * @param folder where statistics are kept while the run lasts, so that an interrupted one takes them up
 * @throws InputError when statistics are needed and neither they nor a text are given, or are of another model
 */
export async function calibrateSubject(
  context: MergeContext,
  need: StatisticsNeed,
  folder: string,
): Promise<Calibrated> {
  const { subject, options, own, ledger, progress, timings, modelSha256 } = context;
  const { stats, data, evalData, description } = subject;
  let statistics = stats.length > 0 ? readGiven(subject, modelSha256) : undefined;
  if (need !== 'none' && statistics === undefined && data.length === 0) {
    throw new InputError(
      description
        ? '--data or --stats is missing: which experts are used is told from a text (surprisal merge-moe calibrate)'
        : `--stats is missing: no forward pass for ${subject.model.family} here, so statistics must come from elsewhere`,
    );
  }
  if (description === undefined || data.length + evalData.length === 0) {
    return { ...(statistics && { statistics }), close: async () => undefined };
  }
  timings.begin('calibrate');
  const watched = WATCHED[need];
  const { precision } = subject;
  const reserve = statisticsReserve(description, {
    tokens: subject.tokens ?? MOST_CALIBRATION_TOKENS,
    outputs: watched,
    maxMemoryBytes: options.maxMemory,
    precision,
  });
  const reserveBytes = Math.max(reserve, context.memoryBytes);
  const session = await openModelSession(subject.spec, { ...options, precision, reserveBytes });
  try {
    const read = async (sources: readonly string[], { tokens, most }: { tokens?: number; most?: number }) => {
      if (sources.length === 0) return undefined;
      const request = {
        ...{ spec: subject.spec, data: sources, options, text: own, ledger },
        ...(tokens !== undefined && { tokens }),
        ...(subject.length !== undefined && { length: subject.length }),
      };
      const { windows: whole, length } = await readCalibrationWindows(request, session);
      const windows = firstWindows(whole, most);
      const all = windows.reduce((sum, window) => sum + window.length, 0);
      return { windows, record: { tokens: all, window_tokens: length, text_sha256: hashWindows(windows) } };
    };
    const text = await read(data, subject.tokens === undefined ? {} : { tokens: subject.tokens });
    const unseen = await read(evalData, subject.evalTokens === undefined ? {} : { most: subject.evalTokens });
    if (need !== 'none' && statistics === undefined && text) {
      const { windows, record } = text;
      statistics = (
        await calibrateToFolder(session.host, description, {
          ...{ windows, windowTokens: record.window_tokens, modelSha256, outputs: watched, precision, folder },
          memoryBytes: reserve,
          write: { force: !options.resume, resume: options.resume },
          progress(done, all) {
            progress.setTotal(all);
            progress.update(done, 'calibrate');
          },
        })
      ).statistics;
    }
    return {
      session,
      ...(text && { text }),
      ...(unseen && { unseen }),
      ...(statistics && { statistics }),
      close: () => session.close(),
    };
  } catch (error) {
    await session.close();
    throw error;
  }
}

/** The first `most` tokens of windows, the last one cut; a shorter text is taken whole, as predictions take it. */
function firstWindows(windows: readonly Int32Array[], most = Number.POSITIVE_INFINITY): Int32Array[] {
  const kept: Int32Array[] = [];
  let left = most;
  for (const window of windows) {
    if (left <= 0) break;
    kept.push(window.length <= left ? window : window.slice(0, left));
    left -= window.length;
  }
  return kept;
}

function readGiven({ stats, model, spec }: MergeSubject, modelSha256: string): MoeStatistics {
  const statistics = readStatistics(stats, modelSha256);
  const missing = missingShards(statistics.header);
  if (missing.length > 0) throw new InputError(`--stats: shards ${missing.join(', ')} of the text are missing`);
  const theirs = statistics.layers.map(({ routing }) => `${routing.layer}:${routing.experts}`).join();
  const ours = model.layers.map(({ layer, experts }) => `${layer}:${experts}`).join();
  if (theirs === ours) return statistics;
  throw new InputError(`${stats.join(', ')}: layers and experts are not those of ${spec}`);
}

/** One merge of a calibrated model. @throws InputError when settings need text and there is none */
export async function runMerge(
  context: MergeContext,
  calibrated: Calibrated,
  request: Pick<MergeArguments, 'out' | 'settings' | 'head' | 'write' | 'maxShardBytes'>,
  phase: string,
): Promise<MergeResult> {
  const { subject, options, progress } = context;
  const { settings, out } = request;
  const uses = textUses(expertMethod(settings.method), settings);
  if (uses.length > 0 && !calibrated.text) {
    throw new InputError(`${uses.join(', ')}: the text runs through the model once more; give --data`);
  }
  if (settings.combine === 'fisher' && subject.gradients.length === 0) {
    throw new InputError(
      '--combine fisher: gradients of the loss in the weights of the experts are needed; give --gradients',
    );
  }
  const { memoryBytes } = context;
  const args: MergeArguments = {
    ...request,
    source: subject.path,
    memoryBytes,
    threads: options.threads,
    ...(settings.combine === 'fisher' && { gradients: subject.gradients }),
    ...(calibrated.statistics && { statistics: calibrated.statistics.layers }),
    ...(uses.length > 0 &&
      calibrated.text && {
        text: {
          windows: calibrated.text.windows,
          streamBytes: memoryBytes / 4,
          scratchDirectory: dirname(resolve(out)),
        },
      }),
  };
  const onProgress = (value: unknown): void => {
    const { done, layers } = value as MergeProgress;
    progress.setTotal(layers);
    progress.update(done, phase);
  };
  const module = new URL('../src/moe/merge-job.js', import.meta.url).href;
  if (args.text && calibrated.session) {
    return calibrated.session.host.run({ module, job: mergeWithText }, args, onProgress);
  }
  return runInThread({ module, job: mergeFromStatistics }, args, onProgress, options.threads);
}

/** Errors of the layers of merged models on a text, in the order of the models. */
export async function layerErrors(
  context: MergeContext,
  session: ModelSession,
  windows: readonly Int32Array[],
  merged: readonly string[],
): Promise<ErrorRecord[][]> {
  const { subject } = context;
  const { memoryBytes } = context;
  const layers = await session.host.run(HELD_OUT_ERRORS, {
    windows,
    original: subject.path,
    subjects: merged.map((path) => ({ path, labels: readMergedLabels(path) })),
    cacheBytes: memoryBytes / 2,
    streamBytes: memoryBytes / 4,
    scratchDirectory: dirname(resolve(merged[0])),
  });
  return merged.map((_, m) => layers.map(({ layer, subjects }) => errorRecord(layer, subjects[m])));
}
