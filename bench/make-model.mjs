// Writes a model directory with random weights, for measurements where only the shape matters.
//
//   npm run build && node bench/make-model.mjs --shape smollm-135m --out DIR [--dtype BF16|F16|F32] [--seed 1]
//        [--hidden N] [--layers N] [--heads N] [--kv-heads N] [--intermediate N] [--vocab N] [--positions N] [--tied B]
//
// Linear weights are normal with standard deviation 1/sqrt(inputs), so that activations keep their size; norms are 1.
// Every tensor is a window, at an odd offset, of one block of 2^20 drawn numbers: 13 GB are written as fast as the disk.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

const src = new URL('../dist/src/', import.meta.url);
const { createSafetensorsWriter } = await import(new URL('formats/safetensors-writer.js', src));
const { DTYPE_BYTES, elementCount } = await import(new URL('formats/tensor.js', src));
const { narrowFromF32 } = await import(new URL('kernels/dtypes.js', src));
const { describeModel } = await import(new URL('models/architectures.js', src));
const { huggingFaceNames, layerWeightShapes } = await import(new URL('models/weight-names.js', src));
const { createRandom } = await import(new URL('random.js', src));

const SHAPES = {
  'smollm-135m': {
    type: 'llama',
    hidden: 576,
    layers: 30,
    heads: 9,
    kv: 3,
    intermediate: 1536,
    vocab: 49152,
    tied: true,
  },
  'llama-124m': {
    type: 'llama',
    hidden: 768,
    layers: 12,
    heads: 12,
    kv: 12,
    intermediate: 2048,
    vocab: 50304,
    tied: true,
  },
  'qwen2-0.5b': {
    type: 'qwen2',
    hidden: 896,
    layers: 24,
    heads: 14,
    kv: 2,
    intermediate: 4864,
    vocab: 151936,
    tied: true,
  },
  'llama-1b': {
    type: 'llama',
    hidden: 2048,
    layers: 16,
    heads: 32,
    kv: 8,
    intermediate: 8192,
    vocab: 128256,
    tied: true,
  },
  'llama-7b': {
    type: 'llama',
    hidden: 4096,
    layers: 32,
    heads: 32,
    kv: 32,
    intermediate: 11008,
    vocab: 32000,
    tied: false,
  },
  'long-context': {
    type: 'llama',
    hidden: 512,
    layers: 4,
    heads: 8,
    kv: 2,
    intermediate: 1408,
    vocab: 32000,
    tied: true,
  },
};

const { values: options } = parseArgs({
  options: {
    shape: { type: 'string', default: 'smollm-135m' },
    out: { type: 'string' },
    dtype: { type: 'string', default: 'BF16' },
    seed: { type: 'string', default: '1' },
    hidden: { type: 'string' },
    layers: { type: 'string' },
    heads: { type: 'string' },
    'kv-heads': { type: 'string' },
    intermediate: { type: 'string' },
    vocab: { type: 'string' },
    positions: { type: 'string', default: '4096' },
    tied: { type: 'string' },
  },
});
const shape = SHAPES[options.shape];
if (!shape || !options.out) {
  console.error(`usage: make-model.mjs --shape ${Object.keys(SHAPES).join('|')} --out DIR; see the head of this file`);
  process.exit(2);
}
const pick = (name, fallback) => (options[name] === undefined ? fallback : Number(options[name]));
const heads = pick('heads', shape.heads);
const config = {
  architectures: [shape.type === 'qwen2' ? 'Qwen2ForCausalLM' : 'LlamaForCausalLM'],
  model_type: shape.type,
  hidden_size: pick('hidden', shape.hidden),
  num_hidden_layers: pick('layers', shape.layers),
  num_attention_heads: heads,
  num_key_value_heads: pick('kv-heads', Math.min(shape.kv, heads)),
  intermediate_size: pick('intermediate', shape.intermediate),
  vocab_size: pick('vocab', shape.vocab),
  max_position_embeddings: Number(options.positions),
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  hidden_act: 'silu',
  tie_word_embeddings: options.tied === undefined ? shape.tied : options.tied === 'true',
  bos_token_id: 0,
  eos_token_id: 0,
  torch_dtype: { BF16: 'bfloat16', F16: 'float16', F32: 'float32' }[options.dtype],
};

const model = describeModel(config, 'config.json');
const names = huggingFaceNames(model.modelType);
const plan = [{ name: names.embedding[0], dtype: options.dtype, shape: [model.vocabularySize, model.hiddenSize] }];
model.layers.forEach((layer, i) => {
  for (const [role, extents] of layerWeightShapes(model, layer)) {
    plan.push({ name: names.layer[role][0].replace('{i}', String(i)), dtype: options.dtype, shape: extents });
  }
});
plan.push({ name: names.finalNorm[0], dtype: options.dtype, shape: [model.hiddenSize] });
if (!model.tiedHead) {
  plan.push({ name: names.head[0], dtype: options.dtype, shape: [model.vocabularySize, model.hiddenSize] });
}

const BLOCK = 1 << 20;
const random = createRandom(Number(options.seed));
const drawn = Float32Array.from({ length: BLOCK }, () => random.normal());
const encoded = new Map();
/** The block scaled by `deviation` (0: ones), as bytes of the dtype. */
function blockOf(deviation) {
  let bytes = encoded.get(deviation);
  if (!bytes) {
    bytes = new Uint8Array(BLOCK * DTYPE_BYTES[options.dtype]);
    narrowFromF32(
      deviation === 0 ? new Float32Array(BLOCK).fill(1) : drawn.map((x) => x * deviation),
      options.dtype,
      bytes,
    );
    encoded.set(deviation, bytes);
  }
  return bytes;
}

mkdirSync(options.out, { recursive: true });
const writer = createSafetensorsWriter(options.out, { plan, maxShardBytes: 4e9, force: true });
const width = DTYPE_BYTES[options.dtype];
let turn = 0;
for (const { name, shape: extents } of plan) {
  const elements = elementCount(extents);
  const isNorm = extents.length === 1 && !name.endsWith('bias');
  const isEmbedding = name === names.embedding[0];
  // Tied embeddings are the head too: logits of a few nats.
  const deviation = isNorm
    ? 0
    : isEmbedding
      ? model.tiedHead
        ? 2 / Math.sqrt(model.hiddenSize)
        : 1
      : 1 / Math.sqrt(extents[1] ?? 400);
  const block = blockOf(deviation);
  for (let done = 0; done < elements; ) {
    turn = (turn + 7919) % BLOCK;
    const count = Math.min(elements - done, BLOCK - turn);
    writer.write(name, block.subarray(turn * width, (turn + count) * width));
    done += count;
  }
}
writer.commit();
writeFileSync(join(options.out, 'config.json'), `${JSON.stringify(config, null, 2)}\n`);
console.log(`${options.out}: ${plan.length} tensors, ${(writer.totalBytes / 1e6).toFixed(0)} MB`);
