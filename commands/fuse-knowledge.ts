import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { type AtomicDirectory, createAtomicDirectory } from '../src/formats/atomic.js';
import { createInputLedger, expandSources } from '../src/formats/inputs.js';
import type { SequenceScores } from '../src/fusion/knowledge/capture-sequences.js';
import {
  KNOWLEDGE_SCHEMA,
  type KnowledgeBody,
  knowledgeSummary,
  sequenceColumns,
  sequenceRows,
  sourceBody,
  type TargetParts,
  targetBody,
} from '../src/fusion/knowledge/knowledge-report.js';
import type { MoveResult } from '../src/fusion/knowledge/move-sequences.js';
import type { HeldOutDomain } from '../src/fusion/knowledge/train-fused.js';
import { buildReport, serializeReport, writeReport } from '../src/report/json.js';
import { createProgress } from '../src/report/progress.js';
import { type SummaryCell, summaryTable } from '../src/report/summary-table.js';
import { type ReportValue, reportObject } from '../src/report/values.js';
import {
  addCourseOptions,
  addStepOptions,
  checkpointFolder,
  parseCadence,
  parseSteps,
  type StepDefaults,
  stepParameters,
  TRAIN_SHARED,
  type TrainShared,
  totalSteps,
} from './distill-options.js';
import { addLearningTextOptions, learningTextParameters } from './distill-text.js';
import { prepareAsserts } from './edge-asserts.js';
import { openOutputs } from './edge-outputs.js';
import { parseChoice } from './edge-values.js';
import { toolVersion } from './edge-version.js';
import { mergeTargets } from './fuse-knowledge-merge.js';
import {
  addKnowledgeOptions,
  type KnowledgeOptions,
  type KnowledgeSettings,
  knowledgeParameters,
  MERGES,
  parseKnowledge,
} from './fuse-knowledge-options.js';
import {
  captureAll,
  captureFile,
  keptSequences,
  moveAll,
  openFusionModel,
  type StageRun,
} from './fuse-knowledge-stages.js';
import { type FusionTexts, readFusionTexts, readHeldOut } from './fuse-knowledge-text.js';
import { type TrainedTarget, trainTarget } from './fuse-knowledge-train.js';
import { noticeSlowKernels } from './kernel-notice.js';
import { DEFAULT_CONTEXT } from './model-session.js';
import { startRunTimings } from './run-timings.js';
import { attachShared, requireOption, type SharedOptions } from './shared-options.js';

const COMMAND = 'fuse knowledge';
const MANIFEST_SCHEMA = 'distill-manifest';
const SHARED = [...TRAIN_SHARED, 'table'] as const;
type Shared = TrainShared & Pick<SharedOptions, 'table'>;

/** FuseLLM's recipe, but for the batch, which is what fits. */
const DEFAULTS = {
  loss: 'ce',
  epochs: 1,
  batchSize: 8,
  learningRate: 1e-5,
  schedule: 'cosine',
  clipNorm: 1,
  optimizer: { method: 'adamw', beta1: 0.9, beta2: 0.95, weightDecay: 0.1 },
} as const satisfies StepDefaults;
/** Share of the steps that warm up, in FuseLLM's recipe. */
const WARMUP_SHARE = 0.008;

/** Declares `surprisal fuse knowledge`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  addKnowledgeOptions(command);
  addStepOptions(command);
  addCourseOptions(addLearningTextOptions(command)).action(async () => {
    process.exitCode = await run(await read(), command.opts<KnowledgeOptions>());
  });
}

/** A target: what it is called, and the numbers of the models that it learns from. */
interface Target {
  readonly name: string;
  readonly models: readonly number[];
}

function targetsOf(own: KnowledgeOptions, models: StageRun['models']): Target[] {
  const all = models.map((_, m) => m);
  if (!own.pairwise) return [{ name: 'all', models: all }];
  return all.slice(1).map((m) => ({ name: `${m}-${basename(models[m].name.replace(/\/+$/, ''))}`, models: [0, m] }));
}

