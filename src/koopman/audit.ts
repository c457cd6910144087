import { InputError } from '../errors.js';
import { cholesky } from '../linalg/cholesky.js';
import { type Allocation, entropyRegularisedAllocation, waterFilling } from './allocation.js';
import {
  fastDissipatingInformation,
  type GaussianSystem,
  latentInformation,
  type Observation,
  observationNoiseEntropy,
} from './gaussian-information.js';
import { residualCovariance } from './koopman-matrix.js';
import { latentCovariance } from './latent-entropy.js';
import { type Sequences, stackedLatents, stepCount } from './sequences.js';

/** A linear-Gaussian model of latents and the ridge that made its noise regular (0: none was needed). */
export interface GaussianFit {
  readonly system: GaussianSystem;
  readonly noiseRidge: number;
}

/** Shares of the mean variance of the noise that are tried as a ridge when the noise is singular. */
const RIDGE_SHARES = [0, 1e-12, 1e-10, 1e-8, 1e-6];

/**
 * The linear-Gaussian model of latents whose dynamics are C (row convention): K = Cᵀ, the covariance of the latents, and
 * the residual covariance of one step, with a ridge where that is singular.
 */
export function gaussianFit(sequences: Sequences, c: Float64Array, ridge?: number): GaussianFit {
  const { width } = sequences;
  const koopman = new Float64Array(width * width);
  for (let i = 0; i < width; i++) for (let j = 0; j < width; j++) koopman[i * width + j] = c[j * width + i];
  const noise = residualCovariance(sequences, c);
  const covariance = latentCovariance(stackedLatents(sequences), stepCount(sequences), width);
  let trace = 0;
  for (let i = 0; i < width; i++) trace += noise[i * width + i] / width;
  let scale = 0;
  for (let i = 0; i < width; i++) scale += covariance[i * width + i] / width;
  const shares = ridge === undefined ? RIDGE_SHARES : [ridge];
  for (const share of shares) {
    const added = ridge ?? share * Math.max(trace, 1e-6 * scale);
    const raised = noise.slice();
    for (let i = 0; i < width; i++) raised[i * width + i] += added;
    if (cholesky(raised, width)) return { system: { width, koopman, noise: raised, covariance }, noiseRidge: added };
  }
  throw new InputError(
    'the residual covariance of the latents is singular even with a ridge; use fewer dimensions, or raise --noise-ridge',
  );
}

/** Information of one lag. */
export interface LagTerms {
  readonly lag: number;
  /** I(z_{t−n}; z_t). */
  readonly latentNats: number;
  /** I(z_t; x_{t−1} | z_{t−n}); absent without an observation model. */
  readonly fastDissipatingNats?: number;
}

/** Everything that follows from a linear-Gaussian model. */
export interface GaussianTerms {
  readonly lags: readonly LagTerms[];
  /** Gains of the modes at the first lag, descending. */
  readonly gains: Float64Array;
  readonly budget: number;
  readonly waterFilling: Allocation;
  readonly regularised: Allocation;
  readonly observationNoiseNats?: number;
}

/**
 * @param lags steps; the gains and allocations belong to the first
 * @param budget total variance that is allocated; the trace of the covariance when absent
 * @param gamma weight of the entropy in the regularised allocation
 */
export function gaussianTerms(
  system: GaussianSystem,
  lags: readonly number[],
  gamma: number,
  budget?: number,
  observation?: Observation,
): GaussianTerms {
  const found = lags.map((lag) => latentInformation(system, lag));
  let trace = 0;
  for (let i = 0; i < system.width; i++) trace += system.covariance[i * system.width + i];
  const total = budget ?? trace;
  const { gains } = found[0];
  return {
    lags: found.map(({ lag, latentNats }) => ({
      lag,
      latentNats,
      ...(observation && { fastDissipatingNats: fastDissipatingInformation(system, observation, lag) }),
    })),
    gains,
    budget: total,
    waterFilling: waterFilling(gains, total),
    regularised: entropyRegularisedAllocation(gains, total, gamma),
    ...(observation && { observationNoiseNats: observationNoiseEntropy(observation) }),
  };
}
