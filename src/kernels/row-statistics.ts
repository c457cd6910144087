/**
 * Row-wise softmax statistics of logits in one pass, mergeable over vocabulary blocks and vocabulary shards. Sources:
 * the one-pass entropy H = log Z - A/Z with running maximum; definitions of self-certainty and Fisher-Rao as in
 * lm-polygraph; Renyi 1961; Tsallis 1988.
 */
import { InputError } from '../errors.js';
import { kernelThreads, nativeKernels } from './native.js';
import {
  createRowAccumulator,
  FIELD,
  fieldOf,
  insertTop,
  isShannon,
  LOGIT_FORMATS,
  type LogitBlock,
  mergeSums,
  type RowAccumulator,
  type RowAccumulatorOptions,
  SUPPORT_DEPTH,
} from './row-accumulator.js';
import {
  accumulateRowsReference,
  accumulateSecondReference,
  hostileEntry,
  type RowPlacement,
  type SecondPass,
} from './row-statistics-reference.js';

export {
  createRowAccumulator,
  type LogitBlock,
  type LogitFormat,
  type RowAccumulator,
  type RowAccumulatorOptions,
} from './row-accumulator.js';
export type { SecondPass } from './row-statistics-reference.js';

/** Where a block of logits belongs. */
export interface AccumulateOptions {
  /** Vocabulary column of the block's first column. Default 0. */
  readonly columnOffset?: number;
  /** Accumulator row of the block's first row. Default 0. */
  readonly rowOffset?: number;
  /** Target column of every row of the *accumulator* (not of the block); -1 for none. */
  readonly targets?: Int32Array;
  /**
   * Logit of every accumulator row's target, where it is known beforehand; NaN where not. Needed for the rank when the
   * vocabulary comes in several blocks: without it only columns of the target's block and later ones are compared, and
   * the rank is NaN. It may differ from the stored logit in the last bits (the target never counts as above itself).
   */
  readonly targetLogits?: Float64Array;
  readonly threads?: number;
}

/**
 * Statistics of `rows` rows, [rows] each, in nats. Where the accumulator's measures are `entropy`, only max,
 * logSumExp, entropyNats, minEntropyNats, normalizedEntropy and surprisalNats are filled; the others are empty arrays.
 */
export interface RowStatistics {
  readonly rows: number;
  /** Largest logit. */
  readonly max: Float64Array;
  readonly logSumExp: Float64Array;
  readonly entropyNats: Float64Array;
  /** Entropy over the log of the vocabulary size; 0 for a vocabulary of one. */
  readonly normalizedEntropy: Float64Array;
  /** -log of the largest probability. */
  readonly minEntropyNats: Float64Array;
  /** -log p(target): +Infinity for a masked target, NaN where the row has no target. */
  readonly surprisalNats: Float64Array;
  readonly varentropyNats2: Float64Array;
  /** 1 + number of logits strictly greater than the target's; NaN where not all columns could be compared. */
  readonly rank: Float64Array;
  /** Number of logits whose probability is above 0 in f64: those within 745 nats of the largest. */
  readonly supportSize: Float64Array;
  readonly hartleyNats: Float64Array;
  /** KL(u || p) with u uniform over the logits above -Infinity. */
  readonly selfCertaintyNats: Float64Array;
  /** (2/pi) arccos(sum sqrt(p) / sqrt(vocabulary size)): 0 for uniform. */
  readonly fisherRao: Float64Array;
  readonly renyiOrders: readonly number[];
  /** One array an order of `renyiOrders`. */
  readonly renyiNats: readonly Float64Array[];
  readonly tsallis: readonly Float64Array[];
  readonly topK: number;
  /** [rows, topK], falling; -Infinity where the support is smaller. */
  readonly topLogProbs: Float64Array;
  /** [rows, topK]; -1 where the support is smaller. */
  readonly topColumns: Int32Array;
  /** p of the first minus p of the second; NaN in every row when topK < 2. */
  readonly margin: Float64Array;
  /**
   * 1 for rows whose varentropy is so small that one pass loses digits (below 1e-6 max(1, H^2)), or whose support may
   * be less than counted (the maximum grew by hundreds of nats between blocks): see {@link accumulateSecondPass}.
   */
  readonly needsSecondPass: Uint8Array;
}

