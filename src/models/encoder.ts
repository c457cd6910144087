import { join } from 'node:path';
import { InputError } from '../errors.js';
import type { TensorStore } from '../formats/tensor.js';
import { equalBitThreads } from '../kernels/product-threads.js';
import { describeEncoder, type EncoderDescription } from './encoder-description.js';
import { composeBlock, composeEmbeddingNorm, ENCODER_ROLES, roleShape } from './encoder-graph.js';
import type { Floats } from './layer-runner.js';
import { readJson } from './model-files.js';
import { openWeights } from './pvq-store.js';
import { createSessionPool, floatsOf, runSession, type SessionPool, tensorOf } from './sessions.js';
import { createWeightReader, type StoredWeight } from './weights.js';

export interface EncoderOptions {
  readonly threads: number;
  readonly precision: 'f32' | 'f64';
}

/** A bidirectional encoder whose weights are in memory. */
export interface Encoder {
  readonly description: EncoderDescription;
  /** Most tokens of a text, special tokens included. */
  readonly maxTokens: number;
  /**
   * Hidden states of texts of one length, `[texts * length, hidden]`, handed over layer by layer: 0 is the embedding (after
   * its norm), l the output of block l.
   * @param ids `[texts, length]` token ids
   * @throws InputError for an id outside the vocabulary or a text that is too long
   */
  forward(
    ids: Int32Array,
    texts: number,
    length: number,
    onLayer: (layer: number, rows: Floats) => void,
  ): Promise<void>;
  close(): Promise<void>;
}

/** A stored tensor in memory. */
export interface EncoderWeight {
  /** As the checkpoint calls it. */
  readonly name: string;
  readonly data: Floats;
  readonly shape: readonly number[];
}

/** All weights of an encoder. */
export interface EncoderWeights {
  readonly words: EncoderWeight;
  readonly positions: EncoderWeight;
  readonly types?: EncoderWeight;
  readonly norm: EncoderWeight;
  readonly normBias: EncoderWeight;
  readonly relative?: EncoderWeight;
  /** Of each block, by role and `<role>_bias`. */
  readonly blocks: readonly ReadonlyMap<string, EncoderWeight>[];
}

/** Finds weights by name under the checkpoint's prefix, checks shapes and widens. */
function weightFinder(
  store: TensorStore,
  model: EncoderDescription,
  options: EncoderOptions,
): (name: string, shape: readonly number[]) => EncoderWeight {
  const { names, modelType } = model;
  const prefix = names.prefixes.find((candidate) => store.tensors.has(`${candidate}${names.words}.weight`));
  if (prefix === undefined) {
    throw new InputError(`${store.path}: tensor "${names.words}.weight" is missing; the ${modelType} model needs it`);
  }
  const reader = createWeightReader(options.threads);
  return (name, shape) => {
    // Checkpoints converted from TensorFlow call the two parts of a norm gamma and beta.
    const old = name.replace(/LayerNorm\.weight$/, 'LayerNorm.gamma').replace(/LayerNorm\.bias$/, 'LayerNorm.beta');
    const tensor = store.tensors.get(prefix + name) ?? store.tensors.get(prefix + old);
    if (!tensor)
      throw new InputError(`${store.path}: tensor "${prefix}${name}" is missing; the ${modelType} model needs it`);
    if (tensor.shape.join() !== shape.join()) {
      throw new InputError(
        `${tensor.file}: tensor "${tensor.name}" has shape [${tensor.shape}] but the config asks for [${shape}]`,
      );
    }
    const size = shape.reduce((product, extent) => product * extent, 1);
    const target = options.precision === 'f32' ? new Float32Array(size) : new Float64Array(size);
    const weight: StoredWeight = { store, tensor, start: 0, byteLength: tensor.byteLength, shape };
    reader.read(weight, target);
    return { name: tensor.name, data: target, shape };
  };
}

/** Distance buckets of T5's bidirectional relative bias, in single precision as the reference has it. */
export function relativeBucket(distance: number, buckets: number): number {
  const half = buckets / 2;
  const exact = half / 2;
  const side = distance > 0 ? half : 0;
  const far = Math.abs(distance);
  if (far < exact) return side + far;
  const ratio = Math.fround(Math.fround(Math.log(Math.fround(far / exact))) / Math.fround(Math.log(128 / exact)));
  return side + Math.min(half - 1, exact + Math.trunc(Math.fround(ratio * (half - exact))));
}

/**
 * Opens an encoder directory: config.json and safetensors.
 * @throws InputError for another kind of model, a missing tensor or one of another shape
 */
export function openEncoder(path: string, options: EncoderOptions): Encoder {
  const description = describeEncoder(readJson(join(path, 'config.json')), join(path, 'config.json'));
  const store = openWeights(path, options.threads);
  try {
    return encoderOf(description, store, options);
  } finally {
    store.close();
  }
}

