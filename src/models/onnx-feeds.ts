import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Tensor } from 'onnxruntime-node';
import { InputError } from '../errors.js';

/** An input or output as the session describes it; unknown dimensions are names, or numbers below 1. */
export interface TensorMetadata {
  readonly name: string;
  readonly type: string;
  readonly shape: readonly (number | string)[];
}

export type BesideConfig = Readonly<Record<string, unknown>> | undefined;

/**
 * `config.json` in the directory of the file or the one above (optimum keeps graphs in `onnx/`); else the
 * `genai_config.json` of onnxruntime-genai under the same names.
 */
export function readConfigBeside(path: string): BesideConfig {
  const genai = readJson(join(dirname(path), 'genai_config.json'));
  for (const directory of [dirname(path), dirname(dirname(path))]) {
    const found = readJson(join(directory, 'config.json'));
    if (found) return found;
    if (genai) break;
  }
  return genai && fromGenai(genai);
}

function readJson(file: string): BesideConfig {
  if (!existsSync(file)) return undefined;
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as BesideConfig;
  } catch {
    throw new InputError(`${file}: not valid JSON`);
  }
}

type Fields = Readonly<Record<string, unknown>>;

function fromGenai(config: Fields): BesideConfig {
  const model = (config.model ?? {}) as Fields;
  const decoder = (model.decoder ?? {}) as Fields;
  const { vocab_size, bos_token_id, eos_token_id } = model;
  const { hidden_size, num_attention_heads, num_key_value_heads, num_hidden_layers } = decoder;
  return {
    model_type: model.type,
    max_position_embeddings: model.context_length,
    head_dim: decoder.head_size,
    vocab_size,
    bos_token_id,
    eos_token_id: Array.isArray(eos_token_id) ? eos_token_id[0] : eos_token_id,
    hidden_size,
    num_attention_heads,
    num_key_value_heads,
    num_hidden_layers,
  };
}

/** Tokens of one run of a decoder: a whole window, or a step after what lies in the cache. Batch 1. */
export interface DecoderStep {
  readonly tokens: Int32Array;
  /** Position of the first token; what lies before is in `past`. */
  readonly first: number;
  /** Cache by input name; empty where absent. */
  readonly past?: Readonly<Record<string, Tensor>>;
}

const PAST = /^past(_key_values)?[._]/;
/** Steering inputs of a patched graph (`steer patch`): zero where nobody steers. */
const STEERING = /^steer\.-?\d+$/;
const SCALAR_FEEDS = new Set(['input_ids', 'attention_mask', 'position_ids', 'use_cache_branch', 'token_type_ids']);

export const isPastInput = (name: string): boolean => PAST.test(name);

/** @throws InputError when an input of the graph `path` is none that {@link decoderFeed} knows */
export function checkDecoderInput(path: string, input: TensorMetadata): void {
  if (SCALAR_FEEDS.has(input.name) || STEERING.test(input.name) || PAST.test(input.name)) return;
  throw new InputError(`${path}: the graph asks for an input "${input.name}" that this command does not know`);
}

/** Shape of an empty past: the batch is 1, the symbolic sequence axis 0. */
function pastShape(input: TensorMetadata, beside: BesideConfig): number[] {
  const heads = Number(beside?.num_key_value_heads ?? beside?.num_attention_heads ?? beside?.n_head);
  const width = Number(beside?.head_dim ?? Number(beside?.hidden_size) / Number(beside?.num_attention_heads));
  return input.shape.map((extent, axis) => {
    if (typeof extent === 'number' && extent >= 0) return extent;
    if (axis === 0) return 1;
    if (axis === 1 && input.shape.length === 4 && Number.isInteger(heads)) return heads;
    if (axis === 3 && Number.isInteger(width)) return width;
    return 0;
  });
}

/** The value of one input of an exported decoder for a step. */
export function decoderFeed(input: TensorMetadata, step: DecoderStep, beside: BesideConfig): Tensor {
  const { tokens, first, past } = step;
  const length = tokens.length;
  switch (input.name) {
    case 'input_ids':
      return integers(input.type, tokens, [1, length]);
    case 'attention_mask':
      return integers(input.type, new Int32Array(first + length).fill(1), [1, first + length]);
    case 'token_type_ids':
      return integers(input.type, new Int32Array(length), [1, length]);
    case 'position_ids':
      return integers(
        input.type,
        Int32Array.from({ length }, (_, i) => first + i),
        [1, length],
      );
    case 'use_cache_branch':
      return new Tensor('bool', Uint8Array.of(first > 0 ? 1 : 0), [1]);
    default: {
      const given = past?.[input.name];
      if (given) return given;
      const steering = STEERING.test(input.name);
      const width = input.shape.at(-1);
      const dims = steering ? [1, 1, typeof width === 'number' && width > 0 ? width : 1] : pastShape(input, beside);
      const size = dims.reduce((product, extent) => product * extent, 1);
      return input.type === 'float16'
        ? new Tensor('float16', new Uint16Array(size), dims)
        : new Tensor('float32', new Float32Array(size), dims);
    }
  }
}

function integers(type: string, values: Int32Array, dims: readonly number[]): Tensor {
  return type === 'int32'
    ? new Tensor('int32', values, dims)
    : new Tensor('int64', BigInt64Array.from(values, BigInt), dims);
}
