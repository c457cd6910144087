import { entropyRegularisedAllocation, waterFilling } from '../../src/koopman/allocation.js';
import { fastDissipatingInformation, latentInformation } from '../../src/koopman/gaussian-information.js';
import type { Json } from './harness.js';
import { float64, number, shapeOf, tensor } from './tensors.js';

export function run(inputs: { [key: string]: Json }): unknown {
  const [observed, width] = shapeOf(inputs.D, 'D');
  const system = {
    width,
    koopman: float64(inputs.K, 'K'),
    noise: float64(inputs.Sigma, 'Sigma'),
    covariance: float64(inputs.C, 'C'),
  };
  const observation = { observed, map: float64(inputs.D, 'D'), noise: float64(inputs.R, 'R') };
  const lag = number(inputs.n, 'n');
  const budget = number(inputs.budget, 'budget');
  const information = latentInformation(system, lag);
  const filled = waterFilling(information.gains, budget);
  const regularised = entropyRegularisedAllocation(information.gains, budget, number(inputs.gamma, 'gamma'));
  return {
    M_n: tensor([width, width], information.accumulatedNoise),
    latent_mi_nats: information.latentNats,
    fast_dissipating_mi_nats: fastDissipatingInformation(system, observation, lag),
    gains_desc: tensor([width], information.gains),
    waterfill_p: tensor([width], filled.power),
    waterfill_level: filled.level,
    waterfill_mi_nats: filled.informationNats,
    waterfill_effective_dim: filled.effectiveDimension,
    entropy_regularised_p: tensor([width], regularised.power),
    entropy_regularised_multiplier: regularised.level,
    entropy_regularised_effective_dim: regularised.effectiveDimension,
  };
}