/** A run before its first stage. */
interface Prepared {
  readonly stage: StageRun;
  readonly heldOut: readonly HeldOutDomain[];
  readonly parameters: Record<string, ReportValue>;
  readonly steps: ReturnType<typeof parseSteps>;
  readonly total: (kept: number) => number;
  readonly targets: readonly Target[];
  readonly merge: (typeof MERGES)[number] | undefined;
}

async function run(options: Shared, own: KnowledgeOptions): Promise<number> {
  const asserts = await prepareAsserts(options.assert, options.baseline);
  const timings = startRunTimings(COMMAND);
  const out = requireOption(options.out, '--out', 'the directory to write');
  const data = await expandSources(requireOption(options.data, '--data', 'text that all models read'));
  const evalData = own.evalData ? await expandSources([...own.evalData]) : [];
  const outputs = openOutputs([...data, ...evalData], { force: options.force, resume: options.resume });
  const ledger = createInputLedger();
  let directory: AtomicDirectory | undefined;
  try {
    const reportFile = outputs.file('--report', options.report);
    const plotFile = outputs.file('--plot', options.plot);
    const timingsFile = outputs.file('--timings', options.timings);
    if (plotFile) (await import('../src/report/plots/figure.js')).plotExtension(options.plot as string);
    const work = openWork(out, options);
    noticeSlowKernels();
    timings.begin('read the text');
    const progress = await createProgress({
      stream: process.stderr,
      quiet: options.quiet || options.dryRun,
      unit: 'sequences',
      now: () => performance.now(),
    });
    const show = (stage: string, done: number, of: number): void => {
      progress.setTotal(of);
      progress.update(done, stage);
    };
    const prepared = await prepare(options, own, { data, evalData, work }, ledger, show);
    const { stage, targets, heldOut } = prepared;
    if (options.dryRun) {
      process.stdout.write(summaryTable(['plan', 'value'], planRows(prepared, out)));
      return 0;
    }
    const table = outputs.table('--table', options.table, sequenceColumns(stage.models.length));
    mkdirSync(work, { recursive: true });
    timings.begin('capture');
    const scores = await captureAll(stage);
    const kept = keptSequences(stage, scores, own.dropNan === true);
    timings.begin('align');
    const moves = await moveAll(stage);
    timings.begin('train');
    const trained: TrainedTarget[] = [];
    for (const [i, target] of targets.entries()) {
      trained.push(
        await trainTarget({
          ...{ options, own, stage, scores, kept, heldOut },
          ...{ steps: prepared.steps, totalSteps: prepared.total(kept.length), parameters: prepared.parameters },
          ...{ index: i, models: target.models, folder: join(work, `target-${i}`), warmupShare: WARMUP_SHARE },
          progress: show,
        }),
      );
    }
    directory = createAtomicDirectory(out, { force: options.force });
    const folders = moveTargets(own, targets, trained, directory.path);
    timings.begin('merge');
    const merged =
      prepared.merge &&
      (await mergeTargets({
        ...{ options, own, stage, heldOut, folders },
        method: prepared.merge,
        out: directory.path,
      }));
    progress.stop();
    timings.begin('summarise');
    const parts = targets.map((target, i) => partsOf(target, trained[i], prepared, { scores, kept }));
    const body = bodyOf(prepared, { scores, kept, moves, parts, trained, merged: merged ?? null });
    const names = stage.models.map(({ name }) => name);
    if (table) for (const row of sequenceRows(parts, names, moves)) table.write(row);
    const head = {
      tool: { name: 'surprisal', version: toolVersion() },
      command: COMMAND,
      parameters: prepared.parameters,
      inputs: [...stage.models.flatMap(({ digests }) => digests), ...(await ledger.digests())],
    };
    const report = buildReport({ name: KNOWLEDGE_SCHEMA, ...head }, reportObject(body));
    if (reportFile) writeReport(report, reportFile);
    if (plotFile) {
      const { plotBytes } = await import('../src/report/plots/figure.js');
      const { knowledgeFigure } = await import('../src/fusion/knowledge/knowledge-plot.js');
      const subtitle = `${own.pivot}, ${prepared.stage.settings.strategy.strategy}`;
      plotFile.write(await plotBytes(await knowledgeFigure(body, subtitle), options.plot as string));
    }
    if (timingsFile) timings.write(timingsFile, options);
    const files = trained.flatMap(({ files: ofTarget }) => ofTarget);
    const manifest = buildReport({ name: MANIFEST_SCHEMA, ...head }, reportObject({ files: merged?.files ?? files }));
    const { writeHashed } = await import('../src/models/model-directory.js');
    writeHashed(directory.path, 'manifest.json', serializeReport(manifest));
    directory.commit();
    outputs.commit();
    rmSync(work, { recursive: true, force: true });
    if (!options.quiet) {
      const rows: SummaryCell[][] = [...knowledgeSummary(body), ['written', out]];
      process.stdout.write(summaryTable(['fusion', 'value'], rows));
    }
    return asserts.check(report);
  } finally {
    directory?.abort();
    outputs.abort();
  }
}