function checkBlock(accumulator: RowAccumulator, block: LogitBlock, options: AccumulateOptions): void {
  const { rows, columns, data, dtype } = block;
  const stride = block.rowStride ?? columns;
  const rightArray =
    dtype === 'F64'
      ? data instanceof Float64Array
      : dtype === 'F32'
        ? data instanceof Float32Array
        : data instanceof Uint16Array;
  if (!rightArray) throw new TypeError(`${dtype} logits need another typed array than ${data.constructor.name}`);
  if (!(rows >= 0 && columns >= 0 && stride >= columns)) {
    throw new RangeError(`a block of ${rows} rows and ${columns} columns with row stride ${stride} is not possible`);
  }
  if (rows > 0 && (rows - 1) * stride + columns > data.length) {
    throw new RangeError(`a block of ${rows} x ${columns} needs more than the ${data.length} logits given`);
  }
  if ((options.rowOffset ?? 0) + rows > accumulator.rows) {
    throw new RangeError(`the block ends at row ${(options.rowOffset ?? 0) + rows} of ${accumulator.rows}`);
  }
  for (const array of [options.targets, options.targetLogits]) {
    if (array !== undefined && array.length !== accumulator.rows) {
      throw new RangeError(`${array.length} targets for an accumulator of ${accumulator.rows} rows`);
    }
  }
}

function blockBytes(block: LogitBlock): Uint8Array {
  return new Uint8Array(block.data.buffer, block.data.byteOffset, block.data.byteLength);
}

/**
 * Folds a block of logits into the accumulator. Blocks of one row may come in any order and of any width; f64 results
 * depend on the blocks by less than 1e-12 relative, and on `threads` not at all. Work is split by rows.
 * @throws InputError naming row and column when a logit is NaN or +Infinity; the accumulator is then of no more use.
 */
export function accumulateRows(accumulator: RowAccumulator, block: LogitBlock, options: AccumulateOptions = {}): void {
  checkBlock(accumulator, block, options);
  const placement: RowPlacement = {
    columnOffset: options.columnOffset ?? 0,
    rowOffset: options.rowOffset ?? 0,
    targets: options.targets,
    targetLogits: options.targetLogits,
  };
  const native = nativeKernels();
  const bad =
    native === undefined
      ? accumulateRowsReference(accumulator, block, placement)
      : native.accumulateRows(
          blockBytes(block),
          LOGIT_FORMATS.indexOf(block.dtype),
          block.rows,
          block.columns,
          block.rowStride ?? block.columns,
          placement.columnOffset,
          placement.rowOffset,
          accumulator.rows,
          accumulator.fields,
          accumulator.topValues,
          accumulator.topColumns,
          accumulator.topK,
          accumulator.full ? 1 : 0,
          accumulator.powerOrders,
          placement.targets ?? null,
          placement.targetLogits ?? null,
          kernelThreads(options.threads),
        );
  if (bad < 0) return;
  const entry = hostileEntry(block, bad);
  const column = placement.columnOffset + (entry?.column ?? 0);
  throw new InputError(
    `${accumulator.name}: row ${placement.rowOffset + bad}, column ${column} is ${entry?.value}; ` +
      'logits must be finite or -Infinity',
  );
}

/**
 * Folds accumulator `b` into `a` and returns `a`: the same rows over other columns (vocabulary shards). Associative and
 * commutative but for rounding. Ranks unite only when both sides knew the targets' logits.
 */
