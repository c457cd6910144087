import { multiply, symmetricRankK } from '../kernels/gemm.js';
import { symmetricSpectrum } from '../kernels/symmetric-spectrum.js';
import { symmetricEigen } from '../linalg/symmetric-eigen.js';

/**
 * `paper`: covariance divided by the number of latents, eigenvalues as they are. `code`: divided by one less, 1e-8 on the
 * diagonal before the trace is taken, eigenvalues clamped below at 1e-8 (released code).
 */
export type EntropyVariant = 'paper' | 'code';

const CODE_FLOOR = 1e-8;
/** Logarithms of eigenvalues below this share are cut in gradients of the paper's form. */
const GRADIENT_FLOOR = 1e-12;

/** Centred covariance `[width, width]` of latents `[rows, width]`, both triangles, as the variant has it. */
export function latentCovariance(
  rows: Float64Array,
  count: number,
  width: number,
  variant: EntropyVariant = 'paper',
): Float64Array {
  const centred = centre(rows, count, width);
  const divisor = variant === 'paper' ? count : Math.max(1, count - 1);
  const covariance = symmetricRankK(
    centred,
    new Float64Array(width * width),
    { n: width, k: count },
    { transpose: true, alpha: 1 / divisor },
  );
  for (let i = 0; i < width; i++) {
    if (variant === 'code') covariance[i * width + i] += CODE_FLOOR;
    for (let j = 0; j < i; j++) covariance[j * width + i] = covariance[i * width + j];
  }
  return covariance;
}

function centre(rows: Float64Array, count: number, width: number): Float64Array {
  const mean = new Float64Array(width);
  for (let r = 0; r < count; r++) for (let i = 0; i < width; i++) mean[i] += rows[r * width + i] / count;
  return rows.map((value, at) => value - mean[at % width]);
}

/** Von Neumann entropy in nats, its exponential, and the eigenvalues of the trace-normalised covariance, descending. */
export interface LatentEntropy {
  readonly entropyNats: number;
  /** `e^S`, 1 to width. */
  readonly effectiveDimension: number;
  readonly spectrum: Float64Array;
  /** True where all latents are equal: the entropy is 0 by convention. */
  readonly collapsed: boolean;
}

/**
 * `S = −Σ λ log λ` over the eigenvalues of `C / tr C` (Cheng et al. 2025). With fewer latents than dimensions the Gram
 * matrix of the centred latents serves, which has the same non-zero eigenvalues.
 */
export function latentEntropy(
  rows: Float64Array,
  count: number,
  width: number,
  variant: EntropyVariant = 'paper',
): LatentEntropy {
  const dual = variant === 'paper' && count < width;
  const n = dual ? count : width;
  const matrix = dual
    ? symmetricRankK(centre(rows, count, width), new Float64Array(n * n), { n, k: width }, { alpha: 1 / count })
    : latentCovariance(rows, count, width, variant);
  let trace = 0;
  for (let i = 0; i < n; i++) trace += matrix[i * n + i];
  if (!(trace > 0)) {
    return { entropyNats: 0, effectiveDimension: 1, spectrum: new Float64Array(width), collapsed: true };
  }
  const values = symmetricSpectrum(matrix, n);
  const floor = variant === 'code' ? CODE_FLOOR : 0;
  const spectrum = Float64Array.from(values, (value) => Math.max(floor, value / trace)).reverse();
  let entropyNats = 0;
  for (const value of spectrum) if (value > 0) entropyNats -= value * Math.log(value);
  return { entropyNats, effectiveDimension: Math.exp(entropyNats), spectrum, collapsed: false };
}

/**
 * Gradient of the entropy with respect to the latents, `[rows, width]`: with ρ = C / tr C,
 * `∂S/∂C = −(log ρ + S I) / tr C`; clamped eigenvalues of the code's form pass no gradient.
 */
export function latentEntropyGradient(
  rows: Float64Array,
  count: number,
  width: number,
  variant: EntropyVariant = 'paper',
): Float64Array {
  const covariance = latentCovariance(rows, count, width, variant);
  let trace = 0;
  for (let i = 0; i < width; i++) trace += covariance[i * width + i];
  const gradient = new Float64Array(count * width);
  if (!(trace > 0)) return gradient;
  const { values, vectors } = symmetricEigen(covariance, width);
  // h_i = dS/dρ_i; then dS/dC = (V diag(h) Vᵀ − (Σ h_i ρ_i) I) / tr C.
  const slopes = values.map((value) => {
    const share = value / trace;
    if (variant === 'code') return share > CODE_FLOOR ? -(Math.log(share) + 1) : 0;
    return -(Math.log(Math.max(share, GRADIENT_FLOOR)) + 1);
  });
  let along = 0;
  for (let i = 0; i < width; i++) along += slopes[i] * (values[i] / trace);
  const scaled = vectors.map((entry, at) => entry * slopes[Math.floor(at / width)]);
  const size = { m: width, n: width, k: width };
  const slope = multiply(vectors, scaled, new Float64Array(width * width), size, { transposeA: true });
  for (let i = 0; i < width; i++) slope[i * width + i] -= along;
  const divisor = variant === 'paper' ? count : Math.max(1, count - 1);
  const centred = centre(rows, count, width);
  multiply(centred, slope, gradient, { m: count, n: width, k: width }, { alpha: 2 / (divisor * trace) });
  return centre(gradient, count, width);
}
