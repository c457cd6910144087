import { didYouMean, InputError } from '../../errors.js';
import { DTYPE_BYTES, elementCount, type TensorInfo } from '../../formats/tensor.js';
import { narrowFromF32, widenToF32, widenToF64 } from '../../kernels/dtypes.js';
import { multiply } from '../../kernels/gemm.js';
import { openPeftAdapter, type PeftAdapter, type PeftTerm } from '../../models/peft-adapter.js';
import { aliasIn, inputEmbedding, isHead } from './architecture.js';
import type { MergeDType, MergeSource, SourceTensor } from './types.js';

/** Elements of a tensor that are worked on at a time, in f64. */
const BLOCK_ELEMENTS = 1 << 20;
/** Matrices of adapters that stay in memory for the next rows of their tensor. */
const HELD_TERMS = 4;

/** A term that belongs to a stored tensor. */
interface PlacedTerm extends PeftTerm {
  /** Stored tensor to which it is added: of the module, or the embeddings where a tied head gets a term of its own. */
  readonly stored: string;
  /** The stored matrix is [in, out]: the term is (B A)ᵀ. */
  readonly transposed: boolean;
}

/** A and B of a term, widened. */
interface Factors {
  readonly a: Float32Array;
  readonly b: Float32Array;
}

interface Adapted {
  readonly base: MergeSource;
  readonly adapter: PeftAdapter;
  readonly tensors: ReadonlyMap<string, SourceTensor>;
  /** By the shown tensor's name. */
  readonly terms: ReadonlyMap<string, PlacedTerm>;
  readonly shifts: ReadonlyMap<string, PeftTerm>;
  readonly replaced: ReadonlyMap<string, TensorInfo>;
  readonly held: Map<string, Factors>;
}

function readValues({ store }: PeftAdapter, info: TensorInfo): Float32Array {
  const bytes = new Uint8Array(info.byteLength);
  store.readInto(info, 0, bytes.length, bytes);
  const values = new Float32Array(elementCount(info.shape));
  widenToF32(bytes, info.dtype as MergeDType, values);
  return values;
}

/** Stores values; what is narrower than f32 is rounded by way of it. */
function store(values: Float64Array, dtype: MergeDType, target: Uint8Array): void {
  if (dtype === 'F64') target.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  else narrowFromF32(Float32Array.from(values), dtype, target);
}

function placeTerm(
  base: MergeSource,
  term: PeftTerm,
  adapter: PeftAdapter,
  tensors: ReadonlyMap<string, SourceTensor>,
): { name: string; term: PlacedTerm } {
  const wanted = `${term.module}.weight`;
  const own = aliasIn(wanted, (name) => base.tensors.has(name));
  const tied = own === undefined && isHead(wanted) ? inputEmbedding(base.tensors.keys()) : undefined;
  const stored = own ?? tied;
  const info = stored === undefined ? undefined : tensors.get(stored);
  if (stored === undefined || info === undefined) {
    const names = [...base.tensors.keys()].map((name) => name.replace(/\.weight$/, ''));
    throw new InputError(
      `${adapter.store.path}: ${base.path} has no module "${term.module}"${didYouMean(term.module, names)}`,
    );
  }
  const [input, out] = [term.a.shape[1], term.b.shape[0]];
  const [rows, columns] = info.shape;
  const fits = info.shape.length === 2 && rows === out && columns === input && !term.embedding;
  const fitsTurned = info.shape.length === 2 && rows === input && columns === out;
  if (!fits && !fitsTurned) {
    throw new InputError(
      `${adapter.store.path}: the adapter of "${term.module}" is from ${input} to ${out}, and ${stored} of ${base.path} is [${info.shape.join(', ')}]`,
    );
  }
  // Shapes tell the two layouts apart but for squares: there the flag of PEFT does.
  const transposed = !fits || (fitsTurned && adapter.config.fan_in_fan_out === true);
  return { name: own ?? wanted, term: { ...term, stored, transposed } };
}

