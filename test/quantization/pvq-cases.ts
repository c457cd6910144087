import type { GgufStore } from '../../src/formats/gguf.js';
import { elementCount, type TensorInfo } from '../../src/formats/tensor.js';
import { narrowFromF32, widenToF32 } from '../../src/kernels/dtypes.js';
import { rotateRows } from '../../src/kernels/hadamard.js';
import {
  type EncodedRows,
  type PyramidCode,
  rowCodeBytes,
  rowGroups,
  rowIndexBytes,
} from '../../src/kernels/pyramid.js';
import { packCodes, packPulses } from '../../src/kernels/pyramid-index.js';
import { planRotation, type Rotation, tensorSeed } from '../../src/linalg/hadamard.js';
import { type ModelFiles, openModelFiles } from '../../src/models/model-files.js';
import { createWeightReader } from '../../src/models/weights.js';
import { type PvqLayout, planPvqLayout, type QuantisedTensor } from '../../src/quantization/pvq-layout.js';
import { createPvqWriter, type PvqWriter, type PvqWriterOptions } from '../../src/quantization/pvq-writer.js';
import type { Report } from '../../src/report/json.js';

export const CODE: PyramidCode = { groupLength: 16, pulses: 24, superGroup: 1, gainBits: 3 };

/** K pulses in proportion to |x|, signs put back; largest remainders first. Not a good search, but a valid point. */
function proportionalPulses(x: Float32Array, K: number): Int16Array {
  const sum = x.reduce((total, value) => total + Math.abs(value), 0);
  const pulses = new Int16Array(x.length);
  if (sum === 0) {
    pulses[0] = K;
    return pulses;
  }
  const shares = Array.from(x, (value) => (Math.abs(value) * K) / sum);
  let left = K;
  shares.forEach((share, i) => {
    pulses[i] = Math.floor(share);
    left -= pulses[i];
  });
  const order = shares.map((share, i) => [share - Math.floor(share), i]).sort(([a], [b]) => b - a);
  for (const [, i] of order.slice(0, left)) pulses[i]++;
  return pulses.map((count, i) => (x[i] < 0 ? -count : count));
}

/** Rows [rows, columns] under a code, with evenly spaced levels. */
export function encodePlainly(
  weights: Float32Array,
  rows: number,
  columns: number,
  code: PyramidCode,
  markZeros = false,
): EncodedRows {
  const { groupLength: D, pulses: K, gainBits } = code;
  const groups = rowGroups(columns, D);
  const levels = Float32Array.from({ length: 2 ** gainBits }, (_, i) => ((i + 0.7) / 2 ** gainBits) * 1.2);
  const pulses = new Int16Array(rows * groups * D);
  const codes = new Uint8Array(rows * groups);
  const zeros = new Uint8Array(rows * groups);
  const norms = new Float32Array(rows);
  for (let r = 0; r < rows; r++) {
    const row = weights.subarray(r * columns, (r + 1) * columns);
    norms[r] = Math.sqrt(row.reduce((sum, value) => sum + value * value, 0) / groups);
    for (let g = 0; g < groups; g++) {
      const group = new Float32Array(D);
      group.set(row.subarray(g * D, Math.min(columns, (g + 1) * D)));
      pulses.set(proportionalPulses(group, K), (r * groups + g) * D);
      const length = Math.hypot(...group) / (norms[r] || 1);
      codes[r * groups + g] = levels.reduce(
        (best, level, i) => (Math.abs(level - length) < Math.abs(levels[best] - length) ? i : best),
        0,
      );
      zeros[r * groups + g] = length === 0 ? 1 : 0;
    }
  }
  const half = new Uint8Array(2 * rows);
  narrowFromF32(norms, 'F16', half);
  const scales = new Float32Array(rows);
  widenToF32(half, 'F16', scales);
  const index = new Uint8Array(rows * rowIndexBytes(code, groups));
  packPulses(pulses, rows, groups, code, index);
  const gain = new Uint8Array(rows * rowCodeBytes(gainBits, groups));
  packCodes(codes, rows, groups, gainBits, gain);
  const zeroGroups = new Uint8Array(rows * rowCodeBytes(1, groups));
  packCodes(zeros, rows, groups, 1, zeroGroups);
  return { rows, columns, code, index, gain, scales, levels, ...(markZeros && { zeroGroups }) };
}