/** The folder of captures, moved rows and checkpoints, beside the output. */
function openWork(out: string, options: Shared): string {
  const work = checkpointFolder(out);
  if (existsSync(out) && !options.force) {
    throw new InputError(`${out}: exists; pass --force to replace it, or choose another path`);
  }
  if (existsSync(work) && !options.resume && !options.force && !options.dryRun) {
    throw new InputError(
      `${work}: an interrupted run left its work; pass --resume to continue it, or --force to begin anew`,
    );
  }
  if (!options.resume && !options.dryRun) rmSync(work, { recursive: true, force: true });
  return work;
}

async function prepare(
  options: Shared,
  own: KnowledgeOptions,
  files: { readonly data: readonly string[]; readonly evalData: readonly string[]; readonly work: string },
  ledger: ReturnType<typeof createInputLedger>,
  progress: StageRun['progress'],
): Promise<Prepared> {
  const settings: KnowledgeSettings = parseKnowledge(own, options.seed);
  const steps = parseSteps(own, DEFAULTS);
  parseCadence(own);
  const merge = own.merge === undefined ? undefined : parseChoice('--merge', own.merge, MERGES);
  const pivotName = requireOption(own.pivot, '--pivot', 'the model that learns');
  const sources = own.source ?? [];
  if (sources.length === 0 && settings.strategy.strategy !== 'clm') {
    throw new InputError('--source is missing; name a model to learn from');
  }
  const captures = own.captures ?? join(files.work, 'captures');
  const models = [];
  for (const [index, name] of [pivotName, ...sources].entries()) {
    models.push(await openFusionModel(name, own.captures && captureFile(captures, index, name)));
  }
  if (own.metrics !== undefined && own.pairwise && sources.length > 1) {
    throw new InputError('--metrics names one file, but --pairwise trains a target for each source: leave it out');
  }
  if (!models[0].runs) throw new InputError(`${pivotName}: the pivot is trained: its weights are needed`);
  const context = contextOf(options, models);
  const texts: FusionTexts = await readFusionTexts(files.data, options, own, models, context, ledger);
  const heldOut = await readHeldOut(files.evalData, options, own, models[0], context, ledger);
  const parameters = {
    ...knowledgeParameters(own, settings),
    ...learningTextParameters(options, own),
    ...stepParameters(steps),
    warmup_steps: own.warmup === undefined ? null : steps.warmupSteps,
    loss: null,
    train: own.train ? [...own.train] : null,
    freeze: own.freeze ? [...own.freeze] : null,
    dtype: own.dtype ?? null,
    eval_data: own.evalData ? [...own.evalData] : null,
    eval_every: own.evalEvery ?? null,
    keep: parseCadence(own).keep,
    seed: options.seed,
  };
  const stage: StageRun = { options, settings, models, texts, captures, work: files.work, context, progress };
  return {
    ...{ stage, heldOut, parameters, steps, merge },
    targets: targetsOf(own, models),
    total: (kept) => totalSteps(steps, Math.ceil(kept / steps.batchSize)),
  };
}

