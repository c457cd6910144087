import { symmetricSpectrum } from '../kernels/symmetric-spectrum.js';
import { orient } from '../linalg/feature-map.js';
import { leadingEigenvectors } from '../linalg/leading-eigenvectors.js';
import { similarityPower } from './internal-diversity.js';
import { allBut, itemParts, type KernelSource } from './kernel-source.js';
import { squaredNorm } from './rke.js';
import { scaledSimilarity } from './similarity-matrix.js';

export interface SourceOptions {
  /** `[items]` with sum 1. */
  readonly weights?: Float64Array;
  readonly threads?: number;
  readonly seed?: number;
}

/** A kernel matrix K `[n, n]` in memory: the exact path. It is kept, not changed. */
export function gramSource(k: Float64Array, n: number, options: SourceOptions = {}): KernelSource {
  const { weights, threads, seed = 0 } = options;
  const scaled = (rows?: Int32Array): Float64Array =>
    scaledSimilarity(k, n, { ...(rows && { rows }), ...(weights && { weights }) });
  const spectrum = async (rows?: Int32Array): Promise<Float64Array> =>
    symmetricSpectrum(scaled(rows), rows?.length ?? n, { ...(threads !== undefined && { threads }) });
  return {
    path: 'exact',
    items: n,
    order: n,
    eigenvalues: spectrum,
    eigenvaluesWithout: (item) => spectrum(allBut(n, item)),
    squaredNorm: async () => (weights ? squaredNorm(scaled()) : squaredNorm(k) / (n * n)),
    rowSquares: async () =>
      Float64Array.from({ length: n }, (_, i) => {
        let sum = 0;
        for (let j = 0; j < n; j++) sum += k[i * n + j] ** 2;
        return sum;
      }),
    async meanPower(q) {
      let sum = 0;
      for (let i = 0; i < n; i++) {
        let row = 0;
        for (let j = 0; j < n; j++) row += (weights ? weights[j] : 1 / n) * similarityPower(k[i * n + j], q, i, j);
        sum += (weights ? weights[i] : 1 / n) * row;
      }
      return sum;
    },
    similarity: (i, j) => k[i * n + j],
    parts: async (strata) => itemParts(strata, spectrum),
    leading: async (count) => {
      const { values, vectors } = leadingEigenvectors(scaled(), n, count, {
        seed,
        ...(threads !== undefined && { threads }),
      });
      for (let m = 0; m < values.length; m++) orient(vectors.subarray(m * n, (m + 1) * n));
      return { eigenvalues: values, scores: vectors };
    },
  };
}
