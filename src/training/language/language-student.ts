import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { InputError } from '../../errors.js';
import type { HashedFile } from '../../formats/hash.js';
import { isFactorisedStore } from '../../models/factorised-store.js';
import { hashedFile, writeHashed } from '../../models/model-directory.js';
import { type ModelFiles, openModelFiles } from '../../models/model-files.js';
import { createRandom } from '../../random.js';
import { createEntropyAttention, type EntropyAttentionSettings } from '../attention-entropy.js';
import { openDecoderStudent } from '../decoder-student.js';
import type { CompanionParameter } from '../decoder-weights.js';
import { composeGradientGraph, type GradientGraph, onnxGradientGraph } from '../gradient-graph.js';
import { createAdapters, type LoraOptions, writePeftAdapter } from '../lora.js';
import {
  type FactorisedTensors,
  factorisedTensors,
  type LoSparseFigures,
  type LoSparseModel,
  loSparseFollower,
  openLoSparse,
} from '../losparse-parts.js';
import type { WeightedLoss } from '../losses/loss-text.js';
import { writeModelDirectory } from '../model-writer.js';
import { openOnnxStudent } from '../onnx-student.js';
import type { PruningSchedule } from '../pruning-schedule.js';
import {
  existingStudent,
  layerStudent,
  randomStudent,
  type StudentDType,
  type StudentModel,
} from '../student-config.js';
import type { StepFollower } from '../trainer.js';
import type { TrainingPlan } from '../training-memory.js';
import type { Precision, Student, TokenBatch } from '../types.js';
import { type TrainedAttention, trainedAttention, writeAttention } from './attention-training.js';

/** What the student starts as. */
export type StudentStart =
  | { readonly kind: 'directory'; readonly path: string }
  /** Random weights; the tokenizer of `companions` where the configuration has none beside it. */
  | { readonly kind: 'config'; readonly path: string; readonly companions?: string }
  | { readonly kind: 'layers'; readonly path: string; readonly layers: readonly number[] }
  /** A graph that reads token ids. */
  | { readonly kind: 'onnx'; readonly path: string };

/** Where the result goes and in which form. */
export interface StudentTarget {
  /** Made where it is not there. */
  readonly path: string;
  /** A model with the adapters merged into it, or the adapters alone. */
  readonly form: 'model' | 'adapter';
  readonly dtype?: StudentDType;
  /** Name of the model that adapters belong to. */
  readonly base: string;
}

/** Matrices of experts trained as low rank plus sparse rows. */
export interface LoSparseSettings {
  /** Needed but for a directory that is compressed already. */
  readonly rank?: number;
  /** Globs of the matrices; all of the experts when absent. */
  readonly targets?: readonly string[];
  /** Absent: rows that are stored may change, and no others. */
  readonly schedule?: PruningSchedule;
}

/** How a student is opened. */
export interface StudentRequest {
  readonly start: StudentStart;
  readonly precision: Precision;
  readonly threads: number;
  readonly seed: number;
  /** Most windows of a micro-batch, and the longest window. */
  readonly batch: number;
  readonly length: number;
  readonly maxMemoryBytes: number;
  readonly processBytes: number;
  readonly optimizerSlots: number;
  readonly wholeBatch: boolean;
  readonly train?: readonly string[];
  readonly freeze?: readonly string[];
  readonly lora?: Omit<LoraOptions, 'precision'>;
  /** The routers of experts stay as they are. */
  readonly freezeRouters?: boolean;
  /** A directory that is compressed is trained in its parts in any case. */
  readonly loSparse?: LoSparseSettings;
  /** Temperatures and thresholds that are trained, and their penalty. */
  readonly attention?: EntropyAttentionSettings;
  /** Parameters that learn beside the model's own; of a directory alone. */
  readonly companions?: readonly CompanionParameter[];
}

