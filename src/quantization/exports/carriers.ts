import { InputError, RunError } from '../../errors.js';
import { GGML_BLOCKS } from '../../formats/ggml-blocks.js';
import type { GgmlBlockType } from '../../formats/tensor.js';
import { narrowFromF32, widenToF32 } from '../../kernels/dtypes.js';
import { dequantizeGgml } from '../../kernels/ggml.js';
import { encodeGgml } from '../../kernels/ggml-encode.js';
import { type EncodedRows, rowCodeBytes, rowGroups, rowIndexBytes } from '../../kernels/pyramid.js';
import { groupFactor, unpackCodes, unpackPulses } from '../../kernels/pyramid-index.js';
import { carrierType, constraintsOf, type ExportFormat, exportObstacle } from './export-format.js';
import type { StepRows } from './step-rows.js';

/** A coded matrix: as the native format stores it, or by steps. */
export type ExportRows = EncodedRows | StepRows;

export function isStepRows(rows: ExportRows): rows is StepRows {
  return 'policy' in rows;
}

/**
 * A band of rows as whole numbers and factors: weight i of row r is `factors[r, floor(i / unit)] numbers[r, i]`.
 * Of step rows a factor is `base code`.
 */
export interface WholeRows {
  readonly rows: number;
  readonly columns: number;
  /** [rows, columns] */
  readonly numbers: Int16Array;
  /** Columns that share a factor. */
  readonly unit: number;
  /** [rows, ceil(columns / unit)] */
  readonly factors: Float32Array;
  /** Of step rows: codes beside the factors, and bases. */
  readonly steps?: { readonly codes: Uint8Array; readonly bases: Float32Array; readonly baseColumns: number };
}

/** Rows first..first+count-1 of a coded matrix. */
export function wholeRows(coded: ExportRows, first: number, count: number, threads?: number): WholeRows {
  return isStepRows(coded) ? stepBand(coded, first, count) : encodedBand(coded, first, count, threads);
}

function stepBand(coded: StepRows, first: number, count: number): WholeRows {
  const { columns, groupLength: D, baseColumns } = coded;
  const groups = columns / D;
  const perRow = columns / baseColumns;
  const codes = coded.codes.subarray(first * groups, (first + count) * groups);
  const bases = coded.bases.subarray(first * perRow, (first + count) * perRow);
  const perBase = baseColumns / D;
  const factors = Float32Array.from(codes, (code, g) => bases[Math.floor(g / perBase)] * code);
  const numbers = Int16Array.from(coded.points.subarray(first * columns, (first + count) * columns));
  return { rows: count, columns, numbers, unit: D, factors, steps: { codes, bases, baseColumns } };
}

function encodedBand(coded: EncodedRows, first: number, count: number, threads?: number): WholeRows {
  const { columns, code, scales, levels, zeroGroups } = coded;
  const { groupLength: D, gainBits } = code;
  const groups = rowGroups(columns, D);
  const band = (bytes: Uint8Array, rowBytes: number): Uint8Array =>
    bytes.subarray(first * rowBytes, (first + count) * rowBytes);
  const pulses = new Int16Array(count * groups * D);
  unpackPulses(band(coded.index, rowIndexBytes(code, groups)), count, groups, code, pulses, threads);
  const codes = new Uint8Array(count * groups);
  unpackCodes(band(coded.gain, rowCodeBytes(gainBits, groups)), count, groups, gainBits, codes);
  const zeros = new Uint8Array(count * groups);
  if (zeroGroups) unpackCodes(band(zeroGroups, rowCodeBytes(1, groups)), count, groups, 1, zeros);
  const factors = new Float32Array(count * groups);
  const numbers = new Int16Array(count * columns);
  for (let r = 0; r < count; r++) {
    for (let g = 0; g < groups; g++) {
      const at = (r * groups + g) * D;
      const point = pulses.subarray(at, at + D);
      const width = Math.min(D, columns - g * D);
      if (zeros[r * groups + g] === 1) continue;
      factors[r * groups + g] = groupFactor(scales[first + r], levels[codes[r * groups + g]], point);
      numbers.set(point.subarray(0, width), r * columns + g * D);
    }
  }
  return { rows: count, columns, numbers, unit: D, factors };
}

/** What writing a coded matrix in another format changed. All zero where nothing is rounded. */
export interface CarrierCheck {
  /** Weights that were decoded from the written bytes and compared. */
  weights: number;
  /** Largest |decoded - coded| / |coded|. */
  largestRelativeError: number;
  /** Sums of (decoded - coded)^2 and of coded^2. */
  squaredError: number;
  squaredWeights: number;
  /** Factors so small that f16 holds them with fewer than 11 bits. */
  subnormalFactors: number;
}

export function startCheck(): CarrierCheck {
  return { weights: 0, largestRelativeError: 0, squaredError: 0, squaredWeights: 0, subnormalFactors: 0 };
}

/** What decides whether a coded matrix goes into a format. */
export interface ExportShape {
  readonly rows: number;
  readonly columns: number;
  readonly groupLength: number;
  readonly pulses: number;
  readonly gainPolicy: 'any' | 'step';
}

