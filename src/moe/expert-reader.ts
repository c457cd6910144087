import { InputError } from '../errors.js';
import { quoted } from '../formats/files.js';
import { DTYPE_BYTES, type DType, elementCount, type TensorInfo, type TensorStore } from '../formats/tensor.js';
import type { Floats } from '../models/layer-runner.js';
import { createWeightReader } from '../models/weights.js';
import type { ExpertLayer, ExpertModel } from './expert-model.js';

/** f32 matrices of one expert: gate [I, H] (gated experts alone), up [I, H], down [H, I]. */
export interface ReadExpert {
  readonly gate?: Float32Array;
  readonly up: Float32Array;
  readonly down: Float32Array;
}

/** What decides about a token's experts, f32. E rows of the router. */
export interface RouterTensors {
  /** [E, H]. */
  readonly rows: Float32Array;
  /** [E]. */
  readonly bias?: Float32Array;
  /** [E]. */
  readonly correctionBias?: Float32Array;
}

/** Which matrix of an expert, and what of a tensor holds it. */
export interface ExpertPart {
  readonly role: 'gate' | 'up' | 'down';
  readonly tensor: string;
  /** Shape of the matrix as an expert has it, [out, in]. */
  readonly rows: number;
  readonly columns: number;
  /** The tensor holds the matrix turned: [in, out]. */
  readonly turned: boolean;
  /** First byte within the tensor, bytes of a stored row of the tensor, and where the matrix begins within that row. */
  readonly start: number;
  readonly strideBytes: number;
}

/**
 * Where the matrices of one expert lie: whole tensors, or parts of a fused tensor. `dtype` is that of the tensors; stored rows
 * of a matrix follow each other at `strideBytes`.
 */
export function expertParts(
  layer: ExpertLayer,
  arrangement: ExpertModel['layout'],
  e: number,
  dtype: DType = layer.dtype,
): ExpertPart[] {
  const { hidden, width } = layer.shape;
  const size = DTYPE_BYTES[dtype];
  const { tensors } = layer;
  const inner = { rows: width, columns: hidden };
  const outer = { rows: hidden, columns: width };
  if (tensors.gateUp === undefined) {
    const named = (template: string): string => template.replace('{e}', String(e));
    const part = (role: ExpertPart['role'], name: string, shape: typeof inner): ExpertPart => ({
      role,
      tensor: named(name),
      ...shape,
      turned: false,
      start: 0,
      strideBytes: shape.columns * size,
    });
    return [
      ...(tensors.gate === undefined ? [] : [part('gate', tensors.gate, inner)]),
      ...(tensors.up === undefined ? [] : [part('up', tensors.up, inner)]),
      part('down', tensors.down, outer),
    ];
  }
  const first = e * 2 * width * hidden * size;
  const gateUp = { tensor: tensors.gateUp, ...inner };
  const down = { role: 'down', tensor: tensors.down, ...outer, start: e * width * hidden * size } as const;
  if (arrangement === 'fused-rows') {
    const rows = { ...gateUp, turned: false, strideBytes: hidden * size };
    return [
      { role: 'gate', ...rows, start: first },
      { role: 'up', ...rows, start: first + width * hidden * size },
      { ...down, turned: false, strideBytes: width * size },
    ];
  }
  const columns = { ...gateUp, turned: true, strideBytes: 2 * width * size };
  return [
    { role: 'gate', ...columns, start: first },
    { role: 'up', ...columns, start: first + width * size },
    { ...down, turned: true, strideBytes: hidden * size },
  ];
}

/** Bytes of a tensor that belong to one expert. */
export interface ExpertSlice {
  readonly tensor: string;
  readonly start: number;
  readonly byteLength: number;
}

/** All that is stored of an expert, the same parts in the same order for every expert of a layer. */
export function expertSlices({ tensors, shape, dtype }: ExpertLayer, e: number): ExpertSlice[] {
  const matrixBytes = shape.width * shape.hidden * DTYPE_BYTES[dtype];
  if (tensors.gateUp !== undefined) {
    return [
      { tensor: tensors.gateUp, start: e * 2 * matrixBytes, byteLength: 2 * matrixBytes },
      { tensor: tensors.down, start: e * matrixBytes, byteLength: matrixBytes },
    ];
  }
  return [tensors.gate, tensors.up, tensors.down]
    .filter((name) => name !== undefined)
    .map((name) => ({ tensor: name.replace('{e}', String(e)), start: 0, byteLength: matrixBytes }));
}

/** Values of a band of stored rows that are turned: 4 MiB of f32. */
export const BAND_VALUES = 1 << 20;
/** Edge of the squares in which a band is turned: both sides of one stay in the cache. */
const TILE = 32;

/**
 * Turns a block: target[c * height + at + r] = source[r * stride + from + c] for r below `rows` and c below `columns`. Rows of
 * `source` have `stride` values, those of `target` `height`.
 */
