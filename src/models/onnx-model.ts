import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type InferenceSession, Tensor } from 'onnxruntime-node';
import { InputError } from '../errors.js';
import { widenToF32 } from '../kernels/dtypes.js';
import { accumulateRows, createRowAccumulator, finalizeRows } from '../kernels/row-statistics.js';
import type { EngineOptions } from './engine.js';
import type { LanguageModel, PositionRange } from './language-model.js';
import type { Floats } from './layer-runner.js';
import { createSession, floatsOf, runSession } from './sessions.js';

/** Rows of logits that one run may produce, in bytes. */
const LOGITS_BYTES = 256 << 20;

interface TensorMetadata {
  readonly name: string;
  readonly type: string;
  readonly shape: readonly (number | string)[];
}

/**
 * Opens somebody else's ONNX export of a decoder: optimum (`input_ids`, `attention_mask`, `position_ids`,
 * `past_key_values.N.key/value` -> `logits`, `present.N.*`) and onnxruntime-genai layouts, with and without past.
 * Feeds what the session asks for; past is fed empty.
 * @throws InputError when the graph has no `input_ids` or no `logits`, or asks for something unknown.
 */
export async function openOnnxModel(path: string, options: EngineOptions): Promise<LanguageModel> {
  if (!existsSync(path)) throw new InputError(`${path}: no such file`);
  if (options.precision === 'f64') {
    throw new InputError(`${path}: an ONNX graph fixes its own arithmetic; drop --precision f64 or pass a directory`);
  }
  const session = await createSession(path, { threads: options.threads, device: options.device, arena: true });
  const inputs = session.inputMetadata as readonly TensorMetadata[];
  const outputs = session.outputMetadata as readonly TensorMetadata[];
  const logitsOutput = outputs.find((output) => output.name === 'logits');
  if (!inputs.some((input) => input.name === 'input_ids') || !logitsOutput) {
    const names = (list: readonly TensorMetadata[]): string => list.map((item) => item.name).join(', ');
    throw new InputError(
      `${path}: not a language model: it needs an input "input_ids" and an output "logits"; ` +
        `it has inputs ${names(inputs)} and outputs ${names(outputs)}`,
    );
  }
  const beside = readConfigBeside(path);
  const lastDim = logitsOutput.shape[logitsOutput.shape.length - 1];
  const vocabularySize = typeof lastDim === 'number' ? lastDim : Number(beside?.vocab_size ?? Number.NaN);
  if (!Number.isInteger(vocabularySize)) {
    throw new InputError(
      `${path}: the vocabulary size is neither in the shape of "logits" nor in a config.json beside`,
    );
  }
  for (const input of inputs) checkInput(path, input, beside);

  const run = async (window: Int32Array): Promise<Floats> => {
    const foreign = window.find((id) => id < 0 || id >= vocabularySize);
    if (foreign !== undefined) {
      throw new InputError(
        `${path}: token id ${foreign} is outside the vocabulary of ${vocabularySize}; ` +
          'the tokenizer does not belong to this model',
      );
    }
    const feeds: Record<string, Tensor> = {};
    for (const input of inputs) feeds[input.name] = feedFor(input, window, beside);
    const { logits } = await runSession(session, feeds, { logits: null });
    const { dims } = logits as Tensor;
    if (dims.join() !== [1, window.length, vocabularySize].join()) {
      throw new InputError(
        `${path}: "logits" has shape [${dims}] for a window of ${window.length} tokens and a vocabulary of ` +
          `${vocabularySize}; export the model with logits of all positions, and its own config.json`,
      );
    }
    return widenLogits(logits as Tensor);
  };

  const eachWindow = async (
    windows: readonly Int32Array[],
    wanted: readonly PositionRange[],
    use: (rows: Floats, at: number) => void,
  ): Promise<void> => {
    let at = 0;
    for (let w = 0; w < windows.length; w++) {
      const [from, to] = wanted[w];
      const bytes = windows[w].length * vocabularySize * 4;
      if (bytes > Math.max(LOGITS_BYTES, options.maxMemoryBytes / 2)) {
        throw new InputError(
          `${path}: logits of a window of ${windows[w].length} tokens take ${Math.ceil(bytes / (1 << 20))}MiB; ` +
            'pass a smaller --context or a larger --max-memory',
        );
      }
      const logits = await run(windows[w]);
      use(logits.subarray(from * vocabularySize, to * vocabularySize), at);
      at += to - from;
    }
  };

  return {
    info: {
      path,
      format: 'onnx',
      modelType: typeof beside?.model_type === 'string' ? beside.model_type : 'onnx',
      vocabularySize,
      maxPositions: typeof beside?.max_position_embeddings === 'number' ? beside.max_position_embeddings : null,
      layers: null,
      hiddenSize: null,
      heads: null,
      windows: [],
      bosId: typeof beside?.bos_token_id === 'number' ? beside.bos_token_id : null,
      eosIds: typeof beside?.eos_token_id === 'number' ? [beside.eos_token_id] : [],
      rowsPerBatch: 4096,
      residence: 'runtime',
      peakBytes: null,
    },
    async statistics(windows, wanted, targets, request) {
      const accumulator = createRowAccumulator(targets.length, { ...request });
      await eachWindow(windows, wanted, (rows, at) => {
        accumulateRows(
          accumulator,
          {
            data: rows,
            dtype: rows instanceof Float32Array ? 'F32' : 'F64',
            rows: rows.length / vocabularySize,
            columns: vocabularySize,
          },
          { columnOffset: 0, rowOffset: at, targets, threads: options.threads },
        );
      });
      return finalizeRows(accumulator, vocabularySize);
    },
    async logits(windows, wanted) {
      const total = wanted.reduce((sum, [from, to]) => sum + to - from, 0);
      const all = new Float32Array(total * vocabularySize);
      await eachWindow(windows, wanted, (rows, at) => all.set(rows, at * vocabularySize));
      return all;
    },
    close: () => (session as InferenceSession).release(),
  };
}

