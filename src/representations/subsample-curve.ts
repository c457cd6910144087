import { createRandom } from '../random.js';

/** Entropy against the number of points. */
export interface CurvePoint {
  readonly size: number;
  readonly repetitions: number;
  /** Mean over random subsets, bits, for every diffusion time. */
  readonly meanBits: Float64Array;
  /** Standard deviation over the subsets; NaN for one. */
  readonly deviationBits: Float64Array;
}

/** Least size of the curve that is chosen by itself. */
const LEAST_SIZE = 16;

/** Sizes n, n/2, n/4, ..., ascending, down to 16 or n/32. */
export function halvedSizes(n: number): number[] {
  const sizes = [n];
  for (let size = n >>> 1; size >= LEAST_SIZE && size >= n / 32; size >>>= 1) sizes.unshift(size);
  return sizes;
}

const CURVE_STREAM = 0x63_76;

/**
 * Entropies of random subsets without repetition. The whole sample is taken once: it has no spread.
 * @param entropies bits of some rows for every diffusion time
 */
export async function subsampleCurve(
  n: number,
  sizes: readonly number[],
  repetitions: number,
  seed: number,
  entropies: (rows: Int32Array) => Promise<Float64Array>,
): Promise<CurvePoint[]> {
  const curve: CurvePoint[] = [];
  for (const size of sizes) {
    const random = createRandom(seed).fork(CURVE_STREAM).fork(size);
    const times = size >= n ? 1 : repetitions;
    const found: Float64Array[] = [];
    for (let r = 0; r < times; r++) {
      const rows =
        size >= n ? Int32Array.from({ length: n }, (_, i) => i) : random.fork(r).permutation(n).slice(0, size);
      found.push(await entropies(rows.sort()));
    }
    const meanBits = found[0].map((_, t) => found.reduce((sum, bits) => sum + bits[t], 0) / times);
    const deviationBits = meanBits.map((mean, t) =>
      times < 2 ? Number.NaN : Math.sqrt(found.reduce((sum, bits) => sum + (bits[t] - mean) ** 2, 0) / (times - 1)),
    );
    curve.push({ size: Math.min(size, n), repetitions: times, meanBits, deviationBits });
  }
  return curve;
}
