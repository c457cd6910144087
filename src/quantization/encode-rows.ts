import { InputError } from '../errors.js';
import { kernelThreads, nativeKernels } from '../kernels/native.js';
import {
  encodeBlockReference,
  encodeRowsReference,
  type GainPolicy,
  ROW_FIELDS,
} from '../kernels/pulse-encode-reference.js';
import { checkPyramid, type PulseSearchOptions, SEARCH_MODES, type SearchMode } from '../kernels/pulse-search.js';
import {
  checkShape,
  type EncodedRows,
  type PyramidCode,
  rowCodeBytes,
  rowGroups,
  rowIndexBytes,
} from '../kernels/pyramid.js';
import { packCodes, packPulses } from '../kernels/pyramid-index.js';

export type { GainPolicy, SearchMode };

/**
 * The mode that is used when none is named. On normal weights `exact` lies 0.02 to 0.15 dB above `greedy` for groups of
 * 8 to 64 weights at 3 and 4 bits (up to 0.02 dB at 2 bits), at about two thirds of its speed; `best` comes within
 * 0.002 dB of it and takes twice as long or more (bench/pvq-gaussian.mjs, bench/pvq-encode.mjs).
 */
export const DEFAULT_SEARCH: SearchMode = 'exact';

interface SearchSettings {
  readonly mode?: SearchMode;
  /** Polishes `greedy` and `fixed-point` by moving single pulses. */
  readonly exchange?: boolean;
  /** Most pulses of a coordinate; `negativeCap` where the weight is negative, the same by default. */
  readonly cap?: number;
  readonly negativeCap?: number;
  /** Importance of every column, [columns], at least 0: weights search, gains and row scale, not the reported errors. */
  readonly importance?: Float32Array | Float64Array;
  readonly threads?: number;
}

export interface EncodeOptions extends SearchSettings {
  readonly gainPolicy?: GainPolicy;
  /** `bitmap` stores which groups are zero, so that they decode to zeros; `code` (default) codes them like all others. */
  readonly zeroGroups?: 'code' | 'bitmap';
}

/** Errors of encoded rows in the domain that was encoded (rotated, if it was), decoded weights taken before f32. */
export interface EncodeStatistics {
  readonly rows: number;
  readonly weights: number;
  readonly groups: number;
  /** Groups of zeros. */
  readonly zeroGroups: number;
  /** Row scales that f16 cannot hold and f32 does. */
  readonly singleScales: number;
  /** sum w^2, sum (w - what)^2, sum w what, sum what^2. */
  readonly weightEnergy: number;
  readonly squaredError: number;
  readonly crossEnergy: number;
  readonly decodedEnergy: number;
  /** Mean of 1 - c^2 over the groups that are not zero, c the cosine of weights and pulses. */
  readonly shapeError: number;
  /** Parts of the squared error: of the direction with the best gain, and of the gain. */
  readonly shapeSquaredError: number;
  readonly gainSquaredError: number;
  /** Largest |w - what|, what as decoded. */
  readonly largestError: number;
}

export interface EncodedMatrix {
  readonly encoded: EncodedRows;
  readonly statistics: EncodeStatistics;
}

function summarise(fields: Float64Array, rows: number, weights: number, groups: number): EncodeStatistics {
  const sums = new Float64Array(ROW_FIELDS.length);
  const largest = ROW_FIELDS.indexOf('largestError');
  for (let i = 0; i < fields.length; i++) {
    const k = i % ROW_FIELDS.length;
    sums[k] = k === largest ? Math.max(sums[k], fields[i]) : sums[k] + fields[i];
  }
  const [weightEnergy, squaredError, crossEnergy, decodedEnergy, shapeErrors, shape, largestError, zeros, singles] =
    sums;
  const alive = groups - zeros;
  return {
    rows,
    weights,
    groups,
    zeroGroups: zeros,
    singleScales: singles,
    weightEnergy,
    squaredError,
    crossEnergy,
    decodedEnergy,
    shapeError: alive > 0 ? shapeErrors / alive : 0,
    shapeSquaredError: shape,
    gainSquaredError: Math.max(0, squaredError - shape),
    largestError,
  };
}