/** Rows [from, to) of base + scale B A in f64, before DoRA's factors. */
async function adaptedRows(adapted: Adapted, term: PlacedTerm, from: number, to: number): Promise<Float64Array> {
  const { base } = adapted;
  const info = adapted.tensors.get(term.stored);
  if (info === undefined) throw new RangeError(`no tensor ${term.stored}`);
  const columns = info.shape[1];
  const own = adapted.replaced.get(term.stored);
  const sums = new Float64Array((to - from) * columns);
  if (own !== undefined) sums.set(await readReplaced(adapted, term.stored, own, from, to));
  else {
    const stored = new Uint8Array((to - from) * columns * DTYPE_BYTES[info.dtype]);
    await base.read(term.stored, from, to, stored);
    widenToF64(stored, info.dtype, sums);
  }
  const { a, b } = factorsOf(adapted, term);
  const { rank, scale: alpha } = term;
  const sizes = { m: to - from, n: columns, k: rank };
  if (!term.transposed) return multiply(b.subarray(from * rank, to * rank), a, sums, sizes, { alpha, beta: 1 });
  const strideA = info.shape[0];
  return multiply(a.subarray(from), b, sums, sizes, { alpha, beta: 1, transposeA: true, strideA, transposeB: true });
}

function factorsOf(adapted: Adapted, term: PlacedTerm): Factors {
  const { held, adapter } = adapted;
  const known = held.get(term.a.name);
  if (known !== undefined) return known;
  const [oldest] = held.keys();
  if (held.size >= HELD_TERMS && oldest !== undefined) held.delete(oldest);
  const factors = { a: readValues(adapter, term.a), b: readValues(adapter, term.b) };
  held.set(term.a.name, factors);
  return factors;
}

const rowsAtATime = (columns: number): number => Math.max(1, Math.floor(BLOCK_ELEMENTS / Math.max(1, columns)));

/** DoRA (Liu et al. 2024, equation 5): magnitude over length, of rows or (transposed) of columns. */
async function doraRatios(adapted: Adapted, term: PlacedTerm, magnitude: TensorInfo): Promise<Float64Array> {
  const [rows, columns] = adapted.tensors.get(term.stored)?.shape ?? [0, 0];
  const squares = new Float64Array(term.transposed ? columns : rows);
  const step = rowsAtATime(columns);
  for (let from = 0; from < rows; from += step) {
    const to = Math.min(rows, from + step);
    const sums = await adaptedRows(adapted, term, from, to);
    for (let i = 0; i < sums.length; i++) {
      const at = term.transposed ? i % columns : from + Math.floor(i / columns);
      squares[at] += sums[i] * sums[i];
    }
  }
  const lengths = readValues(adapted.adapter, magnitude);
  if (lengths.length !== squares.length)
    throw new InputError(
      `${adapted.adapter.store.path}: ${magnitude.name} has ${lengths.length} entries, and ${squares.length} are needed`,
    );
  return squares.map((square, i) => lengths[i] / Math.sqrt(square));
}

/** Multiplies rows [from, ...) of `columns` by their factors, or columns by theirs. */
function applyRatios(sums: Float64Array, columns: number, from: number, ratios: Float64Array, byColumn: boolean): void {
  for (let i = 0; i < sums.length; i++) sums[i] *= ratios[byColumn ? i % columns : from + Math.floor(i / columns)];
}

function ratiosOf(
  cache: Map<string, Promise<Float64Array>>,
  adapted: Adapted,
  name: string,
  term: PlacedTerm,
): Promise<Float64Array> | undefined {
  if (term.magnitude === undefined) return undefined;
  const ratios = cache.get(name) ?? doraRatios(adapted, term, term.magnitude);
  cache.set(name, ratios);
  return ratios;
}

async function readReplaced(
  adapted: Adapted,
  name: string,
  info: TensorInfo,
  from: number,
  to: number,
): Promise<Float64Array> {
  const [rows = 1] = info.shape;
  const width = rows === 0 ? 0 : elementCount(info.shape) / rows;
  const rowBytes = width * (info.byteLength / Math.max(1, elementCount(info.shape)));
  const bytes = new Uint8Array((to - from) * rowBytes);
  adapted.adapter.store.readInto(info, from * rowBytes, bytes.length, bytes);
  const values = new Float64Array((to - from) * width);
  widenToF64(bytes, info.dtype as MergeDType, values);
  return shifted(adapted, name, values, from);
}

/** Adds the bias of a term to the module's. */
function shifted(adapted: Adapted, name: string, values: Float64Array, from: number): Float64Array {
  const term = adapted.shifts.get(name);
  if (term?.bias === undefined) return values;
  const shift = readValues(adapted.adapter, term.bias);
  return values.map((value, i) => value + term.scale * shift[from + i]);
}

