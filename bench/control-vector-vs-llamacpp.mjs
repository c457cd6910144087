// Claim: a control vector that is written here does in llama.cpp what it does here, at every position.
//
//   npm run build && node bench/control-vector-vs-llamacpp.mjs --python PYTHON [--model DIR|FILE.gguf] [--vector FILE]
//                    [--strength 1] [--tokens 128] [--threads 2] [--tolerance 0.01] [--json FILE]
//
// PYTHON needs the packages llama-cpp-python and numpy. The model (default: the bundled one) is written as an f32 GGUF file
// first, a quantised .gguf too: llama.cpp rounds the inputs of quantised matrices, this engine does not. Without --vector, random vectors for all blocks but the first, a tenth of the stream's length each. Both sides run the same
// file on the same random tokens in f32. Prints the largest difference of any logit without and with the vector, and
// how far the vector moves them; exit code 3 when the difference exceeds the tolerance.
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const { values: options } = parseArgs({
  options: {
    python: { type: 'string', default: process.env.PYTHON ?? 'python3' },
    model: { type: 'string', default: fileURLToPath(new URL('../fixtures/models/llama-sotu', import.meta.url)) },
    vector: { type: 'string' },
    strength: { type: 'string', default: '1' },
    tokens: { type: 'string', default: '128' },
    threads: { type: 'string', default: '2' },
    tolerance: { type: 'string', default: '0.01' },
    json: { type: 'string' },
  },
});
const load = (path) => import(new URL(`../dist/src/${path}`, import.meta.url));
const { openGguf } = await load('formats/gguf.js');
const { createGgufWriter } = await load('formats/gguf-writer.js');
const { openSafetensors } = await load('formats/safetensors.js');
const { createSafetensorsWriter } = await load('formats/safetensors-writer.js');
const { openLanguageModel } = await load('models/language-model.js');
const { openModelFiles } = await load('models/model-files.js');
const { copySmallFiles, changedConfig } = await load('models/model-directory.js');
const { createWeightReader } = await load('models/weights.js');
const { exportGguf } = await load('quantization/exports/gguf-export.js');
const { createRandom } = await load('random.js');
const { compareLogits, shiftedLogits } = await load('steering/bake-proof.js');
const { readSteeringVectors, writeSteeringVectors } = await load('steering/vector-files/vector-files.js');

const threads = Number(options.threads);
const strength = Number(options.strength);
const folder = mkdtempSync(join(tmpdir(), 'control-vector-'));

const reader = createWeightReader(threads);

/** The tensor as f32, row-major. */
function widened(store, tensor) {
  const values = new Float32Array(tensor.shape.reduce((a, b) => a * b, 1));
  reader.read({ store, tensor, start: 0, byteLength: tensor.byteLength, shape: tensor.shape }, values);
  return new Uint8Array(values.buffer);
}

/** A model directory as a GGUF file of f32 weights. */
function fromDirectory(model, target) {
  const wide = join(folder, 'f32');
  mkdirSync(wide);
  const store = openSafetensors(model);
  const tensors = [...store.tensors.values()];
  const plan = tensors.map(({ name, shape }) => ({ name, shape, dtype: 'F32' }));
  const writer = createSafetensorsWriter(wide, { plan });
  for (const info of tensors) writer.write(info.name, widened(store, info));
  writer.commit();
  store.close();
  writeFileSync(join(wide, 'config.json'), changedConfig(model, {}));
  copySmallFiles(model, wide);
  const files = openModelFiles(wide);
  exportGguf('gguf-q8_0', files, { has: () => false, get: () => undefined }, target);
  files.store.close();
}

/** A GGUF file with the same tensors in f32. */
function fromGguf(model, target) {
  const store = openGguf(model);
  const tensors = [...store.tensors.values()];
  const kv = new Map([...store.kv].map(([key, value]) => [key, { type: store.kvTypes.get(key), value }]));
  kv.set('general.file_type', { type: 'UINT32', value: 0 });
  const writer = createGgufWriter(target, {
    kv,
    plan: tensors.map(({ name, shape }) => ({ name, shape, dtype: 'F32' })),
  });
  for (const info of tensors) writer.write(info.name, widened(store, info));
  writer.commit();
  store.close();
}

try {
  const gguf = join(folder, 'model.gguf');
  (options.model.endsWith('.gguf') ? fromGguf : fromDirectory)(options.model, gguf);
  const model = await openLanguageModel(gguf, {
    threads,
    maxMemoryBytes: 16 * 2 ** 30,
    device: 'cpu',
    precision: 'f32',
    context: Number(options.tokens),
  });
  const { hiddenSize, layers, vocabularySize, modelType } = model.info;
  const random = createRandom(6);
  const tokens = Int32Array.from({ length: Number(options.tokens) }, () => random.integer(vocabularySize));
  const plain = await shiftedLogits(model, { tokens, shifts: [] });
  const file = join(folder, 'vector.gguf');
  const given = options.vector && readSteeringVectors(options.vector);
  const drawn = () =>
    new Map(
      Array.from({ length: layers - 1 }, (_, i) => {
        const draw = Float64Array.from({ length: hiddenSize }, () => random.normal());
        const factor = (0.1 * plain.streamNorms[i + 2]) / Math.hypot(...draw);
        return [i + 1, Float32Array.from(draw, (value) => factor * value)];
      }),
    );
  writeSteeringVectors(file, given || { hiddenSize, directions: drawn(), origin: { modelType }, assumptions: [] });
  const vectors = readSteeringVectors(file);
  const shifts = [...vectors.directions].map(([block, vector]) => [block, vector.map((value) => strength * value)]);
  const steered = await shiftedLogits(model, { tokens, shifts });
  await model.close();

  writeFileSync(join(folder, 'tokens.json'), JSON.stringify([...tokens]));
  const out = join(folder, 'logits.f32');
  const script = fileURLToPath(new URL('control-vector-vs-llamacpp.py', import.meta.url));
  const peer = spawnSync(
    options.python,
    [script, gguf, file, join(folder, 'tokens.json'), String(strength), String(threads), out],
    { encoding: 'utf8' },
  );
  if (peer.status !== 0) throw new Error(`the peer failed: ${peer.stderr.trim().split('\n').at(-1)}`);
  const bytes = readFileSync(out);
  const all = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  const theirs = [all.subarray(0, all.length / 2), all.subarray(all.length / 2)];
  const result = {
    model: options.model,
    blocks: [...vectors.directions.keys()],
    positions: tokens.length,
    withoutVector: compareLogits(theirs[0], plain.logits, vocabularySize),
    withVector: compareLogits(theirs[1], steered.logits, vocabularySize),
    effectOfVector: compareLogits(theirs[1], theirs[0], vocabularySize),
  };
  for (const [name, difference] of Object.entries(result).slice(3)) {
    const { maxAbsDifference, maxAbsLogit, meanKlNats, top1Agreement } = difference;
    console.log(
      `${name.padEnd(15)} largest difference ${maxAbsDifference.toExponential(2)} of logits up to ${maxAbsLogit.toFixed(1)}, ` +
        `mean KL ${meanKlNats.toExponential(2)} nats, same first token ${(100 * top1Agreement).toFixed(1)}%`,
    );
  }
  if (options.json) writeFileSync(options.json, `${JSON.stringify(result, null, 2)}\n`);
  if (!(result.withVector.maxAbsDifference <= Number(options.tolerance))) process.exitCode = 3;
} finally {
  rmSync(folder, { recursive: true, force: true });
}
