import { gridRegret } from '../../src/distillation/bernoulli-grid.js';
import { ballOf, regretBounds, weightProfile } from '../../src/distillation/hypothesis-weight.js';
import {
  createMixture,
  divergencesFrom,
  effectiveNumber,
  lossRecords,
  priorOf,
  temperedPosterior,
} from '../../src/distillation/universality.js';
import type { Json } from './harness.js';
import { float64, int32, keysOf, number, numbers, shapeOf, tensor } from './tensors.js';

type Inputs = { [key: string]: Json };

function grid(inputs: Inputs): unknown {
  const found = gridRegret(number(inputs.theta, 'theta'), number(inputs.n, 'n'), number(inputs.grid, 'grid'));
  return {
    expected_regret: found.expected_regret_nats,
    ball_bound: found.ball_bound_nats,
    ball_eps: found.ball_radius_nats,
    jensen_bound: found.jensen_bound_nats,
  };
}

function ensemble(inputs: Inputs, wanted: Json): unknown {
  const [models, records, classes] = shapeOf(inputs.log_probs, 'log_probs');
  const logProbs = float64(inputs.log_probs, 'log_probs');
  const labels = int32(inputs.labels, 'labels');
  const prior = priorOf(models, float64(inputs.prior, 'prior')).weights;
  const losses = lossRecords(logProbs, labels, { models, classes });
  const mixture = createMixture(prior);
  const steps = Array.from({ length: records }, (_, t) =>
    mixture.observe(Float64Array.from({ length: models }, (_, m) => losses[m * records + t])),
  );
  const reference = number(inputs.reference, 'reference');
  const divergences = divergencesFrom(reference, logProbs, { models, records, classes });
  const profile = weightProfile(divergences, prior);
  const balls = numbers(inputs.eps, 'eps').map((eps) => ballOf(profile, eps, records));
  const best = regretBounds(profile, records);
  const bestIndex = mixture.totals.indexOf(Math.min(...mixture.totals));
  const betas = (
    keysOf(wanted).includes('tempered_posterior') ? keysOf((wanted as Inputs).tempered_posterior) : []
  ).map((key) => [key, tensor([models], temperedPosterior(prior, mixture.totals, Number(key.slice('beta_'.length))))]);
  return {
    log_loss: tensor([models, records], losses),
    posterior_final: tensor([models], mixture.posterior()),
    mixture_log_loss: tensor(
      [records],
      steps.map((step) => step.mixture),
    ),
    cumulative_mixture: mixture.total,
    regret: tensor(
      [models],
      mixture.totals.map((total) => mixture.total - total),
    ),
    regret_bound: tensor(
      [models],
      prior.map((weight) => -Math.log(weight)),
    ),
    kl_to_reference: tensor([models], divergences),
    ball_bounds: tensor(
      [balls.length, 4],
      balls.flatMap(({ radius_nats, weight, models: count, bound_nats }) => [radius_nats, weight, count, bound_nats]),
    ),
    best_bound: { value: best.ball_nats, eps: best.ball_radius_nats },
    effective_models: effectiveNumber(mixture.posterior()),
    tempered_posterior: Object.fromEntries(betas),
    uniform_average_log_loss: tensor(
      [records],
      steps.map((step) => step.average),
    ),
    best_single_cumulative: mixture.totals[bestIndex],
    best_single_index: bestIndex,
  };
}

export function run(inputs: Inputs, wanted: Json): unknown {
  return 'grid' in inputs ? grid(inputs) : ensemble(inputs, wanted);
}
