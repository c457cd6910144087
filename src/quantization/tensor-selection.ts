import { didYouMean, InputError } from '../errors.js';
import { matchesPattern } from '../formats/name-patterns.js';
import { elementCount, type TensorInfo } from '../formats/tensor.js';
import { linearInputs } from '../models/linear-inputs.js';
import type { ModelFiles } from '../models/model-files.js';
import type { StoredWeight, WeightReader } from '../models/weights.js';

/** Tensors with fewer elements stay as they are unless a pattern names them. */
export const MINIMUM_ELEMENTS = 65_536;

/** A stored matrix, or stack of matrices, that is quantised as rows [rows = out, columns = in]. */
export interface SelectedTensor {
  /** Name in the store; unique. */
  readonly name: string;
  /** What it does: `q`, `down`, `expert.gate` (any expert), `shared.up`, `router`, `embedding`, `head`. */
  readonly role: string;
  /** Layer, or -1 for embedding and head. */
  readonly layer: number;
  /** Rows of W, those of all matrices of a stack. */
  readonly rows: number;
  readonly columns: number;
  /** Stored [in, out] (GPT-2's Conv1D): {@link readTensorRows} turns it. */
  readonly transposed: boolean;
  /** Matrices in the tensor: experts of a stack, else 1. Each has `rows / matrices` rows. */
  readonly matrices: number;
  /** The expert of a tensor that holds one. */
  readonly expert?: number;
  /**
   * Names of the vectors that meet the columns (`linearInputs`), one a matrix: tensors of the same input share a Hessian.
   * Empty for an embedding, whose rows are looked up.
   */
  readonly inputs: readonly string[];
  /** How the tensor lies in its file. */
  readonly tensor: TensorInfo;
}

/** Why a stored tensor is not quantised. */
export type KeptReason =
  | 'not a matrix'
  | 'embedding'
  | 'head'
  | 'router'
  | 'small'
  | 'not named'
  | '--keep'
  | 'not used';

export interface KeptTensor {
  readonly tensor: TensorInfo;
  readonly reason: KeptReason;
}

export interface TensorSelection {
  /** In the order of layers, then of roles. */
  readonly selected: readonly SelectedTensor[];
  /** All other tensors of the store, in its order. */
  readonly kept: readonly KeptTensor[];
}

export interface SelectionOptions {
  /** Patterns with `*` (any characters) and `?` (one) over whole names: exactly these, whatever their size. */
  readonly tensors?: readonly string[];
  /** Patterns of tensors to leave as they are; wins over `tensors`. */
  readonly keep?: readonly string[];
}

/**
 * Which tensors of a model are quantised. Without `tensors`: matrices of linear layers with at least
 * {@link MINIMUM_ELEMENTS} elements; embeddings, head, norms, biases and routers stay.
 * @throws InputError for a pattern that names no tensor, or no matrix, and when nothing is left
 */
export function selectTensors(files: ModelFiles, options: SelectionOptions = {}): TensorSelection {
  const wanted = options.tensors ?? [];
  const keep = options.keep ?? [];
  const matrices = modelMatrices(files);
  const matrixNames = new Set(matrices.map(({ name }) => name));
  checkPatterns('--tensors', wanted, [...matrixNames], files);
  checkPatterns('--keep', keep, [...files.store.tensors.keys()], files);

  const matches = (patterns: readonly string[], name: string): boolean =>
    patterns.some((pattern) => matchesPattern(name, pattern));
  const reasons = new Map<string, KeptReason>();
  const selected = matrices.filter((matrix) => {
    const reason = keptReason(matrix, matches(keep, matrix.name), wanted.length > 0, matches(wanted, matrix.name));
    if (reason !== undefined) reasons.set(matrix.name, reason);
    return reason === undefined;
  });
  if (selected.length === 0) {
    const largest = Math.max(
      0,
      ...matrices.filter(({ layer }) => layer >= 0).map(({ rows, columns }) => rows * columns),
    );
    throw new InputError(
      wanted.length > 0
        ? `${files.path}: --keep leaves nothing of what --tensors names`
        : `${files.path}: no matrix of a layer has ${MINIMUM_ELEMENTS} elements (the largest has ${largest}); ` +
            "name smaller ones with --tensors, such as --tensors '*proj*'",
    );
  }
  const chosen = new Set(selected.map(({ name }) => name));
  const used = usedTensors(files);
  const kept: KeptTensor[] = [];
  for (const tensor of files.store.tensors.values()) {
    if (chosen.has(tensor.name)) continue;
    const reason = reasons.get(tensor.name) ?? (used.has(tensor.name) ? 'not a matrix' : 'not used');
    kept.push({ tensor, reason });
  }
  return { selected, kept };
}

