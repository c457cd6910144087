import { join } from 'node:path';
import { didYouMean, InputError } from '../errors.js';
import type { HashedFile } from '../formats/hash.js';
import { matchesPattern } from '../formats/name-patterns.js';
import { openSafetensors } from '../formats/safetensors.js';
import { encodeSafetensors } from '../formats/safetensors-writer.js';
import { type DType, elementCount, type TensorStore } from '../formats/tensor.js';
import { widenToF32, widenToF64 } from '../kernels/dtypes.js';
import type { Config } from '../models/config-reader.js';
import { writeHashed } from '../models/model-directory.js';
import { type ModelFiles, readJson } from '../models/model-files.js';
import { ADAPTER_CONFIG, ADAPTER_FILE, loraScale, PEFT_PREFIX } from '../models/peft-adapter.js';
import { huggingFaceNames } from '../models/weight-names.js';
import type { Random } from '../random.js';
import type { LowRankAdapter } from './decoder-weights.js';
import type { Floats, ParameterSet, Precision } from './types.js';

/** Which linears get a low-rank term, and how large it is (Hu et al. 2021, LoRA). */
export interface LoraOptions {
  readonly rank: number;
  /** The term is multiplied by alpha / rank. */
  readonly alpha: number;
  /**
   * Globs of tensor names, or last parts of module names as PEFT takes them (`q_proj`, `self_attn.q_proj`); all linears of
   * the layers but routers and experts when absent.
   */
  readonly targets?: readonly string[];
  readonly precision: Precision;
}

/** A matrix that can have a low-rank term. */
interface Linear {
  /** Name under which the student trains it. */
  readonly tensor: string;
  /** Module of transformers that holds it. */
  readonly module: string;
  readonly out: number;
  readonly input: number;
}

/** The linears of the layers that are matrices of their own, routers and experts left out. */
function linearsOf({ weights, description, format }: ModelFiles): Linear[] {
  const { layer: names } = huggingFaceNames(description.modelType);
  return weights.layers.flatMap((layer, l) =>
    [...layer].flatMap(([role, { shape, tensor }]) => {
      if (shape.length !== 2 || /^expert\.|(^|\.)router/.test(role)) return [];
      const standard = names[role]?.[0]?.replace('{i}', String(l)) ?? tensor.name;
      const stored = format === 'gguf' ? standard : tensor.name;
      const complete = /^(model|transformer|gpt_neox)\./.test(stored);
      const [out, input] = description.linearLayout === 'out-in' ? shape : [shape[1], shape[0]];
      return [{ tensor: stored, module: (complete ? stored : standard).replace(/\.weight$/, ''), out, input }];
    }),
  );
}

/** @throws InputError for a target that matches nothing */
function chooseLinears(files: ModelFiles, targets: readonly string[] | undefined): Linear[] {
  const all = linearsOf(files);
  if (targets === undefined) return all;
  const chosen = new Set<Linear>();
  for (const target of targets) {
    const matches = all.filter(
      ({ tensor, module }) => matchesPattern(tensor, target) || module === target || module.endsWith(`.${target}`),
    );
    if (matches.length === 0) {
      const parts = [...new Set(all.map(({ module }) => module.slice(module.lastIndexOf('.') + 1)))];
      throw new InputError(
        `no linear of ${files.path} is named "${target}"${didYouMean(target, parts)}; its linears: ${parts.join(', ')}`,
      );
    }
    for (const match of matches) chosen.add(match);
  }
  return all.filter((linear) => chosen.has(linear));
}

const floats = (precision: Precision, length: number): Floats =>
  precision === 'f32' ? new Float32Array(length) : new Float64Array(length);

const keys = (module: string): readonly [a: string, b: string] => [
  `${PEFT_PREFIX}${module}.lora_A.weight`,
  `${PEFT_PREFIX}${module}.lora_B.weight`,
];

/**
 * Adapters that change nothing yet: A uniform on +-1/sqrt(in) (Kaiming with slope sqrt 5, as PEFT starts it), B zero. Names
 * are those of PEFT's files.
 * @throws InputError for a target without a linear, or a rank above the smaller side of one
 */
export function createAdapters(files: ModelFiles, options: LoraOptions, random: Random): LowRankAdapter[] {
  const { rank, alpha, precision } = options;
  return chooseLinears(files, options.targets).map(({ tensor, module, out, input }, i) => {
    if (!Number.isInteger(rank) || rank < 1 || rank > Math.min(out, input)) {
      throw new InputError(
        `rank ${rank}: the linear "${module}" is [${out}, ${input}]; choose a rank up to ${Math.min(out, input)}`,
      );
    }
    const stream = random.fork(i);
    const a = floats(precision, rank * input);
    const bound = 1 / Math.sqrt(input);
    for (let j = 0; j < a.length; j++) a[j] = bound * (2 * stream.uniform() - 1);
    const [aName, bName] = keys(module);
    return {
      tensor,
      rank,
      scale: alpha / rank,
      a: { name: aName, values: a },
      b: { name: bName, values: floats(precision, out * rank) },
    };
  });
}

/** What PEFT reads beside the weights. */
export interface AdapterHead {
  readonly rank: number;
  readonly alpha: number;
  /** Model that the adapter belongs to, as it is written in the file. */
  readonly base: string;
}

/** Last parts of the adapted modules' names where they name these modules alone, whole names otherwise. */
function targetModules(files: ModelFiles, adapted: ReadonlySet<string>): string[] {
  const all = linearsOf(files);
  for (const parts of [1, 2]) {
    const endOf = (module: string): string => module.split('.').slice(-parts).join('.');
    const ends = new Set([...adapted].map(endOf));
    if (all.every(({ module }) => adapted.has(module) === ends.has(endOf(module)))) return [...ends].sort();
  }
  return [...adapted].sort();
}

