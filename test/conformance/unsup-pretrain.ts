import {
  fitFactorModel,
  leadingSpectrum,
  loadingsProduct,
  posteriorMeans,
} from '../../src/pretraining/factor-model.js';
import { assignComponents, majorityHead, runEm } from '../../src/pretraining/gaussian-mixture.js';
import { leastSquares, linearPredictions } from '../../src/pretraining/least-squares.js';
import { secondMomentOf } from '../../src/pretraining/moments.js';
import { errorRate, meanSquaredError } from '../../src/pretraining/risks.js';
import type { Json } from './harness.js';
import { float64, int32, keysOf, number, shapeOf, tensor } from './tensors.js';

/** Both compare with the loadings and the head that drew the data, which the cases do not hold. */
export const undetermined = ['test_mse_oracle_posterior', 'principal_angle_max_rad'];

function factorCase(inputs: { [key: string]: Json }): Record<string, unknown> {
  const unlabelled = float64(inputs.X_unlabelled, 'X_unlabelled');
  const labelled = float64(inputs.X_labelled, 'X_labelled');
  const test = float64(inputs.X_test, 'X_test');
  const y = float64(inputs.y_labelled, 'y_labelled');
  const yTest = float64(inputs.y_test, 'y_test');
  const [m, d] = shapeOf(inputs.X_unlabelled, 'X_unlabelled');
  const factors = number(inputs.latent_dim, 'latent_dim');
  const noise = typeof inputs.noise_variance === 'number' ? inputs.noise_variance : ('estimate' as const);
  const moment = secondMomentOf(unlabelled, m, d);
  const model = fitFactorModel(leadingSpectrum(moment, d, factors), factors, noise);
  const head = leastSquares(posteriorMeans(model, labelled, y.length), y, y.length, factors);
  const pretrained = linearPredictions(posteriorMeans(model, test, yTest.length), head, yTest.length);
  const supervised = linearPredictions(test, leastSquares(labelled, y, y.length, d), yTest.length);
  return {
    BBt: tensor([d, d], loadingsProduct(model)),
    loglik: m * model.logLikelihoodPerRow,
    test_predictions_pretrained: tensor([yTest.length], pretrained),
    test_mse_pretrained: meanSquaredError(pretrained, yTest),
    test_predictions_supervised_min_norm: tensor([yTest.length], supervised),
    test_mse_supervised: meanSquaredError(supervised, yTest),
  };
}

function mixtureCase(inputs: { [key: string]: Json }): Record<string, unknown> {
  const unlabelled = float64(inputs.X_unlabelled, 'X_unlabelled');
  const labelled = float64(inputs.X_labelled, 'X_labelled');
  const test = float64(inputs.X_test, 'X_test');
  const y = int32(inputs.y_labelled, 'y_labelled');
  const yTest = int32(inputs.y_test, 'y_test');
  const [m, d] = shapeOf(inputs.X_unlabelled, 'X_unlabelled');
  const K = number(inputs.K, 'K');
  const start = { means: float64(inputs.initial_means, 'initial_means'), components: K, dimension: d };
  const iterations = number(inputs.em_iterations, 'em_iterations');
  const fit = runEm(unlabelled, m, start, { iterations, tolerance: 0 });
  const assigned = assignComponents(fit, labelled, y.length);
  const classes = 1 + Math.max(...y, ...yTest);
  const head = majorityHead(assigned, y, K, classes);
  const predicted = assignComponents(fit, test, yTest.length).map((component) => head[component]);
  return {
    loglik_trajectory: fit.logLikelihoods,
    means: tensor([K, d], fit.means),
    cluster_of_labelled: tensor([y.length], assigned, 'int64'),
    class_of_cluster_majority: tensor([K], head, 'int64'),
    test_pred: tensor([yTest.length], predicted, 'int64'),
    test_error: errorRate(predicted, yTest),
  };
}

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const all = 'K' in inputs ? mixtureCase(inputs) : factorCase(inputs);
  return Object.fromEntries(keysOf(wanted).map((key) => [key, all[key]]));
}
