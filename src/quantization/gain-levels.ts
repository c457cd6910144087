import { lloydMax, type ScalarLaw, scalarError } from '../linalg/lloyd-max.js';
import { type BetaRatio, betaDensity, betaQuantile, betaRatio, gammaHalfStep } from '../linalg/special-functions.js';

/**
 * Levels of the gain r = |group| / |row| of a group of D weights in a row of n. Where the direction of the row is
 * uniform on the sphere, r^2 has the law Beta(D/2, (n - D)/2). Three sets of levels follow from this law; the fourth is
 * fitted to the amplitudes of one tensor.
 */
export type LevelPolicy = 'lloyd' | 'compander' | 'quantile' | 'data';

/** Sets of levels that follow from the law of the gain alone. */
export type LevelLaw = Exclude<LevelPolicy, 'data'>;

export const LEVEL_POLICIES: readonly LevelPolicy[] = ['lloyd', 'compander', 'quantile', 'data'];

/** Amplitudes that `dataLevels` looks at, at most. */
export const DATA_SAMPLE = 32_768;

interface GainLaw {
  readonly a: number;
  readonly b: number;
  /** E r^p for p = 0, 1, 2. */
  readonly moments: readonly [number, number, number];
}

function checkSizes(groupLength: number, columns: number, count = 1): void {
  const whole = [groupLength, columns, count].every((size) => Number.isInteger(size) && size >= 1);
  if (!whole) throw new RangeError(`no gain has ${count} levels for groups of ${groupLength} in rows of ${columns}`);
}

/** Undefined where a group is a whole row, and r = 1. */
function gainLaw(groupLength: number, columns: number): GainLaw | undefined {
  if (groupLength >= columns) return undefined;
  const a = groupLength / 2;
  const b = (columns - groupLength) / 2;
  // B(a + 1/2, b) / B(a, b): logarithms of the functions themselves would leave three digits fewer.
  const first = gammaHalfStep(a) / gammaHalfStep(a + b);
  return { a, b, moments: [1, first, groupLength / columns] };
}

/** I_{r^2}(a + p/2, b) for p = 0, 1, 2. */
type Ratios = readonly [BetaRatio, BetaRatio, BetaRatio];

/**
 * The law of r, with density 2 r^(D-1) (1 - r^2)^((n-D)/2 - 1) / B(D/2, (n-D)/2) and partial moments in closed form:
 * `integral of r^p = E r^p [I_{b^2} - I_{a^2}]((D + p)/2, (n-D)/2)`, from the tails on the side where they are small.
 */
function scalarLaw({ a, b, moments }: GainLaw): ScalarLaw<Ratios> {
  return {
    low: 0,
    high: 1,
    at(r) {
      const y = (1 - r) * (1 + r);
      return [betaRatio(r * r, a, b, y), betaRatio(r * r, a + 0.5, b, y), betaRatio(r * r, a + 1, b, y)];
    },
    moment(from, to, p) {
      const inLowerHalf = to[p].lower <= 0.5;
      return moments[p] * (inLowerHalf ? to[p].lower - from[p].lower : from[p].upper - to[p].upper);
    },
    density: (r) => 2 * r * betaDensity(r * r, a, b, (1 - r) * (1 + r)),
  };
}

/**
 * Levels [count], ascending, of the gain of groups of D = `groupLength` weights in rows of n = `columns`:
 * - lloyd: least mean squared error;
 * - compander: `sqrt(BetaInv((i + 1/2) / count; (D + 2)/6, (n - D + 4)/6))`, points of density f^(1/3), which is optimal
 *   for many levels (Panter & Dite 1951) and again a Beta in r^2;
 * - quantile: `sqrt(BetaInv((i + 1/2) / count; D/2, (n - D)/2))`, cells of equal mass.
 * All levels are 1 where a group is a whole row.
 * @throws RangeError when a size is no positive integer
 */
export function gainLevels(policy: LevelLaw, groupLength: number, columns: number, count: number): Float64Array {
  checkSizes(groupLength, columns, count);
  const law = gainLaw(groupLength, columns);
  if (law === undefined) return new Float64Array(count).fill(1);
  const quantiles = (a: number, b: number): Float64Array =>
    Float64Array.from({ length: count }, (_, i) => Math.sqrt(betaQuantile((i + 0.5) / count, a, b)));
  if (policy === 'quantile') return quantiles(law.a, law.b);
  const compander = quantiles((groupLength + 2) / 6, (columns - groupLength + 4) / 6);
  return policy === 'compander' ? compander : lloydMax(scalarLaw(law), compander);
}

/**
 * E (r - q(r))^2 for levels with thresholds at their midpoints, by partial moments of the Beta law (closed forms). The
 * error relative to a group's energy is this over D / n.
 * @throws RangeError when a size is no positive integer or levels do not ascend
 */
export function gainError(levels: Float64Array, groupLength: number, columns: number): number {
  checkSizes(groupLength, columns, levels.length);
  for (let i = 1; i < levels.length; i++) {
    if (!(levels[i] >= levels[i - 1])) throw new RangeError(`gain level ${i} is below the one before`);
  }
  const law = gainLaw(groupLength, columns);
  if (law === undefined) return Math.min(...levels.map((level) => (level - 1) ** 2));
  return scalarError(scalarLaw(law), levels);
}

