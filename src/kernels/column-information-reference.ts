import { addClassDensity, classGrid, pairDensity, type Smoothing } from './column-density.js';
import { type BandwidthRule, columnSpread, type GridPlaces, placeOnGrid, scaleDivisor } from './column-scale.js';

/** Most bins that the rule of Birge and Rozenholc considers. */
export const MOST_BINS = 99;

/**
 * Number of equal bins on [min, max] by Birge & Rozenholc (2006): the first D of 2..99 that maximises
 * `sum_j N_j log N_j + n log D - (D - 1 + (log D)^2.5)`. Fills `codes` with the bin of every value; the maximum
 * belongs to the last bin. The values must not all be equal.
 */
export function regularBins(x: Float64Array, codes: Int32Array): number {
  const n = x.length;
  let low = x[0];
  let high = x[0];
  for (let i = 1; i < n; i++) {
    low = Math.min(low, x[i]);
    high = Math.max(high, x[i]);
  }
  const counts = new Float64Array(MOST_BINS);
  let best = Number.NEGATIVE_INFINITY;
  let bins = 2;
  for (let d = 2; d <= MOST_BINS; d++) {
    const width = (high - low) / d;
    counts.fill(0);
    for (let i = 0; i < n; i++) counts[Math.min(d - 1, Math.floor((x[i] - low) / width))]++;
    let value = n * Math.log(d) - (d - 1 + Math.log(d) ** 2.5);
    for (let j = 0; j < d; j++) if (counts[j] > 0) value += counts[j] * Math.log(counts[j]);
    if (value > best) {
      best = value;
      bins = d;
    }
  }
  const width = (high - low) / bins;
  for (let i = 0; i < n; i++) codes[i] = Math.min(bins - 1, Math.floor((x[i] - low) / width));
  return bins;
}

/** Plug-in mutual information, in nats, of two coded variables of equal length. */
export function codesInformation(
  a: Int32Array,
  levelsA: number,
  b: Int32Array,
  levelsB: number,
  order?: Int32Array,
): number {
  const n = a.length;
  const table = new Float64Array(levelsA * levelsB);
  for (let i = 0; i < n; i++) table[a[i] * levelsB + b[order === undefined ? i : order[i]]]++;
  const columns = new Float64Array(levelsB);
  let sum = 0;
  for (let r = 0; r < levelsA; r++) {
    let row = 0;
    for (let c = 0; c < levelsB; c++) {
      const count = table[r * levelsB + c];
      if (count === 0) continue;
      row += count;
      columns[c] += count;
      sum += count * Math.log(count);
    }
    if (row > 0) sum -= row * Math.log(row);
  }
  for (let c = 0; c < levelsB; c++) if (columns[c] > 0) sum -= columns[c] * Math.log(columns[c]);
  return Math.max(0, sum / n + Math.log(n));
}

/** A variable that is compared with others by kernel densities: its places on the grid. */
export function kernelPlaces(x: Float64Array, points: number, rule: BandwidthRule): GridPlaces {
  const spread = columnSpread(Float64Array.from(x).sort());
  return placeOnGrid(x, spread, scaleDivisor(spread, rule), points);
}

const xLogX = (x: number): number => (x > 0 ? x * Math.log(x) : 0);

/**
 * Mutual information, in nats and at least 0, of a density on a grid `[rows, columns]`, given up to a constant:
 * `sum J log(J / (J_a J_b)) da db`.
 */
export function densityInformation(density: Float64Array, rows: number, columns: number): number {
  const marginal = new Float64Array(columns);
  let total = 0;
  let joint = 0;
  let rowSum = 0;
  for (let r = 0; r < rows; r++) {
    let mass = 0;
    for (let c = 0; c < columns; c++) {
      const value = density[r * columns + c];
      if (value === 0) continue;
      mass += value;
      marginal[c] += value;
      joint += value * Math.log(value);
    }
    rowSum += xLogX(mass);
    total += mass;
  }
  let columnSum = 0;
  for (let c = 0; c < columns; c++) columnSum += xLogX(marginal[c]);
  // With p = value / total the grid's cell area cancels.
  return Math.max(0, (joint - rowSum - columnSum) / total + Math.log(total));
}

/** Memory that one column after another uses. */
export interface DensityScratch {
  readonly counts: Float64Array;
  readonly density: Float64Array;
}

export function densityScratch(points: number): DensityScratch {
  return { counts: new Float64Array(points * points), density: new Float64Array(points * points) };
}

/** Mutual information of two continuous variables from their joint kernel density. */
export function kernelInformation(
  a: GridPlaces,
  b: GridPlaces,
  scratch: DensityScratch,
  order?: Int32Array,
  smoothing: Smoothing = 'auto',
): number {
  pairDensity(a, b, order, scratch.counts, scratch.density, smoothing);
  return densityInformation(scratch.density, a.points, b.points);
}

/** A class with fewer points has no density. */
const FEWEST_OF_CLASS = 3;

/**
 * Mutual information of a class and a continuous variable: the density of every class, with its own Silverman
 * bandwidth, on the common grid of `points` points of the pooled sample. A class of at most two points gives nothing; a
 * class whose values are all equal takes the pooled bandwidth.
 * @param order the observation whose value (`of: 'values'`) or class (`of: 'codes'`) stands at place i
 */
export function classInformation(
  x: Float64Array,
  codes: Int32Array,
  levels: number,
  points: number,
  order?: Int32Array,
  of: 'values' | 'codes' = 'codes',
): number {
  const n = x.length;
  const sizes = new Int32Array(levels);
  for (let i = 0; i < n; i++) sizes[codes[i]]++;
  const members = Array.from(sizes, (size) => new Float64Array(size));
  const filled = new Int32Array(levels);
  for (let i = 0; i < n; i++) {
    const code = codes[order !== undefined && of === 'codes' ? order[i] : i];
    members[code][filled[code]++] = x[order !== undefined && of === 'values' ? order[i] : i];
  }
  const pooled = columnSpread(Float64Array.from(x).sort());
  const { low, step } = classGrid(pooled, points);
  const density = new Float64Array(levels * points);
  members.forEach((values, c) => {
    if (values.length < FEWEST_OF_CLASS) return;
    const { silverman } = columnSpread(values.sort());
    const bandwidth = silverman > 0 ? silverman : pooled.silverman;
    addClassDensity(values, bandwidth, values.length / n, low, step, density.subarray(c * points, (c + 1) * points));
  });
  return densityInformation(density, levels, points);
}
