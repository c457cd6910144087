import { InputError } from '../errors.js';
import { multiply } from '../kernels/gemm.js';
import { cholesky, choleskyLogDeterminant } from '../linalg/cholesky.js';
import { symmetricEigen } from '../linalg/symmetric-eigen.js';

/** A linear-Gaussian latent model in column convention: z' = K z + w, w ~ N(0, Σ), z ~ N(0, C). `[width, width]` each. */
export interface GaussianSystem {
  readonly width: number;
  readonly koopman: Float64Array;
  readonly noise: Float64Array;
  readonly covariance: Float64Array;
}

/** Observation x = D z + e, e ~ N(0, R): `[observed, width]` and `[observed, observed]`. */
export interface Observation {
  readonly observed: number;
  readonly map: Float64Array;
  readonly noise: Float64Array;
}

const square = (n: number): { m: number; n: number; k: number } => ({ m: n, n, k: n });

export function matrixPower(matrix: Float64Array, n: number, power: number): Float64Array {
  let result = new Float64Array(n * n);
  for (let i = 0; i < n; i++) result[i * n + i] = 1;
  for (let step = 0; step < power; step++) result = multiply(matrix, result, new Float64Array(n * n), square(n));
  return result;
}

/** `A B Aᵀ` with A `[rows, n]` and B `[n, n]`. */
function sandwich(a: Float64Array, b: Float64Array, rows: number, n: number): Float64Array {
  const left = multiply(a, b, new Float64Array(rows * n), { m: rows, n, k: n });
  return multiply(left, a, new Float64Array(rows * rows), { m: rows, n: rows, k: n }, { transposeB: true });
}

/** `M_n = Σ_{i<n} Kⁱ Σ (Kⁱ)ᵀ`: what noise adds in n steps. */
export function accumulatedNoise(system: GaussianSystem, lag: number): Float64Array {
  const { width, koopman, noise } = system;
  let sum: Float64Array = new Float64Array(width * width);
  for (let step = 0; step < lag; step++) {
    sum = sandwich(koopman, sum, width, width);
    for (let i = 0; i < sum.length; i++) sum[i] += noise[i];
  }
  return sum;
}

function logDeterminant(matrix: Float64Array, n: number, what: string): number {
  const factor = cholesky(matrix, n);
  if (factor !== undefined) return choleskyLogDeterminant(factor, n);
  const smallest = symmetricEigen(matrix, n).values[0];
  throw new InputError(
    `${what} is singular: its smallest eigenvalue is ${smallest.toExponential(3)}; use fewer dimensions or a ridge (--noise-ridge)`,
  );
}

const added = (a: Float64Array, b: Float64Array): Float64Array => a.map((value, i) => value + b[i]);

/** Terms of `I(z_{t−n}; z_t)` for one lag, in nats. */
export interface LatentInformation {
  readonly lag: number;
  /** `½ [log det(Kⁿ C Kⁿᵀ + M_n) − log det M_n]` (Cheng et al. 2025, eqs. 7 and 29). */
  readonly latentNats: number;
  /** M_n `[width, width]`. */
  readonly accumulatedNoise: Float64Array;
  /** Squared singular values of `M_n^{−½} Kⁿ`, descending: the gain of each mode. */
  readonly gains: Float64Array;
}

/**
 * Mutual information over `lag` steps of a linear-Gaussian latent process, in closed form.
 * @throws InputError when M_n is singular, with its smallest eigenvalue
 */
export function latentInformation(system: GaussianSystem, lag: number): LatentInformation {
  const { width, koopman, covariance } = system;
  const noise = accumulatedNoise(system, lag);
  const power = matrixPower(koopman, width, lag);
  const what = `the noise of ${lag} step${lag === 1 ? '' : 's'}`;
  const logNoise = logDeterminant(noise, width, what);
  const whole = added(sandwich(power, covariance, width, width), noise);
  const latentNats = 0.5 * (logDeterminant(whole, width, `${what} plus signal`) - logNoise);
  return { lag, latentNats, accumulatedNoise: noise, gains: modeGains(noise, power, width) };
}

/** Squared singular values of `M^{−½} A`: eigenvalues of `L⁻¹ A Aᵀ L⁻ᵀ` with M = L Lᵀ. */
function modeGains(noise: Float64Array, power: Float64Array, n: number): Float64Array {
  const factor = cholesky(noise, n);
  if (factor === undefined) throw new InputError('the noise of the latent model is singular');
  // Forward substitution L X = A, column by column.
  const x = power.slice();
  for (let column = 0; column < n; column++) {
    for (let i = 0; i < n; i++) {
      let sum = x[i * n + column];
      for (let k = 0; k < i; k++) sum -= factor[i * n + k] * x[k * n + column];
      x[i * n + column] = sum / factor[i * n + i];
    }
  }
  const gram = multiply(x, x, new Float64Array(n * n), square(n), { transposeB: true });
  return symmetricEigen(gram, n)
    .values.map((value) => Math.max(0, value))
    .reverse();
}

/**
 * `I(z_t; x_{t−1} | z_{t−n})`, the fast-dissipating term of the decomposition, in nats:
 * `½ log( det M_n det(D M_{n−1} Dᵀ + R) / det [[M_n, K M_{n−1} Dᵀ], [D M_{n−1} Kᵀ, D M_{n−1} Dᵀ + R]] )`; 0 for one step.
 * @throws InputError when a matrix is singular
 */
export function fastDissipatingInformation(system: GaussianSystem, observation: Observation, lag: number): number {
  if (lag === 1) return 0;
  const { width, koopman } = system;
  const { observed, map, noise } = observation;
  const now = accumulatedNoise(system, lag);
  const before = accumulatedNoise(system, lag - 1);
  const seen = added(sandwich(map, before, observed, width), noise);
  const moved = multiply(koopman, before, new Float64Array(width * width), square(width));
  const cross = multiply(
    moved,
    map,
    new Float64Array(width * observed),
    { m: width, n: observed, k: width },
    { transposeB: true },
  );
  const n = width + observed;
  const joint = new Float64Array(n * n);
  for (let i = 0; i < width; i++) {
    joint.set(now.subarray(i * width, (i + 1) * width), i * n);
    for (let j = 0; j < observed; j++) {
      joint[i * n + width + j] = cross[i * observed + j];
      joint[(width + j) * n + i] = cross[i * observed + j];
    }
  }
  for (let i = 0; i < observed; i++) {
    joint.set(seen.subarray(i * observed, (i + 1) * observed), (width + i) * n + width);
  }
  return (
    0.5 *
    (logDeterminant(now, width, `the noise of ${lag} steps`) +
      logDeterminant(seen, observed, 'the noise of the observation') -
      logDeterminant(joint, n, 'the joint noise of latents and observation'))
  );
}

/** `½ log det(2πe R)`: the entropy of an observation given its latents, in nats. */
export function observationNoiseEntropy(observation: Observation): number {
  const { observed, noise } = observation;
  return 0.5 * (observed * Math.log(2 * Math.PI * Math.E) + logDeterminant(noise, observed, 'the observation noise'));
}
