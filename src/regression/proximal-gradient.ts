import { STEP_SHARE } from './accelerated-gradient.js';
import { type CompositeProblem, type Solution, type SolverOptions, softThreshold } from './composite.js';

/** Plain proximal gradient: `x <- prox(x - step grad g(x))`, until no coefficient moves by `tolerance`. */
export function proximalGradient(problem: CompositeProblem, options: SolverOptions): Solution {
  const { size, levels } = problem;
  const step = STEP_SHARE / problem.lipschitz;
  const x = Float64Array.from(options.start ?? new Float64Array(size));
  const gradient = new Float64Array(size);
  for (let k = 1; k <= options.maxIterations; k++) {
    problem.gradient(x, gradient);
    let furthest = 0;
    for (let j = 0; j < size; j++) {
      const next = softThreshold(x[j] - step * gradient[j], step * levels[j]);
      const move = Math.abs(next - x[j]);
      if (move > furthest) furthest = move;
      x[j] = next;
    }
    options.onIteration?.(x, k, k);
    if (furthest < options.tolerance) return { x, iterations: k, gradientEvaluations: k, converged: true };
  }
  return { x, iterations: options.maxIterations, gradientEvaluations: options.maxIterations, converged: false };
}
