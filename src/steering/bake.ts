import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { InputError, RunError } from '../errors.js';
import { createAtomicDirectory } from '../formats/atomic.js';
import type { HashedFile } from '../formats/hash.js';
import { openSafetensors } from '../formats/safetensors.js';
import { MAX_SHARD_BYTES } from '../formats/safetensors-shards.js';
import { createSafetensorsWriter } from '../formats/safetensors-writer.js';
import { DTYPE_BYTES, elementCount, type TensorInfo, type TensorStore } from '../formats/tensor.js';
import type { Config } from '../models/config-reader.js';
import { decodeFactorisedStore } from '../models/factorised-store.js';
import { changedConfig, copySmallFiles, hashedFile, tensorBytes, writeHashed } from '../models/model-directory.js';
import { readJson } from '../models/model-files.js';
import { decodePvqStore } from '../models/pvq-store.js';
import { createWeightReader } from '../models/weights.js';
import { buildReport, type Report, type ReportHead, serializeReport, validateReport } from '../report/json.js';
import { type BakedTensor, type BakeOptions, type BakePlan, planBake } from './bake-plan.js';
import type { LogitDifference } from './bake-proof.js';
import { norm } from './vector-measures.js';

export const BAKE_SCHEMA = 'steer-bake';
const MANIFEST_FILE = 'manifest.json';

/** The run that shows that weights and injection are the same function. */
export interface BakeProof {
  readonly precision: 'f32' | 'f64';
  readonly tokens: number;
  /** Largest difference that passes, relative to the largest logit. */
  readonly tolerance: number;
  /** Logits of the baked model against those of the original with the vectors injected. */
  readonly bakedToInjected: LogitDifference;
  /** Those of the original without against with the vectors: what the vectors do at all. */
  readonly originalToInjected: LogitDifference;
  /** Mean length of the original's stream, by point (embeddings, then the output of each block). */
  readonly streamNorms: Float64Array;
}

export interface BakeRequest extends BakeOptions {
  /** Directory of safetensors with a config.json. */
  readonly model: string;
  readonly out: string;
  /** Vectors [hidden] by block, multiplied by their strengths. */
  readonly shifts: ReadonlyMap<number, Float32Array>;
  readonly assumptions: readonly string[];
  readonly force?: boolean;
  readonly head: Omit<ReportHead, 'name'>;
  /** Runs the model that is written, before it gets its name; absent where no proof is wanted or possible. */
  readonly prove?: (directory: string) => Promise<BakeProof>;
  /** Why there is no proof. */
  readonly unproved?: string;
}

/** An opened source; `close` it. */
export interface BakeSource {
  readonly path: string;
  readonly config: Config;
  readonly store: TensorStore;
}

/** @throws InputError for what is no plain checkpoint */
export function openBakeSource(path: string): BakeSource {
  if (/\.(gguf|onnx)$/i.test(path)) {
    throw new InputError(
      `${path}: bake writes directories of safetensors; a GGUF file takes a control vector (steer export), an ONNX export steer patch`,
    );
  }
  const raw = openSafetensors(path);
  const decoded = decodeFactorisedStore(decodePvqStore(raw));
  if (decoded !== raw) {
    decoded.close();
    throw new InputError(`${path}: holds quantised or factorised weights: bake the model that they come from`);
  }
  return { path, config: readJson(join(path, 'config.json')), store: raw };
}

/**
 * Writes a copy of a model directory with vectors folded into its weights, all else byte for byte. New biases that hold a
 * vector are F32, sums are formed in f64 and rounded once; the directory appears when the proof has passed.
 * @returns the manifest
 * @throws InputError for an architecture without a place for the vector, RunError when the proof fails
 */
export async function bakeModel(request: BakeRequest): Promise<Report> {
  const source = openBakeSource(request.model);
  try {
    const plan = planBake(request.model, source.config, source.store.tensors, request.shifts, request);
    const directory = createAtomicDirectory(request.out, { force: request.force });
    try {
      const files = writeModel(directory.path, source, plan);
      const proof = await request.prove?.(directory.path);
      if (proof) checkProof(proof);
      const manifest = describeBake(request, plan, files, proof);
      validateReport(manifest, join(request.out, MANIFEST_FILE));
      writeHashed(directory.path, MANIFEST_FILE, serializeReport(manifest));
      directory.commit();
      return manifest;
    } catch (error) {
      directory.abort();
      throw error;
    }
  } finally {
    source.store.close();
  }
}

/** @throws RunError when the logits differ by more than the tolerance */
export function checkProof({ bakedToInjected, tolerance }: BakeProof): void {
  const { maxAbsDifference, maxAbsLogit } = bakedToInjected;
  if (maxAbsDifference <= tolerance * maxAbsLogit) return;
  throw new RunError(
    `the baked model's logits differ from the injected ones by ${maxAbsDifference}, more than ${tolerance} of the largest (${maxAbsLogit}): nothing was written`,
  );
}

