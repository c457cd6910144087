import { rowMoments } from '../kernels/row-moments.js';
import { normalLloydMax } from '../linalg/lloyd-max.js';
import { betaDensity, betaRatio, gammaHalfStep } from '../linalg/special-functions.js';

/** Knots of the table that a law's distribution function is interpolated from, and bins between two of them. */
const KNOTS = 2048;
const BINS_PER_KNOT = 64;
const BINS = KNOTS * BINS_PER_KNOT;
/** Half width of the table in standard deviations of the gain. */
const REACH = 12;

/** The distribution function of r = |group| / |row| at the edges of equal bins of r. */
interface GainTable {
  readonly low: number;
  readonly width: number;
  /** [BINS + 1] */
  readonly distribution: Float64Array;
}

/** Sums over the rows of a matrix seen so far. Add rows in their order; how they are cut into bands changes nothing. */
export interface TensorStatistics {
  readonly columns: number;
  readonly groupLength: number;
  readonly table: GainTable | undefined;
  /** Groups by the bin of their r, and those below and above all bins at the ends; [BINS + 2]. */
  readonly groupBins: Float64Array;
  groups: number;
  rows: number;
  /** Entries that are NaN or infinite; they are left out of everything else. */
  nonFinite: number;
  largest: number;
  mean: number;
  /** Sums of second, third and fourth powers about the mean. */
  second: number;
  third: number;
  fourth: number;
  energy: number;
}

/** Figures of a matrix [rows, columns]. */
export interface TensorFigures {
  readonly rows: number;
  readonly columns: number;
  readonly nonFinite: number;
  /** Sum of squares. */
  readonly energy: number;
  readonly largest: number;
  /** max |W_ij| sqrt(rows columns) / |W|_F (Chee et al. 2023): 1 is perfectly spread. */
  readonly incoherence: number;
  /** Fourth central moment over the square of the second; 3 is Gaussian. */
  readonly kurtosis: number;
  /**
   * Largest distance between the distribution of squared group amplitudes (|group|^2 / |row|^2, whole groups of rows
   * that are not zero) and Beta(D/2, (n - D)/2), taken at the edges of narrow bins; null without such groups, or where
   * a group is a row.
   */
  readonly kolmogorov: number | null;
  /** How much greater than `kolmogorov` the distance can be within a bin. */
  readonly kolmogorovResolution: number | null;
}

let lastTable: { readonly key: string; readonly table: GainTable } | undefined;

/** Cubic interpolation between knots from values and derivatives, which are known: exact to 1e-9. */
function gainTable(groupLength: number, columns: number): GainTable {
  const key = `${groupLength},${columns}`;
  if (lastTable?.key === key) return lastTable.table;
  const a = groupLength / 2;
  const b = (columns - groupLength) / 2;
  const mean = gammaHalfStep(a) / gammaHalfStep(a + b);
  const deviation = Math.sqrt(Math.max(0, groupLength / columns - mean * mean));
  const low = Math.max(0, mean - REACH * deviation);
  const step = (Math.min(1, mean + REACH * deviation) - low) / KNOTS;
  const distribution = new Float64Array(BINS + 1);
  const at = (r: number): readonly [number, number] => {
    const y = Math.max(0, (1 - r) * (1 + r));
    const slope = 2 * r * betaDensity(r * r, a, b, y);
    return [betaRatio(r * r, a, b, y).lower, slope];
  };
  let [value, slope] = at(low);
  for (let k = 0; k < KNOTS; k++) {
    const [nextValue, nextSlope] = at(low + (k + 1) * step);
    const smooth = Number.isFinite(slope) && Number.isFinite(nextSlope);
    for (let i = 0; i < BINS_PER_KNOT; i++) {
      const t = i / BINS_PER_KNOT;
      const s = 1 - t;
      const bent = s * s * (1 + 2 * t) * value + t * t * (3 - 2 * t) * nextValue;
      // Where the density has a pole, the function itself is asked.
      distribution[k * BINS_PER_KNOT + i] = smooth
        ? bent + step * t * s * (s * slope - t * nextSlope)
        : at(low + (k + t) * step)[0];
    }
    [value, slope] = [nextValue, nextSlope];
  }
  distribution[BINS] = value;
  lastTable = { key, table: { low, width: step / BINS_PER_KNOT, distribution } };
  return lastTable.table;
}

