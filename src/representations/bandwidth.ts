import { InputError } from '../errors.js';
import { selectSmallest } from '../linalg/point-distances.js';
import { createRandom } from '../random.js';

/** How the bandwidth of a Gaussian kernel is chosen. */
export type BandwidthRule =
  | { readonly kind: 'value'; readonly sigma: number }
  /** Median distance of all pairs. */
  | { readonly kind: 'median' }
  /** Median over points of the distance to the k-th nearest other point. */
  | { readonly kind: 'knn'; readonly k: number };

/** A bandwidth and what the distances say about it. */
export interface Bandwidth {
  readonly sigma: number;
  /** Median distance between two rows; 0 when most rows are equal, NaN for one row. */
  readonly medianDistance: number;
  /** Rows whose distances were taken: all, or a seeded sample. */
  readonly rows: number;
}

/** Bandwidth of the reference, which fits its data sets and no others. */
export const REFERENCE_SIGMA = 10;

/** Mean off-diagonal similarity beyond which no structure is left: everything alike, or every point alone. */
export const ALIKE = 0.99;
export const ALONE = 1e-6;

/**
 * Reads `median`, `knn:<k>` or a number.
 * @throws InputError for anything else
 */
export function parseBandwidth(flag: string, text: string): BandwidthRule {
  if (text === 'median') return { kind: 'median' };
  const neighbours = /^knn:(\d+)$/.exec(text);
  if (neighbours) {
    const k = Number(neighbours[1]);
    if (k >= 1) return { kind: 'knn', k };
  }
  const sigma = text.trim() === '' ? Number.NaN : Number(text);
  if (sigma > 0 && Number.isFinite(sigma)) return { kind: 'value', sigma };
  throw new InputError(`${flag} ${text}: give median, knn:<k> (k from 1) or a positive bandwidth`);
}

/** The rule as the user writes it. */
export function bandwidthName(rule: BandwidthRule): string {
  if (rule.kind === 'median') return 'median';
  return rule.kind === 'knn' ? `knn:${rule.k}` : String(rule.sigma);
}

/** Most rows whose pairs enter the median: two million distances. */
const MOST_ROWS = 2048;

/** Squared distances `[m, n]` between the rows `from` and all rows. */
export type DistancesFrom = (from: Int32Array) => Promise<Float64Array>;

/** The rows whose distances decide a bandwidth: all of n, or a seeded sample in ascending order. */
export function bandwidthRows(n: number, seed: number): Int32Array {
  if (n <= MOST_ROWS) return Int32Array.from({ length: n }, (_, i) => i);
  return createRandom(seed).fork(BANDWIDTH_STREAM).permutation(n).slice(0, MOST_ROWS).sort();
}

const BANDWIDTH_STREAM = 0x62_77;

/** Rows whose distances to all others are held at once under `knn`. */
const NEIGHBOUR_BLOCK = 64;

/**
 * Applies a rule to a point cloud of n rows.
 * @param among squared distances `[m, m]` among the rows given by `bandwidthRows`, in that order
 * @param toAll squared distances from some rows to all, called under `knn` only
 * @throws InputError when the rule gives 0 because rows repeat, or k is not below the number of rows
 */
export async function chooseBandwidth(
  rule: BandwidthRule,
  n: number,
  rows: Int32Array,
  among: Float64Array,
  toAll: DistancesFrom,
): Promise<Bandwidth> {
  const m = rows.length;
  const medianDistance = medianOfPairs(among, m);
  const found = { medianDistance, rows: m };
  if (rule.kind === 'value') return { sigma: rule.sigma, ...found };
  // One row has no distance and the entropy 0, whatever the bandwidth.
  if (n < 2) return { sigma: 1, ...found };
  if (rule.kind === 'median') {
    if (medianDistance > 0) return { sigma: medianDistance, ...found };
    throw new InputError(
      'the median distance is 0: more than half of all pairs of rows are equal; give --sigma a number, or remove duplicates',
    );
  }
  if (rule.k >= n) throw new InputError(`--sigma knn:${rule.k}: ${n} rows have only ${n - 1} neighbours`);
  const nearest = new Float64Array(m);
  for (let start = 0; start < m; start += NEIGHBOUR_BLOCK) {
    const block = rows.subarray(start, start + NEIGHBOUR_BLOCK);
    const squared = await toAll(block);
    // Place 0 of a row's sorted distances is the row itself.
    block.forEach((_, i) => {
      nearest[start + i] = selectSmallest(squared.subarray(i * n, (i + 1) * n), rule.k);
    });
  }
  const sigma = Math.sqrt(middle(nearest));
  if (sigma > 0) return { sigma, ...found };
  throw new InputError(
    `--sigma knn:${rule.k}: half of the rows have ${rule.k} equal rows; raise k, give a number, or remove duplicates`,
  );
}

/** Root of the median of the entries below the diagonal of `[m, m]`; the mean of two middle distances for an even number. */
function medianOfPairs(squared: Float64Array, m: number): number {
  const pairs = new Float64Array((m * (m - 1)) / 2);
  let at = 0;
  for (let i = 0; i < m; i++) {
    pairs.set(squared.subarray(i * m, i * m + i), at);
    at += i;
  }
  if (pairs.length === 0) return Number.NaN;
  const half = pairs.length >>> 1;
  const upper = Math.sqrt(selectSmallest(pairs, half));
  if (pairs.length % 2 === 1) return upper;
  let below = 0;
  for (let i = 0; i < half; i++) below = Math.max(below, pairs[i]);
  return 0.5 * (upper + Math.sqrt(below));
}

function middle(values: Float64Array): number {
  const sorted = values.slice().sort();
  const half = sorted.length >>> 1;
  return sorted.length % 2 === 1 ? sorted[half] : 0.5 * (sorted[half - 1] + sorted[half]);
}

/**
 * What to say about a bandwidth that leaves no structure; undefined for one that does.
 * @param meanSimilarity mean of G_ij / G_ii over i != j
 */
export function bandwidthWarning(
  name: string,
  { sigma, medianDistance }: Bandwidth,
  meanSimilarity: number,
): string | undefined {
  const alike = meanSimilarity > ALIKE;
  if (!alike && !(meanSimilarity < ALONE)) return undefined;
  const effect = alike ? 'all points alike: the entropy is near 0' : 'every point alone: the entropy is near log2 n';
  const range =
    medianDistance > 0
      ? `useful bandwidths lie near ${short(medianDistance / 4)} to ${short(2 * medianDistance)}; ` +
        `try --sigma median (${short(medianDistance)})`
      : 'more than half of all pairs of rows are equal';
  return (
    `${name}: sigma ${short(sigma)} makes ${effect} (mean similarity ${short(meanSimilarity)}, ` +
    `median distance ${short(medianDistance)}); ${range}`
  );
}

function short(value: number): string {
  return String(Number(value.toPrecision(4)));
}
