/**
 * Encoding of rows as pyramid codes: pulses, gain codes, row scales. Sums are f64 whatever the precision of the weights,
 * in the order of the columns; native/src/pulse_encode.cpp does the same operations in the same order.
 */
import { type MetricOptions, searchInMetricReference } from './pulse-metric-reference.js';
import { type MatrixSearch, searchPulsesReference } from './pulse-search-reference.js';

/** Per row: what `ROW_FIELDS` names, in that order. */
export const ROW_FIELDS = [
  'weightEnergy',
  'squaredError',
  'crossEnergy',
  'decodedEnergy',
  'shapeErrors',
  'shapeSquaredError',
  'largestError',
  'zeroGroups',
  'singleScale',
] as const;

/** `projection`: the gain of least squares along the pulses; `norm`: the length of the group is kept. */
export type GainPolicy = 'projection' | 'norm';

/** Largest and smallest row scales that are stored as f16: half precision's largest and its smallest normal number. */
export const LARGEST_HALF = 65504;
export const SMALLEST_HALF = 6.1e-5;

/** Rounds of nearest levels and row scale. */
const ROUNDS = 3;

/** Whether a row scale is stored as f16; 0 is. */
export function fitsHalf(scale: number): boolean {
  return scale === 0 || (scale >= SMALLEST_HALF && scale <= LARGEST_HALF);
}

/** A row scale as stored: rounded once to the nearest f16, ties to even, or to f32 where f16 cannot hold it. */
export function storedScale(scale: number): number {
  if (!fitsHalf(scale)) return Math.fround(scale);
  if (scale === 0) return 0;
  // Adding 1.5 2^52 spacings leaves the adder no place below the spacing of f16.
  const spacing = 2 ** (Math.max(-14, Math.floor(Math.log2(scale))) - 10);
  const shift = 1.5 * 2 ** 52 * spacing;
  return scale + shift - shift;
}

/** Midpoints of ascending levels. */
export function levelThresholds(levels: Float32Array): Float64Array {
  return Float64Array.from({ length: levels.length - 1 }, (_, j) => (levels[j] + levels[j + 1]) / 2);
}

/** Number of thresholds below a value: the code of the nearest level, the lower one on a threshold. */
export function nearestCode(thresholds: Float64Array, value: number): number {
  let low = 0;
  let high = thresholds.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (value > thresholds[middle]) low = middle + 1;
    else high = middle;
  }
  return low;
}

interface GroupSums {
  energy: number;
  cross: number;
  norm: number;
  storedNorm: number;
  weightedCross: number;
  weightedNorm: number;
}

type Reals = Float32Array | Float64Array;

function sumGroup(x: Reals, importance: Reals | undefined, y: Int16Array): GroupSums {
  let [energy, cross, norm, weightedCross, weightedNorm] = [0, 0, 0, 0, 0];
  for (let j = 0; j < x.length; j++) {
    energy += x[j] * x[j];
    cross += x[j] * y[j];
    norm += y[j] * y[j];
  }
  const storedNorm = norm;
  for (let j = x.length; j < y.length; j++) norm += y[j] * y[j];
  if (importance === undefined) {
    return { energy, cross, norm, storedNorm, weightedCross: cross, weightedNorm: storedNorm };
  }
  for (let j = 0; j < x.length; j++) {
    const weighted = importance[j] * y[j];
    weightedCross += weighted * x[j];
    weightedNorm += weighted * y[j];
  }
  return { energy, cross, norm, storedNorm, weightedCross, weightedNorm };
}

interface RowGains {
  /** Wanted amplitudes and weights of the groups' squared errors, [groups]; weight 0 leaves a group out. */
  readonly amplitudes: Float64Array;
  readonly weights: Float64Array;
}

function rowGains(sums: readonly GroupSums[], policy: GainPolicy, leaveZeros: boolean): RowGains {
  const amplitudes = new Float64Array(sums.length);
  const weights = new Float64Array(sums.length);
  for (let g = 0; g < sums.length; g++) {
    const { energy, norm, weightedCross, weightedNorm } = sums[g];
    if (energy === 0) {
      weights[g] = leaveZeros ? 0 : weightedNorm / norm;
    } else {
      const length = Math.sqrt(norm);
      amplitudes[g] =
        policy === 'norm' ? Math.sqrt(energy) : weightedNorm > 0 ? (weightedCross / weightedNorm) * length : 0;
      weights[g] = weightedNorm / norm;
    }
  }
  return { amplitudes, weights };
}

