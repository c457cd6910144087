import type { GraphComposer } from '../../src/models/graph.js';
import type { Json } from './harness.js';
import { number } from './tensors.js';

/** A small model: its weights are inputs of the graph under their own names. */
export interface ModelCase {
  readonly config: { readonly [key: string]: Json };
  /** Extents by name. */
  readonly weights: ReadonlyMap<string, readonly number[]>;
  /** Extents of the input `x`. */
  readonly input: readonly number[];
}

type Compose = (g: GraphComposer, model: ModelCase) => string;

const ints = (...values: number[]): { ints: number[] } => ({ ints: values });

function setting({ config }: ModelCase, names: readonly string[], fallback?: number): number {
  const name = names.find((candidate) => config[candidate] !== undefined && config[candidate] !== null);
  if (name !== undefined) return number(config[name], name);
  if (fallback === undefined) throw new TypeError(`the configuration has no ${names[0]}`);
  return fallback;
}

/** x W^T + b with W [out, in]. */
function linear(g: GraphComposer, x: string, weight: string, bias?: string): string {
  const product = g.node('MatMul', [x, g.node('Transpose', [weight], { attributes: { perm: ints(1, 0) } })]);
  return bias === undefined ? product : g.node('Add', [product, bias]);
}

/** x W + b with W [in, out]. */
const projected = (g: GraphComposer, x: string, name: string): string =>
  g.node('Add', [g.node('MatMul', [x, `${name}.weight`]), `${name}.bias`]);

const layerNorm = (g: GraphComposer, x: string, name: string, epsilon: number): string =>
  g.node('LayerNormalization', [x, `${name}.weight`, `${name}.bias`], { attributes: { axis: { int: -1 }, epsilon } });

const rmsNorm = (g: GraphComposer, x: string, weight: string, epsilon: number): string =>
  g.node('RMSNormalization', [x, weight], { attributes: { axis: { int: -1 }, epsilon } });

/** [B, S, heads * D] as [B, heads, S, D]. */
function headsOf(g: GraphComposer, x: string, heads: number): string {
  const apart = g.node('Reshape', [x, g.integers([0, 0, heads, -1])]);
  return g.node('Transpose', [apart], { attributes: { perm: ints(0, 2, 1, 3) } });
}

/** Attention of [B, heads, S, D] as [B, S, heads * D]. */
function attended(g: GraphComposer, queries: string, keys: string, values: string, causal: boolean): string {
  const attributes = { is_causal: { int: causal ? 1 : 0 } };
  const heads = g.node('Attention', [queries, keys, values], { attributes });
  const together = g.node('Transpose', [heads], { attributes: { perm: ints(0, 2, 1, 3) } });
  return g.node('Reshape', [together, g.integers([0, 0, -1])]);
}

function split(g: GraphComposer, x: string, parts: number, axis: number, name: string): string[] {
  const outputs = Array.from({ length: parts }, (_, i) => `${name}.part${i}`);
  g.node('Split', [x], { attributes: { axis: { int: axis }, num_outputs: { int: parts } }, outputs });
  return outputs;
}

const layersOf = (model: ModelCase): number => setting(model, ['layers', 'num_layers', 'depth']);

const llama: Compose = (g, model) => {
  const heads = setting(model, ['heads']);
  const keyHeads = setting(model, ['kv_heads'], heads);
  const width = setting(model, ['head_dim'], setting(model, ['d']) / heads);
  const epsilon = setting(model, ['eps'], 1e-6);
  const theta = setting(model, ['rope_theta'], 10000);
  const [, length] = model.input;
  const half = width / 2;
  const table = (name: string, of: (angle: number) => number): string => {
    const values = Float64Array.from({ length: length * half }, (_, i) =>
      of(Math.floor(i / half) * theta ** ((-2 * (i % half)) / width)),
    );
    return g.floats(name, values, [1, length, half]);
  };
  const rotate = (x: string): string => g.node('RotaryEmbedding', [x, table('cos', Math.cos), table('sin', Math.sin)]);
  let stream = g.node('Gather', ['embed_tokens', 'x'], { attributes: { axis: { int: 0 } } });
  for (let l = 0; l < layersOf(model); l++) {
    const name = (part: string): string => `layers.${l}.${part}`;
    const normal = rmsNorm(g, stream, name('input_layernorm'), epsilon);
    const projection = (part: string, count: number): string => headsOf(g, linear(g, normal, name(part)), count);
    const [q, k, v] = [projection('q_proj', heads), projection('k_proj', keyHeads), projection('v_proj', keyHeads)];
    const own = attended(g, rotate(q), rotate(k), v, true);
    stream = g.node('Add', [stream, linear(g, own, name('o_proj'))]);
    const inner = rmsNorm(g, stream, name('post_attention_layernorm'), epsilon);
    const gate = linear(g, inner, name('gate_proj'));
    const active = g.node('Mul', [gate, g.node('Sigmoid', [gate])]);
    const hidden = g.node('Mul', [active, linear(g, inner, name('up_proj'))]);
    stream = g.node('Add', [stream, linear(g, hidden, name('down_proj'))]);
  }
  return linear(g, rmsNorm(g, stream, 'norm', epsilon), model.weights.has('lm_head') ? 'lm_head' : 'embed_tokens');
};

