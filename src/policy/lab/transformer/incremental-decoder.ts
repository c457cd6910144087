import { multiply } from '../../../kernels/gemm.js';
import type { LayerDescription, ModelDescription } from '../../../models/description.js';
import type { MemoryTensor } from '../../../models/memory-model.js';
import { ropeFrequencies, ropeTables } from '../../../models/rope.js';

/** One position of some rows. */
export interface DecodedRows {
  /** [rows, vocabulary]. */
  readonly logits: Float32Array;
  /** [rows, hidden]: what the head reads, behind the final norm. */
  readonly features: Float32Array;
}

/** Reads sequences token by token, keys and values of earlier positions kept. */
export interface IncrementalDecoder {
  /**
   * Feeds one token to each of `rows`, all at the same position; earlier positions of these rows must have been fed.
   * The results are valid until the next call.
   */
  feed(rows: Int32Array, tokens: Int32Array, position: number): DecodedRows;
}

interface LayerWeights {
  readonly inputNorm: Float32Array;
  readonly q: Float32Array;
  readonly k: Float32Array;
  readonly v: Float32Array;
  readonly o: Float32Array;
  readonly mlpNorm: Float32Array;
  readonly gate: Float32Array;
  readonly up: Float32Array;
  readonly down: Float32Array;
}

function checkLayer({ attention, mlp, branchNorms, parallel }: LayerDescription): void {
  const plain =
    attention.projection === 'separate' &&
    !attention.qkvBias &&
    !attention.outputBias &&
    attention.qkNorm === undefined &&
    attention.window === undefined &&
    attention.softcap === undefined &&
    attention.clip === undefined &&
    attention.rope !== undefined &&
    attention.heads === attention.kvHeads &&
    mlp.kind === 'dense' &&
    mlp.gated &&
    !mlp.bias &&
    mlp.activation === 'silu';
  if (!plain || branchNorms || parallel) throw new RangeError('the incremental decoder reads plain Llama layers alone');
}

const NAMES: Readonly<Record<keyof LayerWeights, string>> = {
  inputNorm: 'input_layernorm',
  q: 'self_attn.q_proj',
  k: 'self_attn.k_proj',
  v: 'self_attn.v_proj',
  o: 'self_attn.o_proj',
  mlpNorm: 'post_attention_layernorm',
  gate: 'mlp.gate_proj',
  up: 'mlp.up_proj',
  down: 'mlp.down_proj',
};

/** x / sqrt(mean x^2 + epsilon) * weight, row by row. */
function rmsNorm(x: Float32Array, weight: Float32Array, out: Float32Array, rows: number, epsilon: number): void {
  const width = weight.length;
  for (let r = 0; r < rows; r++) {
    const at = r * width;
    let squares = 0;
    for (let i = 0; i < width; i++) squares += x[at + i] * x[at + i];
    const scale = 1 / Math.sqrt(squares / width + epsilon);
    for (let i = 0; i < width; i++) out[at + i] = x[at + i] * scale * weight[i];
  }
}

/** Rotates pairs (i, i + half) of every head by the angles of one position. */
function rotate(x: Float32Array, rows: number, heads: number, cos: Float32Array, sin: Float32Array): void {
  const half = cos.length;
  for (let head = 0; head < rows * heads; head++) {
    const at = head * 2 * half;
    for (let i = 0; i < half; i++) {
      const a = x[at + i];
      const b = x[at + half + i];
      x[at + i] = a * cos[i] - b * sin[i];
      x[at + half + i] = b * cos[i] + a * sin[i];
    }
  }
}

interface HeadCache {
  readonly keys: Float32Array;
  readonly values: Float32Array;
  /** First element of the row in the cache, and elements between positions. */
  readonly from: number;
  readonly stride: number;
  readonly positions: number;
}

/** softmax(scale q K) V of one head of one row; `from` of the cache points at the head. */
function attendHead(
  query: Float32Array,
  at: number,
  width: number,
  scale: number,
  { keys, values, from, stride, positions }: HeadCache,
  scores: Float64Array,
  out: Float32Array,
): void {
  let most = Number.NEGATIVE_INFINITY;
  for (let p = 0; p < positions; p++) {
    const key = from + p * stride;
    let score = 0;
    for (let i = 0; i < width; i++) score += query[at + i] * keys[key + i];
    scores[p] = score * scale;
    if (scores[p] > most) most = scores[p];
  }
  let total = 0;
  for (let p = 0; p < positions; p++) {
    scores[p] = Math.exp(scores[p] - most);
    total += scores[p];
  }
  for (let i = 0; i < width; i++) {
    let sum = 0;
    for (let p = 0; p < positions; p++) sum += scores[p] * values[from + p * stride + i];
    out[at + i] = sum / total;
  }
}

/** gate <- silu(gate) * up. */
function gateBy(gate: Float32Array, up: Float32Array, length: number): void {
  for (let i = 0; i < length; i++) gate[i] = (gate[i] / (1 + Math.exp(-gate[i]))) * up[i];
}

function addTo(x: Float32Array, y: Float32Array, length: number): void {
  for (let i = 0; i < length; i++) x[i] += y[i];
}

