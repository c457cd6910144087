import { acceleratedGradient } from '../../src/regression/accelerated-gradient.js';
import { kktResidual, sparseProblem } from '../../src/regression/composite.js';
import { createLoss } from '../../src/regression/loss.js';
import { largestLambda } from '../../src/regression/path.js';
import { createPenalty, type PenaltyKind, penaltyValue } from '../../src/regression/penalty.js';
import { proximalGradient } from '../../src/regression/proximal-gradient.js';
import { designOf } from '../../src/regression/standardise.js';
import type { Json } from './harness.js';
import { float64, keysOf, number, shapeOf, tensor } from './tensors.js';

/** The points at which the penalties are tabulated, with lambda 1. */
const GRID = Float64Array.from({ length: 21 }, (_, i) => -5 + 0.5 * i);
const GRID_LAMBDA = 1;
const CLOSE = { tolerance: 1e-13, maxIterations: 1_000_000 };

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const [rows, columns] = shapeOf(inputs.X_without_intercept, 'X_without_intercept');
  const design = designOf(float64(inputs.X_without_intercept, 'X_without_intercept'), rows, columns);
  const loss = createLoss('linear', design, float64(inputs.y, 'y'));
  const lambda = number(inputs.lambda, 'lambda');
  const a = number(inputs.a, 'a');
  const gamma = number(inputs.gamma, 'gamma');
  const solution = (kind: PenaltyKind, keys: Json): Record<string, unknown> => {
    const problem = sparseProblem(loss, createPenalty(kind, lambda, a, gamma));
    const { x } = acceleratedGradient(problem, CLOSE);
    const plain = proximalGradient(problem, CLOSE).x;
    const { residual, objective } = kktResidual(problem, x);
    const named: Record<string, unknown> = {
      beta_stationary: tensor([x.length], x),
      objective,
      kkt_residual: residual,
      agrees_with_plain_proximal_gradient_max_abs_diff: Math.max(...x.map((value, j) => Math.abs(value - plain[j]))),
      lipschitz_L: problem.lipschitz,
      support: Array.from(x.keys()).filter((j) => j > 0 && x[j] !== 0),
    };
    for (const key of keysOf(keys)) {
      const loose = /^(iterations|beta)_tol(.+)$/.exec(key);
      if (loose === null) continue;
      const early = acceleratedGradient(problem, { ...CLOSE, tolerance: Number(loose[2]) });
      named[key] = loose[1] === 'beta' ? tensor([early.x.length], early.x) : early.iterations;
    }
    return named;
  };
  const grid = (kind: PenaltyKind): unknown => {
    const penalty = createPenalty(kind, GRID_LAMBDA, a, gamma);
    return tensor(
      [GRID.length],
      GRID.map((x) => penaltyValue(penalty, x)),
    );
  };
  const { scad, mcp } = wanted as { scad: Json; mcp: Json };
  return {
    lambda_max: largestLambda(loss, { solver: 'ag', ...CLOSE }),
    scad: solution('scad', scad),
    mcp: solution('mcp', mcp),
    penalty_grid: { x: tensor([GRID.length], GRID), scad: grid('scad'), mcp: grid('mcp'), lambda: GRID_LAMBDA },
  };
}
