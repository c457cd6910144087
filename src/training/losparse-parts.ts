import { InputError } from '../errors.js';
import type { JsonChanges } from '../formats/json-edit.js';
import { DTYPE_BYTES, elementCount, type TensorInfo, type TensorStore } from '../formats/tensor.js';
import { lowRankFactors, lowRankProduct, sparseResidual } from '../linalg/low-rank.js';
import { FACTORISED_KEY, isFactorisedStore } from '../models/factorised-store.js';
import { type MemoryTensor, memoryStore, overlaidStore } from '../models/memory-model.js';
import { locateHuggingFace, type ModelFiles } from '../models/model-files.js';
import { huggingFaceNames, weightName } from '../models/weight-names.js';
import { createWeightReader, type StoredWeight } from '../models/weights.js';
import type { LowRankAdapter } from './decoder-weights.js';
import { createLoSparsePruner, type PrunedMatrix, survivors } from './losparse-pruner.js';
import { selectNames } from './name-patterns.js';
import type { PruningSchedule } from './pruning-schedule.js';
import type { StudentDType } from './student-config.js';
import type { StepFollower } from './trainer.js';
import type { Floats, ParameterSet, Precision } from './types.js';

/** How matrices of experts are taken apart into W = L R + S (LoSparse 2023; MC-SMoE 2023). */
export interface LoSparseOptions {
  /** r; of a directory that holds parts already, that of its parts. */
  readonly rank?: number;
  /** Globs of the matrices by name; all of the experts when absent. */
  readonly targets?: readonly string[];
  readonly precision: Precision;
  readonly threads: number;
  readonly seed: number;
}

/** One matrix [rows, columns] in parts. */
export interface LoSparseMatrix {
  /** Of the matrix; S is trained under it. */
  readonly name: string;
  readonly rows: number;
  readonly columns: number;
  readonly rank: number;
}

/** A model whose matrices of experts are in parts. */
export interface LoSparseModel {
  /** The model with S in the place of each matrix; stacks of experts that hold one are matrices of their own. */
  readonly files: ModelFiles;
  /** L R beside them: A is R and B is L. */
  readonly adapters: readonly LowRankAdapter[];
  readonly matrices: readonly LoSparseMatrix[];
  /** The directory held parts already. */
  readonly continued: boolean;
}

interface ExpertMatrix {
  readonly name: string;
  readonly weight: StoredWeight;
}

const LEFT = '.low_rank_left';
const RIGHT = '.low_rank_right';
const ROLE = /^expert\.(\d+)\.(gate|up|down)$/;

/** Name by which a reader finds one matrix of a stack: in the block of the stack, as checkpoints store experts apart. */
function separateName({ description }: ModelFiles, stack: string, role: string, layer: number): string {
  const [, expert, part] = ROLE.exec(role) ?? [];
  const blockEnd = stack.indexOf('experts.');
  const templates = huggingFaceNames(description.modelType).layer[`expert.{e}.${part}`] ?? [];
  for (const template of templates.filter((name) => !name.includes('#'))) {
    const { tensor } = weightName(template, layer, expert);
    const own = tensor.indexOf('experts.');
    const block = tensor.slice(tensor.indexOf('layers.'), own);
    if (stack.slice(0, blockEnd).endsWith(block)) return `${stack.slice(0, blockEnd)}${tensor.slice(own)}`;
  }
  throw new InputError(`${stack}: no name is known under which expert ${expert} could be stored on its own`);
}

function expertMatrices(files: ModelFiles): ExpertMatrix[] {
  return files.weights.layers.flatMap((layer, l) =>
    [...layer].flatMap(([role, weight]) => {
      if (!ROLE.test(role)) return [];
      const whole = elementCount(weight.shape) === elementCount(weight.tensor.shape);
      return [{ weight, name: whole ? weight.tensor.name : separateName(files, weight.tensor.name, role, l) }];
    }),
  );
}