export function describeRows(coded: ExportRows): ExportShape {
  const { rows, columns } = coded;
  const { groupLength, pulses } = isStepRows(coded) ? coded : coded.code;
  return { rows, columns, groupLength, pulses, gainPolicy: isStepRows(coded) ? 'step' : 'any' };
}

/** @throws InputError naming the tensor and what does not fit the format */
export function checkExportable(name: string, shape: ExportShape, format: ExportFormat): void {
  const { gainPolicy } = constraintsOf(format);
  const byPolicy =
    gainPolicy === 'step' && shape.gainPolicy === 'any'
      ? 'its gains are not whole multiples of a base (gain policy step)'
      : gainPolicy === 'any' && shape.gainPolicy === 'step'
        ? 'its gains are whole multiples of a base (gain policy step)'
        : undefined;
  const wrong = exportObstacle(format, shape.columns, shape) ?? byPolicy;
  if (wrong === undefined) return;
  throw new InputError(
    `tensor "${name}" cannot be stored exactly as ${format}: ${wrong}; keep it as it is with --keep, or choose another ` +
      'format',
  );
}

/**
 * Writes a band of rows as blocks of the format's GGUF type, decodes them again, and compares.
 * @returns the blocks; `check` takes the comparison
 * @throws InputError when a coordinate is beyond the format's caps, RunError when what is decoded is not what was
 * written, weight by weight
 */
export function writeCarrier(
  name: string,
  band: WholeRows,
  format: ExportFormat,
  check: CarrierCheck,
  threads?: number,
): Uint8Array {
  const type = carrierType(format);
  if (type === undefined) throw new RangeError(`${format} is no GGUF type`);
  checkCaps(name, band, format);
  const { blockElements, blockBytes } = GGML_BLOCKS[type];
  const blocks = (band.rows * band.columns) / blockElements;
  const bytes = new Uint8Array(blocks * blockBytes);
  const halves = blockHalves(band, blockElements);
  const write = BLOCK_WRITERS[type];
  if (!write) throw new RangeError(`${type} carries no pyramid`);
  for (let block = 0; block < blocks; block++) write(band, halves, block, bytes.subarray(block * blockBytes));
  verifyBlocks(name, band, type, bytes, halves, check, threads);
  return bytes;
}

function checkCaps(name: string, { numbers, columns }: WholeRows, format: ExportFormat): void {
  const { cap, negativeCap } = constraintsOf(format);
  const bad = numbers.findIndex((y) => y > cap || y < -negativeCap);
  if (bad < 0) return;
  throw new InputError(
    `tensor "${name}", row ${Math.floor(bad / columns)}, column ${bad % columns}: ${numbers[bad]} pulses are outside of ` +
      `the ${-negativeCap} to ${cap} that ${format} holds; search under these caps`,
  );
}

/** The f16 of every block: the factor of its group, or the base of its superblock. */
interface BlockHalves {
  readonly bytes: Uint8Array;
  readonly values: Float32Array;
}

function blockHalves({ rows, columns, unit, factors, steps }: WholeRows, blockElements: number): BlockHalves {
  const perRow = columns / blockElements;
  const exact = new Float32Array(rows * perRow);
  const units = Math.ceil(columns / unit);
  for (let r = 0; r < rows; r++) {
    for (let b = 0; b < perRow; b++) {
      exact[r * perRow + b] = steps
        ? steps.bases[r * perRow + b]
        : factors[r * units + Math.floor((b * blockElements) / unit)];
    }
  }
  const bytes = new Uint8Array(2 * exact.length);
  narrowFromF32(exact, 'F16', bytes);
  const values = new Float32Array(exact.length);
  widenToF32(bytes, 'F16', values);
  return { bytes, values };
}

type BlockWriter = (band: WholeRows, halves: BlockHalves, block: number, target: Uint8Array) => void;

function putHalf({ bytes }: BlockHalves, block: number, target: Uint8Array, at: number): void {
  target[at] = bytes[2 * block];
  target[at + 1] = bytes[2 * block + 1];
}

