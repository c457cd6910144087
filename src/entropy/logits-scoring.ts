import { InputError } from '../errors.js';
import { type LogitTensor, placedRow, type TokenIds } from '../formats/logit-rows.js';
import type { Shard } from '../formats/rows.js';
import { DTYPE_BYTES } from '../formats/tensor.js';
import { bfloatValue, halfValue } from '../kernels/dtypes-reference.js';
import { type LogitBlock, type RowStatistics, rowStatistics } from '../kernels/row-statistics.js';

/** Labels below zero (Hugging Face's -100 among them) mark rows without a target. */
export const NO_TARGET = -1;

/** Rows rowStart..rowStart+rows-1 of a tensor that belong together: a sequence of a batch, or a block of rows. */
export interface LogitDocument {
  readonly index: number;
  readonly id: string;
  readonly source: string;
  readonly rowStart: number;
  readonly rows: number;
}

/**
 * The documents of a tensor: one a sequence of `[.., T, vocabulary]`; a tensor `[T, vocabulary]` is one document, or blocks
 * of `blockRows` rows.
 * @param firstIndex number of the tensor's first document over all inputs
 */
export function logitDocuments(tensor: LogitTensor, firstIndex: number, blockRows?: number): LogitDocument[] {
  const { shape, rows, path } = tensor;
  if (blockRows !== undefined && shape.length > 2) {
    throw new InputError(
      `${path}: tensor "${tensor.name}" of shape [${shape.join(', ')}] has its documents along the first ` +
        `${shape.length === 3 ? 'axis' : `${shape.length - 2} axes`}; drop --document-rows`,
    );
  }
  const length = shape.length > 2 ? shape[shape.length - 2] : (blockRows ?? rows);
  const count = Math.ceil(rows / length);
  return Array.from({ length: count }, (_, d) => ({
    index: firstIndex + d,
    id: count === 1 ? path : String(firstIndex + d),
    source: path,
    rowStart: d * length,
    rows: Math.min(length, rows - d * length),
  }));
}

/**
 * Targets of all rows, -1 where there is none.
 * @param shift the ids are the inputs: the target of a row is the next id of its sequence
 * @throws InputError when the shape is not that of the logits without the vocabulary, or an id is out of range
 */
export function logitTargets(tensor: LogitTensor, given: TokenIds, shift: boolean, origin: string): Int32Array {
  const { shape, rows, vocabulary } = tensor;
  const expected = shape.slice(0, -1);
  const same = given.shape.length === expected.length && given.shape.every((extent, axis) => extent === expected[axis]);
  if (!same && !(given.shape.length === 1 && given.ids.length === rows)) {
    throw new InputError(
      `${origin}: targets of shape [${given.shape.join(', ')}] do not fit logits of shape [${shape.join(', ')}]; ` +
        `[${expected.join(', ')}] is needed`,
    );
  }
  const targets = new Int32Array(rows);
  const length = shape.length > 1 ? shape[shape.length - 2] : 1;
  for (let row = 0; row < rows; row++) {
    const last = (row + 1) % length === 0;
    const id = shift ? (last ? NO_TARGET : given.ids[row + 1]) : given.ids[row];
    if (id >= vocabulary) {
      throw new InputError(
        `${origin}: row ${row}: target ${id} is outside the vocabulary of ${vocabulary} of tensor "${tensor.name}"`,
      );
    }
    targets[row] = id < 0 ? NO_TARGET : id;
  }
  return targets;
}

/** Consecutive rows of one document: rows first..first+count-1 of `statistics`, from `position` of the document on. */
export interface ScoredLogits {
  readonly document: LogitDocument;
  readonly position: number;
  readonly statistics: RowStatistics;
  readonly first: number;
  readonly count: number;
  /** Targets of these rows, [count]; absent when none were given. */
  readonly targets?: Int32Array;
}

export interface LogitScoringOptions {
  readonly threads: number;
  /** Bytes of logits in memory at once. */
  readonly blockBytes: number;
  readonly topK: number;
  readonly renyiOrders: readonly number[];
}

interface Piece {
  readonly document: LogitDocument;
  readonly position: number;
  readonly count: number;
}