/** Reads all weights of an encoder, widened. @throws InputError for a tensor that is missing or of another shape */
export function readEncoderWeights(
  model: EncoderDescription,
  store: TensorStore,
  options: EncoderOptions,
): EncoderWeights {
  const { hiddenSize, heads, names, vocabularySize, positionRows, tokenTypes, relativeBuckets } = model;
  const find = weightFinder(store, model, options);
  const blocks = Array.from({ length: model.layers }, (_, i) => {
    const weights = new Map<string, EncoderWeight>();
    for (const role of ENCODER_ROLES) {
      const name = names.layer[role].replace('{i}', String(i));
      const shape = roleShape(role, model);
      weights.set(role, find(`${name}.weight`, shape));
      weights.set(`${role}_bias`, find(`${name}.bias`, [shape[0]]));
    }
    return weights;
  });
  return {
    words: find(`${names.words}.weight`, [vocabularySize, hiddenSize]),
    positions: find(`${names.positions}.weight`, [positionRows, hiddenSize]),
    ...(names.tokenTypes !== undefined &&
      tokenTypes > 0 && { types: find(`${names.tokenTypes}.weight`, [tokenTypes, hiddenSize]) }),
    norm: find(`${names.embeddingNorm}.weight`, [hiddenSize]),
    normBias: find(`${names.embeddingNorm}.bias`, [hiddenSize]),
    ...(names.relativeBias !== undefined && {
      relative: find(`${names.relativeBias}.weight`, [relativeBuckets, heads]),
    }),
    blocks,
  };
}

function encoderOf(model: EncoderDescription, store: TensorStore, options: EncoderOptions): Encoder {
  const { hiddenSize, heads, vocabularySize, positionRows, firstPosition, feedForwardSize } = model;
  const weights = readEncoderWeights(model, store, options);
  const [words, positions, types] = [weights.words.data, weights.positions.data, weights.types?.data];
  const relative = weights.relative?.data;
  const sessions = createSessionPool({
    threads: options.threads,
    device: 'cpu',
    arena: false,
    precision: options.precision,
  });
  const maxTokens = positionRows - firstPosition;
  return {
    description: model,
    maxTokens,
    async forward(ids, texts, length, onLayer) {
      if (length > maxTokens)
        throw new InputError(`${store.path}: ${length} tokens, the model has ${maxTokens} positions`);
      const rows = texts * length;
      const make = (size: number): Floats =>
        options.precision === 'f32' ? new Float32Array(size) : new Float64Array(size);
      const sum = make(rows * hiddenSize);
      for (let r = 0; r < rows; r++) {
        const id = ids[r];
        if (!(id >= 0 && id < vocabularySize)) {
          throw new InputError(`${store.path}: token id ${id} is outside the vocabulary of ${vocabularySize}`);
        }
        const position = firstPosition + (r % length);
        for (let i = 0; i < hiddenSize; i++) {
          const value = words[id * hiddenSize + i] + positions[position * hiddenSize + i];
          sum[r * hiddenSize + i] = types ? value + types[i] : value;
        }
      }
      const dims = [rows, hiddenSize];
      const threads = equalBitThreads(
        [
          { columns: hiddenSize, depth: hiddenSize },
          { columns: feedForwardSize, depth: hiddenSize },
          { columns: hiddenSize, depth: feedForwardSize },
          { columns: length, depth: hiddenSize / heads },
          { columns: hiddenSize / heads, depth: length },
        ],
        rows,
        options.threads,
      );
      const norm = await sessions.get('norm', () => composeEmbeddingNorm(model, options.precision), threads);
      const normed = await runSession(
        norm,
        {
          x: tensorOf(sum, dims),
          weight: tensorOf(weights.norm.data, [hiddenSize]),
          bias: tensorOf(weights.normBias.data, [hiddenSize]),
        },
        { y: null },
      );
      let x = floatsOf(normed.y);
      onLayer(0, x);
      const bias = relative && relativeTable(relative, heads, model.relativeBuckets, length, make);
      for (const [i, block] of weights.blocks.entries()) {
        x = await runBlock(sessions, model, options.precision, threads, block, x, texts, length, bias);
        onLayer(i + 1, x);
      }
    },
    close: () => sessions.close(),
  };
}

/** `[1, heads, length, length]` of the bias that a pair of positions has. */
function relativeTable(
  table: Floats,
  heads: number,
  buckets: number,
  length: number,
  make: (size: number) => Floats,
): Floats {
  const bias = make(heads * length * length);
  for (let q = 0; q < length; q++) {
    for (let k = 0; k < length; k++) {
      const bucket = relativeBucket(k - q, buckets);
      for (let head = 0; head < heads; head++) bias[(head * length + q) * length + k] = table[bucket * heads + head];
    }
  }
  return bias;
}

async function runBlock(
  sessions: SessionPool,
  model: EncoderDescription,
  precision: 'f32' | 'f64',
  threads: number,
  weights: ReadonlyMap<string, EncoderWeight>,
  x: Floats,
  texts: number,
  length: number,
  bias: Floats | undefined,
): Promise<Floats> {
  const { hiddenSize, heads } = model;
  const { Tensor } = await import('onnxruntime-node');
  const split = BigInt64Array.from([texts, length, heads, hiddenSize / heads].map(BigInt));
  const feeds = {
    x: tensorOf(x, [texts * length, hiddenSize]),
    split: new Tensor('int64', split, [4]),
    ...(bias && { relative: tensorOf(bias, [1, heads, length, length]) }),
    ...Object.fromEntries([...weights].map(([name, { data, shape }]) => [name, tensorOf(data, shape)])),
  };
  const session = await sessions.get('block', () => composeBlock(model, precision), threads);
  return floatsOf((await runSession(session, feeds, { y: null })).y);
}