export function mergeRows(a: RowAccumulator, b: RowAccumulator): RowAccumulator {
  const same =
    a.rows === b.rows &&
    a.full === b.full &&
    a.topK === b.topK &&
    a.renyiOrders.length === b.renyiOrders.length &&
    a.renyiOrders.every((order, k) => order === b.renyiOrders[k]);
  if (!same) throw new InputError('accumulators of different rows, measures or orders cannot be merged');
  const { rows, fields: f } = a;
  const g = b.fields;
  const powers = new Float64Array(b.powerOrders.length);
  for (let r = 0; r < rows; r++) {
    const at = (field: number): number => g[field * rows + r];
    for (let k = 0; k < powers.length; k++) powers[k] = at(FIELD.powers + k);
    mergeSums(a, r, {
      max: at(FIELD.max),
      z: at(FIELD.z),
      a: at(FIELD.a),
      q: at(FIELD.q),
      half: at(FIELD.half),
      square: at(FIELD.square),
      finiteSum: at(FIELD.finiteSum),
      finiteCount: at(FIELD.finiteCount),
      support: at(FIELD.support),
      supportLeast: at(FIELD.supportLeast),
      powers,
    });
    for (const field of [FIELD.columns, FIELD.greater, FIELD.rankedColumns]) f[field * rows + r] += at(field);
    const seen = FIELD.targetSeen * rows + r;
    const logit = FIELD.targetLogit * rows + r;
    if (g[seen] === 1 || Number.isNaN(f[logit])) f[logit] = g[logit];
    f[seen] = Math.max(f[seen], g[seen]);
    for (let k = r * b.topK; k < (r + 1) * b.topK && b.topColumns[k] >= 0; k++) {
      insertTop(a, r, b.topValues[k], b.topColumns[k]);
    }
  }
  return a;
}

/** sum of p^order as its logarithm, from the sums of row `r`. */
function logPowerSum(accumulator: RowAccumulator, r: number, order: number, logZ: number): number {
  const field =
    order === 0.5 ? FIELD.half : order === 2 ? FIELD.square : FIELD.powers + accumulator.powerOrders.indexOf(order);
  return Math.log(accumulator.fields[field * accumulator.rows + r]) - order * logZ;
}

/** Renyi and Tsallis entropy of one order of row `r`. */
function entropiesOfOrder(
  accumulator: RowAccumulator,
  r: number,
  order: number,
  logZ: number,
  entropyNats: number,
): { renyi: number; tsallis: number } {
  const support = accumulator.fields[FIELD.support * accumulator.rows + r];
  if (isShannon(order)) return { renyi: entropyNats, tsallis: entropyNats };
  if (order === 0) return { renyi: Math.log(support), tsallis: support - 1 };
  if (order === Number.POSITIVE_INFINITY) return { renyi: logZ, tsallis: 0 };
  const logSum = logPowerSum(accumulator, r, order, logZ);
  return { renyi: logSum / (1 - order), tsallis: -Math.expm1(logSum) / (order - 1) };
}

/**
 * The statistics of every row once all `vocabularySize` columns were folded in.
 * @throws InputError when a row has no finite logit.
 */
