import { didYouMean, InputError } from '../../errors.js';
import { GGML_BLOCKS } from '../../formats/ggml-blocks.js';
import type { GgmlBlockType } from '../../formats/tensor.js';
import { searchPulses } from '../../kernels/pulse-search.js';
import type { PyramidCode, PyramidShape } from '../../kernels/pyramid.js';
import { createRandom } from '../../random.js';

/** Formats of other programs into which a code goes without a second quantisation of its pulses. */
export const EXPORT_FORMATS = ['gguf-q8_0', 'gguf-q4_0', 'gguf-q6_k', 'gguf-q3_k', 'gguf-q2_k', 'onnx-nbits'] as const;
export type ExportFormat = (typeof EXPORT_FORMATS)[number];

/**
 * Block types whose levels hold no pyramid: decoded weights are quantised a second time, which adds an error of its own.
 * Reports say so.
 */
export const LOSSY_FORMATS = ['gguf-q4_1', 'gguf-q5_0', 'gguf-q5_1', 'gguf-q4_k', 'gguf-q5_k', 'gguf-iq4_nl'] as const;
export type LossyFormat = (typeof LOSSY_FORMATS)[number];

const LOSSY_TYPES: Readonly<Record<LossyFormat, GgmlBlockType>> = {
  'gguf-q4_1': 'Q4_1',
  'gguf-q5_0': 'Q5_0',
  'gguf-q5_1': 'Q5_1',
  'gguf-q4_k': 'Q4_K',
  'gguf-q5_k': 'Q5_K',
  'gguf-iq4_nl': 'IQ4_NL',
};

export function isLossy(format: ExportFormat | LossyFormat): format is LossyFormat {
  return Object.hasOwn(LOSSY_TYPES, format);
}

/** What a quantiser must obey for its codes to be stored exactly. */
export interface ExportConstraints {
  readonly format: ExportFormat;
  /** D is a multiple of this: the weights that share one factor in the format. */
  readonly groupMultiple: number;
  /** Rows are a whole number of so many columns. */
  readonly columnMultiple: number;
  /** Most pulses of a coordinate, of either sign. */
  readonly cap: number;
  readonly negativeCap: number;
  /**
   * `any`: a group's factor `scale level / ||y||` is stored by itself. `step`: factors of a superblock are whole
   * multiples 0..largestStep of one base (`step-rows.ts`), without the vector's length in between.
   */
  readonly gainPolicy: 'any' | 'step';
  /** Of policy `step`: the greatest multiple, and the columns that share a base. */
  readonly largestStep?: number;
  readonly baseColumns?: number;
  /** What is rounded when a code is written. */
  readonly rounding: 'factor to f16' | 'none';
}

interface Carrier {
  readonly type: GgmlBlockType;
  readonly constraints: ExportConstraints;
}

function simple(format: ExportFormat, type: GgmlBlockType, cap: number, negativeCap: number): Carrier {
  const constraints: ExportConstraints = {
    format,
    groupMultiple: 32,
    columnMultiple: 32,
    cap,
    negativeCap,
    gainPolicy: 'any',
    rounding: 'factor to f16',
  };
  return { type, constraints };
}

function stepped(format: ExportFormat, type: GgmlBlockType, cap: number, negativeCap: number, steps: number): Carrier {
  const constraints: ExportConstraints = {
    format,
    groupMultiple: 16,
    columnMultiple: 256,
    cap,
    negativeCap,
    gainPolicy: 'step',
    largestStep: steps,
    baseColumns: 256,
    rounding: 'none',
  };
  return { type, constraints };
}

/** GGUF block types by format; layouts in ggml-common.h of llama.cpp. */
const CARRIERS: Readonly<Partial<Record<ExportFormat, Carrier>>> = {
  'gguf-q8_0': simple('gguf-q8_0', 'Q8_0', 127, 127),
  'gguf-q4_0': simple('gguf-q4_0', 'Q4_0', 7, 8),
  'gguf-q6_k': stepped('gguf-q6_k', 'Q6_K', 31, 32, 127),
  'gguf-q3_k': stepped('gguf-q3_k', 'Q3_K', 3, 4, 31),
  // Codes 0..3 less a minimum equal to the scale: -1..2.
  'gguf-q2_k': stepped('gguf-q2_k', 'Q2_K', 2, 1, 15),
};

/** Block lengths of com.microsoft.MatMulNBits. */
export const NBITS_BLOCKS: readonly number[] = [16, 32, 64, 128];

/** @throws InputError for an unknown name, with the nearest known one */
export function parseExportFormat(name: string): ExportFormat {
  const found = EXPORT_FORMATS.find((format) => format === name);
  if (found !== undefined) return found;
  throw new InputError(
    `"${name}" is no export format${didYouMean(name, EXPORT_FORMATS)}; known: ${EXPORT_FORMATS.join(', ')}`,
  );
}

