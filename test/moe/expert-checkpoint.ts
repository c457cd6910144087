import type { DType } from '../../src/formats/tensor.js';
import { narrowFromF32 } from '../../src/kernels/dtypes.js';
import { type Checkpoint, type RawTensor, writeCheckpoint } from '../models/rewritten-checkpoint.js';

/** Sizes of a made-up checkpoint. */
export interface Sizes {
  readonly hidden: number;
  readonly width: number;
  readonly experts: number;
  readonly topK: number;
  readonly dtype: 'F32' | 'BF16' | 'F16';
}

export const SIZES: Sizes = { hidden: 8, width: 6, experts: 4, topK: 2, dtype: 'BF16' };

/** Entry (r, c) of a matrix that `key` names: few digits, so that every type holds it. */
export function entry(key: string, r: number, c: number): number {
  let hash = 2166136261;
  for (const character of `${key}/${r}/${c}`) hash = Math.imul(hash ^ character.charCodeAt(0), 16777619) >>> 0;
  hash = Math.imul(hash ^ (hash >>> 15), 2246822507) >>> 0;
  return ((hash >>> 16) % 255) / 64 - 2;
}

/** The matrix that `key` names, row-major. */
export function matrix(key: string, rows: number, columns: number): Float32Array {
  return Float32Array.from({ length: rows * columns }, (_, i) => entry(key, Math.floor(i / columns), i % columns));
}

export function stored(values: Float32Array, shape: readonly number[], dtype: DType = 'F32'): RawTensor {
  const bytes = new Uint8Array(values.length * (dtype === 'F32' ? 4 : 2));
  narrowFromF32(values, dtype as 'F32', bytes);
  return { dtype, shape, bytes };
}

export function transposed(values: Float32Array, rows: number, columns: number): Float32Array {
  return Float32Array.from({ length: values.length }, (_, i) => values[(i % rows) * columns + Math.floor(i / rows)]);
}

/** gate, up and down of expert `e` of a layer, as every reader must see them. */
export function expertOf(layer: string, e: number, { hidden, width }: Sizes) {
  return {
    gate: matrix(`${layer} gate ${e}`, width, hidden),
    up: matrix(`${layer} up ${e}`, width, hidden),
    down: matrix(`${layer} down ${e}`, hidden, width),
  };
}