export interface Choice {
  readonly code?: PyramidCode;
  readonly transposed?: boolean;
  readonly rotate?: boolean;
  readonly zeroGroups?: boolean;
}

/** Values of a stored tensor in f32. */
export function readTensor(files: Pick<ModelFiles, 'store'>, info: TensorInfo): Float32Array {
  const values = new Float32Array(elementCount(info.shape));
  createWeightReader(1).read(
    { store: files.store, tensor: info, start: 0, byteLength: info.byteLength, shape: info.shape },
    values,
  );
  return values;
}

/** [..., in, out] as rows [..., out, in]. */
export function turned(values: Float32Array, shape: readonly number[]): Float32Array {
  const [a, b] = shape.slice(-2);
  const result = new Float32Array(values.length);
  for (let m = 0; m < values.length; m += a * b)
    for (let i = 0; i < a; i++) for (let j = 0; j < b; j++) result[m + j * a + i] = values[m + i * b + j];
  return result;
}

export interface TestRun {
  readonly writer: PvqWriter;
  readonly layout: PvqLayout;
  encode(name: string): EncodedRows;
  close(): void;
}

/** Opens a writer over a source with a choice for each tensor that is quantised. */
export function openRun(
  source: string,
  out: string,
  choices: ReadonlyMap<string, Choice>,
  options: Partial<PvqWriterOptions> = {},
): TestRun {
  const files = openModelFiles(source);
  const tensors = [...choices].map(([name, { transposed = false, rotate = true }]): QuantisedTensor => {
    const shape = files.store.tensors.get(name)?.shape ?? [];
    const columns = shape.at(transposed ? -2 : -1) ?? 0;
    const rotation: Rotation | undefined = rotate ? planRotation(columns, tensorSeed(7n, name)) : undefined;
    return { name, transposed, gainPolicy: 'norm', levelPolicy: 'data', rotation };
  });
  const layout = planPvqLayout(files.store, files.format, tensors, 7n);
  const writer = createPvqWriter({
    out,
    layout,
    store: files.store,
    sourcePath: source,
    ...(files.format === 'gguf' && { gguf: files.store as GgufStore }),
    head: { tool: { name: 'surprisal', version: '0.0.0' }, command: 'test', parameters: { seed: 7 }, inputs: [] },
    ...options,
  });
  return {
    writer,
    layout,
    encode(name) {
      const info = files.store.tensors.get(name);
      const { code = CODE, transposed = false, zeroGroups = false } = choices.get(name) ?? {};
      if (!info) throw new Error(`no tensor ${name}`);
      const plain = readTensor(files, info);
      const rows = transposed ? turned(plain, info.shape) : plain;
      const columns = info.shape.at(transposed ? -2 : -1) ?? 0;
      const rotation = layout.quantised.get(name)?.rotation;
      if (rotation) rotateRows(rows, rows.length / columns, rotation, 'forward');
      return encodePlainly(rows, rows.length / columns, columns, code, zeroGroups);
    },
    close: () => files.store.close(),
  };
}

/** Quantises those tensors and completes the directory. */
export function quantise(
  source: string,
  out: string,
  choices: ReadonlyMap<string, Choice>,
  options: Partial<PvqWriterOptions> = {},
): Report {
  const run = openRun(source, out, choices, options);
  for (const name of choices.keys()) run.writer.writeTensor(name, run.encode(name));
  const manifest = run.writer.commit();
  run.close();
  return manifest;
}

/** The same choice for every tensor whose name fits. */
export function choose(source: string, pattern: RegExp, choice: Choice = {}): Map<string, Choice> {
  const files = openModelFiles(source);
  files.store.close();
  return new Map([...files.store.tensors.keys()].filter((name) => pattern.test(name)).map((name) => [name, choice]));
}