function chooseMatrices(files: ModelFiles, options: LoSparseOptions): ExpertMatrix[] {
  const all = expertMatrices(files);
  if (all.length === 0) throw new InputError(`${files.path}: has no experts that could be low rank and sparse rows`);
  if (!isFactorisedStore(files.store)) {
    const { targets, rank = 0 } = options;
    const chosen = new Set(
      targets
        ? selectNames(
            all.map(({ name }) => name),
            { train: targets },
          )
        : all.map((m) => m.name),
    );
    const matrices = all.filter(({ name }) => chosen.has(name));
    const narrow = matrices.find(({ weight }) => rank > Math.min(...weight.shape));
    if (narrow)
      throw new InputError(
        `rank ${rank}: ${narrow.name} is [${narrow.weight.shape}]; its rank is at most ${Math.min(...narrow.weight.shape)}`,
      );
    return matrices;
  }
  if (options.targets) {
    throw new InputError(
      `${files.path}: is compressed already, which says what its matrices in parts are; leave out the targets`,
    );
  }
  const { factorised } = files.store;
  return all.filter(({ name }) => factorised.has(name));
}

/** The parts of one matrix. */
interface Parts {
  readonly rank: number;
  /** [rows, rank]. */
  readonly left: Floats;
  /** [rank, columns]. */
  readonly right: Floats;
  /** [rows, columns]. */
  readonly sparse: Floats;
}

/** Reads matrices as parts: those of the file where it holds some, those of a decomposition otherwise. */
function partsReader(files: ModelFiles, options: LoSparseOptions): (matrix: ExpertMatrix) => Parts {
  const { precision, threads, seed, rank } = options;
  const reader = createWeightReader(threads);
  const make = (length: number): Floats => (precision === 'f32' ? new Float32Array(length) : new Float64Array(length));
  const { store } = files;
  if (!isFactorisedStore(store)) {
    return ({ weight }) => {
      const [rows, columns] = weight.shape;
      const values = make(rows * columns);
      reader.read(weight, values);
      const found = lowRankFactors(values, rows, columns, rank ?? 0, { seed, threads });
      const [left, right] = [make(found.left.length), make(found.right.length)];
      left.set(found.left);
      right.set(found.right);
      const sizes = { rows, columns, rank: found.rank };
      return { rank: found.rank, left, right, sparse: sparseResidual(values, left, right, sizes, threads) };
    };
  }
  const { parts } = store;
  const whole = (tensor: TensorInfo): Floats => {
    const values = make(elementCount(tensor.shape));
    reader.read({ store: parts, tensor, start: 0, byteLength: tensor.byteLength, shape: tensor.shape }, values);
    return values;
  };
  const part = (name: string): TensorInfo => {
    const info = parts.tensors.get(name);
    if (!info) throw new InputError(`${files.path}: tensor "${name}" is missing`);
    return info;
  };
  return ({ name, weight }) => {
    const [rows, columns] = weight.shape;
    const [left, right] = [part(`${name}${LEFT}`), part(`${name}${RIGHT}`)];
    const stored = left.shape[1];
    if (rank !== undefined && rank !== stored) {
      throw new InputError(
        `${files.path}: the parts of ${name} have rank ${stored}; another rank needs the model before it was compressed`,
      );
    }
    const sparse = make(rows * columns);
    const indices = parts.tensors.get(`${name}.sparse_rows`);
    if (indices) {
      const kept = new Int32Array(indices.shape[0]);
      parts.readInto(indices, 0, indices.byteLength, new Uint8Array(kept.buffer));
      const values = whole(part(`${name}.sparse_values`));
      kept.forEach((row, i) => {
        sparse.set(values.subarray(i * columns, (i + 1) * columns), row * columns);
      });
    }
    return { rank: stored, left: whole(left), right: whole(right), sparse };
  };
}

/**
 * Takes the matrices of experts apart: W = L R + S of a truncated decomposition, or the parts that a compressed directory
 * holds, rows that it does not hold being zero.
 * @throws InputError for a model without experts, targets that match nothing, a rank above the smaller side of a matrix or
 *   other than that of the parts of the directory
 */
