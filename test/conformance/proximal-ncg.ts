import { decayingCorrelation } from '../../src/regression/clusters.js';
import { kktResidual } from '../../src/regression/composite.js';
import { correlatedNormalEquations } from '../../src/regression/generalised-least-squares.js';
import { createPenalty } from '../../src/regression/penalty.js';
import {
  conjugateGradient,
  exactStep,
  hagerZhangWeight,
  proximalStep,
} from '../../src/regression/proximal-conjugate-gradient.js';
import { penalisedQuadratic, quadraticLipschitz } from '../../src/regression/quadratic.js';
import type { Json } from './harness.js';
import { float64, number, shapeOf, tensor } from './tensors.js';

export function run(inputs: { [key: string]: Json }): unknown {
  const [n, p] = shapeOf(inputs.X, 'X');
  const decay = /^([\d.]+)\^\|i-j\|$/.exec(String(inputs.correlation));
  if (decay === null) throw new TypeError(`correlation ${inputs.correlation} is not decay^|i-j|`);
  const correlation = decayingCorrelation(Number(decay[1]), n);
  const quadratic = correlatedNormalEquations(float64(inputs.X, 'X'), float64(inputs.y, 'y'), correlation, n);
  const penalised = new Uint8Array(p).fill(1);
  if (inputs.penalise_all !== true) penalised[0] = 0;
  const problem = penalisedQuadratic(quadratic, createPenalty('lasso', number(inputs.lambda, 'lambda')), penalised);
  const rho = number(inputs.rho, 'rho');
  const eta = number(inputs.eta, 'eta');
  const { x } = conjugateGradient(problem, { rho, eta, tolerance: 1e-12, maxIterations: 10_000 });
  const origin = new Float64Array(p);
  const first = proximalStep(problem, origin, rho);
  const direction = first.analogue.map((s) => -s);
  const step = exactStep(problem, origin, direction, first, rho, (at) => proximalStep(problem, at, rho));
  if (step === undefined) throw new TypeError('the first line search found no bracket');
  const weight = hagerZhangWeight(direction, first.analogue, step.next.analogue, eta);
  return {
    L: quadraticLipschitz(quadratic),
    minimiser: tensor([p], x),
    objective: kktResidual(problem, x).objective,
    first_gradient_analog_s0: tensor([p], first.analogue),
    first_exact_step_alpha0: step.alpha,
    x1: tensor([p], step.x),
    s1: tensor([p], step.next.analogue),
    hager_zhang_beta_after_first_step: weight?.beta,
    beta_lower_bound_eta_k: weight?.lowerBound,
    beta_used: weight?.used,
  };
}