export function finalizeRows(accumulator: RowAccumulator, vocabularySize: number): RowStatistics {
  const { rows, full, topK } = accumulator;
  const array = (filled = true): Float64Array => new Float64Array(filled ? rows : 0);
  const out = {
    logSumExp: array(),
    entropyNats: array(),
    normalizedEntropy: array(),
    minEntropyNats: array(),
    surprisalNats: array(),
    varentropyNats2: array(full),
    rank: array(full),
    supportSize: array(full),
    hartleyNats: array(full),
    selfCertaintyNats: array(full),
    fisherRao: array(full),
    renyiNats: accumulator.renyiOrders.map(() => array()),
    tsallis: accumulator.renyiOrders.map(() => array()),
    margin: array(full),
    needsSecondPass: new Uint8Array(full ? rows : 0),
  };
  const max = fieldOf(accumulator, FIELD.max);
  const z = fieldOf(accumulator, FIELD.z);
  const a = fieldOf(accumulator, FIELD.a);
  const logVocabulary = Math.log(vocabularySize);
  for (let r = 0; r < rows; r++) {
    if (max[r] === Number.NEGATIVE_INFINITY) {
      throw new InputError(`${accumulator.name}: row ${r} has empty support: every logit is -Infinity`);
    }
    const logZ = Math.log(z[r]);
    const entropy = Math.max(0, logZ - a[r] / z[r]);
    out.logSumExp[r] = max[r] + logZ;
    out.entropyNats[r] = entropy;
    out.normalizedEntropy[r] = vocabularySize > 1 ? entropy / logVocabulary : 0;
    out.minEntropyNats[r] = Math.max(0, logZ);
    // max and log Z apart: near a large maximum their sum would round the small logarithm away.
    out.surprisalNats[r] = Math.max(0, max[r] - accumulator.fields[FIELD.targetLogit * rows + r] + logZ);
    if (full) finalizeFull(accumulator, r, vocabularySize, logZ, out);
  }
  return {
    rows,
    max: max.slice(),
    ...out,
    renyiOrders: accumulator.renyiOrders,
    topK,
    topLogProbs: accumulator.topValues.map((value, i) => {
      const r = Math.floor(i / topK);
      return value - max[r] - Math.log(z[r]);
    }),
    topColumns: accumulator.topColumns.slice(),
  };
}

/** What {@link finalizeRows} adds for the measures `full`. */
function finalizeFull(
  accumulator: RowAccumulator,
  r: number,
  vocabularySize: number,
  logZ: number,
  out: Omit<RowStatistics, 'rows' | 'max' | 'renyiOrders' | 'topK' | 'topLogProbs' | 'topColumns'>,
): void {
  const { rows, topK } = accumulator;
  const value = (field: number): number => accumulator.fields[field * rows + r];
  const z = value(FIELD.z);
  const entropy = out.entropyNats[r];
  const mean = value(FIELD.a) / z;
  const varentropy = Math.max(0, value(FIELD.q) / z - mean * mean);
  out.varentropyNats2[r] = varentropy;
  const cancelled = varentropy < 1e-6 * Math.max(1, entropy * entropy);
  const overcounted = !(value(FIELD.supportLeast) - value(FIELD.max) > SUPPORT_DEPTH);
  out.needsSecondPass[r] = cancelled || overcounted ? 1 : 0;
  const ranked = value(FIELD.rankedColumns) === value(FIELD.columns) && !Number.isNaN(value(FIELD.targetLogit));
  out.rank[r] = ranked ? 1 + value(FIELD.greater) : Number.NaN;
  out.supportSize[r] = value(FIELD.support);
  out.hartleyNats[r] = Math.log(value(FIELD.support));
  const finite = value(FIELD.finiteCount);
  const meanBelowMax = value(FIELD.max) - value(FIELD.finiteSum) / finite;
  out.selfCertaintyNats[r] = Math.max(0, meanBelowMax + logZ - Math.log(finite));
  const overlap = value(FIELD.half) / Math.sqrt(z) / Math.sqrt(vocabularySize);
  out.fisherRao[r] = (2 / Math.PI) * Math.acos(Math.min(1, overlap));
  for (let k = 0; k < accumulator.renyiOrders.length; k++) {
    const { renyi, tsallis } = entropiesOfOrder(accumulator, r, accumulator.renyiOrders[k], logZ, entropy);
    out.renyiNats[k][r] = Math.max(0, renyi);
    out.tsallis[k][r] = Math.max(0, tsallis);
  }
  if (topK < 2) {
    out.margin[r] = Number.NaN;
  } else {
    const [first, second] = accumulator.topValues.subarray(r * topK, r * topK + 2);
    out.margin[r] = Math.abs(Math.expm1(second - first) * Math.exp(-logZ));
  }
}