/** Least squares of the row scale for given codes; 0 where nothing holds it. */
function fitScale({ amplitudes, weights }: RowGains, levels: Float32Array, codes: Uint8Array): number {
  let [above, below] = [0, 0];
  for (let g = 0; g < codes.length; g++) {
    const weighted = weights[g] * levels[codes[g]];
    above += weighted * amplitudes[g];
    below += weighted * levels[codes[g]];
  }
  return below > 0 ? above / below : 0;
}

function chooseCodes({ amplitudes }: RowGains, thresholds: Float64Array, scale: number, codes: Uint8Array): void {
  for (let g = 0; g < codes.length; g++) codes[g] = scale > 0 ? nearestCode(thresholds, amplitudes[g] / scale) : 0;
}

export interface EncodeRequest {
  readonly search: MatrixSearch;
  readonly levels: Float32Array;
  readonly gainPolicy: GainPolicy;
  /** Groups of zeros are kept exactly, by a bitmap: they do not weigh on the row scale. */
  readonly zeroBitmap: boolean;
}

export interface EncodeOutput {
  /** [rows, groups, D] and [rows, groups]. */
  readonly pulses: Int16Array;
  readonly codes: Uint8Array;
  /** 1 where a group is zero, [rows, groups]. */
  readonly zeros: Uint8Array;
  readonly scales: Float32Array;
  /** [rows, ROW_FIELDS]. */
  readonly statistics: Float64Array;
}

/** Encodes x [rows, columns], all finite. */
export function encodeRowsReference(
  x: Reals,
  rows: number,
  columns: number,
  { search, levels, gainPolicy, zeroBitmap }: EncodeRequest,
  out: EncodeOutput,
): void {
  const { D, importance } = search;
  searchPulsesReference(x, rows, columns, search, out.pulses);
  const thresholds = levelThresholds(levels);
  const groups = Math.ceil(columns / D);
  for (let row = 0; row < rows; row++) {
    const weights = x.subarray(row * columns, (row + 1) * columns);
    const pulses = out.pulses.subarray(row * groups * D, (row + 1) * groups * D);
    const codes = out.codes.subarray(row * groups, (row + 1) * groups);
    const sums: GroupSums[] = [];
    let energy = 0;
    for (let g = 0; g < groups; g++) {
      const own = weights.subarray(g * D, (g + 1) * D);
      sums.push(sumGroup(own, importance?.subarray(g * D, (g + 1) * D), pulses.subarray(g * D, (g + 1) * D)));
      energy += sums[g].energy;
      out.zeros[row * groups + g] = sums[g].energy === 0 ? 1 : 0;
    }
    const gains = rowGains(sums, gainPolicy, zeroBitmap);
    let scale = Math.sqrt(energy);
    for (let round = 0; round < ROUNDS; round++) {
      chooseCodes(gains, thresholds, scale, codes);
      scale = fitScale(gains, levels, codes);
    }
    const stored = storedScale(scale);
    chooseCodes(gains, thresholds, stored, codes);
    out.scales[row] = stored;
    const fields = out.statistics.subarray(row * ROW_FIELDS.length, (row + 1) * ROW_FIELDS.length);
    rowStatistics(weights, pulses, sums, { stored, levels, codes, zeroBitmap, D }, fields);
    fields[0] = energy;
    fields[8] = fitsHalf(scale) ? 0 : 1;
  }
}

interface StoredRow {
  readonly stored: number;
  readonly levels: Float32Array;
  readonly codes: Uint8Array;
  readonly zeroBitmap: boolean;
  readonly D: number;
}

