import { InputError } from '../../errors.js';
import { DTYPE_BYTES, elementCount } from '../../formats/tensor.js';
import { narrowFromF32, widenToF64 } from '../../kernels/dtypes.js';
import type { MergeDType, MergeSource, SourceTensor } from './types.js';
import { MEAN_ROW, PADDING_ROW, type VocabularyMap, ZERO_ROW } from './vocabulary-plan.js';

/** Bytes that one read of rows holds beside its target. */
const BLOCK_BYTES = 8 << 20;
/** Rows that lie further apart than this are read each by itself. */
const GAP_BYTES = 64 << 10;

/** A model's vocabulary tensor, and what stands for it in the models that give rows. */
interface VocabularyTensor extends SourceTensor {
  readonly rowElements: number;
  /** By model: name and dtype of the tensor that gives its rows. */
  readonly donors: readonly (DonorTensor | undefined)[];
}

interface DonorTensor {
  readonly source: MergeSource;
  readonly name: string;
  readonly dtype: MergeDType;
}

/**
 * A model with its vocabulary tensors (rows are tokens: embedding, head, bias of the head) on the output vocabulary; all
 * others as they are. Rows are read on demand by range, those of other models from these; beside `target` a read holds a
 * few MiB. A model whose head is its embedding gets a head of its own where another model has one, since rows of tokens that it lacks
 * may differ in the two. The dtype is the model's own, or the smallest that holds the rows of all donors; means are
 * taken in double precision and rounded once.
 *
 * @param index which of `sources` it is
 * @param maps by model, see {@link VocabularyMap}
 * @param tensors names of the vocabulary tensors of each source, the embedding first
 * @param arithmetic type in which the merge computes: means are held in it where it is wider than the stored type
 * @throws InputError where rows of the donors have another length, or a donor has no such tensor
 */
export function withVocabulary(
  index: number,
  sources: readonly MergeSource[],
  map: VocabularyMap,
  tensors: readonly (readonly string[])[],
  arithmetic?: MergeDType,
): MergeSource {
  const source = sources[index];
  const names = new Set(tensors[index]);
  const heads = new Set(tensors.flat());
  for (const name of heads) if (!names.has(name) && standIn(name, index, sources, tensors)) names.add(name);
  const own = tensors[index];
  if (map.identity && names.size === own.length) return source;
  const shown = new Map<string, SourceTensor>(source.tensors);
  const rewritten = new Map<string, VocabularyTensor>();
  for (const name of names) {
    const tensor = describe(name, index, sources, map, tensors, arithmetic);
    rewritten.set(name, tensor);
    shown.set(name, { dtype: tensor.dtype, shape: tensor.shape });
  }
  const padding = new Map<string, Promise<Uint8Array>>();
  const read = async (name: string, from: number, to: number, target: Uint8Array): Promise<void> => {
    const tensor = rewritten.get(name);
    if (tensor === undefined) return source.read(name, from, to, target);
    await readMapped(tensor, map, from, to, target);
    if (map.donors.subarray(from, to).includes(PADDING_ROW)) {
      const row = padding.get(name) ?? paddingRow(tensor, map);
      padding.set(name, row);
      fillPadding(await row, map, from, to, target);
    }
  };
  return { ...source, tensors: shown, read, close: () => source.close() };
}

/** The tensor of a model that gives rows of `name`: of that name, or where a head is tied the embedding. */
function standIn(
  name: string,
  donor: number,
  sources: readonly MergeSource[],
  tensors: readonly (readonly string[])[],
): DonorTensor | undefined {
  const source = sources[donor];
  const direct = source.tensors.get(name);
  if (direct !== undefined) return { source, name, dtype: direct.dtype };
  const [embedding] = tensors[donor];
  const tied = embedding === undefined ? undefined : source.tensors.get(embedding);
  const axes = sources.find((other) => other.tensors.has(name))?.tensors.get(name)?.shape.length;
  return tied === undefined || tied.shape.length !== axes ? undefined : { source, name: embedding, dtype: tied.dtype };
}