function keptReason(matrix: SelectedTensor, kept: boolean, byName: boolean, named: boolean): KeptReason | undefined {
  if (kept) return '--keep';
  if (byName) return named ? undefined : 'not named';
  if (matrix.role === 'embedding' || matrix.role === 'head') return matrix.role;
  if (matrix.role === 'router' || matrix.role === 'shared.router') return 'router';
  return matrix.rows * matrix.columns < MINIMUM_ELEMENTS ? 'small' : undefined;
}

function checkPatterns(flag: string, patterns: readonly string[], names: readonly string[], files: ModelFiles): void {
  for (const pattern of patterns) {
    if (names.some((name) => matchesPattern(name, pattern))) continue;
    const what = flag === '--tensors' ? 'matrix' : 'tensor';
    throw new InputError(
      `${files.path}: ${flag} "${pattern}" names no ${what} (* stands for any characters)${didYouMean(pattern, names)}`,
    );
  }
}

/** Every matrix of the model that multiplies activations or is looked up, by stored tensor. */
export function modelMatrices(files: ModelFiles): SelectedTensor[] {
  const { weights, description } = files;
  const found: SelectedTensor[] = [];
  const inputs = new Map<string, string>();
  for (const input of linearInputs(description)) {
    for (const role of input.roles) inputs.set(`${input.layer} ${role}`, input.name);
  }
  weights.layers.forEach((layer, index) => {
    const stacks = new Map<string, Member[]>();
    for (const [role, weight] of layer) {
      const input = inputs.get(`${index} ${role}`);
      if (input === undefined || weight.shape.length !== 2) continue;
      const together = stacks.get(weight.tensor.name);
      if (together) together.push({ role, weight, input });
      else stacks.set(weight.tensor.name, [{ role, weight, input }]);
    }
    for (const members of stacks.values()) found.push(stackedMatrix(members, index, description.linearLayout));
  });
  const { embedding, head } = weights;
  const outside = (weight: StoredWeight, role: string, inputs: readonly string[]): SelectedTensor => ({
    name: weight.tensor.name,
    role,
    layer: -1,
    rows: weight.shape[0],
    columns: weight.shape[1],
    transposed: false,
    matrices: 1,
    inputs,
    tensor: weight.tensor,
  });
  // A tied matrix is an embedding that also multiplies the last rows: its errors are weighed as those of the head.
  const tied = head.tensor.name === embedding.tensor.name;
  const headInputs = linearInputs(description).flatMap(({ name, roles }) => (roles.includes('head') ? [name] : []));
  found.push(outside(embedding, 'embedding', tied ? headInputs : []));
  if (!tied) found.push(outside(head, 'head', headInputs));
  return found;
}

/** One matrix of a stored tensor. */
interface Member {
  readonly role: string;
  readonly weight: StoredWeight;
  readonly input: string;
}