/**
 * A decoder for sampling from a policy while it is trained: weights are read where they lie, so a step of the optimiser is
 * seen at once. Products are the native kernel's, sums over a head in double.
 * @param tensors of a student, by the names of Llama checkpoints
 * @param rows sequences that can be read at once
 * @throws RangeError for anything but a plain Llama
 */
export function createIncrementalDecoder(
  model: ModelDescription,
  tensors: ReadonlyMap<string, MemoryTensor>,
  rows: number,
  positions: number,
): IncrementalDecoder {
  const weight = (name: string): Float32Array => {
    const data = tensors.get(name)?.data;
    if (data instanceof Float32Array) return data;
    throw new RangeError(`the incremental decoder needs ${name} in single precision`);
  };
  if (model.norm.kind !== 'rms' || model.norm.plusOne || model.learnedPositions || model.embeddingScale !== 1)
    throw new RangeError('the incremental decoder reads plain Llama models alone');
  for (const layer of model.layers) checkLayer(layer);
  const { hiddenSize: hidden, vocabularySize: vocabulary } = model;
  const { epsilon } = model.norm;
  const embedding = weight('model.embed_tokens.weight');
  const head = model.tiedHead ? embedding : weight('lm_head.weight');
  const layers = model.layers.map((_, l): LayerWeights => {
    const own = (role: keyof LayerWeights): Float32Array => weight(`model.layers.${l}.${NAMES[role]}.weight`);
    const norms = { inputNorm: own('inputNorm'), mlpNorm: own('mlpNorm') };
    const attention = { q: own('q'), k: own('k'), v: own('v'), o: own('o') };
    return { ...norms, ...attention, gate: own('gate'), up: own('up'), down: own('down') };
  });
  const finalNorm = weight('model.norm.weight');
  const ropes = model.ropes.map((rope) => ropeTables(ropeFrequencies(rope, positions), 0, positions, 'f32'));
  const inner = Math.max(...layers.map(({ gate }) => gate.length / hidden));
  const cache = layers.map(() => ({
    keys: new Float32Array(rows * positions * hidden),
    values: new Float32Array(rows * positions * hidden),
  }));
  const buffer = (width: number): Float32Array => new Float32Array(rows * width);
  const [stream, normed, queries, keys, values, heads, branch] = Array.from({ length: 7 }, () => buffer(hidden));
  const [gates, ups, logits] = [buffer(inner), buffer(inner), buffer(vocabulary)];
  const scores = new Float64Array(positions);
  const linear = (x: Float32Array, w: Float32Array, y: Float32Array, m: number): void => {
    const k = x === gates ? inner : hidden;
    multiply(x, w, y, { m, n: w.length / k, k }, { transposeB: true, threads: 1 });
  };

  const attention = (l: number, active: Int32Array, position: number): void => {
    const { q, k, v, o } = layers[l];
    const { heads: count, headDim, scale, rope = 0 } = model.layers[l].attention;
    const m = active.length;
    linear(normed, q, queries, m);
    linear(normed, k, keys, m);
    linear(normed, v, values, m);
    const half = headDim / 2;
    const angles = (table: Float32Array | Float64Array): Float32Array =>
      Float32Array.from(table.subarray(position * half, (position + 1) * half));
    const [cos, sin] = [angles(ropes[rope].cos), angles(ropes[rope].sin)];
    rotate(queries, m, count, cos, sin);
    rotate(keys, m, count, cos, sin);
    const kept = cache[l];
    for (let r = 0; r < m; r++) {
      const row = active[r] * positions * hidden;
      kept.keys.set(keys.subarray(r * hidden, (r + 1) * hidden), row + position * hidden);
      kept.values.set(values.subarray(r * hidden, (r + 1) * hidden), row + position * hidden);
      for (let h = 0; h < count; h++) {
        const own = { ...kept, from: row + h * headDim, stride: hidden, positions: position + 1 };
        attendHead(queries, r * hidden + h * headDim, headDim, scale, own, scores, heads);
      }
    }
    linear(heads, o, branch, m);
  };

  return {
    feed(active, tokens, position) {
      const m = active.length;
      if (m > rows || position >= positions)
        throw new RangeError(
          `${m} rows at position ${position} of a decoder of ${rows} rows and ${positions} positions`,
        );
      for (let r = 0; r < m; r++) {
        stream.set(embedding.subarray(tokens[r] * hidden, (tokens[r] + 1) * hidden), r * hidden);
      }
      for (let l = 0; l < layers.length; l++) {
        const { inputNorm, mlpNorm, gate, up, down } = layers[l];
        rmsNorm(stream, inputNorm, normed, m, epsilon);
        attention(l, active, position);
        addTo(stream, branch, m * hidden);
        rmsNorm(stream, mlpNorm, normed, m, epsilon);
        linear(normed, gate, gates, m);
        linear(normed, up, ups, m);
        gateBy(gates, ups, m * inner);
        linear(gates, down, branch, m);
        addTo(stream, branch, m * hidden);
      }
      rmsNorm(stream, finalNorm, normed, m, epsilon);
      linear(normed, head, logits, m);
      return { logits: logits.subarray(0, m * vocabulary), features: normed.subarray(0, m * hidden) };
    },
  };
}
