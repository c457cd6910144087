import { elementCount, type TensorInfo, type TensorStore } from '../../../src/formats/tensor.js';
import { searchPulses } from '../../../src/kernels/pulse-search.js';
import { type EncodedRows, rowCodeBytes, rowGroups, rowIndexBytes } from '../../../src/kernels/pyramid.js';
import { dequantizeRows, packCodes, packPulses } from '../../../src/kernels/pyramid-index.js';
import type { ModelFiles } from '../../../src/models/model-files.js';
import { createWeightReader, type StoredWeight } from '../../../src/models/weights.js';
import { type ExportRows, isStepRows, wholeRows } from '../../../src/quantization/exports/carriers.js';
import { constraintsOf, type ExportFormat, exportPulses } from '../../../src/quantization/exports/export-format.js';
import type { EncodedTensors } from '../../../src/quantization/exports/gguf-export.js';
import { encodeStepRows, roundToHalf } from '../../../src/quantization/exports/step-rows.js';

/** A plain quantiser under a format's caps: eight gain levels, evenly spaced up to the largest. */
export function encodePlain(
  weights: Float32Array,
  rows: number,
  columns: number,
  format: ExportFormat,
  D: number,
  K = exportPulses(format, D),
): EncodedRows {
  const { cap, negativeCap } = constraintsOf(format);
  const groups = rowGroups(columns, D);
  const code = { groupLength: D, pulses: K, superGroup: 1, gainBits: 3 };
  const pulses = new Int16Array(rows * groups * D);
  searchPulses(weights, rows, columns, { D, K, mode: 'greedy', cap, negativeCap }, pulses);
  const codes = new Uint8Array(rows * groups);
  const scales = new Float32Array(rows);
  for (let r = 0; r < rows; r++) {
    const gains = Array.from({ length: groups }, (_, g) => {
      let xy = 0;
      let yy = 0;
      for (let i = 0; i < Math.min(D, columns - g * D); i++) {
        const y = pulses[(r * groups + g) * D + i];
        xy += weights[r * columns + g * D + i] * y;
        yy += y * y;
      }
      return xy / Math.sqrt(yy);
    });
    scales[r] = roundToHalf(Math.max(...gains) / 8);
    gains.forEach((gain, g) => {
      codes[r * groups + g] = Math.min(7, Math.max(0, Math.round(gain / scales[r]) - 1));
    });
  }
  const index = new Uint8Array(rows * rowIndexBytes(code, groups));
  packPulses(pulses, rows, groups, code, index);
  const gain = new Uint8Array(rows * rowCodeBytes(3, groups));
  packCodes(codes, rows, groups, 3, gain);
  return { rows, columns, code, index, gain, scales, levels: Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8) };
}

/** The weights that a coded matrix stands for once its factors are f16; of steps, which are exact, the same weights. */
export function decodeRounded(coded: ExportRows): Float32Array {
  if (isStepRows(coded)) return decode(coded);
  const { numbers, factors, unit, columns } = wholeRows(coded, 0, coded.rows);
  const rounded = factors.map(roundToHalf);
  const units = Math.ceil(columns / unit);
  return Float32Array.from(numbers, (y, i) => {
    const row = Math.floor(i / columns);
    return rounded[row * units + Math.floor((i - row * columns) / unit)] * y;
  });
}

/** The weights that a coded matrix stands for. */
export function decode(coded: ExportRows): Float32Array {
  const values = new Float32Array(coded.rows * coded.columns);
  if (!isStepRows(coded)) {
    dequantizeRows(coded, values);
    return values;
  }
  const { groupLength: D, baseColumns } = coded;
  return values.map(
    (_, i) => Math.fround(coded.bases[Math.floor(i / baseColumns)] * coded.codes[Math.floor(i / D)]) * coded.points[i],
  );
}

/** Codes every matrix of the layers that `wanted` takes, by the name of its tensor. */
export function encodeModel(
  files: ModelFiles,
  format: ExportFormat,
  D: number,
  wanted: (name: string, columns: number) => boolean = () => true,
): EncodedTensors & { readonly coded: ReadonlyMap<string, ExportRows> } {
  const coded = new Map<string, ExportRows>();
  const reader = createWeightReader(1);
  const stacks = new Map<string, StoredWeight>();
  for (const layer of files.weights.layers) {
    for (const [role, { store, tensor }] of layer) {
      if (/norm|router|_bias/.test(role) || !wanted(tensor.name, tensor.shape[tensor.shape.length - 1])) continue;
      stacks.set(tensor.name, { store, tensor, start: 0, byteLength: tensor.byteLength, shape: tensor.shape });
    }
  }
  for (const [name, weight] of stacks) {
    let columns = weight.shape[weight.shape.length - 1];
    let rows = elementCount(weight.shape) / columns;
    let values: Float32Array = new Float32Array(rows * columns);
    reader.read({ ...weight, shape: [rows, columns] }, values);
    if (files.description.linearLayout === 'in-out') {
      values = turned(values, columns, rows);
      [rows, columns] = [columns, rows];
    }
    const stepped = constraintsOf(format).gainPolicy === 'step';
    coded.set(
      name,
      stepped
        ? encodeStepRows(values, rows, columns, format, {
            groupLength: D,
            pulses: exportPulses(format, D),
            mode: 'greedy',
          })
        : encodePlain(values, rows, columns, format, D),
    );
  }
  const find = (name: string): ExportRows => {
    const rows = coded.get(name);
    if (!rows) throw new Error(`${name} is not coded`);
    return rows;
  };
  return { coded, has: (name) => coded.has(name), get: find };
}

/** The source with its coded tensors replaced by what `decoder` gives for them. */
export function decodedModel(
  source: ModelFiles,
  coded: ReadonlyMap<string, ExportRows>,
  decoder: (rows: ExportRows) => Float32Array,
): ModelFiles {
  const { store, weights } = source;
  const inOut = source.description.linearLayout === 'in-out';
  const values = new Map<string, Uint8Array>();
  const tensors = new Map<string, TensorInfo>(store.tensors);
  for (const [name, rows] of coded) {
    const info = store.tensors.get(name);
    if (!info) throw new Error(`no ${name}`);
    tensors.set(name, { ...info, dtype: 'F32', byteLength: 4 * elementCount(info.shape) });
    const decoded = decoder(rows);
    const stored = inOut ? turned(decoded, rows.rows, rows.columns) : decoded;
    values.set(name, new Uint8Array(stored.buffer));
  }
  const changed: TensorStore = {
    ...store,
    tensors,
    readInto(tensor, start, length, target) {
      const bytes = values.get(tensor.name);
      if (bytes) target.set(bytes.subarray(start, start + length));
      else store.readInto(tensor, start, length, target);
    },
  };
  const moved = (weight: StoredWeight): StoredWeight => {
    const tensor = tensors.get(weight.tensor.name) ?? weight.tensor;
    const scale = tensor.byteLength / weight.tensor.byteLength;
    return { ...weight, store: changed, tensor, start: weight.start * scale, byteLength: weight.byteLength * scale };
  };
  const layers = weights.layers.map((layer) => new Map([...layer].map(([role, weight]) => [role, moved(weight)])));
  return { ...source, weights: { ...weights, layers } };
}

function turned(values: Float32Array, rows: number, columns: number): Float32Array {
  return values.map((_, i) => values[(i % rows) * columns + Math.floor(i / rows)]);
}
