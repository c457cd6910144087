import { InputError } from '../errors.js';
import { isBlockType } from '../formats/ggml-blocks.js';
import {
  DTYPE_BYTES,
  type DType,
  elementCount,
  type GgmlBlockType,
  type TensorInfo,
  type TensorStore,
} from '../formats/tensor.js';
import { type NarrowDType, narrowFromF32 } from '../kernels/dtypes.js';
import type { ModelFiles } from '../models/model-files.js';
import { createWeightReader, type ModelWeights, type StoredWeight, type WeightReader } from '../models/weights.js';
import {
  applyRotation,
  type FusedPart,
  type FusedTensor,
  type FusionPlan,
  type FusionStep,
} from './rotation-fusion.js';

/** Element type of the tensors that change: one for all, or the type in which the source stores them. */
export type FusedDType = 'F32' | 'F64' | 'source';

export interface FusedStoreOptions {
  /**
   * How changed tensors are stored. `F32` (default) and `F64` serve what computes on; `source` is what a checkpoint of
   * the source's size holds (types of blocks become F16). A function chooses for each tensor.
   */
  readonly dtype?: FusedDType | ((tensor: TensorInfo) => FusedDType);
  readonly threads?: number;
}

/**
 * Types for a fused model that is quantised next: matrices of layers as F32, so that nothing is lost before the codes;
 * what stays as it is (embeddings, head, norms, biases, routers) in the type of the source, so that it does not grow.
 */
export function workingTypes({ weights }: ModelFiles): (tensor: TensorInfo) => FusedDType {
  const matrices = new Set<string>();
  for (const layer of weights.layers) {
    for (const [role, { tensor, shape }] of layer) {
      if (shape.length === 2 && !role.endsWith('router')) matrices.add(tensor.name);
    }
  }
  return ({ name }) => (matrices.has(name) ? 'F32' : 'source');
}

/** Elements of f64 scratch that one pass works on. */
const PASS_ELEMENTS = 1 << 19;
const SLICE_BYTES = 4 << 20;

/**
 * The model after fusion, as a model like any other: tensors are computed as they are read, in f64 and rounded once.
 * Matrices that read the residual stream are computed by rows, so that a band costs a band; those that write to it and
 * those of fused heads are computed as a whole, and the last one is kept.
 * The store of `files` stays open as long as the result is used; closing the result closes it.
 */
export function fuseModel(files: ModelFiles, plan: FusionPlan, options: FusedStoreOptions = {}): ModelFiles {
  const store = openFusedStore(files.store, plan, options);
  const moved = (weight: StoredWeight, name = weight.tensor.name): StoredWeight => {
    const tensor = store.tensors.get(name);
    if (!tensor) throw new RangeError(`the fused model lacks "${name}"`);
    const parts = weight.tensor.byteLength / weight.byteLength;
    const byteLength = tensor.byteLength / parts;
    const index = weight.start / weight.byteLength;
    return { ...weight, store, tensor, byteLength, start: index * byteLength };
  };
  const { weights } = files;
  const fused: ModelWeights = {
    embedding: moved(weights.embedding),
    head: moved(weights.head, plan.untiedHead),
    finalNorm: moved(weights.finalNorm),
    ...(weights.finalNormBias && { finalNormBias: moved(weights.finalNormBias) }),
    ...(weights.positions && { positions: moved(weights.positions) }),
    layers: weights.layers.map((layer) => new Map([...layer].map(([role, weight]) => [role, moved(weight)]))),
  };
  const tiedHead = files.description.tiedHead && plan.untiedHead === undefined;
  return { ...files, store, weights: fused, description: { ...files.description, tiedHead } };
}