/**
 * Sum of the k largest probabilities of every row, [rows]; 1 when the support has no more than k entries.
 * @throws RangeError when k exceeds what was kept and the support may be larger.
 */
export function topMass(statistics: RowStatistics, k: number): Float64Array {
  const { rows, topK, topLogProbs, topColumns } = statistics;
  const mass = new Float64Array(rows);
  for (let r = 0; r < rows; r++) {
    if (k > topK && (topK === 0 || topColumns[(r + 1) * topK - 1] >= 0)) {
      throw new RangeError(`the mass of the ${k} largest needs topK >= ${k}, not ${topK}`);
    }
    let sum = 0;
    for (let i = Math.min(k, topK) - 1; i >= 0; i--) sum += Math.exp(topLogProbs[r * topK + i]);
    mass[r] = Math.min(1, sum);
  }
  return mass;
}

/** Empty sums for {@link accumulateSecondPass}. */
export function createSecondPass(statistics: RowStatistics): SecondPass {
  return {
    varentropyNats2: new Float64Array(statistics.rows),
    supportSize: new Float64Array(statistics.rows),
  };
}

/**
 * A second pass over the logits, for the rows that need one: sums p (-log p - H)^2, which does not cancel, and counts
 * the support against the final maximum. Takes every block once, in any order; {@link applySecondPass} then corrects
 * the statistics.
 */
export function accumulateSecondPass(
  second: SecondPass,
  statistics: RowStatistics,
  block: LogitBlock,
  options: { readonly rowOffset?: number; readonly threads?: number } = {},
): void {
  const rowOffset = options.rowOffset ?? 0;
  if (rowOffset + block.rows > statistics.rows) {
    throw new RangeError(`${rowOffset + block.rows} rows do not fit statistics of ${statistics.rows}`);
  }
  const native = nativeKernels();
  if (native === undefined) {
    const first = { ...statistics, wanted: statistics.needsSecondPass };
    accumulateSecondReference(second, first, block, rowOffset);
    return;
  }
  native.accumulateSecond(
    blockBytes(block),
    LOGIT_FORMATS.indexOf(block.dtype),
    block.rows,
    block.columns,
    block.rowStride ?? block.columns,
    0,
    rowOffset,
    statistics.needsSecondPass,
    statistics.max,
    statistics.logSumExp,
    statistics.entropyNats,
    second.varentropyNats2,
    second.supportSize,
    kernelThreads(options.threads),
  );
}

/** Puts the sums of a complete second pass into the statistics of the rows that needed it. */
export function applySecondPass(statistics: RowStatistics, second: SecondPass): void {
  for (let r = 0; r < statistics.rows; r++) {
    if (statistics.needsSecondPass[r] === 0) continue;
    const support = second.supportSize[r];
    statistics.varentropyNats2[r] = second.varentropyNats2[r];
    statistics.supportSize[r] = support;
    statistics.hartleyNats[r] = Math.log(support);
    statistics.renyiOrders.forEach((order, k) => {
      if (order !== 0) return;
      statistics.renyiNats[k][r] = Math.log(support);
      statistics.tsallis[k][r] = support - 1;
    });
    statistics.needsSecondPass[r] = 0;
  }
}

/** Statistics of rows that lie in memory whole, with the second pass where a row needs it. */
export function rowStatistics(
  block: LogitBlock,
  options: RowAccumulatorOptions & { readonly targets?: Int32Array; readonly threads?: number } = {},
): RowStatistics {
  const accumulator = createRowAccumulator(block.rows, options);
  accumulateRows(accumulator, block, { targets: options.targets, threads: options.threads });
  const statistics = finalizeRows(accumulator, block.columns);
  if (statistics.needsSecondPass.includes(1)) {
    const second = createSecondPass(statistics);
    accumulateSecondPass(second, statistics, block, { threads: options.threads });
    applySecondPass(statistics, second);
  }
  return statistics;
}
