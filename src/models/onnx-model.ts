import { existsSync } from 'node:fs';
import type { InferenceSession, Tensor } from 'onnxruntime-node';
import { InputError } from '../errors.js';
import { widenToF32 } from '../kernels/dtypes.js';
import { accumulateRows, createRowAccumulator, finalizeRows } from '../kernels/row-statistics.js';
import type { EngineOptions } from './engine.js';
import type { LanguageModel, PositionRange } from './language-model.js';
import type { Floats } from './layer-runner.js';
import { checkDecoderInput, decoderFeed, readConfigBeside, type TensorMetadata } from './onnx-feeds.js';
import { createSession, floatsOf, runSession } from './sessions.js';

/** Rows of logits that one run may produce, in bytes. */
const LOGITS_BYTES = 256 << 20;

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
  for (const input of inputs) checkDecoderInput(path, input);

  const run = async (window: Int32Array): Promise<Floats> => {
    const foreign = window.find((id) => id < 0 || id >= vocabularySize);
    if (foreign !== undefined) {
      throw new InputError(
        `${path}: token id ${foreign} is outside the vocabulary of ${vocabularySize}; ` +
          'the tokenizer does not belong to this model',
      );
    }
    const feeds: Record<string, Tensor> = {};
    for (const input of inputs) feeds[input.name] = decoderFeed(input, { tokens: window, first: 0 }, beside);
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
      const { temperature = 1, ...sums } = request;
      const accumulator = createRowAccumulator(targets.length, sums);
      await eachWindow(windows, wanted, (rows, at) => {
        if (temperature !== 1) for (let i = 0; i < rows.length; i++) rows[i] /= temperature;
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

/** Half-precision exports give float16 logits; the reduction wants f32. */
function widenLogits(logits: Tensor): Floats {
  if (logits.type !== 'float16') return floatsOf(logits);
  const halves = logits.data as unknown as Uint16Array;
  const bytes = new Uint8Array(halves.buffer, halves.byteOffset, halves.byteLength);
  const wide = new Float32Array(halves.length);
  widenToF32(bytes, 'F16', wide);
  return wide;
}
