import { createRandom, type Random } from '../random.js';
import type { KernelSource, ResamplingParts } from './kernel-source.js';
import { type ScoreOptions, type SpectralMeasure, scoresOf } from './measures.js';

/** Up to here a subsample of features is gathered row by row; larger ones are unions of parts. */
const DIRECT_ROWS = 4096;
/** A standard error needs this many parts at least. */
const FEWEST_PARTS = 4;

export interface ResamplingOptions {
  readonly seed: number;
  readonly scores: ScoreOptions;
  /** Told after every decomposition. */
  readonly onStep?: () => void;
}

/** Scores of subsamples of one size. */
export interface CurvePoint {
  readonly items: number;
  readonly subsamples: number;
  /** One a measure. */
  readonly mean: Float64Array;
  /** Standard deviation over subsamples; NaN for a single one. */
  readonly deviation: Float64Array;
}

/** `points` sizes from about 8 to all items, evenly on a logarithmic axis. */
export function curveSizes(items: number, points = 8): number[] {
  const least = Math.min(items, 8);
  const sizes = new Set<number>();
  for (let i = 0; i < points; i++)
    sizes.add(Math.round(least * (items / least) ** (points === 1 ? 1 : i / (points - 1))));
  sizes.add(items);
  return [...sizes].sort((a, b) => a - b);
}

/** The first `count` of a random order, ascending. */
function drawn(random: Random, from: Int32Array, count: number): Int32Array {
  const order = random.permutation(from.length);
  return Int32Array.from(order.subarray(0, count), (place) => from[place]).sort();
}

const range = (count: number): Int32Array => Int32Array.from({ length: count }, (_, i) => i);

/**
 * The score against the number of items: subsamples without replacement, since duplicates lower a score. All items are
 * measured once. Sizes of long feature matrices above 4,096 are those of unions of random parts, and so may differ
 * a little from what was asked for.
 */
export async function subsamplingCurve(
  source: KernelSource,
  measures: readonly SpectralMeasure[],
  options: ResamplingOptions & { readonly sizes: readonly number[]; readonly subsamples: number },
): Promise<CurvePoint[]> {
  const { items } = source;
  const direct = source.path === 'exact' || source.path === 'counts';
  const needsParts = !direct && options.sizes.some((size) => size > DIRECT_ROWS && size < items);
  const parts = needsParts ? await source.parts([items], options.seed) : undefined;
  const points: CurvePoint[] = [];
  for (const size of options.sizes) {
    const random = createRandom(options.seed).fork(0x63757276 + size);
    const whole = size >= items;
    const subsamples = whole ? 1 : options.subsamples;
    const scores: Float64Array[] = [];
    let counted = Math.min(size, items);
    for (let s = 0; s < subsamples; s++) {
      let eigenvalues: Float64Array;
      if (whole) eigenvalues = await source.eigenvalues();
      else if (parts && size > DIRECT_ROWS) {
        const chosen = drawn(random, range(parts.sizes.length), Math.round((size / items) * parts.sizes.length));
        counted = chosen.reduce((sum, part) => sum + parts.sizes[part], 0);
        eigenvalues = await parts.eigenvalues(chosen);
      } else eigenvalues = await source.eigenvalues(drawn(random, range(items), size));
      scores.push(scoresOf(eigenvalues, counted, measures, options.scores));
      options.onStep?.();
    }
    points.push({ items: counted, subsamples, ...meanAndDeviation(scores, measures.length) });
  }
  return points;
}

function meanAndDeviation(
  scores: readonly Float64Array[],
  width: number,
): { mean: Float64Array; deviation: Float64Array } {
  const mean = new Float64Array(width);
  const deviation = new Float64Array(width);
  for (let k = 0; k < width; k++) {
    // About the first, so that equal scores have deviation 0.
    for (const row of scores) mean[k] += row[k] - scores[0][k];
    mean[k] = scores[0][k] + mean[k] / scores.length;
    for (const row of scores) deviation[k] += (row[k] - mean[k]) ** 2;
    deviation[k] = scores.length < 2 ? Number.NaN : Math.sqrt(deviation[k] / (scores.length - 1));
  }
  return { mean, deviation };
}

/**
 * Standard errors by half-samples: half of the parts without replacement. For a mean, the variance over subsets of b of
 * n items is `sigma^2 (1/b - 1/n)`, so that `b/n / (1 - b/n)` times the variance is that of all n items: 1 for halves
 * (Politis, Romano & Wolf 1999, chapter 2). Undefined for fewer than four parts.
 * @param among the parts that belong to the sample
 */
