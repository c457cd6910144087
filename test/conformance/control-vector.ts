import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openGguf } from '../../src/formats/gguf.js';
import type { ContrastMethod, PairRows } from '../../src/steering/methods/contrast.js';
import { findMethod } from '../../src/steering/methods/registry.js';
import { controlVectorBuffer } from '../../src/steering/vector-files/gguf.js';
import { encodeSteeringVectors, readSteeringVectors } from '../../src/steering/vector-files/vector-files.js';
import { cosine } from '../../src/steering/vector-measures.js';
import type { Json } from './harness.js';
import { float64, keysOf, number, shapeOf, tensor } from './tensors.js';

function methodOf(name: string): ContrastMethod {
  const method = findMethod(name);
  if (typeof method === 'string') throw new TypeError(`${name} takes no pairs`);
  return method;
}

function directions(inputs: { [key: string]: Json }, wanted: { [key: string]: Json }): unknown {
  const [rows, width] = shapeOf(inputs.hidden, 'hidden');
  const pairs: PairRows = { data: float64(inputs.hidden, 'hidden'), pairs: rows / 2, width };
  const planted = float64(inputs.planted, 'planted');
  const found = new Map(keysOf(wanted.directions).map((name) => [name, methodOf(name).direction(pairs)] as const));
  const mean = methodOf('mean_diff').direction(pairs).vector;
  const each = (of: Json, value: (name: string) => unknown): unknown =>
    Object.fromEntries(keysOf(of).map((name) => [name, value(name)]));
  const vectorOf = (name: string): Float64Array => (found.get(name) ?? methodOf(name).direction(pairs)).vector;
  return {
    directions: each(wanted.directions, (name) => tensor([width], vectorOf(name))),
    explained_variance_ratio: each(
      wanted.explained_variance_ratio,
      (name) => methodOf(name).direction(pairs).explainedVarianceRatio,
    ),
    cos_with_planted: each(wanted.cos_with_planted, (name) => cosine(vectorOf(name), planted)),
    cos_with_mean_diff: each(wanted.cos_with_mean_diff, (name) => cosine(vectorOf(name), mean)),
  };
}

function controlVector(inputs: { [key: string]: Json }): unknown {
  const folder = mkdtempSync(join(tmpdir(), 'control-vector-'));
  try {
    const file = join(folder, 'given.gguf');
    writeFileSync(file, Buffer.from(String(inputs.gguf_base64), 'base64'));
    const vectors = readSteeringVectors(file);
    const written = join(folder, 'written.gguf');
    const { bytes } = encodeSteeringVectors(written, vectors);
    writeFileSync(written, bytes);
    const store = openGguf(written);
    const { kv } = store;
    store.close();
    const again = readSteeringVectors(written);
    const byBlock = (value: (block: number) => unknown): unknown =>
      Object.fromEntries([...again.directions.keys()].map((block) => [block, value(block)]));
    const layers = number(inputs.n_layers, 'n_layers');
    const width = again.hiddenSize;
    return {
      n_bytes: bytes.length,
      architecture: kv.get('general.architecture'),
      model_hint: again.origin.modelType,
      layer_count: kv.get('controlvector.layer_count'),
      directions: byBlock((block) => tensor([width], again.directions.get(block) ?? [])),
      applied_at_block: byBlock((block) => block),
      hf_hidden_states_index: byBlock((block) => block + 1),
      llama_cpp_buffer_scaled: tensor(
        [layers - 1, width],
        controlVectorBuffer(again, layers, number(inputs.strength, 'strength')),
      ),
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  if (wanted === null || typeof wanted !== 'object' || Array.isArray(wanted)) throw new TypeError('expected an object');
  return inputs.gguf_base64 === undefined ? directions(inputs, wanted) : controlVector(inputs);
}