function shownTensors(base: MergeSource, adapter: PeftAdapter): Omit<Adapted, 'base' | 'adapter' | 'held'> {
  const tensors = new Map(base.tensors);
  const terms = new Map<string, PlacedTerm>();
  const shifts = new Map<string, PeftTerm>();
  const replaced = new Map<string, TensorInfo>();
  // Tables that PEFT saves beside their terms (`base_layer`) are what the terms are added to.
  const common = mostCommonDtype(base);
  for (const [wanted, info] of adapter.replaced) {
    const name = aliasIn(wanted, (candidate) => base.tensors.has(candidate)) ?? wanted;
    const known = base.tensors.get(name);
    if (known === undefined && !isHead(name) && !/(score|classifier)/.test(name))
      throw new InputError(
        `${adapter.store.path}: ${base.path} has no tensor "${name}"${didYouMean(name, base.tensors.keys())}`,
      );
    replaced.set(name, info);
    tensors.set(name, { dtype: known?.dtype ?? common, shape: info.shape });
  }
  for (const term of adapter.terms) {
    const { name, term: placed } = placeTerm(base, term, adapter, tensors);
    terms.set(name, placed);
    const info = tensors.get(placed.stored);
    if (info !== undefined) tensors.set(name, info);
    if (term.bias === undefined) continue;
    const bias = aliasIn(`${term.module}.bias`, (candidate) => base.tensors.has(candidate));
    if (bias === undefined)
      throw new InputError(
        `${adapter.store.path}: "${term.bias.name}" needs a bias, and "${term.module}" of ${base.path} has none`,
      );
    shifts.set(bias, term);
  }
  return { tensors, terms, shifts, replaced };
}

function mostCommonDtype(base: MergeSource): MergeDType {
  const counts = new Map<MergeDType, number>();
  for (const { dtype, shape } of base.tensors.values())
    counts.set(dtype, (counts.get(dtype) ?? 0) + elementCount(shape));
  const ranked = [...counts].sort((x, y) => y[1] - x[1]);
  return ranked[0]?.[0] ?? 'F32';
}

/**
 * A model with a LoRA adapter of PEFT added: theta + (alpha / r) B A for every module (rank-stabilised: alpha / sqrt(r)), with
 * DoRA's magnitudes where there are some; whole tensors that the adapter has take the place of the model's. Rows are computed when they
 * are read, in f64, and rounded once to the stored type. A head of a model that makes its logits with its embeddings
 * becomes a tensor of its own when the adapter changes it.
 * @throws InputError for adapters of other kinds, and modules or shapes that the model does not have
 */
export function withAdapter(base: MergeSource, directory: string): MergeSource {
  const adapter = openPeftAdapter(directory);
  try {
    const adapted: Adapted = { base, adapter, ...shownTensors(base, adapter), held: new Map() };
    const ratios = new Map<string, Promise<Float64Array>>();
    const read = (name: string, from: number, to: number, target: Uint8Array): Promise<void> =>
      readRows(adapted, ratios, name, from, to, target);
    const close = (): void => {
      adapter.store.close();
      base.close();
    };
    return { ...base, tensors: adapted.tensors, read, close };
  } catch (error) {
    adapter.store.close();
    throw error;
  }
}

async function readRows(
  adapted: Adapted,
  cache: Map<string, Promise<Float64Array>>,
  name: string,
  from: number,
  to: number,
  target: Uint8Array,
): Promise<void> {
  const { base, tensors, terms, shifts, replaced } = adapted;
  const info = tensors.get(name);
  if (info === undefined) throw new RangeError(`${base.path}: no tensor ${name}`);
  const [rows = 1] = info.shape;
  const width = rows === 0 ? 0 : elementCount(info.shape) / rows;
  const write = (values: Float64Array, row: number): void => {
    const at = (row - from) * width * DTYPE_BYTES[info.dtype];
    store(values, info.dtype, target.subarray(at, at + values.length * DTYPE_BYTES[info.dtype]));
  };
  const own = replaced.get(name);
  const term = terms.get(name);
  if (own !== undefined && term === undefined) {
    write(await readReplaced(adapted, name, own, from, to), from);
  } else if (term !== undefined) {
    const ratios = await ratiosOf(cache, adapted, name, term);
    const step = rowsAtATime(width);
    for (let row = from; row < to; row += step) {
      const sums = await adaptedRows(adapted, term, row, Math.min(to, row + step));
      if (ratios !== undefined) applyRatios(sums, width, row, ratios, term.transposed);
      write(sums, row);
    }
  } else if (shifts.has(name)) {
    const stored = new Uint8Array((to - from) * width * DTYPE_BYTES[info.dtype]);
    await base.read(name, from, to, stored);
    const values = new Float64Array((to - from) * width);
    widenToF64(stored, info.dtype, values);
    write(shifted(adapted, name, values, from), from);
  } else await base.read(name, from, to, target);
}