/** Positions of a window: what all models can read. */
function contextOf(options: Shared, models: StageRun['models']): number {
  const [shortest] = [...models].sort((a, b) => a.maxPositions - b.maxPositions);
  if (options.context !== undefined && options.context > shortest.maxPositions) {
    throw new InputError(
      `--context ${options.context} is longer than the ${shortest.maxPositions} positions of ${shortest.name}`,
    );
  }
  return options.context ?? Math.min(shortest.maxPositions, DEFAULT_CONTEXT);
}

/** Gives the models their places in the output: the directory itself, or one for each target. */
function moveTargets(
  own: KnowledgeOptions,
  targets: readonly Target[],
  trained: readonly TrainedTarget[],
  out: string,
): string[] {
  return targets.map(({ name }, i) => {
    const folder = own.pairwise ? join(out, 'targets', name) : out;
    mkdirSync(folder, { recursive: true });
    for (const file of readdirSync(trained[i].path)) renameSync(join(trained[i].path, file), join(folder, file));
    return folder;
  });
}

interface Found {
  readonly scores: readonly SequenceScores[];
  readonly kept: Int32Array;
}

function partsOf(target: Target, trained: TrainedTarget, { stage }: Prepared, { scores, kept }: Found): TargetParts {
  const { strategy, gate } = stage.settings.strategy;
  return {
    name: target.name,
    models: target.models.map((m) => stage.models[m].name),
    strategy,
    gateMode: gate.mode,
    ces: target.models.map((m) => scores[m].ces),
    kept,
    domainOf: stage.texts.domainOf,
    figures: trained.figures,
    result: trained.result,
    nearTie: stage.settings.nearTie,
  };
}

function bodyOf(
  { stage }: Prepared,
  found: Found & {
    readonly moves: readonly MoveResult[];
    readonly parts: readonly TargetParts[];
    readonly trained: readonly TrainedTarget[];
    readonly merged: KnowledgeBody['merge'];
  },
): KnowledgeBody {
  const { models, texts } = stage;
  const { windows } = texts.models[0];
  const { moves, parts, scores, trained, merged, kept } = found;
  let positions = 0;
  let tokens = 0;
  for (const s of kept) {
    positions += windows.lengths[s];
    for (let t = s * windows.length; t < (s + 1) * windows.length; t++) if (windows.labels[t] >= 0) tokens++;
  }
  const [pivot] = models;
  return {
    pivot: {
      name: pivot.name,
      model_type: pivot.modelType,
      vocabulary: pivot.vocabularySize,
      parameters: trained[0].result.language.parameters,
    },
    sources: moves.map((move, i) =>
      sourceBody(models[i + 1].name, models[i + 1].vocabularySize, move, scores[i + 1].unlisted),
    ),
    texts: {
      texts: texts.texts,
      sequences: kept.length,
      positions,
      tokens_learnt: tokens,
      dropped_nan: windows.count - kept.length,
      dropped_long: texts.droppedLong,
      domains: [...new Set(texts.domainOf)],
    },
    targets: parts.map(targetBody),
    merge: merged && { method: merged.method, domains: merged.domains },
    warnings: trained.flatMap(({ warnings }) => warnings),
  };
}

/** Lines of `--dry-run`. */
function planRows({ stage, targets, total, steps, heldOut }: Prepared, out: string): SummaryCell[][] {
  const { windows } = stage.texts.models[0];
  return [
    ['strategy', stage.settings.strategy.strategy],
    ['map', stage.settings.map],
    ...stage.models.map(({ name, runs }, m): SummaryCell[] => [
      m === 0 ? 'pivot' : `source ${m}`,
      runs ? name : `${name} (captured)`,
    ]),
    ['texts', stage.texts.texts],
    ['sequences', `${windows.count} of at most ${windows.length} positions`],
    ['texts that do not fit', stage.texts.droppedLong],
    ['tokens learnt in a pass', windows.validLabels],
    ['held-out tokens', heldOut.reduce((sum, domain) => sum + domain.windows.validLabels, 0)],
    ['bytes of captures, about', stage.models.length * windows.count * windows.length * (stage.settings.topK * 6 + 4)],
    ['targets', targets.map(({ name }) => name).join(', ')],
    ['sequences of a step', steps.batchSize * steps.accumulate],
    ['steps of a target', total(windows.count)],
    ['directory', out],
  ];
}