export function turnBlock(
  source: Floats,
  { stride, from, rows, columns }: { stride: number; from: number; rows: number; columns: number },
  target: Floats,
  height: number,
  at: number,
): void {
  for (let r0 = 0; r0 < rows; r0 += TILE) {
    const r1 = Math.min(r0 + TILE, rows);
    for (let c0 = 0; c0 < columns; c0 += TILE) {
      const c1 = Math.min(c0 + TILE, columns);
      for (let c = c0; c < c1; c++) {
        for (let r = r0; r < r1; r++) target[c * height + at + r] = source[r * stride + from + c];
      }
    }
  }
}

function tensorOf(store: TensorStore, name: string): TensorInfo {
  const info = store.tensors.get(name);
  if (info === undefined) throw new InputError(`${store.path}: tensor ${quoted(name)} is missing`);
  return info;
}

/** The layer at a place of the list. @throws RangeError for a layer or an expert that is not there */
function layerAt(model: ExpertModel, index: number, e: number): ExpertLayer {
  const layer = model.layers[index];
  if (layer === undefined || !(e >= 0 && e < layer.experts))
    throw new RangeError(`${model.path}: no expert ${e} in layer ${index} of the ${model.layers.length} with experts`);
  return layer;
}

function buffer(of: Float32Array | undefined, length: number): Float32Array {
  if (of === undefined) return new Float32Array(length);
  if (of.length !== length) throw new RangeError(`a buffer of ${of.length} values for a matrix of ${length}`);
  return of;
}

/**
 * Expert `e` of `model.layers[index]` (the place in the list, not the number of the decoder layer), whatever the layout of
 * the files: always gate and up [I, H], down [H, I].
 * @param into buffers to fill instead of new ones; they must have the expert's sizes
 * @throws RangeError for a layer or expert that is not there, InputError and RunError as the store does
 */
export function readExpert(
  model: ExpertModel,
  index: number,
  e: number,
  threads = 1,
  into?: Partial<ReadExpert>,
): ReadExpert {
  const layer = layerAt(model, index, e);
  const size = layer.shape.width * layer.shape.hidden;
  const result = {
    ...(layer.shape.gated && { gate: buffer(into?.gate, size) }),
    up: buffer(into?.up, size),
    down: buffer(into?.down, size),
  };
  const reader = createWeightReader(threads);
  const parts = expertParts(layer, model.layout, e);
  for (const part of parts.filter(({ turned }) => !turned)) {
    const target = result[part.role];
    if (target === undefined) continue;
    const tensor = tensorOf(model.store, part.tensor);
    const byteLength = part.rows * part.strideBytes;
    const shape = [part.rows, part.columns];
    reader.read({ store: model.store, tensor, start: part.start, byteLength, shape }, target);
  }
  // Gate and up share the rows of one tensor: each band of it is read once.
  const turned = parts.filter((part) => part.turned);
  for (const name of new Set(turned.map(({ tensor }) => tensor))) {
    const own = turned.filter(({ tensor }) => tensor === name);
    const start = Math.min(...own.map((part) => part.start));
    const bytes = DTYPE_BYTES[layer.dtype];
    const [{ strideBytes, columns: height }] = own;
    const stride = strideBytes / bytes;
    const tensor = tensorOf(model.store, name);
    const weight = { store: model.store, tensor, start, byteLength: height * strideBytes, shape: [height, stride] };
    const bandRows = Math.max(1, Math.min(height, Math.floor(BAND_VALUES / stride)));
    const band = new Float32Array(bandRows * stride);
    for (let row = 0; row < height; row += bandRows) {
      const count = Math.min(bandRows, height - row);
      reader.read(weight, band.subarray(0, count * stride), row, count);
      for (const part of own) {
        const target = result[part.role];
        if (target === undefined) continue;
        const from = (part.start - start) / bytes;
        turnBlock(band, { stride, from, rows: count, columns: part.rows }, target, height, row);
      }
    }
  }
  return result;
}

function readWhole(store: TensorStore, name: string, threads: number): Float32Array {
  const tensor = tensorOf(store, name);
  const values = new Float32Array(elementCount(tensor.shape));
  const { byteLength, shape } = tensor;
  createWeightReader(threads).read({ store, tensor, start: 0, byteLength, shape }, values);
  return values;
}

/** Router of `model.layers[index]`. @throws as {@link readExpert} */
export function readRouter(model: ExpertModel, index: number, threads = 1): RouterTensors {
  const { router, routerBias, correctionBias } = layerAt(model, index, 0);
  return {
    rows: readWhole(model.store, router, threads),
    ...(routerBias !== undefined && { bias: readWhole(model.store, routerBias, threads) }),
    ...(correctionBias !== undefined && { correctionBias: readWhole(model.store, correctionBias, threads) }),
  };
}