export function openLoSparse(files: ModelFiles, options: LoSparseOptions): LoSparseModel {
  const chosen = new Map(chooseMatrices(files, options).map((matrix) => [matrix.name, matrix]));
  const read = partsReader(files, options);
  const own = new Map<string, MemoryTensor>();
  const adapters: LowRankAdapter[] = [];
  const matrices: LoSparseMatrix[] = [];
  for (const [name, matrix] of chosen) {
    const [rows, columns] = matrix.weight.shape;
    const { rank, left, right, sparse } = read(matrix);
    own.set(name, { shape: [rows, columns], data: sparse as MemoryTensor['data'] });
    matrices.push({ name, rows, columns, rank });
    adapters.push({
      tensor: name,
      rank,
      scale: 1,
      a: { name: `${name}${RIGHT}`, values: right },
      b: { name: `${name}${LEFT}`, values: left },
    });
  }
  // One stack apart, all apart: which way a stack lies is told of all of them together.
  const stacked = expertMatrices(files).filter(({ name, weight }) => weight.tensor.name !== name);
  const apart = stacked.some(({ name }) => own.has(name)) ? stacked : [];
  const reader = createWeightReader(options.threads);
  for (const { name, weight } of apart) {
    if (own.has(name)) continue;
    const data = new Float32Array(elementCount(weight.shape));
    reader.read(weight, data);
    own.set(name, { shape: weight.shape, data });
  }
  const stacks = new Set(apart.map(({ weight }) => weight.tensor.name));
  return {
    files: {
      ...locateHuggingFace(files.path, files.description, overlaidStore(files.store, own, stacks)),
      path: files.path,
    },
    adapters,
    matrices,
    continued: isFactorisedStore(files.store),
  };
}

/** S of every matrix with its gradients, where they lie. @throws InputError when one is frozen */
function sparseParts(
  matrices: readonly LoSparseMatrix[],
  { parameters, values, gradients }: ParameterSet,
): { readonly pruned: PrunedMatrix[]; readonly gradients: Floats[]; readonly places: [from: number, to: number][] } {
  const byName = new Map(parameters.map((parameter) => [parameter.name, parameter]));
  const places = matrices.map(({ name }): [number, number] => {
    const parameter = byName.get(name);
    if (!parameter)
      throw new InputError(`${name}: its sparse part is frozen; name it with --train, or do not freeze it`);
    return [parameter.offset, parameter.offset + parameter.length];
  });
  return {
    pruned: matrices.map((matrix, m) => ({ ...matrix, values: values.subarray(...places[m]) })),
    gradients: places.map((place) => gradients.subarray(...place)),
    places,
  };
}

/**
 * Prunes S behind every step by LoSparse's schedule. Without a schedule the rows that are not zero now may change, and no
 * others.
 * @throws InputError for a schedule with too few steps, or a part that is frozen
 */
export function loSparseFollower(
  { matrices }: LoSparseModel,
  set: ParameterSet,
  schedule: PruningSchedule | undefined,
): StepFollower {
  const { pruned, gradients, places } = sparseParts(matrices, set);
  if (schedule === undefined) return fixedRows(pruned);
  const make = (): Floats =>
    set.precision === 'f32' ? new Float32Array(set.values.length) : new Float64Array(set.values.length);
  const state = { importance: make(), average: make() };
  const sensitivities = places.map((place) => ({
    importance: state.importance.subarray(...place),
    average: state.average.subarray(...place),
  }));
  const pruner = createLoSparsePruner(pruned, schedule, sensitivities);
  return {
    state,
    moved(step, scale) {
      pruner.step(gradients, { step: step - 1, scale });
    },
  };
}

function fixedRows(matrices: readonly PrunedMatrix[]): StepFollower {
  const alive = matrices.map((matrix) => new Set(survivors(matrix)));
  return {
    state: {},
    moved() {
      matrices.forEach(({ values, rows, columns }, m) => {
        for (let row = 0; row < rows; row++) {
          if (!alive[m].has(row)) values.fill(0, row * columns, (row + 1) * columns);
        }
      });
    },
  };
}