/**
 * Writes adapters as PEFT does: `adapter_config.json` and `adapter_model.safetensors`, F32.
 * @param parameters where the trained A and B lie, under their names
 * @throws RunError when the disk is full
 */
export function writePeftAdapter(
  directory: string,
  files: ModelFiles,
  adapters: readonly LowRankAdapter[],
  parameters: ParameterSet,
  head: AdapterHead,
): HashedFile[] {
  const byName = new Map(parameters.parameters.map((parameter) => [parameter.name, parameter]));
  const tensors = adapters.flatMap(({ a, b }) =>
    [a, b].map(({ name, values }) => {
      const own = byName.get(name);
      const data = own ? parameters.values.subarray(own.offset, own.offset + own.length) : values;
      const rank = own?.dims ?? [];
      return { name, dtype: 'F32' as const, shape: rank, data: Float32Array.from(data) };
    }),
  );
  const modules = new Set(adapters.map(({ a }) => a.name.slice(PEFT_PREFIX.length, -'.lora_A.weight'.length)));
  const config = {
    alpha_pattern: {},
    base_model_name_or_path: head.base,
    bias: 'none',
    fan_in_fan_out: files.description.linearLayout === 'in-out',
    inference_mode: true,
    init_lora_weights: true,
    layers_pattern: null,
    layers_to_transform: null,
    lora_alpha: head.alpha,
    lora_dropout: 0.0,
    modules_to_save: null,
    peft_type: 'LORA',
    r: head.rank,
    rank_pattern: {},
    target_modules: targetModules(files, modules),
    task_type: 'CAUSAL_LM',
    use_dora: false,
    use_rslora: false,
  };
  return [
    writeHashed(directory, ADAPTER_CONFIG, `${JSON.stringify(config, null, 2)}\n`),
    writeHashed(directory, ADAPTER_FILE, encodeSafetensors(tensors, { format: 'pt' })),
  ];
}

/**
 * Reads a PEFT adapter for a model, to go on with its training or to merge it.
 * @throws InputError for a kind of adapter other than LoRA, parts beside A and B, and modules that the model does not have
 */
export function readPeftAdapter(directory: string, files: ModelFiles, precision: Precision): LowRankAdapter[] {
  const path = join(directory, ADAPTER_CONFIG);
  const config = readJson(path);
  refuseOthers(config, path);
  const store = openSafetensors(join(directory, ADAPTER_FILE));
  try {
    return adaptersOf(store, config, path, files, precision);
  } finally {
    store.close();
  }
}

function refuseOthers(config: Config, path: string): void {
  const refuse = (key: string, wanted: string): never => {
    throw new InputError(`${path}: "${key}" is ${JSON.stringify(config[key])}; ${wanted}`);
  };
  if (config.peft_type !== 'LORA') refuse('peft_type', 'only LORA adapters are read');
  if (config.use_dora === true) refuse('use_dora', 'weight-decomposed adapters are not read');
  const bias = config.bias ?? 'none';
  if (bias !== 'none') refuse('bias', 'adapters with biases are not read');
  const saved = config.modules_to_save;
  if (Array.isArray(saved) && saved.length > 0) refuse('modules_to_save', 'whole modules in an adapter are not read');
}

function adaptersOf(
  store: TensorStore,
  config: Config,
  path: string,
  files: ModelFiles,
  precision: Precision,
): LowRankAdapter[] {
  const byModule = new Map(linearsOf(files).map((linear) => [linear.module, linear]));
  const stray = [...store.tensors.keys()].find((name) => !/\.lora_[AB]\.weight$/.test(name));
  if (stray !== undefined)
    throw new InputError(`${store.path}: tensor "${stray}" is no part of a LoRA adapter of linears`);
  const read = (name: string): { readonly values: Floats; readonly shape: readonly number[] } => {
    const info = store.tensors.get(name);
    if (!info) throw new InputError(`${store.path}: tensor "${name}" is missing`);
    const bytes = new Uint8Array(info.byteLength);
    store.readInto(info, 0, bytes.length, bytes);
    const count = elementCount(info.shape);
    const values = precision === 'f32' ? new Float32Array(count) : new Float64Array(count);
    if (values instanceof Float32Array) widenToF32(bytes, info.dtype as DType, values);
    else widenToF64(bytes, info.dtype as DType, values);
    return { values, shape: info.shape };
  };
  const modules = [...store.tensors.keys()].flatMap((name) =>
    name.endsWith('.lora_A.weight') ? [name.slice(PEFT_PREFIX.length, -'.lora_A.weight'.length)] : [],
  );
  return modules.map((module) => {
    const linear = byModule.get(module);
    if (!linear) {
      throw new InputError(
        `${store.path}: ${files.path} has no linear "${module}"${didYouMean(module, [...byModule.keys()])}`,
      );
    }
    const [aName, bName] = keys(module);
    const [a, b] = [read(aName), read(bName)];
    const [rank, input] = a.shape;
    const fits = input === linear.input && b.shape[0] === linear.out && b.shape[1] === rank;
    if (!fits) {
      throw new InputError(
        `${store.path}: the adapter of "${module}" is [${a.shape}] and [${b.shape}]; the linear is [${linear.out}, ${linear.input}]`,
      );
    }
    return {
      tensor: linear.tensor,
      rank,
      scale: loraScale(config, module, rank, path),
      a: { name: aName, values: a.values },
      b: { name: bName, values: b.values },
    };
  });
}
