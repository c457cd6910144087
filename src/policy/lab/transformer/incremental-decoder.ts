import { cachedAttention } from '../../../kernels/cached-attention.js';
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

/** Reads sequences token by token, all at the same position, keys and values of earlier positions kept. */
export interface IncrementalDecoder {
  /** Forgets what was read; `rows` sequences begin. @throws RangeError for more than the decoder has room for */
  begin(rows: number): void;
  /** Goes on with these rows alone (ascending), which become rows 0, 1, ... */
  keep(rows: Int32Array): void;
  /** Feeds the next token of every row. The results are valid until the next call. */
  feed(tokens: Int32Array): DecodedRows;
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

/** gate <- silu(gate) * up. */
function gateBy(gate: Float32Array, up: Float32Array, length: number): void {
  for (let i = 0; i < length; i++) gate[i] = (gate[i] / (1 + Math.exp(-gate[i]))) * up[i];
}

function addTo(x: Float32Array, y: Float32Array, length: number): void {
  for (let i = 0; i < length; i++) x[i] += y[i];
}

/** Least number that head sizes are multiples of: what the attention kernel takes. */
export const HEAD_STEP = 8;

/**
 * A decoder for sampling from a policy while it is trained: weights are read where they lie, so a step of the optimiser is
 * seen at once. Products and attention are native kernels, on one thread.
 * @param tensors of a student, by the names of Llama checkpoints
 * @param room sequences that can be read at once
 * @throws RangeError for anything but a plain Llama
 */
export function createIncrementalDecoder(
  model: ModelDescription,
  tensors: ReadonlyMap<string, MemoryTensor>,
  room: number,
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
  const perRow = positions * hidden;
  const caches = layers.map(() => [new Float32Array(room * perRow), new Float32Array(room * perRow)] as const);
  const buffer = (width: number): Float32Array => new Float32Array(room * width);
  const [stream, normed, queries, keys, values, heads, branch] = Array.from({ length: 7 }, () => buffer(hidden));
  const [gates, ups, logits] = [buffer(inner), buffer(inner), buffer(vocabulary)];
  const starts = new Int32Array(room);
  let rows = 0;
  let position = 0;
  const linear = (x: Float32Array, w: Float32Array, y: Float32Array): void => {
    const k = x === gates ? inner : hidden;
    multiply(x, w, y, { m: rows, n: w.length / k, k }, { transposeB: true, threads: 1 });
  };

  const attention = (l: number): void => {
    const { q, k, v, o } = layers[l];
    const { heads: count, headDim, scale, rope = 0 } = model.layers[l].attention;
    linear(normed, q, queries);
    linear(normed, k, keys);
    linear(normed, v, values);
    const half = headDim / 2;
    const angles = (table: Float32Array | Float64Array): Float32Array =>
      Float32Array.from(table.subarray(position * half, (position + 1) * half));
    const [cos, sin] = [angles(ropes[rope].cos), angles(ropes[rope].sin)];
    rotate(queries, rows, count, cos, sin);
    rotate(keys, rows, count, cos, sin);
    const used = (array: Float32Array): Float32Array => array.subarray(0, rows * hidden);
    const [keyCache, valueCache] = caches[l].map((cache) => cache.subarray(0, rows * perRow));
    cachedAttention(
      {
        ...{ queries: used(queries), keys: used(keys), values: used(values), out: used(heads), keyCache, valueCache },
        ...{ starts: starts.subarray(0, rows), count: 1, heads: count, kvHeads: count, headDim, scale },
        capacity: positions,
      },
      1,
    );
    linear(heads, o, branch);
  };

  return {
    begin(count) {
      if (count > room) throw new RangeError(`${count} sequences for a decoder of ${room}`);
      rows = count;
      position = 0;
    },

    keep(kept) {
      for (const cache of caches.flat()) {
        kept.forEach((row, to) => {
          if (row !== to) cache.copyWithin(to * perRow, row * perRow, (row + 1) * perRow);
        });
      }
      rows = kept.length;
    },

    feed(tokens) {
      if (tokens.length !== rows || position >= positions)
        throw new RangeError(`${tokens.length} tokens for ${rows} rows at position ${position} of ${positions}`);
      starts.fill(position, 0, rows);
      for (let r = 0; r < rows; r++) {
        stream.set(embedding.subarray(tokens[r] * hidden, (tokens[r] + 1) * hidden), r * hidden);
      }
      for (let l = 0; l < layers.length; l++) {
        const { inputNorm, mlpNorm, gate, up, down } = layers[l];
        rmsNorm(stream, inputNorm, normed, rows, epsilon);
        attention(l);
        addTo(stream, branch, rows * hidden);
        rmsNorm(stream, mlpNorm, normed, rows, epsilon);
        linear(normed, gate, gates);
        linear(normed, up, ups);
        gateBy(gates, ups, rows * inner);
        linear(gates, down, branch);
        addTo(stream, branch, rows * hidden);
      }
      rmsNorm(stream, finalNorm, normed, rows, epsilon);
      linear(normed, head, logits);
      position++;
      return { logits: logits.subarray(0, rows * vocabulary), features: normed.subarray(0, rows * hidden) };
    },
  };
}
