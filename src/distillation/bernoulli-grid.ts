/**
 * The exact toy of the universality lens: Bernoulli models on a grid of midpoints with a uniform prior. The expected
 * regret hardly depends on how fine the grid is, though the number of models does. All in nats.
 */
import { InputError } from '../errors.js';
import { logSumExpRow } from '../kernels/loss-rows-reference.js';
import { regretBounds, weightProfile } from './hypothesis-weight.js';

export interface GridRegret {
  readonly grid: number;
  /** ln of the number of models: the bound that counting them gives. */
  readonly log_models_nats: number;
  /** E[ln p_theta(y^n) - ln q(y^n)], exact by enumeration of the number of ones. */
  readonly expected_regret_nats: number;
  readonly ball_bound_nats: number;
  readonly ball_radius_nats: number;
  readonly jensen_bound_nats: number;
}

/** a log b with 0 log 0 = 0. */
const times = (a: number, logB: number): number => (a === 0 ? 0 : a * logB);

/** KL between Bernoulli(theta) and Bernoulli(g). */
function bernoulliDivergence(theta: number, g: number): number {
  return times(theta, Math.log(theta) - Math.log(g)) + times(1 - theta, Math.log1p(-theta) - Math.log1p(-g));
}

/** ln of n!, k from 0 to n. */
function logFactorials(n: number): Float64Array {
  const result = new Float64Array(n + 1);
  for (let k = 2; k <= n; k++) result[k] = result[k - 1] + Math.log(k);
  return result;
}

/**
 * Expected regret of the mixture against the true parameter over n samples, and its bounds.
 *
 * @throws InputError for theta outside [0, 1], or sizes that are no positive whole numbers
 */
export function gridRegret(theta: number, samples: number, grid: number): GridRegret {
  if (!(theta >= 0 && theta <= 1)) throw new InputError(`theta must lie in [0, 1]; it is ${theta}`);
  for (const [name, value] of [
    ['the number of samples', samples],
    ['the grid', grid],
  ] as const) {
    if (!(Number.isInteger(value) && value > 0)) throw new InputError(`${name} must be a positive whole number`);
  }
  const points = Float64Array.from({ length: grid }, (_, i) => (i + 0.5) / grid);
  const logOne = points.map(Math.log);
  const logZero = points.map((g) => Math.log1p(-g));
  const logTheta = Math.log(theta);
  const logRest = Math.log1p(-theta);
  const factorials = logFactorials(samples);
  const terms = new Float64Array(grid);
  let regret = 0;
  for (let ones = 0; ones <= samples; ones++) {
    const logTrue = times(ones, logTheta) + times(samples - ones, logRest);
    const logShare = factorials[samples] - factorials[ones] - factorials[samples - ones] + logTrue;
    const share = Math.exp(logShare);
    if (share === 0) continue;
    for (let i = 0; i < grid; i++) terms[i] = ones * logOne[i] + (samples - ones) * logZero[i];
    regret += share * (logTrue - logSumExpRow(terms, 0, grid) + Math.log(grid));
  }
  const profile = weightProfile(
    points.map((g) => bernoulliDivergence(theta, g)),
    new Float64Array(grid).fill(1 / grid),
  );
  const bounds = regretBounds(profile, samples);
  return {
    grid,
    log_models_nats: Math.log(grid),
    expected_regret_nats: regret,
    ball_bound_nats: bounds.ball_nats,
    ball_radius_nats: bounds.ball_radius_nats,
    jensen_bound_nats: bounds.jensen_nats,
  };
}