/**
 * Statistics of a matrix with `columns` weights a row, cut into groups of `groupLength`.
 * @throws RangeError when a size is no positive integer
 */
export function createTensorStatistics(columns: number, groupLength: number): TensorStatistics {
  if (![columns, groupLength].every((size) => Number.isInteger(size) && size >= 1)) {
    throw new RangeError(`no rows of ${columns} weights have groups of ${groupLength}`);
  }
  const table = groupLength < columns ? gainTable(groupLength, columns) : undefined;
  return {
    columns,
    groupLength,
    table,
    groupBins: new Float64Array(table === undefined ? 0 : BINS + 2),
    groups: 0,
    rows: 0,
    nonFinite: 0,
    largest: 0,
    mean: 0,
    second: 0,
    third: 0,
    fourth: 0,
    energy: 0,
  };
}

/** Unites central moments of what was seen with those of a row (Pébay 2008, equations 2.1 and 3.1). */
function uniteMoments(statistics: TensorStatistics, count: number, sums: Float64Array): void {
  const before = statistics.rows * statistics.columns - statistics.nonFinite;
  if (count === 0) return;
  const [s1, s2, s3, s4] = sums;
  const mean = s1 / count;
  const second = Math.max(0, s2 - s1 * mean);
  const third = s3 - mean * (3 * s2 - 2 * mean * s1);
  const fourth = Math.max(0, s4 - mean * (4 * s3 - mean * (6 * s2 - 3 * mean * s1)));
  const total = before + count;
  const d = mean - statistics.mean;
  const share = count / total;
  const rest = before / total;
  const [m2, m3] = [statistics.second, statistics.third];
  statistics.mean += d * share;
  statistics.second = m2 + second + d * d * before * share;
  statistics.third = m3 + third + d * d * d * before * share * (rest - share) + 3 * d * (rest * second - share * m2);
  statistics.fourth +=
    fourth +
    d ** 4 * before * share * (rest * rest - rest * share + share * share) +
    6 * d * d * (rest * rest * second + share * share * m2) +
    4 * d * (rest * third - share * m3);
}

/** Counts the whole groups of one row by their r. */
function countGroups(statistics: TensorStatistics, energies: Float64Array, rowEnergy: number): void {
  const { table, groupBins, groupLength, columns } = statistics;
  if (table === undefined || !(rowEnergy > 0)) return;
  const groups = Math.floor(columns / groupLength);
  for (let g = 0; g < groups; g++) {
    const r = Math.sqrt(energies[g] / rowEnergy);
    const bin = Math.floor((r - table.low) / table.width);
    groupBins[Math.max(0, Math.min(BINS + 1, bin + 1))]++;
  }
  statistics.groups += groups;
}

/**
 * Adds rows [rows, columns] of the matrix, the next in order.
 * @throws RangeError when the band is no whole number of rows
 */
export function addRows(statistics: TensorStatistics, band: Float32Array | Float64Array, threads?: number): void {
  const { columns, groupLength } = statistics;
  const rows = band.length / columns;
  if (!Number.isInteger(rows)) throw new RangeError(`${band.length} weights are no rows of ${columns}`);
  const groups = Math.ceil(columns / groupLength);
  const { moments, energies } = rowMoments(band, rows, columns, groupLength, threads);
  for (let r = 0; r < rows; r++) {
    const [count, largest, ...sums] = moments.subarray(6 * r, 6 * (r + 1));
    uniteMoments(statistics, count, Float64Array.from(sums));
    statistics.rows++;
    statistics.nonFinite += columns - count;
    statistics.largest = Math.max(statistics.largest, largest);
    statistics.energy += sums[1];
    if (count === columns) countGroups(statistics, energies.subarray(r * groups, (r + 1) * groups), sums[1]);
  }
}

function kolmogorovDistance(statistics: TensorStatistics): readonly [distance: number, resolution: number] | undefined {
  const { table, groupBins, groups } = statistics;
  if (table === undefined || groups === 0) return undefined;
  let seen = 0;
  let distance = 0;
  let resolution = 0;
  for (let bin = 0; bin <= BINS; bin++) {
    seen += groupBins[bin];
    const expected = table.distribution[bin];
    distance = Math.max(distance, Math.abs(seen / groups - expected));
    if (bin < BINS) resolution = Math.max(resolution, table.distribution[bin + 1] - expected);
  }
  return [distance, resolution];
}

