import { InputError } from '../errors.js';
import { leadingEigenvectors } from '../linalg/leading-eigenvectors.js';

/** The leading part of a second moment `S = U^T U / m`, and its trace. */
export interface LeadingSpectrum {
  /** Descending, `[r]`. */
  readonly values: Float64Array;
  /** Row i `[d]` of length 1 belongs to `values[i]`. */
  readonly vectors: Float64Array;
  readonly trace: number;
  readonly dimension: number;
}

/** Maximum likelihood of `x = B z + mu`, `z ~ N(0, I_r)`, `mu ~ N(0, noise I_d)`. */
export interface FactorModel {
  readonly dimension: number;
  readonly factors: number;
  /** Columns of B up to rotation, `[d, r]`: `sqrt(lambda_i - noise) u_i`; zero where the eigenvalue is below the noise. */
  readonly loadings: Float64Array;
  /** Eigenvalues of S that belong to the columns. */
  readonly eigenvalues: Float64Array;
  readonly noiseVariance: number;
  /** Columns that are not zero. */
  readonly effectiveFactors: number;
  /** Log-likelihood of one row on average, in nats. */
  readonly logLikelihoodPerRow: number;
}

/** The `count` leading eigenpairs of a second moment `[d, d]` (both triangles). */
export function leadingSpectrum(moment: Float64Array, d: number, count: number, seed = 0): LeadingSpectrum {
  let trace = 0;
  for (let i = 0; i < d; i++) trace += moment[i * d + i];
  const { values, vectors } = leadingEigenvectors(moment, d, count, { seed });
  return { values, vectors, trace, dimension: d };
}

/**
 * Closed-form maximum likelihood of the factor model (probabilistic principal components: Tipping & Bishop 1999; with
 * known noise the eigenvalues minus the noise). A direction whose eigenvalue does not exceed the noise gets no factor.
 * @param noise variance of mu, or `estimate`: the mean of the discarded eigenvalues
 * @throws InputError when the factors are not fewer than the features
 */
export function fitFactorModel(spectrum: LeadingSpectrum, factors: number, noise: number | 'estimate'): FactorModel {
  const { dimension: d, trace } = spectrum;
  if (factors >= d) {
    throw new InputError(`latent dimension ${factors} must be below the ${d} features; lower --latent-dim`);
  }
  const values = spectrum.values.slice(0, factors);
  const kept = values.reduce((sum, value) => sum + value, 0);
  const noiseVariance = noise === 'estimate' ? Math.max(0, trace - kept) / (d - factors) : noise;
  const loadings = new Float64Array(d * factors);
  let effectiveFactors = 0;
  let explained = 0;
  let logDeterminant = 0;
  for (let i = 0; i < factors; i++) {
    const excess = values[i] - noiseVariance;
    if (!(excess > 0)) continue;
    effectiveFactors++;
    explained += values[i];
    logDeterminant += Math.log(values[i]);
    const scale = Math.sqrt(excess);
    for (let j = 0; j < d; j++) loadings[j * factors + i] = scale * spectrum.vectors[i * d + j];
  }
  const rest = d - effectiveFactors;
  logDeterminant += rest * Math.log(noiseVariance);
  const mahalanobis = effectiveFactors + (trace - explained) / noiseVariance;
  return {
    dimension: d,
    factors,
    loadings,
    eigenvalues: values,
    noiseVariance,
    effectiveFactors,
    logLikelihoodPerRow: -0.5 * (d * Math.log(2 * Math.PI) + logDeterminant + mahalanobis),
  };
}

/**
 * Posterior means `E[z|x] = (noise I + B^T B)^-1 B^T x` of rows `[count, d]`, `[count, r]`. `B^T B` is diagonal, because the
 * columns are eigenvectors.
 */
export function posteriorMeans(model: FactorModel, x: ArrayLike<number>, count: number): Float64Array {
  const { dimension: d, factors, loadings, noiseVariance } = model;
  const result = new Float64Array(count * factors);
  const squares = new Float64Array(factors);
  for (let j = 0; j < d; j++) for (let i = 0; i < factors; i++) squares[i] += loadings[j * factors + i] ** 2;
  for (let r = 0; r < count; r++) {
    for (let j = 0; j < d; j++) {
      const value = x[r * d + j];
      for (let i = 0; i < factors; i++) result[r * factors + i] += loadings[j * factors + i] * value;
    }
    for (let i = 0; i < factors; i++) {
      if (squares[i] > 0) result[r * factors + i] /= noiseVariance + squares[i];
    }
  }
  return result;
}

/** `B B^T` `[d, d]`, which rotations of B leave alone. */
export function loadingsProduct({ dimension: d, factors, loadings }: FactorModel): Float64Array {
  const product = new Float64Array(d * d);
  for (let i = 0; i < d; i++) {
    for (let j = 0; j < d; j++) {
      for (let k = 0; k < factors; k++) product[i * d + j] += loadings[i * factors + k] * loadings[j * factors + k];
    }
  }
  return product;
}