/** Decorates a store: tensors of the plan are computed when they are read, all others pass through. */
export function openFusedStore(source: TensorStore, plan: FusionPlan, options: FusedStoreOptions = {}): TensorStore {
  const { dtype = 'F32', threads = 1 } = options;
  const tensors = new Map<string, TensorInfo>(source.tensors);
  for (const tensor of plan.tensors.values()) {
    const wanted = typeof dtype === 'function' ? dtype(tensor.source) : dtype;
    const type = storedType(wanted, tensor.source.dtype);
    const byteLength = elementCount(tensor.shape) * DTYPE_BYTES[type];
    tensors.set(tensor.name, { ...tensor.source, name: tensor.name, dtype: type, offset: 0, byteLength });
  }
  const evaluator = createEvaluator(plan, threads);
  return {
    path: source.path,
    tensors,
    metadata: source.metadata,
    readInto(tensor, start, length, target) {
      const fused = plan.tensors.get(tensor.name);
      if (!fused) source.readInto(tensor, start, length, target);
      else if (start < 0 || start + length > tensor.byteLength) {
        throw new RangeError(`${source.path}: bytes ${start}..${start + length} are not in tensor ${tensor.name}`);
      } else readFused(evaluator, fused, tensor.dtype as DType, start, target.subarray(0, length));
    },
    close: () => source.close(),
  };
}

function storedType(wanted: FusedDType, source: DType | GgmlBlockType): DType {
  if (wanted !== 'source') return wanted;
  return isBlockType(source) ? 'F16' : source;
}

/** Bytes start..start+length-1 of a fused tensor, by slices of whole rows. */
function readFused(evaluator: Evaluator, tensor: FusedTensor, dtype: DType, start: number, target: Uint8Array): void {
  const size = DTYPE_BYTES[dtype];
  let partStart = 0;
  for (const part of tensor.parts) {
    const rowBytes = storedRowElements(part) * size;
    const partBytes = part.rows * part.columns * size;
    const from = Math.max(start, partStart);
    const to = Math.min(start + target.length, partStart + partBytes);
    const rowsPerSlice = Math.max(1, Math.floor(SLICE_BYTES / rowBytes));
    let row = Math.floor((from - partStart) / rowBytes);
    while (partStart + row * rowBytes < to) {
      const count = Math.min(rowsPerSlice, Math.ceil((to - partStart) / rowBytes) - row);
      const bytes = encodeValues(evaluator.storedRows(part, dtype === 'F64', row, count), dtype, tensor);
      const at = partStart + row * rowBytes;
      const first = Math.max(from, at);
      const last = Math.min(to, at + count * rowBytes);
      target.set(bytes.subarray(first - at, last - at), first - start);
      row += count;
    }
    partStart += partBytes;
  }
}

function encodeValues(values: Float32Array | Float64Array, dtype: DType, tensor: FusedTensor): Uint8Array {
  if (values instanceof Float64Array || dtype === 'F32') {
    return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  }
  const bytes = new Uint8Array(values.length * DTYPE_BYTES[dtype]);
  const largest = dtype === 'F16' ? 65_504 : Number.POSITIVE_INFINITY;
  for (const value of values) {
    if (Math.abs(value) <= largest) continue;
    throw new InputError(
      `${tensor.source.file}: tensor "${tensor.name}": ${value} after fusion does not fit ${dtype}; store it as F32`,
    );
  }
  narrowFromF32(values, dtype as NarrowDType, bytes);
  return bytes;
}

function storedRowElements(part: FusedPart): number {
  return part.transposed ? part.rows : part.columns;
}

interface Evaluator {
  /** Stored rows first..first+count-1 of a part after its steps, valid until the next call. */
  storedRows(part: FusedPart, double: boolean, first: number, count: number): Float32Array | Float64Array;
}

/** How the steps of a part must be carried out. */
function needsWhole(part: FusedPart): boolean {
  return part.transposed || part.columns === 1 || part.steps.some((step) => isRowStep(step));
}

function isRowStep(step: FusionStep): boolean {
  return step.kind === 'rotate-rows' || step.kind === 'center-rows' || step.kind === 'rotate-row-blocks';
}

function createEvaluator(plan: FusionPlan, threads: number): Evaluator {
  const reader = createWeightReader(threads);
  let kept: { readonly part: FusedPart; readonly values: Float32Array | Float64Array } | undefined;
  return {
    storedRows(part, double, first, count) {
      const width = storedRowElements(part);
      const make = (length: number): Float32Array | Float64Array =>
        double ? new Float64Array(length) : new Float32Array(length);
      if (!needsWhole(part)) {
        const band = make(count * width);
        reader.read(part.weight, band, first, count);
        carryOut(plan, reader, { ...part, rows: count }, band, threads);
        return band;
      }
      if (kept?.part !== part || kept.values instanceof Float64Array !== double) {
        kept = undefined;
        const values = make(part.rows * part.columns);
        reader.read(part.weight, values);
        carryOut(plan, reader, part, values, threads);
        kept = { part, values };
      }
      return kept.values.subarray(first * width, (first + count) * width);
    },
  };
}