/** The figures of all rows added so far. */
export function tensorFigures(statistics: TensorStatistics): TensorFigures {
  const { rows, columns, nonFinite, energy, largest, second, fourth } = statistics;
  const count = rows * columns - nonFinite;
  const kolmogorov = kolmogorovDistance(statistics);
  return {
    rows,
    columns,
    nonFinite,
    energy,
    largest,
    incoherence: energy > 0 ? (largest * Math.sqrt(count)) / Math.sqrt(energy) : Number.NaN,
    kurtosis: second > 0 ? (count * fourth) / (second * second) : Number.NaN,
    kolmogorov: kolmogorov?.[0] ?? null,
    kolmogorovResolution: kolmogorov?.[1] ?? null,
  };
}

/** A point of a rate-distortion function. */
export interface RateDistortion {
  /** Mean distortion of a component. */
  readonly distortion: number;
  /** Theta: components of greater variance are coded, with this distortion; others are dropped. */
  readonly waterLevel: number;
  readonly active: number;
}

/**
 * Distortion of independent Gaussian components of the given variances at `bits` a component, by reverse water-filling
 * (Kolmogorov 1956; Cover & Thomas 2006, theorem 10.3.3): `D = mean min(theta, v_i)` where
 * `mean max(0, log2(v_i / theta) / 2) = bits`. Variances below zero, which rounding leaves in spectra, count as zero.
 * @throws RangeError when there is no component, or `bits` is negative
 */
export function reverseWaterFilling(variances: Float64Array, bits: number): RateDistortion {
  const n = variances.length;
  if (n === 0 || !(bits >= 0)) throw new RangeError(`no distortion of ${n} components at ${bits} bits`);
  const sorted = variances
    .map((variance) => Math.max(0, variance))
    .sort()
    .reverse();
  let logSum = 0;
  let logLevel = Number.NEGATIVE_INFINITY;
  let active = 0;
  for (let k = 0; k < n && sorted[k] > 0; k++) {
    logSum += Math.log2(sorted[k]);
    const level = (logSum - 2 * bits * n) / (k + 1);
    if (level >= Math.log2(sorted[k])) break;
    logLevel = level;
    active = k + 1;
  }
  const waterLevel = active === 0 ? sorted[0] : 2 ** logLevel;
  let distortion = active * waterLevel;
  for (let k = active; k < n; k++) distortion += sorted[k];
  return { distortion: distortion / n, waterLevel, active };
}

/** The least part of the energy of white Gaussian weights that any code of `bits` a weight loses: 2^(-2 bits). */
export function whiteBound(bits: number): number {
  return 2 ** (-2 * bits);
}

/**
 * The least part of tr(W H Wᵀ) that any code of `bits` a weight loses when rows of W are white Gaussian vectors. In the
 * eigenbasis of H the loss of a row is a sum of squared errors of independent components with variances in the
 * proportion of the eigenvalues: `reverseWaterFilling(eigenvalues, bits)` over their mean. White rows are what the
 * rotation makes likely; rows that lie along some directions of H may be coded with less.
 * @param eigenvalues of H, [n], as `symmetricSpectrum` gives them
 * @throws RangeError when there is no positive eigenvalue, or `bits` is negative
 */
export function hessianBound(eigenvalues: Float64Array, bits: number): number {
  let total = 0;
  for (const value of eigenvalues) total += Math.max(0, value);
  if (!(total > 0)) throw new RangeError('the Hessian has no positive eigenvalue');
  return (reverseWaterFilling(eigenvalues, bits).distortion * eigenvalues.length) / total;
}

/** Signal over error in decibels: 10 log10(energy / error). */
export function sqnrDecibels(energy: number, error: number): number {
  return 10 * Math.log10(energy / error);
}

/** Decibels of Shannon's D(R) = 2^(-2R) for independent Gaussian weights. */
export function shannonDecibels(bitsPerWeight: number): number {
  return 20 * Math.log10(2) * bitsPerWeight;
}

/** SQNR of the best scalar quantiser of Gaussian weights with 2^bits levels, in decibels, its scale not counted. */
export function lloydMaxSqnr(bits: number): number {
  return sqnrDecibels(1, normalLloydMax(2 ** bits).error);
}