type BesideConfig = Readonly<Record<string, unknown>> | undefined;

/** `config.json` in the directory of the file or the one above (optimum keeps graphs in `onnx/`). */
function readConfigBeside(path: string): BesideConfig {
  for (const directory of [dirname(path), dirname(dirname(path))]) {
    const candidate = join(directory, 'config.json');
    if (!existsSync(candidate)) continue;
    try {
      return JSON.parse(readFileSync(candidate, 'utf8')) as BesideConfig;
    } catch {
      throw new InputError(`${candidate}: not valid JSON`);
    }
  }
  return undefined;
}

const PAST = /^past(_key_values)?[._]/;
const SCALAR_FEEDS = new Set(['input_ids', 'attention_mask', 'position_ids', 'use_cache_branch', 'token_type_ids']);

function checkInput(path: string, input: TensorMetadata, beside: BesideConfig): void {
  if (SCALAR_FEEDS.has(input.name)) return;
  if (!PAST.test(input.name)) {
    throw new InputError(`${path}: the graph asks for an input "${input.name}" that this command does not know`);
  }
  pastShape(input, beside);
}

/** Shape of an empty past: the batch is 1, the symbolic sequence axis 0. */
function pastShape(input: TensorMetadata, beside: BesideConfig): number[] {
  const heads = Number(beside?.num_key_value_heads ?? beside?.num_attention_heads ?? beside?.n_head);
  return input.shape.map((extent, axis) => {
    if (typeof extent === 'number' && extent >= 0) return extent;
    if (axis === 0) return 1;
    if (axis === 1 && input.shape.length === 4 && Number.isInteger(heads)) return heads;
    return 0;
  });
}

function feedFor(input: TensorMetadata, window: Int32Array, beside: BesideConfig): Tensor {
  const length = window.length;
  switch (input.name) {
    case 'input_ids':
      return integers(input.type, window, [1, length]);
    case 'attention_mask':
      return integers(input.type, new Int32Array(length).fill(1), [1, length]);
    case 'token_type_ids':
      return integers(input.type, new Int32Array(length), [1, length]);
    case 'position_ids':
      return integers(
        input.type,
        Int32Array.from({ length }, (_, i) => i),
        [1, length],
      );
    case 'use_cache_branch':
      return new Tensor('bool', Uint8Array.of(0), [1]);
    default: {
      const dims = pastShape(input, beside);
      return input.type === 'float16'
        ? new Tensor('float16', new Uint16Array(0), dims)
        : new Tensor('float32', new Float32Array(0), dims);
    }
  }
}

function integers(type: string, values: Int32Array, dims: readonly number[]): Tensor {
  return type === 'int32'
    ? new Tensor('int32', values, dims)
    : new Tensor('int64', BigInt64Array.from(values, BigInt), dims);
}

/** Half-precision exports give float16 logits; the reduction wants f32. */
function widenLogits(logits: Tensor): Floats {
  if (logits.type !== 'float16') return floatsOf(logits);
  const halves = logits.data as unknown as Uint16Array;
  const bytes = new Uint8Array(halves.buffer, halves.byteOffset, halves.byteLength);
  const wide = new Float32Array(halves.length);
  widenToF32(bytes, 'F16', wide);
  return wide;
}
