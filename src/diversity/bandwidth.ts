import { type FeatureMatrix, loadMatrix } from '../formats/feature-matrix.js';
import { createRandom } from '../random.js';

/** Pairs of this many rows are looked at. */
const SAMPLED_ROWS = 1000;
/** Mean similarities beyond these say that the kernel sees one item, or nothing but singletons. */
const ALL_ALIKE = 0.99;
const ALL_APART = 1e-6;

/** The bandwidth of a Gaussian kernel, and how it lies to the data. */
export interface Bandwidth {
  readonly sigma: number;
  /** Median distance of two items, over pairs of at most 1,000 rows. */
  readonly medianDistance: number;
  /** Mean of `exp(-D^2 / (2 sigma^2))` over those pairs. */
  readonly meanSimilarity: number;
  readonly warning?: string;
}

/**
 * Takes the bandwidth of `exp(-|x-y|^2 / (2 sigma^2))` from the data: the median distance, or what was given.
 * Distances that are all 0 leave the median rule without a width: 1 then, since every width gives the same kernel.
 */
export function chooseBandwidth(matrix: FeatureMatrix, wanted: number | 'median', seed: number): Bandwidth {
  const { rows: n, columns: d } = matrix;
  const count = Math.min(n, SAMPLED_ROWS);
  const chosen =
    count === n
      ? Int32Array.from({ length: n }, (_, i) => i)
      : createRandom(seed).fork(0x73696d61).permutation(n).slice(0, count).sort();
  const x = loadMatrix(matrix, chosen);
  const squares = new Float64Array((count * (count - 1)) / 2);
  let at = 0;
  for (let i = 0; i < count; i++) {
    for (let j = 0; j < i; j++) {
      let sum = 0;
      for (let k = 0; k < d; k++) sum += (x[i * d + k] - x[j * d + k]) ** 2;
      squares[at++] = sum;
    }
  }
  squares.sort();
  const medianDistance = squares.length === 0 ? 0 : medianRoot(squares);
  const sigma = wanted === 'median' ? medianDistance || 1 : wanted;
  let similarity = 0;
  for (const square of squares) similarity += Math.exp(-square / (2 * sigma * sigma));
  const meanSimilarity = squares.length === 0 ? 1 : similarity / squares.length;
  const warning = warningOf(sigma, medianDistance, meanSimilarity);
  return { sigma, medianDistance, meanSimilarity, ...(warning !== undefined && { warning }) };
}

function medianRoot(sorted: Float64Array): number {
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1
    ? Math.sqrt(sorted[middle])
    : (Math.sqrt(sorted[middle - 1]) + Math.sqrt(sorted[middle])) / 2;
}

function warningOf(sigma: number, medianDistance: number, similarity: number): string | undefined {
  if (medianDistance === 0) return undefined;
  const [low, high] = [0.2 * medianDistance, 2 * medianDistance].map((value) => value.toPrecision(3));
  const range = `the median distance is ${medianDistance.toPrecision(4)}; useful values are about ${low} to ${high}`;
  if (similarity > ALL_ALIKE) return `--sigma ${sigma} makes all items alike (mean similarity above 0.99): ${range}`;
  if (similarity < ALL_APART) return `--sigma ${sigma} makes all items distinct (mean similarity below 1e-6): ${range}`;
  return undefined;
}
