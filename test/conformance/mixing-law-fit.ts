import { predictionOf } from '../../src/fusion/mixing/fidelity.js';
import { fitLinearLaw, fitLogLinearLaw, predictLinear, predictLosses } from '../../src/fusion/mixing/law-fit.js';
import { lawOptimum } from '../../src/fusion/mixing/law-optimum.js';
import type { Json } from './harness.js';
import { float64, keysOf, shapeOf, tensor } from './tensors.js';

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const mixtures = float64(inputs.mixtures, 'mixtures');
  const losses = float64(inputs.losses, 'losses');
  const [count, k] = shapeOf(inputs.mixtures, 'mixtures');
  const [, width] = shapeOf(inputs.losses, 'losses');
  const names = (length: number): string[] => Array.from({ length }, (_, j) => `group ${j}`);
  const sweep = { count, sources: names(k), evaluated: names(width), mixtures, losses };
  const law = fitLogLinearLaw(sweep, { seed: 0 });
  const predicted = predictLosses(law, mixtures);
  const fit = predictionOf(predicted, losses, width);
  const optimum = lawOptimum(law, { seed: 0 });
  const linear = fitLinearLaw(sweep);
  const named: Record<string, unknown> = {
    fit_mse: fit.mse,
    fit_r2: fit.r2,
    predicted: tensor([count, width], predicted),
    optimal_mixture: [...optimum.mixture],
    optimal_mean_loss: optimum.meanLoss,
    linear_law_A: tensor([k, width], linear.coefficients),
    linear_law_mse: predictionOf(predictLinear(linear, mixtures), losses, width).mse,
  };
  return Object.fromEntries(keysOf(wanted).map((key) => [key, named[key]]));
}