function describe(
  name: string,
  index: number,
  sources: readonly MergeSource[],
  map: VocabularyMap,
  tensors: readonly (readonly string[])[],
  arithmetic: MergeDType | undefined,
): VocabularyTensor {
  const used = new Set<number>([index]);
  for (const donor of map.donors) if (donor >= 0) used.add(donor);
  for (const rows of map.means.values()) for (const { donor } of rows) used.add(donor);
  const donors = sources.map((_, donor) => (used.has(donor) ? standIn(name, donor, sources, tensors) : undefined));
  const rowShapes = [...used].map((donor) => {
    const found = donors[donor];
    if (found === undefined)
      throw new InputError(
        `${sources[donor].path} has no tensor ${name}, of which ${sources[index].path} needs rows of tokens that it lacks`,
      );
    return { donor, shape: found.source.tensors.get(found.name)?.shape.slice(1) ?? [] };
  });
  const [first, ...others] = rowShapes;
  for (const other of others)
    if (other.shape.join() !== first.shape.join())
      throw new InputError(
        `${name}: a token's row has the shape [${first.shape.join(', ')}] in ${sources[first.donor].path} but ` +
          `[${other.shape.join(', ')}] in ${sources[other.donor].path}; models of different sizes cannot be merged by their ` +
          'weights: teach one by the other (surprisal fuse knowledge)',
      );
  const stored = rowShapes.map(({ donor }) => donors[donor]?.dtype ?? 'F32').reduce(widest);
  const invents = map.means.size > 0 || map.donors.includes(PADDING_ROW);
  const dtype = invents && arithmetic !== undefined ? widest(stored, arithmetic) : stored;
  return { dtype, shape: [map.donors.length, ...first.shape], rowElements: elementCount(first.shape), donors };
}

/** The smallest dtype that holds the values of both. */
function widest(a: MergeDType, b: MergeDType): MergeDType {
  if (a === b) return a;
  return a === 'F64' || b === 'F64' ? 'F64' : 'F32';
}

/** Rows [from, to) but for padding, which is left as zeros. */
async function readMapped(
  tensor: VocabularyTensor,
  map: VocabularyMap,
  from: number,
  to: number,
  target: Uint8Array,
): Promise<void> {
  const rowBytes = tensor.rowElements * DTYPE_BYTES[tensor.dtype];
  for (let id = from; id < to; id++)
    if (map.donors[id] === ZERO_ROW || map.donors[id] === PADDING_ROW)
      target.fill(0, (id - from) * rowBytes, (id - from + 1) * rowBytes);
  for (const [donor, part] of tensor.donors.entries())
    if (part !== undefined) await readFrom(part, donor, tensor, map, from, to, target);
  for (let id = from; id < to; id++) {
    if (map.donors[id] !== MEAN_ROW) continue;
    const row = target.subarray((id - from) * rowBytes, (id - from + 1) * rowBytes);
    await writeMean(tensor, map.means.get(id) ?? [], row);
  }
}

/** The rows of one donor: sorted by where they lie, neighbours in one read. */
async function readFrom(
  part: DonorTensor,
  donor: number,
  tensor: VocabularyTensor,
  map: VocabularyMap,
  from: number,
  to: number,
  target: Uint8Array,
): Promise<void> {
  const wanted: number[] = [];
  for (let id = from; id < to; id++) if (map.donors[id] === donor) wanted.push(id);
  wanted.sort((a, b) => map.rows[a] - map.rows[b] || a - b);
  const targetBytes = tensor.rowElements * DTYPE_BYTES[tensor.dtype];
  const storedBytes = tensor.rowElements * DTYPE_BYTES[part.dtype];
  const place = (id: number, rows: number): Uint8Array =>
    target.subarray((id - from) * targetBytes, (id - from + rows) * targetBytes);
  for (let start = 0; start < wanted.length; ) {
    const first = map.rows[wanted[start]];
    const inPlace = part.dtype === tensor.dtype ? runEnd(wanted, map.rows, start) : start;
    const gathered = gatherEnd(wanted, map.rows, start, storedBytes);
    if (inPlace >= gathered || (inPlace - start) * storedBytes >= GAP_BYTES) {
      const rows = inPlace - start;
      await part.source.read(part.name, first, first + rows, place(wanted[start], rows));
      start = inPlace;
      continue;
    }
    const last = map.rows[wanted[gathered - 1]];
    const block = new Uint8Array((last + 1 - first) * storedBytes);
    await part.source.read(part.name, first, last + 1, block);
    for (const id of wanted.slice(start, gathered)) {
      const at = (map.rows[id] - first) * storedBytes;
      const row = block.subarray(at, at + storedBytes);
      if (part.dtype === tensor.dtype) place(id, 1).set(row);
      else storeRow(widened(row, part.dtype, tensor.rowElements), tensor.dtype, place(id, 1));
    }
    start = gathered;
  }
}