/** A student of any kind, and what can be done with it beside training. */
export interface LanguageStudent {
  readonly student: Student<TokenBatch>;
  /** All weights, frozen ones included. */
  readonly parameters: number;
  readonly adaptedMatrices: number;
  /** Temperatures and thresholds that are trained. */
  readonly attention?: TrainedAttention;
  /** What comes behind every step, for the trainer. */
  readonly follower?: StepFollower;
  /** Estimated memory; absent where the runtime holds the model. */
  readonly plan?: TrainingPlan;
  /** The model as it is now, for samples; absent where it has no engine. */
  currentModel?(): ModelFiles;
  /** Its loss and gradients as one graph, with the weights that it has now. */
  gradientGraph(terms: readonly WeightedLoss[] | undefined): Promise<GradientGraph>;
  write(target: StudentTarget): readonly HashedFile[];
  /** Of matrices in parts, as they would be written in `dtype`. */
  loSparse?(dtype?: StudentDType): LoSparseFigures;
  close(): Promise<void>;
}

/** Stream of the random numbers that a student starts from. */
const START = 0x73746172;
/** Buffers that a pruner keeps for every trained element. */
const PRUNER_SLOTS = 2;
/** Name of the file that an ONNX student is written to. */
const ONNX_FILE = 'model.onnx';

/** What may lie beside an ONNX file and belongs to its model. */
const COMPANIONS = [
  'config.json',
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'tokenizer.model',
  'special_tokens_map.json',
  'added_tokens.json',
  'vocab.json',
  'merges.txt',
  'chat_template.jinja',
];

/** @throws InputError for a start that cannot be opened, patterns that match nothing, memory that does not suffice */
export function openLanguageStudent(request: StudentRequest): Promise<LanguageStudent> {
  return request.start.kind === 'onnx' ? openOnnx(request, request.start.path) : openDecoder(request, request.start);
}

function startingModel(start: Exclude<StudentStart, { kind: 'onnx' }>, seed: number, threads: number): StudentModel {
  switch (start.kind) {
    case 'directory':
      return existingStudent(start.path, threads);
    case 'config':
      return randomStudent(start.path, createRandom(seed).fork(START), start.companions);
    case 'layers':
      return layerStudent(openModelFiles(start.path, threads), start.layers);
  }
}

/** Names of the routers' tensors: what chooses the experts of a token. */
function routerNames({ weights }: ModelFiles): string[] {
  return weights.layers.flatMap((layer) =>
    [...layer].flatMap(([role, { tensor }]) => (/^router(_|$)/.test(role) ? [tensor.name] : [])),
  );
}

/** Takes the experts apart where the request or the directory says so. */
function partsOf(model: StudentModel, request: StudentRequest): LoSparseModel | undefined {
  const { loSparse, precision, threads, seed, lora } = request;
  const compressed = isFactorisedStore(model.files.store);
  if (!compressed && loSparse === undefined) return undefined;
  if (lora)
    throw new InputError(`${model.files.path}: adapters beside experts in low rank and sparse rows are not trained`);
  if (!compressed && loSparse?.rank === undefined) {
    throw new InputError(`${model.files.path}: is not compressed; a rank says how its experts are taken apart`);
  }
  return openLoSparse(model.files, {
    precision,
    threads,
    seed,
    ...(loSparse?.rank !== undefined && { rank: loSparse.rank }),
    ...(loSparse?.targets && { targets: loSparse.targets }),
  });
}

/** All of them, one behind the other; undefined for none. */
function allFollowers(followers: readonly StepFollower[]): StepFollower | undefined {
  if (followers.length === 0) return undefined;
  return {
    state: Object.assign({}, ...followers.map(({ state }) => state)) as StepFollower['state'],
    moved(step, gradientScale) {
      for (const follower of followers) follower.moved(step, gradientScale);
    },
  };
}