/** Errors of one row, before decoded weights are rounded to f32, but for the largest one. */
function rowStatistics(
  x: Reals,
  pulses: Int16Array,
  sums: readonly GroupSums[],
  { stored, levels, codes, zeroBitmap, D }: StoredRow,
  fields: Float64Array,
): void {
  const round = x instanceof Float32Array ? Math.fround : (value: number): number => value;
  fields.fill(0);
  for (let g = 0; g < sums.length; g++) {
    const { energy, cross, norm, storedNorm } = sums[g];
    const zero = energy === 0;
    const factor = zero && zeroBitmap ? 0 : stored * levels[codes[g]] * (1 / Math.sqrt(norm));
    const decoded = factor * factor * storedNorm;
    fields[1] += Math.max(0, energy - 2 * (factor * cross) + decoded);
    fields[2] += factor * cross;
    fields[3] += decoded;
    if (zero) fields[7]++;
    else {
      const shape = storedNorm > 0 ? Math.max(0, energy - (cross * cross) / storedNorm) : energy;
      fields[4] += shape / energy;
      fields[5] += shape;
    }
    const single = round(factor);
    for (let j = g * D; j < Math.min((g + 1) * D, x.length); j++) {
      fields[6] = Math.max(fields[6], Math.abs(round(x[j] - round(single * pulses[j]))));
    }
  }
}

export interface BlockRequest {
  readonly search: MatrixSearch;
  /** Levels and the rows' scales, [rows], as stored. */
  readonly levels: Float32Array;
  readonly scales: Float32Array;
  /** Full metric of every group of columns, [groups, D, D]. */
  readonly metrics?: Float64Array;
}

export interface BlockOutput {
  readonly pulses: Int16Array;
  readonly codes: Uint8Array;
  readonly decoded: Reals;
}

/** Encodes x [rows, width] with gains of fixed scales and decodes it again. */
export function encodeBlockReference(
  x: Reals,
  rows: number,
  width: number,
  { search, levels, scales, metrics }: BlockRequest,
  out: BlockOutput,
): void {
  const { D, importance } = search;
  const groups = Math.ceil(width / D);
  const thresholds = levelThresholds(levels);
  if (metrics === undefined) searchPulsesReference(x, rows, width, search, out.pulses);
  else searchBlockInMetrics(x, rows, groups, search, metrics, out.pulses);
  const round = x instanceof Float32Array ? Math.fround : (value: number): number => value;
  for (let at = 0; at < rows * groups; at++) {
    const [row, g] = [Math.floor(at / groups), at % groups];
    const own = x.subarray(row * width + g * D, row * width + Math.min((g + 1) * D, width));
    const y = out.pulses.subarray(at * D, (at + 1) * D);
    const sums = sumGroup(own, importance?.subarray(g * D, (g + 1) * D), y);
    const metric = metrics?.subarray(g * D * D, (g + 1) * D * D);
    const [above, below] =
      metric === undefined ? [sums.weightedCross, sums.weightedNorm] : metricProducts(own, y, metric);
    const length = Math.sqrt(sums.norm);
    const amplitude = below > 0 ? (above / below) * length : 0;
    const code = scales[row] > 0 ? nearestCode(thresholds, amplitude / scales[row]) : 0;
    out.codes[at] = code;
    const factor = round(scales[row] * levels[code] * (1 / length));
    for (let j = 0; j < own.length; j++) out.decoded[row * width + g * D + j] = factor * y[j];
  }
}

/** y M x and y M y, [D] each. */
function metricProducts(x: Reals, y: Int16Array, metric: Float64Array): [number, number] {
  const D = x.length;
  let [above, below] = [0, 0];
  for (let i = 0; i < D; i++) {
    let [mx, my] = [0, 0];
    for (let j = 0; j < D; j++) {
      mx += metric[i * D + j] * x[j];
      my += metric[i * D + j] * y[j];
    }
    above += y[i] * mx;
    below += y[i] * my;
  }
  return [above, below];
}

function searchBlockInMetrics(
  x: Reals,
  rows: number,
  groups: number,
  search: MatrixSearch,
  metrics: Float64Array,
  pulses: Int16Array,
): void {
  const { D } = search;
  const options: MetricOptions = { ...search, mode: search.mode === 'greedy' ? 'greedy' : 'best' };
  const own = new Float64Array(rows * D);
  const found = new Int16Array(rows * D);
  for (let g = 0; g < groups; g++) {
    for (let row = 0; row < rows; row++) {
      own.set(x.subarray((row * groups + g) * D, (row * groups + g + 1) * D), row * D);
    }
    searchInMetricReference(own, rows, metrics.subarray(g * D * D, (g + 1) * D * D), options, found);
    for (let row = 0; row < rows; row++) {
      pulses.set(found.subarray(row * D, (row + 1) * D), (row * groups + g) * D);
    }
  }
}