/** The end of the run from `start` whose rows, and their places in the output, follow each other. */
function runEnd(wanted: readonly number[], rows: Int32Array, start: number): number {
  let end = start + 1;
  while (end < wanted.length && wanted[end] === wanted[end - 1] + 1 && rows[wanted[end]] === rows[wanted[end - 1]] + 1)
    end++;
  return end;
}

/** The end of the rows from `start` that one block holds without wide gaps. */
function gatherEnd(wanted: readonly number[], rows: Int32Array, start: number, rowBytes: number): number {
  const first = rows[wanted[start]];
  let end = start + 1;
  for (; end < wanted.length; end++) {
    const row = rows[wanted[end]];
    if ((row - rows[wanted[end - 1]] - 1) * rowBytes > GAP_BYTES) break;
    if ((row + 1 - first) * rowBytes > BLOCK_BYTES) break;
  }
  return end;
}

async function writeMean(
  tensor: VocabularyTensor,
  rows: readonly { readonly donor: number; readonly row: number }[],
  target: Uint8Array,
): Promise<void> {
  const sum = new Float64Array(tensor.rowElements);
  for (const { donor, row } of rows) {
    const part = tensor.donors[donor];
    if (part === undefined) throw new RangeError(`no donor ${donor}`);
    const stored = new Uint8Array(tensor.rowElements * DTYPE_BYTES[part.dtype]);
    await part.source.read(part.name, row, row + 1, stored);
    const values = widened(stored, part.dtype, tensor.rowElements);
    for (let i = 0; i < sum.length; i++) sum[i] += values[i];
  }
  for (let i = 0; i < sum.length; i++) sum[i] /= rows.length;
  storeRow(sum, tensor.dtype, target);
}

/** The mean of the rows that have a token, in blocks. */
async function paddingRow(tensor: VocabularyTensor, map: VocabularyMap): Promise<Uint8Array> {
  const rowBytes = tensor.rowElements * DTYPE_BYTES[tensor.dtype];
  const blockRows = Math.max(1, Math.floor(BLOCK_BYTES / Math.max(1, rowBytes)));
  const sum = new Float64Array(tensor.rowElements);
  const size = map.donors.length;
  const hasToken = new Uint8Array(size);
  for (const id of map.tokenRows) hasToken[id] = 1;
  const block = new Uint8Array(Math.min(blockRows, size) * rowBytes);
  for (let from = 0; from < size; from += blockRows) {
    const to = Math.min(size, from + blockRows);
    await readMapped(tensor, map, from, to, block);
    const values = widened(block, tensor.dtype, (to - from) * tensor.rowElements);
    for (let id = from; id < to; id++) {
      if (hasToken[id] === 0) continue;
      const at = (id - from) * tensor.rowElements;
      for (let i = 0; i < sum.length; i++) sum[i] += values[at + i];
    }
  }
  for (let i = 0; i < sum.length; i++) sum[i] /= map.tokenRows.length;
  const row = new Uint8Array(rowBytes);
  storeRow(sum, tensor.dtype, row);
  return row;
}

function fillPadding(row: Uint8Array, map: VocabularyMap, from: number, to: number, target: Uint8Array): void {
  for (let id = from; id < to; id++) if (map.donors[id] === PADDING_ROW) target.set(row, (id - from) * row.length);
}

function widened(bytes: Uint8Array, dtype: MergeDType, count: number): Float64Array {
  const values = new Float64Array(count);
  widenToF64(bytes.subarray(0, count * DTYPE_BYTES[dtype]), dtype, values);
  return values;
}

const single = new Float32Array(1);
const bits = new Uint32Array(single.buffer);

/**
 * The f32 towards zero from `value` with its last bit set where that is not exact: rounding it to a 16-bit type then gives
 * what rounding `value` once would (rounding to odd; Boldo & Melquiond 2008).
 */
function oddSingle(value: number): number {
  single[0] = value;
  if (single[0] === value || !Number.isFinite(single[0])) return single[0];
  if (Math.abs(single[0]) > Math.abs(value)) bits[0] -= 1;
  bits[0] |= 1;
  return single[0];
}

/** Values as stored elements, rounded once to nearest, ties to even. */
function storeRow(values: Float64Array, dtype: MergeDType, target: Uint8Array): void {
  if (dtype === 'F64') {
    target.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    return;
  }
  const narrow = dtype === 'F32' ? Float32Array.from(values) : Float32Array.from(values, oddSingle);
  narrowFromF32(narrow, dtype, target);
}
