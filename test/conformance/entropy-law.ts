import { fitLaw, predictFromEarly } from '../../src/policy/law/law-fit.js';
import type { Json } from './harness.js';
import { float64, keysOf, number, tensor } from './tensors.js';

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const points = {
    entropy: float64(inputs.entropy, 'entropy'),
    performance: float64(inputs.performance, 'performance'),
  };
  const law = fitLaw(points);
  const early = predictFromEarly(points, number(inputs.m, 'm'), 0.9);
  const named: Record<string, unknown> = {
    a: law.a,
    b: law.b,
    rmse: law.rmse,
    r2: law.r2,
    ceiling: law.ceiling,
    early_a: early.fit.a,
    early_b: early.fit.b,
    early_ceiling: early.fit.ceiling,
    early_rmse: early.fit.rmse,
    early_r2: early.fit.r2,
    early_prediction: tensor([early.predicted.length], early.predicted),
    early_pred_rmse: early.rmse,
    early_pred_final_abs_err: early.finalAbsoluteError,
  };
  return Object.fromEntries(keysOf(wanted).map((key) => [key, named[key]]));
}