function refuseNonFinite(x: Float32Array | Float64Array, columns: number): never {
  let count = 0;
  let first = -1;
  for (let i = 0; i < x.length; i++) {
    if (Number.isFinite(x[i])) continue;
    if (first < 0) first = i;
    count++;
  }
  const [row, column] = [Math.floor(first / columns), first % columns];
  const kinds = count === 1 ? 'weight is' : 'weights are';
  throw new InputError(`${count} ${kinds} NaN or infinite, the first in row ${row}, column ${column} (${x[first]})`);
}

function requireFinite(x: Float32Array | Float64Array, columns: number): void {
  if (!x.every(Number.isFinite)) refuseNonFinite(x, columns);
}

function checkLevels(levels: Float32Array, gainBits: number): void {
  if (levels.length !== 2 ** gainBits) throw new RangeError(`${levels.length} levels for ${gainBits} gain bits`);
  for (let i = 0; i < levels.length; i++) {
    if (!(levels[i] >= 0 && Number.isFinite(levels[i]) && (i === 0 || levels[i] >= levels[i - 1]))) {
      throw new RangeError(`gain levels must be finite, at least 0 and ascending; level ${i} is ${levels[i]}`);
    }
  }
}

function searchOptions(
  x: Float32Array | Float64Array,
  columns: number,
  code: PyramidCode,
  options: SearchSettings,
): PulseSearchOptions {
  checkShape(code);
  const { cap, negativeCap, importance } = options;
  checkPyramid(code.groupLength, code.pulses, options);
  if (importance !== undefined && importance.length !== columns) {
    throw new RangeError(`${importance.length} importances for ${columns} columns`);
  }
  const single = x instanceof Float32Array && importance !== undefined && !(importance instanceof Float32Array);
  return {
    D: code.groupLength,
    K: code.pulses,
    mode: options.mode ?? DEFAULT_SEARCH,
    exchange: options.exchange ?? false,
    ...(cap !== undefined && { cap }),
    ...(negativeCap !== undefined && { negativeCap }),
    ...(importance !== undefined && { importance: single ? Float32Array.from(importance) : importance }),
  };
}

/**
 * Encodes rows of weights w [rows, columns] (rotated, if they are to be): per group of D columns a point y of the pyramid
 * and the code of a gain, per row a scale rho. A group decodes to `rho level y / ||y||`.
 *
 * Gains: s = <w, y> / ||y|| (`projection`, default: least squares) or ||w|| (`norm`: keeps the length). Codes and scale
 * are fitted in turns: rho = ||row||, then three times the nearest level of s / rho and rho = sum q s / sum q^2; rho is
 * rounded to f16 (f32 above 65504 and below 6.1e-5) and codes are chosen once more. A value on the threshold between
 * two levels takes the lower one. With importances h the sums are weighted by h.
 *
 * A group of zeros has no direction: all pulses at its first coordinate, the smallest level, or a bit of `zeroGroups`.
 * f32 rows give the same bytes with and without native kernels and at any number of threads; f64 rows run in f64, in
 * TypeScript.
 * @throws InputError when a weight is NaN or infinite: how many, and the first one's row and column
 * @throws RangeError when sizes, levels or options do not fit
 */
export function encodeRows(
  w: Float32Array | Float64Array,
  rows: number,
  columns: number,
  code: PyramidCode,
  levels: Float32Array,
  options: EncodeOptions = {},
): EncodedMatrix {
  if (w.length !== rows * columns) throw new RangeError(`${w.length} weights are not ${rows} rows of ${columns}`);
  checkLevels(levels, code.gainBits);
  const search = searchOptions(w, columns, code, options);
  const groups = rowGroups(columns, code.groupLength);
  const zeroBitmap = options.zeroGroups === 'bitmap';
  const gainPolicy = options.gainPolicy ?? 'projection';
  const index = new Uint8Array(rows * rowIndexBytes(code, groups));
  const gain = new Uint8Array(rows * rowCodeBytes(code.gainBits, groups));
  const scales = new Float32Array(rows);
  const fields = new Float64Array(rows * ROW_FIELDS.length);
  const zeroGroups = zeroBitmap ? new Uint8Array(rows * rowCodeBytes(1, groups)) : undefined;
  const native = nativeKernels();
  const threads = kernelThreads(options.threads);
  if (native !== undefined && w instanceof Float32Array) {
    const importance = search.importance instanceof Float32Array ? search.importance : null;
    const finite = native.encodePyramidRows(
      w,
      rows,
      columns,
      search.D,
      search.K,
      SEARCH_MODES.indexOf(search.mode),
      search.cap ?? 0,
      search.negativeCap ?? search.cap ?? 0,
      search.exchange ? 1 : 0,
      importance,
      code.superGroup,
      code.gainBits,
      levels,
      gainPolicy === 'norm' ? 1 : 0,
      index,
      gain,
      scales,
      zeroGroups ?? null,
      fields,
      threads,
    );
    if (!finite) refuseNonFinite(w, columns);
  } else {
    requireFinite(w, columns);
    const out = {
      pulses: new Int16Array(rows * groups * search.D),
      codes: new Uint8Array(rows * groups),
      zeros: new Uint8Array(rows * groups),
      scales,
      statistics: fields,
    };
    encodeRowsReference(w, rows, columns, { search, levels, gainPolicy, zeroBitmap }, out);
    packPulses(out.pulses, rows, groups, code, index, threads);
    if (code.gainBits > 0) packCodes(out.codes, rows, groups, code.gainBits, gain);
    if (zeroGroups !== undefined) packCodes(out.zeros, rows, groups, 1, zeroGroups);
  }
  return {
    encoded: { rows, columns, code, index, gain, scales, levels, ...(zeroGroups && { zeroGroups }) },
    statistics: summarise(fields, rows, rows * columns, rows * groups),
  };
}