/** E r and E r^2 of the gain. @throws RangeError when a size is no positive integer */
export function gainMoments(groupLength: number, columns: number): { readonly mean: number; readonly square: number } {
  checkSizes(groupLength, columns);
  const law = gainLaw(groupLength, columns);
  return law === undefined ? { mean: 1, square: 1 } : { mean: law.moments[1], square: law.moments[2] };
}

/** At most `DATA_SAMPLE` of the amplitudes, sorted: one of each of as many equal runs, at places that do not repeat. */
function sampleOf(amplitudes: Float32Array | Float64Array): Float64Array {
  const count = Math.min(DATA_SAMPLE, amplitudes.length);
  const sample = new Float64Array(count);
  const golden = (Math.sqrt(5) - 1) / 2;
  for (let i = 0; i < count; i++) {
    const within = count === amplitudes.length ? 0 : (i * golden) % 1;
    const at = Math.min(amplitudes.length - 1, Math.floor(((i + within) * amplitudes.length) / count));
    if (!Number.isFinite(amplitudes[at])) throw new RangeError(`amplitude ${at} is ${amplitudes[at]}`);
    sample[i] = amplitudes[at];
  }
  return sample.sort();
}

/** Prefix sums of sorted values about their mean, so that costs of cells do not cancel. */
function prefixSums(sorted: Float64Array): {
  readonly first: Float64Array;
  readonly second: Float64Array;
  mean: number;
} {
  let total = 0;
  for (const value of sorted) total += value;
  const mean = total / sorted.length;
  const first = new Float64Array(sorted.length + 1);
  const second = new Float64Array(sorted.length + 1);
  for (let i = 0; i < sorted.length; i++) {
    const d = sorted[i] - mean;
    first[i + 1] = first[i] + d;
    second[i + 1] = second[i] + d * d;
  }
  return { first, second, mean };
}

/**
 * Exact 1-D k-means: least sum of squares over all partitions of sorted values into `count` runs, by dynamic programming
 * with divide and conquer, for the best last cut moves right with the end (Wang & Song 2011; Gronlund et al. 2017):
 * O(count m log m).
 * @returns ends of the runs, [count]
 */
function bestRuns(first: Float64Array, second: Float64Array, count: number): Int32Array {
  const m = first.length - 1;
  const cost = (from: number, to: number): number => {
    const sum = first[to] - first[from];
    return Math.max(0, second[to] - second[from] - (sum * sum) / (to - from));
  };
  let before = new Float64Array(m + 1).fill(Number.POSITIVE_INFINITY);
  before[0] = 0;
  let current = new Float64Array(m + 1);
  const cuts = Array.from({ length: count }, () => new Int32Array(m + 1));
  const solve = (layer: number, low: number, high: number, cutLow: number, cutHigh: number): void => {
    if (low > high) return;
    const end = (low + high) >> 1;
    let best = Number.POSITIVE_INFINITY;
    let at = cutLow;
    for (let cut = cutLow; cut <= Math.min(cutHigh, end - 1); cut++) {
      const total = before[cut] + cost(cut, end);
      if (total < best) {
        best = total;
        at = cut;
      }
    }
    current[end] = best;
    cuts[layer][end] = at;
    solve(layer, low, end - 1, cutLow, at);
    solve(layer, end + 1, high, at, cutHigh);
  };
  for (let layer = 0; layer < count; layer++) {
    current.fill(Number.POSITIVE_INFINITY);
    solve(layer, layer + 1, m, layer, m - 1);
    [before, current] = [current, before];
  }
  const ends = new Int32Array(count);
  let end = m;
  for (let layer = count - 1; layer >= 0; layer--) {
    ends[layer] = end;
    end = cuts[layer][end];
  }
  return ends;
}

/**
 * Levels [count], ascending, of least squared error for the amplitudes of one tensor (each group's over its row's
 * scale): exact k-means of `DATA_SAMPLE` of them, spread evenly, or of all where they are no more. Where fewer
 * values differ than there are levels, the greatest is repeated.
 * @throws RangeError when there is no amplitude, or one is not finite
 */
export function dataLevels(amplitudes: Float32Array | Float64Array, count: number): Float64Array {
  checkSizes(1, 1, count);
  if (amplitudes.length === 0) throw new RangeError('levels of no amplitudes');
  const sorted = sampleOf(amplitudes);
  let distinct = 1;
  for (let i = 1; i < sorted.length; i++) if (sorted[i] !== sorted[i - 1]) distinct++;
  const levels = new Float64Array(count);
  const cells = Math.min(count, distinct);
  const { first, second, mean } = prefixSums(sorted);
  const ends = bestRuns(first, second, cells);
  for (let i = 0; i < count; i++) {
    const from = i === 0 ? 0 : ends[Math.min(i, cells) - 1];
    levels[i] = i < cells ? mean + (first[ends[i]] - first[from]) / (ends[i] - from) : levels[i - 1];
  }
  return levels;
}