export async function halfSampleErrors(
  parts: ResamplingParts,
  among: Int32Array,
  measures: readonly SpectralMeasure[],
  options: ResamplingOptions & { readonly resamples: number },
): Promise<Float64Array | undefined> {
  if (among.length < FEWEST_PARTS || options.resamples < 2) return undefined;
  const random = createRandom(options.seed).fork(0x68616c66);
  const items = among.reduce((sum, part) => sum + parts.sizes[part], 0);
  const scores: Float64Array[] = [];
  let share = 0;
  for (let r = 0; r < options.resamples; r++) {
    const chosen = drawn(random, among, among.length >> 1);
    const counted = chosen.reduce((sum, part) => sum + parts.sizes[part], 0);
    share += counted / items / options.resamples;
    scores.push(scoresOf(await parts.eigenvalues(chosen), counted, measures, options.scores));
    options.onStep?.();
  }
  const { deviation } = meanAndDeviation(scores, measures.length);
  return deviation.map((value) => value * Math.sqrt(share / (1 - share)));
}

/** Parts of one stratum. */
export function partsOf(parts: ResamplingParts, stratum: number): Int32Array {
  return range(parts.sizes.length).filter((part) => parts.strata[part] === stratum);
}

/** What permuting the items of two sets says about a difference, one entry a measure. */
export interface PermutationResult {
  /** Ends of the middle 95 % of differences under exchange of the items. */
  readonly low: Float64Array;
  readonly high: Float64Array;
  /**
   * Two-sided: the share of exchanges whose difference is at least as far from their mean, the observed one counted. Sets
   * of unequal size differ under exchange too, since scores grow with the number of items.
   */
  readonly p: Float64Array;
  readonly permutations: number;
}

/**
 * Exchanges parts between strata 0 and 1 at random and takes the difference of the scores, first less second.
 * @param observed differences
 */
export async function permutationTest(
  parts: ResamplingParts,
  observed: Float64Array,
  measures: readonly SpectralMeasure[],
  options: ResamplingOptions & { readonly permutations: number },
): Promise<PermutationResult | undefined> {
  const all = range(parts.sizes.length);
  const first = partsOf(parts, 0).length;
  if (options.permutations < 1 || first < 1 || first === all.length) return undefined;
  const random = createRandom(options.seed).fork(0x7065726d);
  const differences = measures.map(() => new Float64Array(options.permutations));
  const scored = async (chosen: Int32Array): Promise<Float64Array> => {
    const counted = chosen.reduce((sum, part) => sum + parts.sizes[part], 0);
    const scores = scoresOf(await parts.eigenvalues(chosen), counted, measures, options.scores);
    options.onStep?.();
    return scores;
  };
  for (let r = 0; r < options.permutations; r++) {
    const order = random.permutation(all.length);
    const left = await scored(order.slice(0, first).sort());
    const right = await scored(order.slice(first).sort());
    measures.forEach((_, k) => {
      differences[k][r] = left[k] - right[k];
    });
  }
  const p = Float64Array.from(measures, (_, k) => {
    const centre = differences[k].reduce((sum, value) => sum + value, 0) / options.permutations;
    // Distances of rounding size are no evidence.
    const reach = Math.abs(observed[k] - centre) - 1e-9 * Math.max(1, Math.abs(centre));
    const extreme = differences[k].filter((value) => Math.abs(value - centre) >= reach).length;
    return (extreme + 1) / (options.permutations + 1);
  });
  for (const values of differences) values.sort();
  return {
    low: Float64Array.from(differences, (values) => quantile(values, 0.025)),
    high: Float64Array.from(differences, (values) => quantile(values, 0.975)),
    p,
    permutations: options.permutations,
  };
}

/** Linear between order statistics. */
function quantile(sorted: Float64Array, level: number): number {
  const place = level * (sorted.length - 1);
  const below = Math.floor(place);
  const above = Math.min(sorted.length - 1, below + 1);
  return sorted[below] + (place - below) * (sorted[above] - sorted[below]);
}

/** Mean scores of random unions of parts of one stratum that hold about `items` items. */
export async function meanAtSize(
  parts: ResamplingParts,
  stratum: number,
  items: number,
  measures: readonly SpectralMeasure[],
  options: ResamplingOptions & { readonly subsamples: number },
): Promise<Float64Array> {
  const among = partsOf(parts, stratum);
  const total = among.reduce((sum, part) => sum + parts.sizes[part], 0);
  const count = Math.max(1, Math.round((items / total) * among.length));
  const random = createRandom(options.seed).fork(0x73697a65);
  const scores: Float64Array[] = [];
  for (let s = 0; s < options.subsamples; s++) {
    const chosen = drawn(random, among, count);
    const counted = chosen.reduce((sum, part) => sum + parts.sizes[part], 0);
    scores.push(scoresOf(await parts.eigenvalues(chosen), counted, measures, options.scores));
    options.onStep?.();
  }
  return meanAndDeviation(scores, measures.length).mean;
}
