import { EXPERT_MAP, type LayerDescription, type ModelDescription, routerOutputs } from './description.js';

/**
 * Names of stored tensors by role, for Hugging Face checkpoints and for GGUF. `{i}` is the layer, `{e}` the expert.
 * A role may have several names: the first that is stored wins. A name that ends in `#{e}` is a slice along the first
 * axis of a tensor that holds all experts; `#{e}:1/2` is the second half of the rows of such a slice.
 */
export interface WeightNames {
  readonly embedding: readonly string[];
  readonly head: readonly string[];
  readonly finalNorm: readonly string[];
  readonly positions?: readonly string[];
  readonly layer: Readonly<Record<string, readonly string[]>>;
}

/** A name of {@link WeightNames} taken apart, with layer and expert filled in. */
export interface WeightName {
  readonly tensor: string;
  /** Of a stack, which of its equal parts along the rows of all its matrices; each matrix has `perMatrix` of them. */
  readonly part?: { readonly index: number; readonly perMatrix: number };
}

/** Fills a template of {@link WeightNames} and takes it apart. */
export function weightName(template: string, layer: number, expert = ''): WeightName {
  const [tensor, slice, half = '0/1'] = template.replace('{i}', String(layer)).replaceAll('{e}', expert).split(/[#:]/);
  if (slice === undefined) return { tensor };
  const [place, perMatrix] = half.split('/').map(Number);
  return { tensor, part: { index: Number(slice) * perMatrix + place, perMatrix } };
}

/** `suffix` of a bias tensor beside `x.weight` is `x.bias`. */
function withBiases(layer: Record<string, string[]>, roles: readonly string[]): Record<string, string[]> {
  const all = { ...layer };
  for (const role of roles) {
    if (layer[role]) all[`${role}_bias`] = layer[role].map((name) => name.replace(/\.weight$/, '.bias'));
  }
  return all;
}

function llamaLike(overrides: Record<string, string[]> = {}): WeightNames {
  const p = 'model.layers.{i}.';
  const blocks = [`${p}mlp.`, `${p}block_sparse_moe.`];
  const expert = (own: string, mixtral: string, stack: string, slice: string): string[] => [
    `${p}mlp.experts.{e}.${own}.weight`,
    `${p}block_sparse_moe.experts.{e}.${mixtral}.weight`,
    ...blocks.flatMap((block) => ['', '.weight'].map((end) => `${block}experts.${stack}${end}#${slice}`)),
  ];
  const layer = {
    attn_norm: [`${p}input_layernorm.weight`],
    q: [`${p}self_attn.q_proj.weight`],
    k: [`${p}self_attn.k_proj.weight`],
    v: [`${p}self_attn.v_proj.weight`],
    qkv: [`${p}self_attn.qkv_proj.weight`],
    o: [`${p}self_attn.o_proj.weight`],
    q_norm: [`${p}self_attn.q_norm.weight`],
    k_norm: [`${p}self_attn.k_norm.weight`],
    mlp_norm: [`${p}post_attention_layernorm.weight`],
    gate: [`${p}mlp.gate_proj.weight`],
    up: [`${p}mlp.up_proj.weight`],
    gate_up: [`${p}mlp.gate_up_proj.weight`],
    down: [`${p}mlp.down_proj.weight`],
    router: blocks.map((block) => `${block}gate.weight`),
    [EXPERT_MAP]: blocks.map((block) => `${block}gate.expert_map`),
    'expert.{e}.gate': expert('gate_proj', 'w1', 'gate_up_proj', '{e}:0/2'),
    'expert.{e}.up': expert('up_proj', 'w3', 'gate_up_proj', '{e}:1/2'),
    'expert.{e}.down': expert('down_proj', 'w2', 'down_proj', '{e}'),
    'shared.gate': [`${p}mlp.shared_expert.gate_proj.weight`],
    'shared.up': [`${p}mlp.shared_expert.up_proj.weight`],
    'shared.down': [`${p}mlp.shared_expert.down_proj.weight`],
    'shared.router': [`${p}mlp.shared_expert_gate.weight`],
    ...overrides,
  };
  return {
    embedding: ['model.embed_tokens.weight'],
    head: ['lm_head.weight'],
    finalNorm: ['model.norm.weight'],
    layer: withBiases(layer, ['q', 'k', 'v', 'qkv', 'o', 'gate', 'up', 'gate_up', 'down']),
  };
}

const GEMMA_PREFIX = 'model.layers.{i}.';
const GEMMA = llamaLike({
  attn_post_norm: [`${GEMMA_PREFIX}post_attention_layernorm.weight`],
  mlp_norm: [`${GEMMA_PREFIX}pre_feedforward_layernorm.weight`],
  mlp_post_norm: [`${GEMMA_PREFIX}post_feedforward_layernorm.weight`],
});

const GPT2: WeightNames = {
  embedding: ['transformer.wte.weight'],
  head: ['lm_head.weight'],
  finalNorm: ['transformer.ln_f.weight'],
  positions: ['transformer.wpe.weight'],
  layer: withBiases(
    {
      attn_norm: ['transformer.h.{i}.ln_1.weight'],
      qkv: ['transformer.h.{i}.attn.c_attn.weight'],
      o: ['transformer.h.{i}.attn.c_proj.weight'],
      mlp_norm: ['transformer.h.{i}.ln_2.weight'],
      up: ['transformer.h.{i}.mlp.c_fc.weight'],
      down: ['transformer.h.{i}.mlp.c_proj.weight'],
    },
    ['attn_norm', 'qkv', 'o', 'mlp_norm', 'up', 'down'],
  ),
};

const GPT_NEOX: WeightNames = {
  embedding: ['gpt_neox.embed_in.weight'],
  head: ['embed_out.weight', 'lm_head.weight'],
  finalNorm: ['gpt_neox.final_layer_norm.weight'],
  layer: withBiases(
    {
      attn_norm: ['gpt_neox.layers.{i}.input_layernorm.weight'],
      qkv: ['gpt_neox.layers.{i}.attention.query_key_value.weight'],
      o: ['gpt_neox.layers.{i}.attention.dense.weight'],
      mlp_norm: ['gpt_neox.layers.{i}.post_attention_layernorm.weight'],
      up: ['gpt_neox.layers.{i}.mlp.dense_h_to_4h.weight'],
      down: ['gpt_neox.layers.{i}.mlp.dense_4h_to_h.weight'],
    },
    ['attn_norm', 'qkv', 'o', 'mlp_norm', 'up', 'down'],
  ),
};

const LLAMA = llamaLike();
const BY_TYPE: Readonly<Record<string, WeightNames>> = {
  gemma2: GEMMA,
  gemma3_text: GEMMA,
  gpt2: GPT2,
  gpt_neox: GPT_NEOX,
};

/** Names in Hugging Face checkpoints of this model type. */
export function huggingFaceNames(modelType: string): WeightNames {
  return BY_TYPE[modelType] ?? LLAMA;
}

const b = 'blk.{i}.';

/** Names in GGUF files, the same for every architecture. */
export const GGUF_NAMES: WeightNames = {
  embedding: ['token_embd.weight'],
  head: ['output.weight'],
  finalNorm: ['output_norm.weight'],
  positions: ['position_embd.weight'],
  layer: withBiases(
    {
      attn_norm: [`${b}attn_norm.weight`],
      q: [`${b}attn_q.weight`],
      k: [`${b}attn_k.weight`],
      v: [`${b}attn_v.weight`],
      qkv: [`${b}attn_qkv.weight`],
      o: [`${b}attn_output.weight`],
      q_norm: [`${b}attn_q_norm.weight`],
      k_norm: [`${b}attn_k_norm.weight`],
      attn_post_norm: [`${b}post_attention_norm.weight`],
      mlp_norm: [`${b}ffn_norm.weight`],
      mlp_post_norm: [`${b}post_ffw_norm.weight`],
      gate: [`${b}ffn_gate.weight`],
      up: [`${b}ffn_up.weight`],
      gate_up: [`${b}ffn_up.weight`],
      down: [`${b}ffn_down.weight`],
      router: [`${b}ffn_gate_inp.weight`],
      'expert.{e}.gate': [`${b}ffn_gate_exps.weight#{e}`, `${b}ffn_gate.{e}.weight`],
      'expert.{e}.up': [`${b}ffn_up_exps.weight#{e}`, `${b}ffn_up.{e}.weight`],
      'expert.{e}.down': [`${b}ffn_down_exps.weight#{e}`, `${b}ffn_down.{e}.weight`],
      'shared.gate': [`${b}ffn_gate_shexp.weight`],
      'shared.up': [`${b}ffn_up_shexp.weight`],
      'shared.down': [`${b}ffn_down_shexp.weight`],
      'shared.router': [`${b}ffn_gate_inp_shexp.weight`],
    },
    ['attn_norm', 'mlp_norm', 'q', 'k', 'v', 'qkv', 'o', 'gate', 'up', 'gate_up', 'down'],
  ),
};

/** Roles of one layer with the shape each weight must have: exactly the weight inputs of the layer's graph. */
export function layerWeightShapes(model: ModelDescription, layer: LayerDescription): Map<string, number[]> {
  const shapes = new Map<string, number[]>();
  const hidden = model.hiddenSize;
  const matrix = (role: string, out: number, input: number, bias: boolean): void => {
    shapes.set(role, model.linearLayout === 'out-in' ? [out, input] : [input, out]);
    if (bias) shapes.set(`${role}_bias`, [out]);
  };
  const norm = (role: string, width: number, kind = model.norm.kind): void => {
    shapes.set(role, [width]);
    if (kind === 'layer') shapes.set(`${role}_bias`, [width]);
  };

  const a = layer.attention;
  const qWidth = a.heads * a.headDim;
  const kvWidth = a.kvHeads * a.headDim;
  norm('attn_norm', hidden);
  if (a.projection === 'separate') {
    matrix('q', qWidth, hidden, a.qkvBias);
    matrix('k', kvWidth, hidden, a.qkvBias);
    matrix('v', kvWidth, hidden, a.qkvBias);
  } else {
    matrix('qkv', qWidth + 2 * kvWidth, hidden, a.qkvBias);
  }
  if (a.qkNorm) {
    norm('q_norm', a.qkNorm === 'head' ? a.headDim : qWidth);
    norm('k_norm', a.qkNorm === 'head' ? a.headDim : kvWidth);
  }
  matrix('o', hidden, qWidth, a.outputBias);
  if (layer.branchNorms) norm('attn_post_norm', hidden);
  norm('mlp_norm', hidden);
  if (layer.branchNorms) norm('mlp_post_norm', hidden);

  const mlp = layer.mlp;
  const gatedMlp = (prefix: string, width: number, bias: boolean): void => {
    matrix(`${prefix}gate`, width, hidden, bias);
    matrix(`${prefix}up`, width, hidden, bias);
    matrix(`${prefix}down`, hidden, width, bias);
  };
  if (mlp.kind === 'moe') {
    matrix('router', routerOutputs(mlp), hidden, false);
    if (mlp.routerOutputs !== undefined) shapes.set(EXPERT_MAP, [mlp.routerOutputs]);
    for (let e = 0; e < mlp.experts; e++) gatedMlp(`expert.${e}.`, mlp.width, false);
    if (mlp.shared) gatedMlp('shared.', mlp.shared.width, false);
    if (mlp.shared?.gated) matrix('shared.router', 1, hidden, false);
  } else if (!mlp.gated) {
    matrix('up', mlp.width, hidden, mlp.bias);
    matrix('down', hidden, mlp.width, mlp.bias);
  } else if (mlp.fusedGateUp) {
    matrix('gate_up', 2 * mlp.width, hidden, mlp.bias);
    matrix('down', hidden, mlp.width, mlp.bias);
  } else {
    gatedMlp('', mlp.width, mlp.bias);
  }
  return shapes;
}
