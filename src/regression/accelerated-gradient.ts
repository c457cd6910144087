import { type CompositeProblem, type Solution, type SolverOptions, softThreshold } from './composite.js';

/** Part of 1 / L that a step takes. */
export const STEP_SHARE = 0.99;
/** Iterations between restarts, and before the first test for convergence. */
const LEAST_ITERATIONS = 3;

/**
 * Restarted accelerated proximal gradient for convex and folded concave penalties (Ghadimi & Lan's method with the
 * momentum restarted when the speed falls: Yang, "Accelerated gradient methods for sparse statistical learning with
 * nonconvex penalties"). Ends when the point moves less than `tolerance` in every coefficient.
 */
export function acceleratedGradient(problem: CompositeProblem, options: SolverOptions): Solution {
  const { size, levels } = problem;
  const step = STEP_SHARE / problem.lipschitz;
  const start = options.start ?? new Float64Array(size);
  const b = Float64Array.from(start);
  const aggregate = Float64Array.from(start);
  let middle: Float64Array = Float64Array.from(start);
  let before: Float64Array = new Float64Array(size);
  const gradient = new Float64Array(size);
  let alpha = 1;
  let speed = Number.POSITIVE_INFINITY;
  let speedBefore = Number.NEGATIVE_INFINITY;
  let restart = 0;
  for (let k = 1; k <= options.maxIterations; k++) {
    if (speedBefore > speed && k - restart >= LEAST_ITERATIONS) {
      alpha = 1;
      restart = k;
    } else {
      alpha = 2 / (1 + Math.sqrt(1 + 4 / (alpha * alpha)));
    }
    [before, middle] = [middle, before];
    let squares = 0;
    let furthest = 0;
    for (let j = 0; j < size; j++) {
      middle[j] = (1 - alpha) * aggregate[j] + alpha * b[j];
      const move = Math.abs(middle[j] - before[j]);
      squares += move * move;
      if (move > furthest) furthest = move;
    }
    speedBefore = speed;
    speed = Math.sqrt(squares);
    if (k >= LEAST_ITERATIONS && furthest < options.tolerance) {
      return { x: middle, iterations: k, gradientEvaluations: k - 1, converged: true };
    }
    problem.gradient(middle, gradient);
    const long = step / alpha;
    for (let j = 0; j < size; j++) {
      b[j] = softThreshold(b[j] - long * gradient[j], long * levels[j]);
      aggregate[j] = softThreshold(middle[j] - step * gradient[j], step * levels[j]);
    }
    options.onIteration?.(aggregate, k, k);
  }
  return { x: middle, iterations: options.maxIterations, gradientEvaluations: options.maxIterations, converged: false };
}