async function openDecoder(
  request: StudentRequest,
  start: Exclude<StudentStart, { kind: 'onnx' }>,
): Promise<LanguageStudent> {
  const { seed, threads, precision, lora, loSparse, attention: settings } = request;
  const model = startingModel(start, seed, threads);
  const parts = partsOf(model, request);
  const files = parts?.files ?? model.files;
  const adapters =
    parts?.adapters ?? (lora ? createAdapters(files, { ...lora, precision }, createRandom(seed).fork(START)) : []);
  const freeze = [...(request.freeze ?? []), ...(request.freezeRouters ? routerNames(files) : [])];
  // Beside parts everything else learns too, as without them.
  const trained = request.train ?? (parts ? ['*'] : undefined);
  const attention = settings && createEntropyAttention(files.description, settings, request.length);
  const student = await openDecoderStudent(files, {
    precision,
    threads,
    batch: request.batch,
    length: request.length,
    maxMemoryBytes: request.maxMemoryBytes,
    processBytes: request.processBytes,
    optimizerSlots: request.optimizerSlots + (loSparse?.schedule ? PRUNER_SLOTS : 0),
    wholeBatch: request.wholeBatch,
    ...(adapters.length > 0 && { adapters }),
    ...(trained && { train: trained }),
    ...(freeze.length > 0 && { freeze }),
    ...(attention && { attention }),
    ...(request.companions && { companions: request.companions }),
  });
  const trainedHeads = attention && settings && trainedAttention(student, attention, settings);
  const beside = new Set(request.companions?.map(({ name }) => name));
  const stored = (dtype: StudentDType): FactorisedTensors | undefined =>
    parts && factorisedTensors(parts, student.tensors, student.parameters, dtype, threads);
  return {
    student,
    parameters: [...student.tensors.values()].reduce((sum, { data }) => sum + data.length, 0),
    adaptedMatrices: adapters.length,
    plan: student.plan,
    currentModel: student.currentModel,
    gradientGraph: (terms) =>
      composeGradientGraph({
        ...student.wholeGraph(),
        wanted: student.parameters.parameters.map(({ name }) => name).filter((name) => !beside.has(name)),
        precision,
        classes: student.classes,
        ...(terms && { terms }),
      }),
    follower: allFollowers([
      ...(parts ? [loSparseFollower(parts, student.parameters, loSparse?.schedule)] : []),
      ...(trainedHeads ? [{ state: {}, moved: student.confine }] : []),
    ]),
    ...(trainedHeads && { attention: trainedHeads }),
    ...(parts && {
      loSparse: (dtype = model.dtype) =>
        factorisedTensors(parts, student.tensors, student.parameters, dtype, threads).figures,
    }),
    write(target) {
      mkdirSync(target.path, { recursive: true });
      if (target.form === 'adapter' && lora !== undefined) {
        const head = { rank: lora.rank, alpha: lora.alpha, base: target.base };
        const written = writePeftAdapter(target.path, model.files, adapters, student.parameters, head);
        return trainedHeads ? [...written, writeAttention(target.path, trainedHeads, false)] : written;
      }
      const dtype = target.dtype ?? model.dtype;
      const { store, ...form } = stored(dtype) ?? { store: student.currentModel().store };
      const written = writeModelDirectory(target.path, model, store, { threads, dtype, ...form });
      if (!trainedHeads) return written;
      return [...written, writeAttention(target.path, trainedHeads, trainedHeads.notFolded === undefined)];
    },
    async close() {
      await student.close();
      model.files.store.close();
    },
  };
}

async function openOnnx(request: StudentRequest, path: string): Promise<LanguageStudent> {
  if (request.attention) {
    throw new InputError(`${path}: the attention of an ONNX graph is not trained by heads; pass a model directory`);
  }
  if (request.companions) throw new InputError(`${path}: nothing learns beside an ONNX graph; pass a model directory`);
  if (request.loSparse)
    throw new InputError(`${path}: experts of an ONNX graph are not taken apart; pass a model directory`);
  const { precision, threads, seed } = request;
  const student = await openOnnxStudent<TokenBatch>(path, {
    precision,
    threads,
    seed,
    ...(request.train && { train: request.train }),
    ...(request.freeze && { freeze: request.freeze }),
  });
  return {
    student,
    parameters: student.parameters.values.length,
    adaptedMatrices: 0,
    gradientGraph: (terms) => onnxGradientGraph(student, terms ? { terms } : {}),
    write(target) {
      mkdirSync(target.path, { recursive: true });
      const copied = COMPANIONS.filter((name) => existsSync(join(dirname(path), name))).map((name) =>
        writeHashed(target.path, name, readFileSync(join(dirname(path), name))),
      );
      student.exportOnnx(join(target.path, ONNX_FILE), true);
      return [...copied, hashedFile(target.path, ONNX_FILE)];
    },
    close: () => student.close(),
  };
}
