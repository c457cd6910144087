import { existsSync } from 'node:fs';
import { type InferenceSession, Tensor } from 'onnxruntime-node';
import { InputError } from '../errors.js';
import { widenToF32 } from '../kernels/dtypes.js';
import { createSession, runSession } from './sessions.js';

interface TensorMetadata {
  readonly name: string;
  readonly type: string;
  readonly shape: readonly (number | string)[];
}

/** Somebody else's ONNX export of an embedding model. */
export interface OnnxEncoder {
  /** Name of the output with one row a token, `[texts, length, width]`, if there is one. */
  readonly tokenOutput: string | undefined;
  /** Name of the output with one row a text, `[texts, width]`, if there is one. */
  readonly textOutput: string | undefined;
  /**
   * The output `name` for texts of one length, row-major.
   * @param ids `[texts, length]`
   */
  forward(ids: Int32Array, texts: number, length: number, name: string): Promise<{ data: Float32Array; width: number }>;
  close(): Promise<void>;
}

const TOKEN_OUTPUTS = ['last_hidden_state', 'token_embeddings', 'hidden_states'];
const TEXT_OUTPUTS = ['sentence_embedding', 'embeddings', 'text_embeds', 'pooler_output'];
const FEEDS = ['input_ids', 'attention_mask', 'token_type_ids', 'position_ids'];

/**
 * Opens an ONNX file with an input `input_ids` and an output of hidden states or embeddings.
 * @throws InputError for a file of another kind, listing its inputs and outputs
 */
export async function openOnnxEncoder(path: string, threads: number): Promise<OnnxEncoder> {
  if (!existsSync(path)) throw new InputError(`${path}: no such file`);
  const session = await createSession(path, { threads, device: 'cpu', arena: true });
  const inputs = session.inputMetadata as readonly TensorMetadata[];
  const outputs = session.outputMetadata as readonly TensorMetadata[];
  const names = (list: readonly TensorMetadata[]): string => list.map((item) => item.name).join(', ');
  const ofRank = (rank: number, known: readonly string[]): string | undefined =>
    known.find((name) => outputs.some((output) => output.name === name && output.shape.length === rank)) ??
    outputs.find((output) => output.shape.length === rank && output.name !== 'logits')?.name;
  const tokenOutput = ofRank(3, TOKEN_OUTPUTS);
  const textOutput = ofRank(2, TEXT_OUTPUTS);
  const stranger = inputs.find((input) => !FEEDS.includes(input.name));
  if (!inputs.some((input) => input.name === 'input_ids') || stranger || (!tokenOutput && !textOutput)) {
    throw new InputError(
      `${path}: not an embedding model: it has inputs ${names(inputs)} and outputs ${names(outputs)}; it needs input_ids and ` +
        'an output of hidden states [texts, tokens, width] or embeddings [texts, width]',
    );
  }
  return {
    tokenOutput,
    textOutput,
    async forward(ids, texts, length, name) {
      const feeds = Object.fromEntries(inputs.map((input) => [input.name, feedFor(input, ids, texts, length)]));
      const value = (await runSession(session, feeds, { [name]: null }))[name] as Tensor;
      const width = value.dims[value.dims.length - 1];
      const rows = value.dims.slice(0, -1).reduce((product, extent) => product * extent, 1);
      const expected = name === textOutput ? texts : texts * length;
      if (rows !== expected) {
        throw new InputError(
          `${path}: output "${name}" has shape [${value.dims}] for ${texts} texts of ${length} tokens`,
        );
      }
      return { data: widened(value, path, name), width };
    },
    close: () => (session as InferenceSession).release(),
  };
}

function feedFor(input: TensorMetadata, ids: Int32Array, texts: number, length: number): Tensor {
  const values =
    input.name === 'input_ids'
      ? ids
      : input.name === 'attention_mask'
        ? new Int32Array(ids.length).fill(1)
        : input.name === 'position_ids'
          ? ids.map((_, i) => i % length)
          : new Int32Array(ids.length);
  return input.type === 'int32'
    ? new Tensor('int32', values, [texts, length])
    : new Tensor('int64', BigInt64Array.from(values, BigInt), [texts, length]);
}

function widened(value: Tensor, path: string, name: string): Float32Array {
  if (value.data instanceof Float32Array) return value.data;
  if (value.data instanceof Float64Array) return Float32Array.from(value.data);
  if (value.data instanceof Uint16Array || value.type === 'float16') {
    const stored = value.data as unknown as Uint16Array;
    const target = new Float32Array(stored.length);
    widenToF32(new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength), 'F16', target);
    return target;
  }
  throw new InputError(`${path}: output "${name}" is ${value.type}; floating-point embeddings are needed`);
}
