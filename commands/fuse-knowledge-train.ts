import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { HashedFile } from '../src/formats/hash.js';
import type { SequenceScores } from '../src/fusion/knowledge/capture-sequences.js';
import type { SequenceFigures } from '../src/fusion/knowledge/sequence-figures.js';
import type { GateSettings } from '../src/fusion/knowledge/strategies.js';
import type { FusedResult, HeldOutDomain } from '../src/fusion/knowledge/train-fused.js';
import type { ReportValue } from '../src/report/values.js';
import { joinWindows } from '../src/training/language/token-data.js';
import type { LanguageProgress, LanguageTraining } from '../src/training/language/train-language-job.js';
import { parseCadence, type StepSettings, type TrainShared } from './distill-options.js';
import { parseChoice } from './edge-values.js';
import type { KnowledgeOptions } from './fuse-knowledge-options.js';
import { captureFile, movedFile, type StageRun } from './fuse-knowledge-stages.js';
import { runInThread } from './run-in-thread.js';

const DTYPES = { f32: 'F32', f16: 'F16', bf16: 'BF16' } as const;
const MIB = 2 ** 20;

/** A target to be trained. */
export interface TargetRequest {
  readonly options: TrainShared;
  readonly own: KnowledgeOptions;
  readonly stage: StageRun;
  /** Of all models. */
  readonly scores: readonly SequenceScores[];
  readonly kept: Int32Array;
  readonly heldOut: readonly HeldOutDomain[];
  readonly steps: StepSettings;
  readonly totalSteps: number;
  readonly warmupShare: number;
  readonly parameters: Readonly<Record<string, ReportValue>>;
  /** Number of the target, and the models that it learns from, the pivot (0) first. */
  readonly index: number;
  readonly models: readonly number[];
  /** Of checkpoints and result. */
  readonly folder: string;
  readonly progress: (stage: string, done: number, of: number) => void;
}

export interface TrainedTarget {
  readonly result: FusedResult;
  readonly figures: readonly SequenceFigures[];
  /** Where the written model lies. */
  readonly path: string;
  readonly files: readonly HashedFile[];
  readonly warnings: readonly string[];
}

function trainingOf(request: TargetRequest): LanguageTraining {
  const { options, own, stage, steps, totalSteps, folder, heldOut, kept } = request;
  const [pivot] = stage.models;
  const cadence = parseCadence(own);
  const dtype = own.dtype === undefined ? undefined : DTYPES[parseChoice('--dtype', own.dtype, ['f32', 'f16', 'bf16'])];
  const epoch = Math.ceil(Math.ceil(kept.length / steps.batchSize) / steps.accumulate);
  const every = Math.min(totalSteps, epoch);
  const warmupSteps = own.warmup === undefined ? Math.round(request.warmupShare * totalSteps) : steps.warmupSteps;
  return {
    student: { kind: 'directory', path: pivot.path },
    windows: stage.texts.models[0].windows,
    ...(heldOut.length > 0 && { heldOut: joinWindows(heldOut.map(({ windows }) => windows)) }),
    loss: 'ce',
    batchSize: steps.batchSize,
    precision: steps.precision,
    seed: options.seed,
    threads: options.threads,
    maxMemoryBytes: options.maxMemory,
    ...(own.train && { train: own.train }),
    ...(own.freeze && { freeze: own.freeze }),
    vocabularies: 'error',
    tokenizerSha256: pivot.tokenizerSha256,
    settings: {
      steps: totalSteps,
      optimizer: steps.optimizer,
      schedule: {
        schedule: steps.schedule,
        learningRate: steps.learningRate,
        warmupSteps,
        finalShare: steps.finalShare,
      },
      accumulate: steps.accumulate,
      ...(Number.isFinite(steps.clipNorm) && { clipNorm: steps.clipNorm }),
      ...(heldOut.length > 0 && { evaluateEvery: Math.min(totalSteps, cadence.evalEvery ?? epoch) }),
      checkpointEvery: cadence.checkpointEvery ?? cadence.evalEvery ?? every,
      restoreBest: cadence.keep === 'best',
      threads: options.threads,
    },
    checkpoints: folder,
    identity: {
      model: stage.models.map(({ modelSha256 }) => modelSha256).join(' '),
      configuration: { ...request.parameters, target: request.index, steps_in_all: totalSteps, sequences: kept.length },
    },
    resume: options.resume,
    gradCheck: own.gradCheck === true,
    ...(own.metrics !== undefined && { metrics: { path: own.metrics, force: options.force } }),
    target: { path: join(folder, 'result'), form: 'model', ...(dtype && { dtype }), base: own.pivot ?? '' },
  };
}