/** Figures of what is stored. */
export interface LoSparseFigures {
  readonly matrices: number;
  /** Stored as they are, since their parts would take more. */
  readonly dense_matrices: number;
  /** Of S, and those of them that are not zero. */
  readonly rows: number;
  readonly sparse_rows: number;
  /** Of these matrices, as they were and as they are written. */
  readonly bytes_before: number;
  readonly bytes_after: number;
}

/** Tensors of a trained model with its matrices in the factorised form (`factorised-store.ts`). */
export interface FactorisedTensors {
  readonly store: TensorStore;
  readonly integers: ReadonlyMap<string, Int32Array>;
  readonly metadata: Readonly<Record<string, string>>;
  readonly configChanges: JsonChanges;
  readonly figures: LoSparseFigures;
}

/**
 * Stores L, R and the rows of S that are not zero; a matrix whose parts would take more bytes than itself is multiplied out.
 * @param tensors of the student, S under the names of the matrices
 * @param set where L and R lie
 */
export function factorisedTensors(
  { files, matrices }: LoSparseModel,
  tensors: ReadonlyMap<string, MemoryTensor>,
  set: ParameterSet,
  dtype: StudentDType,
  threads: number,
): FactorisedTensors {
  const width = DTYPE_BYTES[dtype];
  const all = new Map(tensors);
  const integers = new Map<string, Int32Array>();
  const byName = new Map(set.parameters.map((parameter) => [parameter.name, parameter]));
  const valuesOf = (name: string): MemoryTensor['data'] => {
    const { offset, length } = byName.get(name) ?? { offset: 0, length: 0 };
    return set.values.subarray(offset, offset + length) as MemoryTensor['data'];
  };
  const figures = {
    matrices: matrices.length,
    dense_matrices: 0,
    rows: 0,
    sparse_rows: 0,
    bytes_before: 0,
    bytes_after: 0,
  };
  for (const { name, rows, columns, rank } of matrices) {
    const sparse = tensors.get(name)?.data ?? new Float32Array(rows * columns);
    const [left, right] = [valuesOf(`${name}${LEFT}`), valuesOf(`${name}${RIGHT}`)];
    const kept = survivors({ values: sparse, rows, columns });
    const dense = rows * columns * width;
    const parts = rank * (rows + columns) * width + kept.length * (4 + columns * width);
    figures.rows += rows;
    figures.sparse_rows += kept.length;
    figures.bytes_before += dense;
    figures.bytes_after += Math.min(dense, parts);
    all.delete(name);
    if (parts >= dense) {
      const product = lowRankProduct(left, right, { rows, columns, rank }, threads);
      all.set(name, {
        shape: [rows, columns],
        data: product.map((value, i) => value + sparse[i]) as MemoryTensor['data'],
      });
      figures.dense_matrices++;
      continue;
    }
    all.set(`${name}${LEFT}`, { shape: [rows, rank], data: left });
    all.set(`${name}${RIGHT}`, { shape: [rank, columns], data: right });
    if (kept.length === 0) continue;
    integers.set(`${name}.sparse_rows`, kept);
    all.set(`${name}.sparse_values`, { shape: [kept.length, columns], data: rowsOf(sparse, kept, columns) });
  }
  const factorised = figures.dense_matrices < figures.matrices;
  return {
    store: memoryStore(files.path, all),
    integers,
    metadata: factorised ? { [FACTORISED_KEY]: '{"version":1}' } : {},
    configChanges: factorised ? { quantization_config: { format: 'surprisal_factorised', reader: 'surprisal' } } : {},
    figures,
  };
}

function rowsOf(values: MemoryTensor['data'], rows: Int32Array, columns: number): MemoryTensor['data'] {
  const chosen = values.slice(0, rows.length * columns);
  rows.forEach((row, i) => {
    chosen.set(values.subarray(row * columns, (row + 1) * columns), i * columns);
  });
  return chosen;
}
