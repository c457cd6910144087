import { narrowFromF32, widenToF32 } from '../../kernels/dtypes.js';
import { type SearchMode, searchPulses } from '../../kernels/pulse-search.js';
import { constraintsOf, type ExportFormat } from './export-format.js';

/**
 * Rows coded by the policy `step`: a group of D weights is `base code y`, where y is a point of P(D, K), code a whole
 * number from 0 on, and base is shared by a superblock of columns and is an f16. The block types of GGUF hold exactly
 * this; the length of y, which divides the gains of the native format, would break the whole multiples.
 */
export interface StepRows {
  readonly policy: 'step';
  readonly rows: number;
  readonly columns: number;
  readonly groupLength: number;
  readonly pulses: number;
  /** Points, [rows, columns]. */
  readonly points: Int8Array;
  /** Whole multiples, [rows, columns / D]. */
  readonly codes: Uint8Array;
  /** Bases, [rows, columns / baseColumns]; f16 values, also where they are subnormal. */
  readonly bases: Float32Array;
  readonly baseColumns: number;
}

export interface StepOptions {
  readonly groupLength: number;
  readonly pulses: number;
  readonly mode?: SearchMode;
  /** Importance of each column, [columns]: weighs search, codes and bases. */
  readonly importance?: Float64Array;
  readonly threads?: number;
}

/** Rounds in which codes and base are fitted to each other. */
const ROUNDS = 4;

/** A base and codes for the groups of one superblock by what they multiply. */
export interface StepFit {
  readonly base: number;
  readonly codes: Uint8Array;
}

/**
 * Codes weights [rows, columns] by the policy `step` of a format. Points are searched under the format's caps; then
 * bases and codes are fitted to the least-squares factors `<x, y> / ||y||^2` of the groups.
 * @throws RangeError when the format has no such policy or D, K and columns do not fit it
 */
export function encodeStepRows(
  weights: Float32Array,
  rows: number,
  columns: number,
  format: ExportFormat,
  options: StepOptions,
): StepRows {
  const { groupLength: D, pulses: K, importance, mode = 'best', threads } = options;
  const { cap, negativeCap, largestStep, baseColumns } = constraintsOf(format);
  if (largestStep === undefined || baseColumns === undefined || columns % baseColumns !== 0 || baseColumns % D !== 0) {
    throw new RangeError(`${format} does not code rows of ${columns} in groups of ${D} by steps`);
  }
  const pulses = new Int16Array(rows * columns);
  searchPulses(
    weights,
    rows,
    columns,
    { D, K, mode, cap, negativeCap, ...(importance && { importance }), ...(threads !== undefined && { threads }) },
    pulses,
  );
  const groups = columns / D;
  const codes = new Uint8Array(rows * groups);
  const bases = new Float32Array((rows * columns) / baseColumns);
  const together = baseColumns / D;
  const products = new Float64Array(together);
  const squares = new Float64Array(together);
  for (let block = 0; block < bases.length; block++) {
    for (let g = 0; g < together; g++) {
      const at = block * baseColumns + g * D;
      let xy = 0;
      let yy = 0;
      for (let i = at; i < at + D; i++) {
        const weighed = (importance ? importance[i % columns] : 1) * pulses[i];
        xy += weighed * weights[i];
        yy += weighed * pulses[i];
      }
      products[g] = xy;
      squares[g] = yy;
    }
    const fit = fitSteps(products, squares, largestStep);
    bases[block] = fit.base;
    codes.set(fit.codes, block * together);
  }
  const points = Int8Array.from(pulses);
  return { policy: 'step', rows, columns, groupLength: D, pulses: K, points, codes, bases, baseColumns };
}

/**
 * The base (an f16) and codes 0..largest that make `sum_g squares_g (base code_g - products_g / squares_g)^2` small:
 * from the base at which the largest factor takes the largest code, codes and base in turn; the best pair is kept.
 */
export function fitSteps(products: Float64Array, squares: Float64Array, largest: number): StepFit {
  const n = products.length;
  const factor = (g: number): number => (squares[g] > 0 ? Math.max(0, products[g] / squares[g]) : 0);
  let greatest = 0;
  for (let g = 0; g < n; g++) greatest = Math.max(greatest, factor(g));
  let best: StepFit = { base: 0, codes: new Uint8Array(n) };
  let bestGain = 0;
  let base = roundToHalf(greatest / largest);
  for (let round = 0; round < ROUNDS && base > 0; round++) {
    const codes = new Uint8Array(n);
    let cp = 0;
    let ccs = 0;
    for (let g = 0; g < n; g++) {
      const code = Math.min(largest, Math.round(factor(g) / base));
      codes[g] = code;
      cp += code * products[g];
      ccs += code * code * squares[g];
    }
    // What the error falls by from that of zeros.
    const gain = base * (2 * cp - base * ccs);
    if (gain > bestGain) {
      best = { base, codes };
      bestGain = gain;
    }
    const next = ccs > 0 ? roundToHalf(cp / ccs) : 0;
    if (next === base) break;
    base = next;
  }
  return best;
}

const single = new Float32Array(1);
const halfBytes = new Uint8Array(2);

/** The nearest f16. */
export function roundToHalf(value: number): number {
  single[0] = value;
  narrowFromF32(single, 'F16', halfBytes, 1);
  widenToF32(halfBytes, 'F16', single, 1);
  return single[0];
}