function concatenated(parts: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

export type Arrangement = 'w123' | 'projections' | 'switch' | 'fused-rows' | 'fused-columns';

/** Router and experts of one layer; `block` is the name of its sparse block, `layer` the key of its values. */
export function sparseBlock(
  tensors: Checkpoint,
  block: string,
  layer: string,
  sizes: Sizes,
  arrangement: Arrangement,
  { router = 'gate.weight', suffix = '' } = {},
): void {
  const { hidden, width, experts, dtype } = sizes;
  const put = (name: string, values: Float32Array, shape: readonly number[]): void => {
    tensors.set(`${block}.${name}`, stored(values, shape, dtype));
  };
  put(router, matrix(`${layer} router`, experts, hidden), [experts, hidden]);
  const all = Array.from({ length: experts }, (_, e) => expertOf(layer, e, sizes));
  const names = {
    w123: ['experts.{e}.w1', 'experts.{e}.w3', 'experts.{e}.w2'],
    projections: ['experts.{e}.gate_proj', 'experts.{e}.up_proj', 'experts.{e}.down_proj'],
    switch: [undefined, 'experts.expert_{e}.wi', 'experts.expert_{e}.wo'],
  };
  if (arrangement === 'fused-rows') {
    put(`experts.gate_up_proj${suffix}`, concatenated(all.flatMap(({ gate, up }) => [gate, up])), [
      experts,
      2 * width,
      hidden,
    ]);
    put(`experts.down_proj${suffix}`, concatenated(all.map(({ down }) => down)), [experts, hidden, width]);
  } else if (arrangement === 'fused-columns') {
    const turned = all.map(({ gate, up }) => transposed(concatenated([gate, up]), 2 * width, hidden));
    put(`experts.gate_up_proj${suffix}`, concatenated(turned), [experts, hidden, 2 * width]);
    const downs = all.map(({ down }) => transposed(down, hidden, width));
    put(`experts.down_proj${suffix}`, concatenated(downs), [experts, width, hidden]);
  } else {
    const [gateName, upName, downName] = names[arrangement];
    for (const [e, { gate, up, down }] of all.entries()) {
      const name = (template: string): string => `${template.replace('{e}', String(e))}.weight`;
      if (gateName !== undefined) put(name(gateName), gate, [width, hidden]);
      put(name(upName ?? ''), up, [width, hidden]);
      put(name(downName ?? ''), down, [hidden, width]);
    }
  }
}

/** A made-up checkpoint: its config, and tensors that no expert needs among them. */
export interface MadeModel {
  readonly config: Record<string, unknown>;
  readonly tensors: Checkpoint;
  /** Keys of the values of its sparse layers, in order. */
  readonly layers: readonly string[];
}

/** What a model's tensors have beside its sparse blocks. */
function surroundings(tensors: Checkpoint, { hidden, dtype }: Sizes): void {
  tensors.set('model.embed_tokens.weight', stored(matrix('embedding', 5, hidden), [5, hidden], dtype));
  tensors.set('lm_head.weight', stored(matrix('head', 5, hidden), [5, hidden], dtype));
}

/** Mixtral with two layers. */
export function mixtral(sizes = SIZES, arrangement: Arrangement = 'w123', suffix = ''): MadeModel {
  const tensors: Checkpoint = new Map();
  surroundings(tensors, sizes);
  const layers = ['0', '1'];
  const block = arrangement === 'w123' ? 'block_sparse_moe' : 'mlp';
  for (const layer of layers)
    sparseBlock(tensors, `model.layers.${layer}.${block}`, layer, sizes, arrangement, { suffix });
  const config = {
    architectures: ['MixtralForCausalLM'],
    model_type: 'mixtral',
    hidden_size: sizes.hidden,
    intermediate_size: sizes.width,
    num_hidden_layers: 2,
    num_local_experts: sizes.experts,
    num_experts_per_tok: sizes.topK,
  };
  return { config, tensors, layers };
}

/** A family with dense and shared parts beside its experts, whose names are projections; three layers. */
export function projections(
  type: string,
  sparse: readonly number[],
  extra: Record<string, unknown>,
  { sizes = SIZES, arrangement = 'projections' as Arrangement, shared = '', prefix = 'model.' } = {},
): MadeModel {
  const tensors: Checkpoint = new Map();
  surroundings(tensors, sizes);
  for (const layer of [0, 1, 2]) {
    const block = `${prefix}layers.${layer}.mlp`;
    const dense = sparse.includes(layer) ? shared : 'gate_proj';
    if (dense !== '') tensors.set(`${block}.${dense}.weight`, stored(matrix('dense', 2, 8), [2, 8], sizes.dtype));
    if (sparse.includes(layer)) sparseBlock(tensors, block, String(layer), sizes, arrangement);
  }
  const config = {
    model_type: type,
    hidden_size: sizes.hidden,
    intermediate_size: 99,
    moe_intermediate_size: sizes.width,
    num_hidden_layers: 3,
    num_experts_per_tok: sizes.topK,
    ...extra,
  };
  return { config, tensors, layers: sparse.map(String) };
}

/** DeepSeek-V3 with one dense layer, groups, and a layer that predicts a further token. */
export function deepseekV3(sizes: Sizes = { ...SIZES, experts: 8 }): MadeModel {
  const made = projections(
    'deepseek_v3',
    [1, 2],
    {
      n_routed_experts: sizes.experts,
      first_k_dense_replace: 1,
      scoring_func: 'sigmoid',
      norm_topk_prob: true,
      n_group: 2,
      topk_group: 1,
      num_nextn_predict_layers: 1,
    },
    { sizes, shared: 'shared_experts.up_proj' },
  );
  for (const layer of ['1', '2', '3']) {
    const block = `model.layers.${layer}.mlp`;
    const bias = matrix(`${layer} bias`, sizes.experts, 1);
    made.tensors.set(`${block}.gate.e_score_correction_bias`, stored(bias, [sizes.experts], 'F32'));
  }
  sparseBlock(made.tensors, 'model.layers.3.mlp', '3', sizes, 'projections');
  return made;
}

/** Switch: experts in encoder block 1 and decoder blocks 1 and 3. */
export function switchTransformer(sizes = SIZES): MadeModel {
  const tensors: Checkpoint = new Map();
  const router = 'router.classifier.weight';
  const layers = ['encoder.block.1', 'decoder.block.1', 'decoder.block.3'];
  for (const layer of layers) {
    const sublayer = layer.startsWith('encoder') ? 1 : 2;
    sparseBlock(tensors, `${layer}.layer.${sublayer}.mlp`, layer, sizes, 'switch', { router });
  }
  tensors.set('shared.weight', stored(matrix('shared', 5, sizes.hidden), [5, sizes.hidden], sizes.dtype));
  const config = {
    architectures: ['SwitchTransformersForConditionalGeneration'],
    model_type: 'switch_transformers',
    d_model: sizes.hidden,
    d_ff: sizes.width,
    num_layers: 2,
    num_sparse_encoder_layers: 1,
    num_decoder_layers: 4,
    num_sparse_decoder_layers: 2,
    num_experts: sizes.experts,
  };
  return { config, tensors, layers };
}

export function writeModel(path: string, { config, tensors }: MadeModel): string {
  return writeCheckpoint(path, config, tensors);
}