export interface BlockOptions extends SearchSettings {
  /**
   * Full metric M of every group, [groups, D, D], symmetric, positive definite: search and gains in <a, b>_M. Widths are
   * then whole groups, `greedy` is greedy and every other mode the best of two polished starts.
   */
  readonly metrics?: Float64Array;
}

/** Codes of a block of columns, and what they decode to. */
export interface BlockCodes {
  /** [rows, groups, D]. */
  readonly pulses: Int16Array;
  /** [rows, groups]. */
  readonly codes: Uint8Array;
  /** [rows, width], of the type of the target. */
  readonly decoded: Float32Array | Float64Array;
}

/**
 * Encodes a block of columns [rows, width] with levels and row scales that are fixed, as error feedback does with one
 * block after another: pulses, gain codes and the decoded block, the bits that `dequantizeRows` gives (f32 targets).
 * Gains are those of least squares, s = ||y|| <a, y>_M / ||y||_M^2, M the identity, the importances or `metrics`.
 * @param scales as stored, [rows]; a row of scale 0 decodes to zeros
 * @param out written
 * @throws InputError when a weight is NaN or infinite
 * @throws RangeError when sizes, levels or options do not fit
 */
export function encodeBlock(
  target: Float32Array | Float64Array,
  rows: number,
  width: number,
  code: PyramidCode,
  levels: Float32Array,
  scales: Float32Array,
  options: BlockOptions,
  out: BlockCodes,
): void {
  const { groupLength: D } = code;
  const groups = rowGroups(width, D);
  const { metrics } = options;
  checkLevels(levels, code.gainBits);
  if (target.length !== rows * width || out.decoded.length !== target.length || scales.length !== rows) {
    throw new RangeError(
      `${target.length} weights, ${out.decoded.length} decoded, ${scales.length} scales: ${rows} rows`,
    );
  }
  if (out.pulses.length !== rows * groups * D || out.codes.length !== rows * groups) {
    throw new RangeError(
      `${out.pulses.length} pulses and ${out.codes.length} codes for ${rows * groups} groups of ${D}`,
    );
  }
  if (metrics !== undefined && (metrics.length !== groups * D * D || width !== groups * D)) {
    throw new RangeError(`${metrics.length} entries are not the metrics of ${width} columns in whole groups of ${D}`);
  }
  const search = searchOptions(target, width, code, options);
  const native = nativeKernels();
  const single = target instanceof Float32Array && out.decoded instanceof Float32Array;
  if (native === undefined || metrics !== undefined || !single) {
    requireFinite(target, width);
    const request = { search, levels, scales, ...(metrics !== undefined && { metrics }) };
    encodeBlockReference(target, rows, width, request, out);
    return;
  }
  const finite = native.encodePyramidBlock(
    target,
    rows,
    width,
    search.D,
    search.K,
    SEARCH_MODES.indexOf(search.mode),
    search.cap ?? 0,
    search.negativeCap ?? search.cap ?? 0,
    search.exchange ? 1 : 0,
    search.importance instanceof Float32Array ? search.importance : null,
    levels,
    scales,
    out.pulses,
    out.codes,
    out.decoded,
    kernelThreads(options.threads),
  );
  if (!finite) refuseNonFinite(target, width);
}