const BLOCK_WRITERS: Readonly<Partial<Record<GgmlBlockType, BlockWriter>>> = {
  /** d | 32 signed bytes. */
  Q8_0({ numbers }, halves, block, target) {
    putHalf(halves, block, target, 0);
    for (let i = 0; i < 32; i++) target[2 + i] = numbers[block * 32 + i] & 255;
  },
  /** d | 16 bytes: element j and element j + 16, each plus 8. */
  Q4_0({ numbers }, halves, block, target) {
    putHalf(halves, block, target, 0);
    for (let j = 0; j < 16; j++) {
      const low = numbers[block * 32 + j] + 8;
      const high = numbers[block * 32 + j + 16] + 8;
      target[2 + j] = low | (high << 4);
    }
  },
  /** 128 bytes of low nibbles | 64 bytes of upper bit pairs | 16 signed scales | d. */
  Q6_K(band, halves, block, target) {
    for (let i = 0; i < 256; i++) {
      const code = band.numbers[block * 256 + i] + 32;
      const half = i >> 7;
      const place = i & 127;
      // Low nibbles: elements 0..63 of a half in the low ones, 64..127 in the high ones. Upper pairs: four a byte.
      target[half * 64 + (place & 63)] |= (code & 15) << (4 * (place >> 6));
      target[128 + half * 32 + (place & 31)] |= (code >> 4) << (2 * (place >> 5));
    }
    for (let s = 0; s < 16; s++) target[192 + s] = stepCode(band, block, s);
    putHalf(halves, block, target, 208);
  },
  /** 32 bytes of third bits | 64 bytes of 2-bit codes | 12 bytes: sixteen 6-bit scales, each plus 32 | d. */
  Q3_K(band, halves, block, target) {
    for (let i = 0; i < 256; i++) {
      const code = band.numbers[block * 256 + i] + 4;
      const place = i & 31;
      const group = i >> 5;
      target[place] |= (code >> 2) << group;
      target[32 + (i >> 7) * 32 + place] |= (code & 3) << (2 * (group & 3));
    }
    for (let s = 0; s < 16; s++) {
      const scale = stepCode(band, block, s) + 32;
      target[96 + (s & 7)] |= (scale & 15) << (4 * (s >> 3));
      target[104 + (s & 3)] |= (scale >> 4) << (2 * (s >> 2));
    }
    putHalf(halves, block, target, 108);
  },
  /** 16 bytes of scale and minimum | 64 bytes of 2-bit codes | d, dmin: a minimum equal to the scale. */
  Q2_K(band, halves, block, target) {
    for (let s = 0; s < 16; s++) target[s] = stepCode(band, block, s) * 17;
    for (let i = 0; i < 256; i++) {
      const code = band.numbers[block * 256 + i] + 1;
      target[16 + (i >> 7) * 32 + (i & 31)] |= code << (2 * ((i >> 5) & 3));
    }
    putHalf(halves, block, target, 80);
    putHalf(halves, block, target, 82);
  },
};

/** The step of the sub-block of 16 weights. */
function stepCode({ steps, unit }: WholeRows, block: number, sub: number): number {
  if (!steps) throw new RangeError('a superblock needs steps');
  return steps.codes[Math.floor((block * 256 + sub * 16) / unit)];
}

/** Decodes blocks and holds every weight against the whole number times the factor that was meant. */
function verifyBlocks(
  name: string,
  band: WholeRows,
  type: GgmlBlockType,
  bytes: Uint8Array,
  halves: BlockHalves,
  check: CarrierCheck,
  threads?: number,
): void {
  const { rows, columns, unit, factors, numbers, steps } = band;
  const { blockElements } = GGML_BLOCKS[type];
  const decoded = new Float32Array(rows * columns);
  dequantizeGgml(bytes, type, decoded, threads);
  const units = Math.ceil(columns / unit);
  for (let r = 0; r < rows; r++) {
    for (let g = 0; g < units; g++) {
      const factor = factors[r * units + g];
      const first = r * columns + g * unit;
      const half = halves.values[Math.floor(first / blockElements)];
      const stored = steps ? Math.fround(half * steps.codes[r * units + g]) : half;
      if (factor !== 0 && half < 2 ** -14) check.subnormalFactors++;
      for (let i = first; i < Math.min(first + unit, (r + 1) * columns); i++) {
        if (decoded[i] !== Math.fround(stored * numbers[i])) {
          throw new RunError(
            `tensor "${name}": row ${r}, column ${i - r * columns} reads back as ${decoded[i]} from ${type}, not as ` +
              `${stored * numbers[i]}`,
          );
        }
        const coded = Math.fround(factor * numbers[i]);
        const error = Math.abs(decoded[i] - coded);
        check.squaredError += error * error;
        check.squaredWeights += coded * coded;
        if (coded !== 0) check.largestRelativeError = Math.max(check.largestRelativeError, error / Math.abs(coded));
      }
    }
  }
  check.weights += rows * columns;
}

/**
 * Quantises the decoded weights of a band a second time, as blocks of a type that holds no pyramid.
 * @returns the blocks; `check` takes the error that this adds to that of the codes
 */
export function requantize(band: WholeRows, type: GgmlBlockType, check: CarrierCheck, threads?: number): Uint8Array {
  const { rows, columns, numbers, unit, factors } = band;
  const units = Math.ceil(columns / unit);
  const coded = new Float32Array(rows * columns);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      coded[r * columns + c] = factors[r * units + Math.floor(c / unit)] * numbers[r * columns + c];
    }
  }
  const { blockElements, blockBytes } = GGML_BLOCKS[type];
  const bytes = new Uint8Array((coded.length / blockElements) * blockBytes);
  encodeGgml(coded, rows, columns, type, bytes);
  const decoded = new Float32Array(coded.length);
  dequantizeGgml(bytes, type, decoded, threads);
  for (let i = 0; i < coded.length; i++) {
    const error = Math.abs(decoded[i] - coded[i]);
    check.squaredError += error * error;
    check.squaredWeights += coded[i] * coded[i];
    if (coded[i] !== 0) check.largestRelativeError = Math.max(check.largestRelativeError, error / Math.abs(coded[i]));
  }
  check.weights += coded.length;
  return bytes;
}
