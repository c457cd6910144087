import { createRandom } from '../random.js';

/** How the spectrum of a kernel matrix was reached; `slq` estimates functions of it without reaching it. */
export type SpectrumPath = 'exact' | 'dual' | 'fkea' | 'nystrom' | 'counts' | 'slq';

/** Traces that stochastic quadrature estimates: scores of some orders, with standard errors. */
export interface QuadratureScores {
  /** One an order; NaN where quadrature has no estimate (order 0). */
  readonly scores: Float64Array;
  readonly standardErrors: Float64Array;
}

/** The leading eigenvectors as scores of the items: `[count, items]`, each with a positive sum. */
export interface LeadingModes {
  readonly eigenvalues: Float64Array;
  readonly scores: Float64Array;
}

/** Items in parts that resampling draws whole. Parts of one stratum do not mix with those of another. */
export interface ResamplingParts {
  /** Items of each part. */
  readonly sizes: Int32Array;
  /** Stratum of each part. */
  readonly strata: Int32Array;
  /** Eigenvalues, ascending, of K/n' over the items of some parts. */
  eigenvalues(parts: Int32Array): Promise<Float64Array>;
}

/** A kernel over the items of a sample, whatever its path. */
export interface KernelSource {
  readonly path: SpectrumPath;
  readonly items: number;
  /** Order of the matrix that is decomposed. */
  readonly order: number;
  /** Eigenvalues of K/n (weighted where the source has weights) over all items, or over `rows`, in any order. */
  eigenvalues(rows?: Int32Array): Promise<Float64Array>;
  /** Eigenvalues with one item left out; weights of the others are divided by their sum. */
  eigenvaluesWithout(item: number): Promise<Float64Array>;
  /** Squared Frobenius norm of K/n, or of the weighted matrix. */
  squaredNorm(): Promise<number>;
  /** `sum_j K_ij^2` of every item, without weights. */
  rowSquares(): Promise<Float64Array>;
  /** `sum_ij p_i p_j K_ij^q` where the path gives it without pairs. */
  meanPower(q: number): Promise<number | undefined>;
  similarity(i: number, j: number): number;
  /** @param strata items of each stratum, one after another */
  parts(strata: readonly number[], seed: number): Promise<ResamplingParts>;
  /** Undefined where eigenvectors are no modes. */
  leading(count: number): Promise<LeadingModes | undefined>;
  /** The second moment of features `[order, order]`, where there is one. */
  readonly moment?: () => Promise<Float64Array>;
  /** Present where the spectrum of all items is out of reach: `eigenvalues` then serves subsamples only. */
  readonly quadrature?: (orders: readonly number[]) => Promise<QuadratureScores>;
}

/** All rows but one. */
export function allBut(items: number, item: number): Int32Array {
  return Int32Array.from({ length: items - 1 }, (_, i) => (i < item ? i : i + 1));
}

/** Every item is a part of its own. */
export function itemParts(
  strata: readonly number[],
  eigenvalues: (rows: Int32Array) => Promise<Float64Array>,
): ResamplingParts {
  const total = strata.reduce((sum, items) => sum + items, 0);
  const stratumOf = new Int32Array(total);
  let at = 0;
  strata.forEach((items, stratum) => {
    stratumOf.fill(stratum, at, at + items);
    at += items;
  });
  return { sizes: new Int32Array(total).fill(1), strata: stratumOf, eigenvalues };
}

/** Random parts of at most `size` items within each stratum; every part holds its rows in ascending order. */
export function randomParts(
  strata: readonly number[],
  size: number,
  seed: number,
): { rows: Int32Array[]; strata: Int32Array } {
  const rows: Int32Array[] = [];
  const stratumOf: number[] = [];
  let offset = 0;
  strata.forEach((items, stratum) => {
    const order = createRandom(seed)
      .fork(0x70617274 + stratum)
      .permutation(items);
    const count = Math.max(1, Math.round(items / size));
    for (let part = 0; part < count; part++) {
      const from = Math.floor((part * items) / count);
      const to = Math.floor(((part + 1) * items) / count);
      rows.push(
        order
          .slice(from, to)
          .map((row) => row + offset)
          .sort(),
      );
      stratumOf.push(stratum);
    }
    offset += items;
  });
  return { rows, strata: Int32Array.from(stratumOf) };
}