/** The GGUF type of a format; undefined for ONNX. */
export function carrierType(format: ExportFormat | LossyFormat): GgmlBlockType | undefined {
  return isLossy(format) ? LOSSY_TYPES[format] : CARRIERS[format]?.type;
}

/** What codes must obey to be stored exactly in a format. */
export function constraintsOf(format: ExportFormat): ExportConstraints {
  const carrier = CARRIERS[format];
  if (carrier) return carrier.constraints;
  return {
    format,
    groupMultiple: 16,
    columnMultiple: 1,
    cap: 7,
    negativeCap: 8,
    gainPolicy: 'any',
    rounding: 'none',
  };
}

/** The block of MatMulNBits for groups of D: the longest that D is a whole number of. */
export function nbitsBlock(D: number): number | undefined {
  return [...NBITS_BLOCKS].reverse().find((block) => D % block === 0);
}

/** Bits a weight of a format takes in the file, factors included; for ONNX it depends on D. */
export function exportBits(format: ExportFormat, D: number): number {
  const type = carrierType(format);
  if (type !== undefined) return (8 * GGML_BLOCKS[type].blockBytes) / GGML_BLOCKS[type].blockElements;
  return 4 + 32 / (nbitsBlock(D) ?? NBITS_BLOCKS[0]);
}

/** Why a matrix of `columns` with this code cannot be stored exactly, or undefined where it can (caps aside). */
export function exportObstacle(
  format: ExportFormat,
  columns: number,
  shape: Pick<PyramidShape, 'groupLength' | 'pulses'>,
): string | undefined {
  const { groupMultiple, columnMultiple, cap, negativeCap } = constraintsOf(format);
  const { groupLength: D, pulses: K } = shape;
  if (columns % columnMultiple !== 0)
    return `rows of ${columns} weights are not a whole number of blocks of ${columnMultiple}`;
  if (D % groupMultiple !== 0) return `groups of ${D} weights are not a multiple of ${groupMultiple}`;
  if (K > Math.min(cap, negativeCap) * D) return `${K} pulses do not fit ${D} weights of ${-negativeCap} to ${cap}`;
  return undefined;
}

/** Groups of N(0, 1) on which codes are compared, and the ratio of neighbouring candidates. */
const SAMPLE_GROUPS = 256;
const SAMPLE_STREAM = 1;
const RATIO = 1.06;

/** Most bits of a gain's code. */
const FINE_GAIN_BITS = 8;

const chosenPulses = new Map<string, number>();

/**
 * The K of groups of D weights that suits a format's caps best: files of a format have one size whatever K is, so it
 * is the one of least mean 1 - cos^2 on Gaussian groups (seeded), coarse pulses against cut peaks.
 */
export function exportPulses(format: ExportFormat, D: number): number {
  const key = `${format} ${D}`;
  const known = chosenPulses.get(key);
  if (known !== undefined) return known;
  const { cap, negativeCap } = constraintsOf(format);
  const random = createRandom(1).fork(SAMPLE_STREAM);
  const x = Float64Array.from({ length: SAMPLE_GROUPS * D }, () => random.normal());
  const y = new Int16Array(x.length);
  let best = { K: 1, error: Number.POSITIVE_INFINITY };
  const most = Math.min(cap, negativeCap) * D;
  // The largest of D Gaussians is below ten times their mean.
  const least = Math.max(1, Math.floor(most / 10));
  for (let exact = least, K = least; K <= most; exact *= RATIO, K = Math.max(K + 1, Math.round(exact))) {
    exact = Math.max(exact, K);
    searchPulses(x, SAMPLE_GROUPS, D, { D, K, mode: 'greedy', cap, negativeCap }, y);
    const error = shapeError(x, y, D);
    if (error < best.error) best = { K, error };
    // Past the best the caps bind ever more.
    if (error > 4 * best.error) break;
  }
  chosenPulses.set(key, best.K);
  return best.K;
}

function shapeError(x: Float64Array, y: Int16Array, D: number): number {
  let sum = 0;
  for (let at = 0; at < x.length; at += D) {
    let xy = 0;
    let xx = 0;
    let yy = 0;
    for (let i = at; i < at + D; i++) {
      xy += x[i] * y[i];
      xx += x[i] * x[i];
      yy += y[i] * y[i];
    }
    sum += 1 - (xy * xy) / (xx * yy);
  }
  return sum / (x.length / D);
}

/** Length of groups where none is asked for: the shortest that the format's block allows, 32 for ONNX. */
export function exportGroupLength(format: ExportFormat): number {
  return format === 'onnx-nbits' ? 32 : constraintsOf(format).groupMultiple;
}

/**
 * The code for a format: files of one format are of one size whatever K and the gain's bits are, so K is the best under
 * the caps and gains are as fine as codes allow. Of policy `step` D and K alone count.
 */
export function exportCode(format: ExportFormat, D = exportGroupLength(format)): PyramidCode {
  return { groupLength: D, pulses: exportPulses(format, D), superGroup: 1, gainBits: FINE_GAIN_BITS };
}