/**
 * Carries out the steps of a part on its values as stored, in place. Sums and rotations are in f64; every element is
 * rounded once, when its pass is written back.
 */
function carryOut(
  plan: FusionPlan,
  reader: WeightReader,
  part: FusedPart,
  values: Float32Array | Float64Array,
  threads: number,
): void {
  const { rows, columns } = part;
  if (columns === 1) {
    const vector = Float64Array.from(values);
    for (const step of part.steps) vectorStep(plan, reader, step, vector);
    values.set(vector);
  } else if (part.steps.some((step) => step.kind === 'rotate-rows' || step.kind === 'center-rows')) {
    columnPasses(plan, part, values, threads);
  } else {
    const blocks = part.steps.flatMap((step) => (step.kind === 'rotate-row-blocks' ? [step] : []))[0];
    const height = blocks ? widthOf(plan, blocks) : 1;
    const most = Math.max(1, Math.floor(PASS_ELEMENTS / columns / height)) * height;
    for (const [first, count] of rowRanges(rows, blocks?.firstRows ?? [], height, most)) {
      rowPass(plan, part, values, first, count, threads);
    }
  }
}

function widthOf(plan: FusionPlan, step: Extract<FusionStep, { rotation: unknown }>): number {
  return rotationOf(plan, step).width;
}

function rotationOf(plan: FusionPlan, step: Extract<FusionStep, { rotation: unknown }>) {
  const rotation = plan.rotations.get(step.rotation);
  if (!rotation) throw new RangeError(`the plan lacks rotation ${step.rotation}`);
  return rotation;
}

/** Ranges of at most `most` rows, each either whole blocks or rows between blocks. */
function* rowRanges(
  rows: number,
  firstRows: readonly number[],
  height: number,
  most: number,
): Generator<[first: number, count: number]> {
  let at = 0;
  const plain = function* (end: number): Generator<[number, number]> {
    for (; at < end; at = Math.min(end, at + most)) yield [at, Math.min(most, end - at)];
  };
  for (const first of firstRows) {
    yield* plain(first);
    yield [first, height];
    at = first + height;
  }
  yield* plain(rows);
}

/** Column steps on whole rows, then the rotation of a block of rows where the range is one. */
function rowPass(
  plan: FusionPlan,
  part: FusedPart,
  values: Float32Array | Float64Array,
  first: number,
  count: number,
  threads: number,
): void {
  const { columns } = part;
  const pass = new Float64Array(count * columns);
  copyRows(part, values, pass, first, count, 'out');
  for (const step of part.steps) {
    switch (step.kind) {
      case 'scale-columns':
        for (let i = 0; i < pass.length; i++) pass[i] *= step.factors[i % columns];
        break;
      case 'center-columns':
        centerRows(pass, count, columns);
        break;
      case 'rotate-columns':
        applyRotation(rotationOf(plan, step), pass, count, threads);
        break;
      case 'rotate-column-blocks':
        applyRotation(rotationOf(plan, step), pass, (count * columns) / widthOf(plan, step), threads);
        break;
      case 'rotate-row-blocks': {
        if (!step.firstRows.includes(first)) break;
        const turned = transpose(pass, count, columns);
        applyRotation(rotationOf(plan, step), turned, columns, threads);
        pass.set(transpose(turned, columns, count));
        break;
      }
      default:
        throw new RangeError(`step ${step.kind} is not one of rows`);
    }
  }
  copyRows(part, values, pass, first, count, 'in');
}