function writeModel(directory: string, source: BakeSource, plan: BakePlan): HashedFile[] {
  const { store, path } = source;
  const metadata = Object.keys(store.metadata).length > 0 ? store.metadata : undefined;
  const writer = createSafetensorsWriter(directory, {
    plan: plan.tensors,
    maxShardBytes: MAX_SHARD_BYTES,
    ...(metadata && { metadata }),
  });
  try {
    for (const tensor of plan.tensors) for (const bytes of contents(store, tensor)) writer.write(tensor.name, bytes);
    writer.commit();
  } catch (error) {
    writer.abort();
    throw error;
  }
  const weights = writer.files.map((file) => hashedFile(directory, file.slice(directory.length + 1)));
  const config = changedConfig(path, plan.config) ?? readFileSync(join(path, 'config.json'), 'utf8');
  const small = copySmallFiles(path, directory);
  return [...weights, writeHashed(directory, 'config.json', config), ...small].sort((a, b) =>
    a.name < b.name ? -1 : 1,
  );
}

/** Elements converted at a time, about. */
const STEP = 1 << 20;

/** The bytes of a tensor in pieces; each is valid until the next. */
function* contents(store: TensorStore, tensor: BakedTensor): Generator<Uint8Array, void, undefined> {
  const bytesOf = (values: Float32Array): Uint8Array =>
    new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  switch (tensor.kind) {
    case 'copy':
      yield* tensorBytes(store, tensor.info);
      return;
    case 'zeros':
      yield new Uint8Array(elementCount(tensor.shape) * DTYPE_BYTES[tensor.dtype]);
      return;
    case 'bias': {
      const sum = Float64Array.from(tensor.vector);
      if (tensor.info) {
        const stored = new Float64Array(sum.length);
        createWeightReader(1).read(whole(store, tensor.info), stored);
        for (let i = 0; i < sum.length; i++) sum[i] += stored[i];
      }
      yield bytesOf(Float32Array.from(sum));
      return;
    }
    case 'rows': {
      const { info, vector } = tensor;
      const [rows, width] = info.shape;
      const reader = createWeightReader(1);
      const step = Math.max(1, Math.floor(STEP / width));
      const values = new Float64Array(Math.min(step, rows) * width);
      for (let row = 0; row < rows; row += step) {
        const count = Math.min(step, rows - row);
        const part = values.subarray(0, count * width);
        reader.read(whole(store, info), part, row, count);
        for (let i = 0; i < part.length; i++) part[i] += vector[i % width];
        yield bytesOf(Float32Array.from(part));
      }
    }
  }
}

const whole = (store: TensorStore, tensor: TensorInfo) => ({
  store,
  tensor,
  start: 0,
  byteLength: tensor.byteLength,
  shape: tensor.shape,
});

const differenceBody = (difference: LogitDifference) => ({
  max_abs_difference: difference.maxAbsDifference,
  max_abs_logit: difference.maxAbsLogit,
  mean_kl_nats: difference.meanKlNats,
  top1_agreement: difference.top1Agreement,
});

function describeBake(
  request: BakeRequest,
  plan: BakePlan,
  files: readonly HashedFile[],
  proof: BakeProof | undefined,
): Report {
  const { tensors } = plan;
  const config = Object.entries(plan.config).map(([key, value]) => [key, value === undefined ? null : value] as const);
  return buildReport(
    { ...request.head, name: BAKE_SCHEMA },
    {
      model_type: plan.modelType,
      mechanisms: [...plan.mechanisms],
      config_changes: config.map(([key, value]) => `${key}=${JSON.stringify(value)}`),
      positions: 'all',
      tensors: tensors.length,
      copied_tensors: tensors.filter(({ kind }) => kind === 'copy').length,
      zero_tensors: tensors.filter(({ kind }) => kind === 'zeros').length,
      blocks: plan.blocks.map(({ block, tensor }) => {
        const length = norm(request.shifts.get(block) ?? []);
        const stream = proof?.streamNorms[block + 1];
        return {
          block,
          tensor,
          shift_norm: length,
          stream_norm: stream ?? null,
          shift_over_stream: stream === undefined ? null : length / stream,
        };
      }),
      assumptions: [...request.assumptions],
      proof:
        proof === undefined
          ? null
          : {
              precision: proof.precision,
              tokens: proof.tokens,
              tolerance: proof.tolerance,
              baked_to_injected: differenceBody(proof.bakedToInjected),
              original_to_injected: differenceBody(proof.originalToInjected),
            },
      unproved: request.unproved ?? null,
      files: files.map(({ name, bytes, sha256 }) => ({ name, bytes, sha256 })),
    },
  );
}
