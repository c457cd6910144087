import { feedbackCoupling } from '../../src/quantization/block-coupling.js';
import { feedErrors, nearestBlocks } from '../../src/quantization/error-feedback.js';
import { jointGainLosses } from '../../src/quantization/gain-refit.js';
import { clearDeadInputs, factorHessian } from '../../src/quantization/hessian.js';
import { pyramidQuantizer } from '../../src/quantization/pyramid-quantizer.js';
import { hessianLosses, refitRowScales, timesFactor } from '../../src/quantization/refits.js';
import type { Json } from './harness.js';
import { float64, number, shapeOf, tensor } from './tensors.js';

const total = (values: Float64Array): number => values.reduce((sum, value) => sum + value, 0);

export function run(inputs: { [key: string]: Json }): unknown {
  const [rows, n] = shapeOf(inputs.W, 'W');
  const weights = float64(inputs.W, 'W');
  const shape = { groupLength: number(inputs.D, 'D'), pulses: number(inputs.K, 'K') };
  const factor = factorHessian(float64(inputs.H, 'H'), n, { tensor: 'W', damping: number(inputs.damp, 'damp') });
  clearDeadInputs(weights, rows, n, factor.deadInputs);
  const coupling = feedbackCoupling(factor, shape.groupLength, new Float64Array(n * n));
  const quantizer = pyramidQuantizer<Float64Array>(rows, n, shape);
  const { decoded } = feedErrors(weights, rows, coupling, quantizer);
  const plain = nearestBlocks(weights, rows, n, pyramidQuantizer<Float64Array>(rows, n, shape));
  const weightsR = timesFactor(weights, rows, factor);
  const rowScale = refitRowScales(
    weightsR,
    timesFactor(
      weights.map((w, i) => w - decoded[i]),
      rows,
      factor,
    ),
    rows,
    n,
  );
  const groups = quantizer.gains.length / rows;
  return {
    pulses: tensor([rows, quantizer.pulses.length / rows], quantizer.pulses, 'int32'),
    gains: tensor([rows, groups], quantizer.gains),
    W_hat: tensor([rows, n], decoded),
    loss_feedback: total(hessianLosses(weights, decoded, rows, factor)),
    loss_no_feedback: total(hessianLosses(weights, plain, rows, factor)),
    row_scale: tensor([rows], rowScale.factors),
    loss_row_scale: total(rowScale.after),
    loss_group_gain_refit: total(jointGainLosses(weightsR, rows, quantizer.pulses, shape.groupLength, factor)),
  };
}