function stackedMatrix(members: readonly Member[], layer: number, layout: 'out-in' | 'in-out'): SelectedTensor {
  const ordered = [...members].sort((a, b) => a.weight.start - b.weight.start);
  const { role, weight } = ordered[0];
  const expert = /^expert\.(\d+)\./.exec(role)?.[1];
  const [first, second] = weight.shape;
  const transposed = layout === 'in-out';
  return {
    name: weight.tensor.name,
    role: role.replace(/^expert\.\d+\./, 'expert.'),
    layer,
    rows: ordered.length * (transposed ? second : first),
    columns: transposed ? first : second,
    transposed,
    matrices: ordered.length,
    ...(expert !== undefined && ordered.length === 1 && { expert: Number(expert) }),
    inputs: ordered.map(({ input }) => input),
    tensor: weight.tensor,
  };
}

function usedTensors(files: ModelFiles): Set<string> {
  const { layers, embedding, head, finalNorm, finalNormBias, positions } = files.weights;
  const all = [...layers.flatMap((layer) => [...layer.values()]), embedding, head, finalNorm, finalNormBias, positions];
  return new Set(all.flatMap((weight) => (weight ? [weight.tensor.name] : [])));
}

/**
 * Rows `firstRow` to `firstRow + rowCount - 1` of W into `target` [rowCount, columns], widened, in the order in which
 * the store holds them (rotary embeddings that GGUF interleaves stay interleaved: rows are quantised one by one).
 * @throws InputError naming tensor, row and column of a weight that is not finite
 */
export function readTensorRows(
  files: ModelFiles,
  item: SelectedTensor,
  reader: WeightReader,
  target: Float32Array,
  firstRow = 0,
  rowCount = item.rows,
): void {
  const { tensor, columns, rows, matrices } = item;
  const weight: StoredWeight = {
    store: files.store,
    tensor,
    start: 0,
    byteLength: tensor.byteLength,
    shape: item.transposed ? [matrices * columns, rows / matrices] : [rows, columns],
  };
  if (!item.transposed) reader.read(weight, target, firstRow, rowCount);
  else readTurned(weight, item, reader, target, firstRow, rowCount);
  checkFinite(item, target.subarray(0, rowCount * columns), firstRow);
}

/** Rows of the stored matrices [columns, out], one after the other, are columns of W. */
function readTurned(
  weight: StoredWeight,
  { columns, rows, matrices }: SelectedTensor,
  reader: WeightReader,
  target: Float32Array,
  firstRow: number,
  rowCount: number,
): void {
  const out = rows / matrices;
  const stored = new Float32Array(out);
  for (let m = 0; m < matrices; m++) {
    const from = Math.max(firstRow, m * out);
    const to = Math.min(firstRow + rowCount, (m + 1) * out);
    if (from >= to) continue;
    for (let column = 0; column < columns; column++) {
      reader.read(weight, stored, m * columns + column, 1);
      for (let row = from; row < to; row++) target[(row - firstRow) * columns + column] = stored[row - m * out];
    }
  }
}

/** @throws InputError naming the first weight that is not finite and how many there are */
export function checkFinite(
  item: Pick<SelectedTensor, 'name' | 'columns' | 'tensor'>,
  values: Float32Array,
  firstRow = 0,
): void {
  let bad = 0;
  let first = -1;
  for (let i = 0; i < values.length; i++) {
    // x - x is zero exactly for finite x.
    if (values[i] - values[i] === 0) continue;
    if (bad++ === 0) first = i;
  }
  if (bad === 0) return;
  const row = firstRow + Math.floor(first / item.columns);
  const value = Number.isNaN(values[first]) ? 'NaN' : 'infinite';
  throw new InputError(
    `${item.tensor.file}: tensor "${item.name}": ${bad} of ${values.length} weights are not finite; ` +
      `the first, ${value}, is at row ${row}, column ${first % item.columns}`,
  );
}

/** Elements of a selection. */
export function selectedElements(selection: TensorSelection): number {
  return selection.selected.reduce((sum, { tensor }) => sum + elementCount(tensor.shape), 0);
}