/** Pieces of documents whose rows follow one another, together at most `most` rows. */
function* chunksOf(documents: readonly LogitDocument[], most: number): Generator<Piece[], void, undefined> {
  let chunk: Piece[] = [];
  let held = 0;
  let end = -1;
  for (const document of documents) {
    for (let position = 0; position < document.rows; ) {
      if (held > 0 && (held >= most || document.rowStart + position !== end)) {
        yield chunk;
        chunk = [];
        held = 0;
      }
      const count = Math.min(most - held, document.rows - position);
      chunk.push({ document, position, count });
      held += count;
      position += count;
      end = document.rowStart + position;
    }
  }
  if (held > 0) yield chunk;
}

/** The documents of a shard. */
export function ofShard(documents: readonly LogitDocument[], shard: Shard | undefined): LogitDocument[] {
  return documents.filter(({ index }) => shard === undefined || index % shard.count === shard.index);
}

/**
 * Measures rows of stored logits, in order, a bounded block at a time. Figures do not depend on the size of the blocks.
 * @throws InputError for NaN, plus infinity or a row without support, naming file, tensor, row and column
 */
export function* scoreLogits(
  tensor: LogitTensor,
  documents: readonly LogitDocument[],
  targets: Int32Array | undefined,
  options: LogitScoringOptions,
): Generator<ScoredLogits[], void, undefined> {
  const { vocabulary, dtype } = tensor;
  const most = Math.max(1, Math.floor(options.blockBytes / (vocabulary * DTYPE_BYTES[dtype])));
  for (const chunk of chunksOf(documents, most)) {
    const start = chunk[0].document.rowStart + chunk[0].position;
    const rows = chunk.reduce((sum, piece) => sum + piece.count, 0);
    const block: LogitBlock = { data: tensor.readRows(start, rows), dtype, rows, columns: vocabulary };
    const wanted = targets?.subarray(start, start + rows);
    const statistics = measure(tensor, block, start, wanted, options);
    let first = 0;
    yield chunk.map(({ document, position, count }) => {
      const scored: ScoredLogits = {
        document,
        position,
        statistics,
        first,
        count,
        ...(wanted && { targets: wanted.subarray(first, first + count) }),
      };
      first += count;
      return scored;
    });
  }
}

function measure(
  tensor: LogitTensor,
  block: LogitBlock,
  firstRow: number,
  targets: Int32Array | undefined,
  { threads, topK, renyiOrders }: LogitScoringOptions,
): RowStatistics {
  try {
    return rowStatistics(block, { topK, renyiOrders, threads, ...(targets && { targets }) });
  } catch (error) {
    if (error instanceof InputError) throw hostileRow(tensor, block, firstRow) ?? error;
    throw error;
  }
}

/** Names the first row of the block that cannot be measured, in the tensor's own coordinates, and counts the others. */
function hostileRow(tensor: LogitTensor, block: LogitBlock, firstRow: number): InputError | undefined {
  let found: { row: number; what: string } | undefined;
  let others = 0;
  for (let r = 0; r < block.rows; r++) {
    let what: string | undefined;
    let supported = false;
    for (let c = 0; c < block.columns && what === undefined; c++) {
      const stored = block.data[r * block.columns + c];
      const logit = block.dtype === 'F16' ? halfValue(stored) : block.dtype === 'BF16' ? bfloatValue(stored) : stored;
      if (!(logit < Number.POSITIVE_INFINITY)) what = `column ${c} is ${logit}; logits must be finite or -Infinity`;
      if (logit > Number.NEGATIVE_INFINITY) supported = true;
    }
    if (what === undefined && !supported) what = 'has empty support: every logit is -Infinity';
    if (what === undefined) continue;
    if (found === undefined) found = { row: firstRow + r, what };
    else others++;
  }
  if (found === undefined) return undefined;
  const separator = found.what.startsWith('column') ? ', ' : ' ';
  const more = others === 0 ? '' : ` (and ${others} more of the ${block.rows} rows read with it)`;
  return new InputError(
    `${tensor.path}: tensor "${tensor.name}": ${placedRow(tensor, found.row)}${separator}${found.what}${more}`,
  );
}
