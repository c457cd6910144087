// Writes model directories of the shapes of a 7B llama in bfloat16 and shards, for bench/merge-7b.mjs: random weights, and
// fine-tunes that differ from them a little. Usage: node bench/synthetic-7b.mjs FOLDER [--models 2] [--layers 32]
import { closeSync, existsSync, mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { encodeIndex, layOutSafetensors, planShards } from '../dist/src/formats/safetensors-writer.js';
import { narrowFromF32 } from '../dist/src/kernels/dtypes.js';
import { createRandom } from '../dist/src/random.js';

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { models: { type: 'string', default: '2' }, layers: { type: 'string', default: '32' } },
});
const [folder] = positionals;
const layers = Number(values.layers);
const [hidden, inner, vocabulary, shard] = [4096, 11008, 32000, 5e9];

const plan = [{ name: 'model.embed_tokens.weight', shape: [vocabulary, hidden] }];
for (let l = 0; l < layers; l++) {
  const at = `model.layers.${l}`;
  for (const part of ['q', 'k', 'v', 'o'])
    plan.push({ name: `${at}.self_attn.${part}_proj.weight`, shape: [hidden, hidden] });
  plan.push({ name: `${at}.mlp.gate_proj.weight`, shape: [inner, hidden] });
  plan.push({ name: `${at}.mlp.up_proj.weight`, shape: [inner, hidden] });
  plan.push({ name: `${at}.mlp.down_proj.weight`, shape: [hidden, inner] });
  plan.push({ name: `${at}.input_layernorm.weight`, shape: [hidden] });
  plan.push({ name: `${at}.post_attention_layernorm.weight`, shape: [hidden] });
}
plan.push({ name: 'model.norm.weight', shape: [hidden] }, { name: 'lm_head.weight', shape: [vocabulary, hidden] });
const tensors = plan.map((tensor) => ({ ...tensor, dtype: 'BF16' }));

// One block of noise serves all tensors, each from another place: what a merge does depends on shapes and spreads alone.
const BLOCK = 1 << 24;
function noise(seed, scale) {
  const random = createRandom(seed);
  const block = new Float32Array(BLOCK);
  for (let i = 0; i < BLOCK; i++) block[i] = scale * random.normal();
  return block;
}
const base = noise(1, 0.02);
for (let m = 0; m < Number(values.models); m++) {
  const directory = join(folder, m === 0 ? 'base' : `tuned-${m}`);
  if (existsSync(join(directory, 'config.json'))) continue;
  mkdirSync(directory, { recursive: true });
  const weights = Float32Array.from(base);
  const delta = m > 0 ? noise(100 + m, 0.002) : new Float32Array(BLOCK);
  for (let i = 0; i < BLOCK; i++) weights[i] += delta[i];
  const bytes = new Uint8Array(2 * BLOCK);
  narrowFromF32(weights, 'BF16', bytes);
  const shards = planShards(tensors, shard);
  let total = 0;
  for (const { fileName, tensors: part } of shards) {
    const { header, order } = layOutSafetensors(part, { format: 'pt' });
    const fd = openSync(join(directory, fileName), 'w');
    writeSync(fd, header);
    order.forEach(({ name, shape }) => {
      let left = 2 * shape.reduce((a, b) => a * b, 1);
      total += left;
      let at = 2 * ((1000003 * plan.findIndex((tensor) => tensor.name === name)) % BLOCK);
      while (left > 0) {
        const length = Math.min(left, bytes.length - at);
        writeSync(fd, bytes, at, length);
        left -= length;
        at = 0;
      }
    });
    closeSync(fd);
  }
  if (shards.length > 1) writeFileSync(join(directory, 'model.safetensors.index.json'), encodeIndex(shards, total));
  const config = {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    hidden_act: 'silu',
    hidden_size: hidden,
    intermediate_size: inner,
    max_position_embeddings: 4096,
    num_attention_heads: 32,
    num_key_value_heads: 32,
    num_hidden_layers: layers,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    tie_word_embeddings: false,
    torch_dtype: 'bfloat16',
    vocab_size: vocabulary,
    bos_token_id: 1,
    eos_token_id: 2,
  };
  writeFileSync(join(directory, 'config.json'), `${JSON.stringify(config, null, 2)}\n`);
  process.stdout.write(`${directory}: ${total} bytes in ${shards.length} files\n`);
}
