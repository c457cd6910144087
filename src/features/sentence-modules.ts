import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { InputError } from '../errors.js';
import { openSafetensors } from '../formats/safetensors.js';
import { readJson } from '../models/model-files.js';
import { createWeightReader } from '../models/weights.js';
import type { Pooling } from './pooling.js';

/** A linear map after pooling. */
export interface DenseModule {
  readonly input: number;
  readonly output: number;
  /** `[output, input]` */
  readonly weight: Float64Array;
  readonly bias: Float64Array | undefined;
  readonly tanh: boolean;
}

/** What a sentence-transformers directory says of the way from hidden states to an embedding. */
export interface SentenceModules {
  readonly pool: Pooling;
  readonly dense: readonly DenseModule[];
  /** Whether the embedding is scaled to length 1 at the end. */
  readonly normalise: boolean;
  /** Most tokens of a text; undefined: as many as the model has positions. */
  readonly maxTokens: number | undefined;
}

const POOLING_KEYS: readonly (readonly [key: string, pool: Pooling])[] = [
  ['pooling_mode_cls_token', 'cls'],
  ['pooling_mode_mean_tokens', 'mean'],
  ['pooling_mode_max_tokens', 'max'],
  ['pooling_mode_mean_sqrt_len_tokens', 'mean-sqrt'],
  ['pooling_mode_lasttoken', 'last'],
];

function readPooling(path: string): Pooling {
  const config = readJson(path);
  const chosen = POOLING_KEYS.filter(([key]) => config[key] === true);
  const named = typeof config.pooling_mode === 'string' ? config.pooling_mode : undefined;
  const byName = POOLING_KEYS.find(([, pool]) => pool === named || (named === 'lasttoken' && pool === 'last'));
  if (chosen.length === 0 && byName) return byName[1];
  if (chosen.length === 1) return chosen[0][1];
  throw new InputError(
    `${path}: ${chosen.length === 0 ? 'names no pooling that is known' : 'joins several poolings, which is not read'}; ` +
      'choose one with --pool',
  );
}

function readDense(directory: string): DenseModule {
  const config = readJson(join(directory, 'config.json'));
  const [input, output] = [Number(config.in_features), Number(config.out_features)];
  const activation = String(config.activation_function ?? 'torch.nn.modules.activation.Tanh');
  if (!/\.(Tanh|Identity)$/.test(activation)) {
    throw new InputError(`${directory}: activation ${activation} is not read; export the model to ONNX`);
  }
  const store = openSafetensors(directory);
  try {
    const reader = createWeightReader(1);
    const read = (name: string, shape: number[]): Float64Array => {
      const tensor = store.tensors.get(name);
      if (!tensor || tensor.shape.join() !== shape.join()) {
        throw new InputError(`${directory}: tensor "${name}" [${shape}] is missing`);
      }
      const target = new Float64Array(shape.reduce((product, extent) => product * extent, 1));
      reader.read({ store, tensor, start: 0, byteLength: tensor.byteLength, shape }, target);
      return target;
    };
    return {
      input,
      output,
      weight: read('linear.weight', [output, input]),
      bias: config.bias === false ? undefined : read('linear.bias', [output]),
      tanh: activation.endsWith('Tanh'),
    };
  } finally {
    store.close();
  }
}

/**
 * Reads `modules.json` of a sentence-transformers directory; undefined where there is none.
 * @throws InputError for a module or an option that is not known
 */
export function readSentenceModules(directory: string): SentenceModules | undefined {
  const list = join(directory, 'modules.json');
  if (!existsSync(list)) return undefined;
  let pool: Pooling = 'mean';
  let normalise = false;
  const dense: DenseModule[] = [];
  for (const { type, path } of readModuleList(list)) {
    const kind = type.split('.').pop() ?? '';
    if (kind === 'Transformer') continue;
    if (kind === 'Pooling') pool = readPooling(join(directory, path, 'config.json'));
    else if (kind === 'Normalize') normalise = true;
    else if (kind === 'Dense') dense.push(readDense(join(directory, path)));
    else throw new InputError(`${list}: module "${type}" is not known; export the model to ONNX`);
  }
  const settings = join(directory, 'sentence_bert_config.json');
  const most = existsSync(settings) ? readJson(settings).max_seq_length : undefined;
  return { pool, dense, normalise, maxTokens: typeof most === 'number' ? most : undefined };
}

function readModuleList(path: string): { type: string; path: string }[] {
  let list: unknown;
  try {
    list = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new InputError(`${path}: not valid JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
  if (!Array.isArray(list)) throw new InputError(`${path}: expected a list of modules`);
  return list.map((entry: { type?: unknown; path?: unknown }) => ({
    type: String(entry.type),
    path: String(entry.path ?? ''),
  }));
}

/** Applies the linear maps and the scaling to a pooled row. */
export function finishEmbedding(
  row: Float64Array,
  modules: Pick<SentenceModules, 'dense' | 'normalise'>,
): Float64Array {
  let current = row;
  for (const { input, output, weight, bias, tanh } of modules.dense) {
    if (current.length !== input) throw new InputError(`a dense module of ${input} inputs was given ${current.length}`);
    const next = new Float64Array(output);
    for (let o = 0; o < output; o++) {
      let sum = bias?.[o] ?? 0;
      for (let i = 0; i < input; i++) sum += weight[o * input + i] * current[i];
      next[o] = tanh ? Math.tanh(sum) : sum;
    }
    current = next;
  }
  if (!modules.normalise) return current;
  const length = Math.sqrt(current.reduce((sum, value) => sum + value * value, 0));
  return length > 0 ? current.map((value) => value / length) : current;
}