/** Panels of columns, all rows of each: rotations of column blocks, then what turns rows. */
function columnPasses(plan: FusionPlan, part: FusedPart, values: Float32Array | Float64Array, threads: number): void {
  const { rows, columns, transposed, steps } = part;
  const blocks = steps.flatMap((step) => (step.kind === 'rotate-column-blocks' ? [step] : []))[0];
  const unit = blocks ? widthOf(plan, blocks) : 1;
  const panel = Math.max(1, Math.floor(PASS_ELEMENTS / rows / unit)) * unit;
  for (let first = 0; first < columns; first += panel) {
    const width = Math.min(panel, columns - first);
    // [width, rows]: every column of W lies together.
    const turned = new Float64Array(width * rows);
    const at = (row: number, column: number): number =>
      transposed ? (first + column) * rows + row : row * columns + first + column;
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < width; column++) turned[column * rows + row] = values[at(row, column)];
    }
    let current: Float64Array = turned;
    for (const step of steps) {
      if (step.kind === 'rotate-column-blocks') {
        const plain = transpose(current, width, rows);
        applyRotation(rotationOf(plan, step), plain, plain.length / unit, threads);
        current = transpose(plain, rows, width);
      } else if (step.kind === 'center-rows') centerRows(current, width, rows);
      else if (step.kind === 'rotate-rows') applyRotation(rotationOf(plan, step), current, width, threads);
      else throw new RangeError(`step ${step.kind} is not one of columns`);
    }
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < width; column++) values[at(row, column)] = current[column * rows + row];
    }
  }
}

function vectorStep(plan: FusionPlan, reader: WeightReader, step: FusionStep, vector: Float64Array): void {
  switch (step.kind) {
    case 'set':
      vector.set(step.values);
      break;
    case 'add-product':
      addProduct(reader, step, vector);
      break;
    case 'center-rows':
      centerRows(vector, 1, vector.length);
      break;
    case 'rotate-rows':
      applyRotation(rotationOf(plan, step), vector, 1);
      break;
    case 'rotate-row-blocks': {
      const rotation = rotationOf(plan, step);
      for (const first of step.firstRows) {
        applyRotation(rotation, vector.subarray(first, first + rotation.width), 1);
      }
      break;
    }
    default:
      throw new RangeError(`step ${step.kind} is not one of vectors`);
  }
}

/** vector += V factors, V read by bands; V [out, in] or, where the first axis is that of the factors, [in, out]. */
function addProduct(
  reader: WeightReader,
  { matrix, factors, transposed }: Extract<FusionStep, { kind: 'add-product' }>,
  vector: Float64Array,
): void {
  const [storedRows, width] = matrix.shape;
  const most = Math.max(1, Math.floor(PASS_ELEMENTS / width));
  for (let first = 0; first < storedRows; first += most) {
    const count = Math.min(most, storedRows - first);
    const band = new Float64Array(count * width);
    reader.read(matrix, band, first, count);
    for (let r = 0; r < count; r++) {
      const row = band.subarray(r * width, (r + 1) * width);
      if (transposed) {
        for (let i = 0; i < width; i++) vector[i] += row[i] * factors[first + r];
      } else {
        let sum = 0;
        for (let i = 0; i < width; i++) sum += row[i] * factors[i];
        vector[first + r] += sum;
      }
    }
  }
}

/** Rows first..first+count-1 of W, out of the stored values into `pass` [count, columns] or back in. */
function copyRows(
  { rows, columns, transposed }: FusedPart,
  values: Float32Array | Float64Array,
  pass: Float64Array,
  first: number,
  count: number,
  direction: 'out' | 'in',
): void {
  if (!transposed) {
    const stored = values.subarray(first * columns, (first + count) * columns);
    if (direction === 'out') pass.set(stored);
    else stored.set(pass);
    return;
  }
  for (let column = 0; column < columns; column++) {
    for (let r = 0; r < count; r++) {
      const stored = column * rows + first + r;
      if (direction === 'out') pass[r * columns + column] = values[stored];
      else values[stored] = pass[r * columns + column];
    }
  }
}

/** Subtracts from every row of [rows, width] its mean. */
function centerRows(values: Float64Array, rows: number, width: number): void {
  for (let r = 0; r < rows; r++) {
    const row = values.subarray(r * width, (r + 1) * width);
    let sum = 0;
    for (let i = 0; i < width; i++) sum += row[i];
    const mean = sum / width;
    for (let i = 0; i < width; i++) row[i] -= mean;
  }
}

function transpose(values: Float64Array, rows: number, columns: number): Float64Array {
  const turned = new Float64Array(values.length);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) turned[c * rows + r] = values[r * columns + c];
  }
  return turned;
}