/** The selector's settings, with its numbers where a file gives them. */
async function gateSettings({ own, stage, models }: TargetRequest): Promise<GateSettings> {
  const { gate } = stage.settings.strategy;
  if (gate.mode !== 'fixed' || own.gate === undefined) return gate;
  const { readGate } = await import('../src/fusion/knowledge/gate-file.js');
  return { ...gate, values: readGate(own.gate, models.length) };
}

/** Trains one target, and describes what it learnt from. */
export async function trainTarget(request: TargetRequest): Promise<TrainedTarget> {
  const { options, stage, scores, models, folder, kept, heldOut } = request;
  const { settings, texts } = stage;
  const [pivot] = stage.models;
  mkdirSync(folder, { recursive: true });
  const captures = models.map((m) => (m === 0 ? captureFile(stage.captures, 0, pivot.name) : movedFile(stage.work, m)));
  const shared = { captures, vocabulary: pivot.vocabularySize, temperature: settings.temperature };
  const warnings: string[] = [];
  const training = trainingOf(request);
  const { trainFused } = await import('../src/fusion/knowledge/train-fused.js');
  const result = await runInThread(
    { module: new URL('../src/fusion/knowledge/train-fused.js', import.meta.url).href, job: trainFused },
    {
      ...shared,
      training,
      tokenizerSha256: pivot.tokenizerSha256,
      ces: models.map((m) => scores[m].ces),
      settings: { ...settings.strategy, gate: await gateSettings(request), steps: request.totalSteps },
      kind: settings.kind,
      mask: settings.mask,
      ...(kept.length < texts.domainOf.length && { kept }),
      domains: heldOut,
    },
    (value) => {
      const event = value as LanguageProgress;
      if (event.kind === 'step') request.progress(`loss ${event.loss.toPrecision(4)}`, event.step, request.totalSteps);
      if (event.kind === 'warning') warnings.push(event.message);
      if (event.kind === 'warning' && !options.quiet) process.stderr.write(`warning: ${event.message}\n`);
      if (event.kind === 'plan' && !options.quiet) {
        process.stderr.write(`memory: about ${Math.ceil(event.plan.estimate.total / MIB)} MiB\n`);
      }
    },
    options.threads,
  );
  const { sequenceFigures } = await import('../src/fusion/knowledge/sequence-figures.js');
  const figures = await runInThread(
    { module: new URL('../src/fusion/knowledge/sequence-figures.js', import.meta.url).href, job: sequenceFigures },
    { ...shared, windows: texts.models[0].windows, weights: result.weights },
    undefined,
    options.threads,
  );
  const files = result.gate
    ? [...result.language.files, await writeGate(training.target.path, result.gate, models.length)]
    : result.language.files;
  return { result, figures, path: training.target.path, files, warnings };
}

/** The selector beside the model: its tensors as the released code names them, in double precision. */
async function writeGate(directory: string, gate: Float64Array, models: number): Promise<HashedFile> {
  const { gateBytes } = await import('../src/fusion/knowledge/gate-file.js');
  const { writeHashed } = await import('../src/models/model-directory.js');
  return writeHashed(directory, 'gate.safetensors', gateBytes(gate, models));
}