const gpt2: Compose = (g, model) => {
  const heads = setting(model, ['heads']);
  const epsilon = setting(model, ['eps'], 1e-5);
  const [, length] = model.input;
  const rows = { attributes: { axis: { int: 0 } } };
  const positions = g.node('Gather', ['wpe', g.integers([...Array(length).keys()])], rows);
  let stream = g.node('Add', [g.node('Gather', ['wte', 'x'], rows), positions]);
  for (let l = 0; l < layersOf(model); l++) {
    const name = (part: string): string => `h.${l}.${part}`;
    const packed = projected(g, layerNorm(g, stream, name('ln_1'), epsilon), name('c_attn'));
    const [q, k, v] = split(g, packed, 3, 2, name('qkv')).map((part) => headsOf(g, part, heads));
    stream = g.node('Add', [stream, projected(g, attended(g, q, k, v, true), name('c_proj'))]);
    const wide = projected(g, layerNorm(g, stream, name('ln_2'), epsilon), name('mlp.c_fc'));
    const active = g.node('Gelu', [wide], { attributes: { approximate: 'tanh' } });
    stream = g.node('Add', [stream, projected(g, active, name('mlp.c_proj'))]);
  }
  return linear(g, layerNorm(g, stream, 'ln_f', epsilon), model.weights.has('lm_head') ? 'lm_head' : 'wte');
};

const convolution = (
  g: GraphComposer,
  x: string,
  name: string,
  { weights }: ModelCase,
  stride: number,
  pad: number,
): string =>
  g.node('Conv', [x, `${name}.weight`, `${name}.bias`], {
    attributes: {
      kernel_shape: ints(...(weights.get(`${name}.weight`) ?? []).slice(2)),
      strides: ints(stride, stride),
      pads: ints(pad, pad, pad, pad),
    },
  });

const cnn: Compose = (g, model) => {
  const first = g.node('Relu', [convolution(g, 'x', 'conv1', model, 1, 1)]);
  const attributes = { kernel_shape: ints(2, 2), strides: ints(2, 2) };
  const pooled = g.node('MaxPool', [first], { attributes });
  const second = g.node('Relu', [convolution(g, pooled, 'conv2', model, 2, 1)]);
  return linear(g, g.node('Flatten', [g.node('GlobalAveragePool', [second])]), 'fc.weight', 'fc.bias');
};

/** Names that vision transformers give the same parts. */
function named({ weights }: ModelCase, pattern: RegExp): string {
  const found = [...weights.keys()].find((name) => pattern.test(name));
  if (found === undefined) throw new TypeError(`no weight is named ${pattern}`);
  return found.replace(/\.(weight|bias)$/, '');
}

const vit: Compose = (g, model) => {
  const { weights, input } = model;
  const heads = setting(model, ['heads', 'num_heads']);
  const epsilon = setting(model, ['eps'], 1e-6);
  const patch = named(model, /^(patch|patch_embed|patch_embed\.proj|patch_proj|conv_proj|proj|conv)\.weight$/);
  const [width, , stride] = weights.get(`${patch}.weight`) ?? [];
  const image = convolution(g, 'x', patch, model, stride, 0);
  const patches = g.node('Transpose', [g.node('Reshape', [image, g.integers([0, 0, -1])])], {
    attributes: { perm: ints(0, 2, 1) },
  });
  const token = g.node('Reshape', [named(model, /^(cls|cls_token|class_token)$/), g.integers([1, 1, width])]);
  const tokens = g.node('Expand', [token, g.integers([input[0], 1, width])]);
  const sequence = g.node('Concat', [tokens, patches], { attributes: { axis: { int: 1 } } });
  const places = named(model, /^(pos|pos_embed|position|positions|pos_embedding|position_embedding)(\.weight)?$/);
  let stream = g.node('Add', [sequence, places]);
  const biased = (x: string, name: string): string => linear(g, x, `${name}.weight`, `${name}.bias`);
  for (let l = 0; l < layersOf(model); l++) {
    const part = (ends: string): string => named(model, new RegExp(`(^|\\.)${l}\\.(${ends})\\.weight$`));
    const packed = biased(layerNorm(g, stream, part('norm1|ln_1|ln1'), epsilon), part('(attn\\.)?qkv'));
    const [q, k, v] = split(g, packed, 3, 2, `qkv${l}`).map((one) => headsOf(g, one, heads));
    stream = g.node('Add', [stream, biased(attended(g, q, k, v, false), part('(attn\\.)?(proj|out)'))]);
    const wide = biased(layerNorm(g, stream, part('norm2|ln_2|ln2'), epsilon), part('(mlp\\.)?fc1'));
    stream = g.node('Add', [stream, biased(g.node('Gelu', [wide]), part('(mlp\\.)?fc2'))]);
  }
  const last = layerNorm(g, stream, named(model, /^(norm|ln|ln_f)\.weight$/), epsilon);
  const first = g.node('Gather', [last, g.integers([0], true)], { attributes: { axis: { int: 1 } } });
  return biased(first, named(model, /^(head|fc|classifier)\.weight$/));
};

/** Writes the model that weights of these names belong to, and returns its logits. */
export const composeModel: Compose = (g, model) => {
  const { weights } = model;
  if (weights.has('embed_tokens')) return llama(g, model);
  if (weights.has('wte')) return gpt2(g, model);
  if (weights.has('conv1.weight')) return cnn(g, model);
  return vit(g, model);
};
