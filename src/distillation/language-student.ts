import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { HashedFile } from '../formats/hash.js';
import { hashedFile, writeHashed } from '../models/model-directory.js';
import { type ModelFiles, openModelFiles } from '../models/model-files.js';
import { createRandom } from '../random.js';
import { openDecoderStudent } from '../training/decoder-student.js';
import { createAdapters, type LoraOptions, writePeftAdapter } from '../training/lora.js';
import { writeModelDirectory } from '../training/model-writer.js';
import { openOnnxStudent } from '../training/onnx-student.js';
import {
  existingStudent,
  layerStudent,
  randomStudent,
  type StudentDType,
  type StudentModel,
} from '../training/student-config.js';
import type { TrainingPlan } from '../training/training-memory.js';
import type { Precision, Student, TokenBatch } from '../training/types.js';

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
}

/** A student of any kind, and what can be done with it beside training. */
export interface LanguageStudent {
  readonly student: Student<TokenBatch>;
  /** All weights, frozen ones included. */
  readonly parameters: number;
  readonly adaptedMatrices: number;
  /** Estimated memory; absent where the runtime holds the model. */
  readonly plan?: TrainingPlan;
  /** The model as it is now, for samples; absent where it has no engine. */
  currentModel?(): ModelFiles;
  write(target: StudentTarget): readonly HashedFile[];
  close(): Promise<void>;
}

/** Stream of the random numbers that a student starts from. */
const START = 0x73746172;
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

async function openDecoder(
  request: StudentRequest,
  start: Exclude<StudentStart, { kind: 'onnx' }>,
): Promise<LanguageStudent> {
  const { seed, threads, precision, lora } = request;
  const model = startingModel(start, seed, threads);
  const adapters = lora ? createAdapters(model.files, { ...lora, precision }, createRandom(seed).fork(START)) : [];
  const student = await openDecoderStudent(model.files, {
    precision,
    threads,
    batch: request.batch,
    length: request.length,
    maxMemoryBytes: request.maxMemoryBytes,
    processBytes: request.processBytes,
    optimizerSlots: request.optimizerSlots,
    wholeBatch: request.wholeBatch,
    ...(adapters.length > 0 && { adapters }),
    ...(request.train && { train: request.train }),
    ...(request.freeze && { freeze: request.freeze }),
  });
  return {
    student,
    parameters: [...student.tensors.values()].reduce((sum, { data }) => sum + data.length, 0),
    adaptedMatrices: adapters.length,
    plan: student.plan,
    currentModel: student.currentModel,
    write(target) {
      mkdirSync(target.path, { recursive: true });
      if (target.form === 'adapter' && lora !== undefined) {
        const head = { rank: lora.rank, alpha: lora.alpha, base: target.base };
        return writePeftAdapter(target.path, model.files, adapters, student.parameters, head);
      }
      const { store } = student.currentModel();
      return writeModelDirectory(target.path, model, store, { threads, ...(target.dtype && { dtype: target.dtype }) });
    },
    async close() {
      await student.close();
      model.files.store.close();
    },
  };
}

async function openOnnx(request: StudentRequest, path: string): Promise<LanguageStudent> {
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
