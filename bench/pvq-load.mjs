// Claim: a quantised model is read at nearly the speed at which its indices are decoded; rows of an embedding are
// gathered one by one; verifying costs a few passes.
//
//   npm run build && node bench/pvq-load.mjs [--threads 2] [--rows 8192] [--columns 4096] [--D 16] [--K 23] [--repeats 7]
//
// One tensor of random points is written as a model directory, then read in turn: decoding from memory without and with
// the rotation undone, the whole tensor through the store, the same in pieces of 4 MiB that do not end with rows, the
// same transposed, 4096 single rows in random order, and a plain BF16 tensor of the same shape. Medians.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

const dist = new URL('../dist/src/', import.meta.url);
const load = (name) => import(new URL(name, dist));
const { kernelStatus } = await load('kernels/native.js');
if (!kernelStatus().native) {
  console.error(`no native kernels: ${kernelStatus().reason}`);
  process.exit(1);
}
const { packPulses, packCodes, dequantizeRows } = await load('kernels/pyramid-index.js');
const { rowGroups, rowIndexBytes, rowCodeBytes } = await load('kernels/pyramid.js');
const { rotateRows } = await load('kernels/hadamard.js');
const { planRotation } = await load('linalg/hadamard.js');
const { openWeights } = await load('models/pvq-store.js');
const { planPvqLayout } = await load('quantization/pvq-layout.js');
const { createPvqWriter } = await load('quantization/pvq-writer.js');
const { createSafetensorsWriter } = await load('formats/safetensors-writer.js');
const { openSafetensors } = await load('formats/safetensors.js');
const { createWeightReader } = await load('models/weights.js');
const { createRandom } = await load('random.js');

const { values: options } = parseArgs({
  options: {
    threads: { type: 'string', default: '2' },
    rows: { type: 'string', default: '8192' },
    columns: { type: 'string', default: '4096' },
    D: { type: 'string', default: '16' },
    K: { type: 'string', default: '23' },
    repeats: { type: 'string', default: '7' },
  },
});
const [threads, rows, columns, D, K, repeats] = ['threads', 'rows', 'columns', 'D', 'K', 'repeats'].map((name) =>
  Number(options[name]),
);
const code = { groupLength: D, pulses: K, superGroup: 1, gainBits: 3 };
const groups = rowGroups(columns, D);
const random = createRandom(1);

function encode() {
  const some = 64;
  const pulses = new Int16Array(some * groups * D);
  for (let g = 0; g < some * groups; g++) {
    for (let k = 0; k < K; k++) pulses[g * D + random.integer(D)]++;
    for (let i = g * D; i < (g + 1) * D; i++) if (random.integer(2) === 1) pulses[i] = -pulses[i];
  }
  const codes = Uint8Array.from({ length: some * groups }, () => random.integer(8));
  const index = new Uint8Array(some * rowIndexBytes(code, groups));
  const gain = new Uint8Array(some * rowCodeBytes(3, groups));
  packPulses(pulses, some, groups, code, index);
  packCodes(codes, some, groups, 3, gain);
  const repeat = (part) => {
    const all = new Uint8Array((part.length / some) * rows);
    for (let at = 0; at < all.length; at += part.length) all.set(part.subarray(0, all.length - at), at);
    return all;
  };
  const levels = Float32Array.from({ length: 8 }, (_, i) => 0.6 + 0.1 * i);
  return {
    rows,
    columns,
    code,
    index: repeat(index),
    gain: repeat(gain),
    scales: new Float32Array(rows).fill(1),
    levels,
  };
}

const folder = mkdtempSync(join(tmpdir(), 'pvq-load-'));
const encoded = encode();
const rotation = planRotation(columns, 1n);
const target = new Float32Array(rows * columns);
const bytes = new Uint8Array(target.buffer);

function write(name, transposed) {
  const shape = transposed ? [columns, rows] : [rows, columns];
  const info = {
    name: 'w',
    dtype: 'BF16',
    shape,
    file: 'model.safetensors',
    offset: 0,
    byteLength: 2 * rows * columns,
  };
  const store = {
    path: folder,
    tensors: new Map([['w', info]]),
    metadata: {},
    readInto: () => undefined,
    close: () => undefined,
  };
  const tensor = { name: 'w', transposed, gainPolicy: 'projection', levelPolicy: 'lloyd', rotation };
  const layout = planPvqLayout(store, 'huggingface', [tensor], 1n);
  const head = { tool: { name: 'surprisal', version: '0' }, command: 'bench', parameters: {}, inputs: [] };
  const writer = createPvqWriter({ out: join(folder, name), layout, store, sourcePath: folder, head });
  writer.writeTensor('w', encoded, { sourceSha256: '0'.repeat(64) });
  writer.commit();
  return openWeights(join(folder, name), threads);
}

try {
  const stored = write('straight', false);
  const turned = write('turned', true);
  const plainFile = join(folder, 'plain.safetensors');
  const writer = createSafetensorsWriter(plainFile, { plan: [{ name: 'w', dtype: 'BF16', shape: [rows, columns] }] });
  writer.write('w', new Uint8Array(2 * rows * columns));
  writer.commit();
  const plain = openSafetensors(plainFile);
  const whole = (store) => {
    const tensor = store.tensors.get('w');
    const { shape, byteLength } = tensor;
    createWeightReader(threads).read({ store, tensor, start: 0, byteLength, shape }, target);
  };
  const order = Int32Array.from({ length: 4096 }, () => random.integer(rows));
  const ways = {
    'decode from memory': () => dequantizeRows(encoded, target, { threads }),
    'and undo the rotation': () => {
      dequantizeRows(encoded, target, { threads });
      rotateRows(target, rows, rotation, 'inverse', threads);
    },
    'read the tensor': () => whole(stored),
    'read it in pieces': () => {
      const info = stored.tensors.get('w');
      const step = (4 << 20) - 4;
      for (let at = 0; at < bytes.length; at += step) {
        const length = Math.min(step, bytes.length - at);
        stored.readInto(info, at, length, bytes.subarray(at, at + length));
      }
    },
    'read it transposed': () => whole(turned),
    'gather 4096 rows': () => {
      const info = stored.tensors.get('w');
      for (const row of order) stored.readInto(info, 4 * columns * row, 4 * columns, bytes);
    },
    'read plain BF16': () => whole(plain),
  };
  const times = Object.fromEntries(Object.keys(ways).map((name) => [name, []]));
  for (let i = 0; i < repeats; i++) {
    for (const [name, way] of Object.entries(ways)) {
      const begun = performance.now();
      way();
      times[name].push((performance.now() - begun) / 1000);
    }
  }
  console.log(`[${rows}, ${columns}], D=${D}, K=${K}, ${threads} threads, median of ${repeats}`);
  for (const [name, list] of Object.entries(times)) {
    const seconds = list.sort((a, b) => a - b)[repeats >> 1];
    const weights = name.startsWith('gather') ? order.length * columns : rows * columns;
    const range = `${(weights / list.at(-1) / 1e6).toFixed(0)} to ${(weights / list[0] / 1e6).toFixed(0)}`;
    console.log(`${name.padEnd(24)} ${(weights / seconds / 1e6).toFixed(0).padStart(6)} Mweights/s (${range})`);
  }
  stored.close();
  turned.close();
  plain.close();
} finally {
  rmSync(folder, { recursive: true });
}
