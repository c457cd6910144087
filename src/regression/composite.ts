import type { SmoothLoss } from './loss.js';
import { concaveDerivative, concavity, type Penalty, penaltyValue } from './penalty.js';

/** `F(x) = g(x) + sum_j levels[j] |x_j|` with smooth g: what the proximal methods minimise. */
export interface CompositeProblem {
  readonly size: number;
  /** Lipschitz constant of the gradient of g. */
  readonly lipschitz: number;
  /** Weight of |x_j|, `[size]`; 0 where a coefficient is free. */
  readonly levels: Float64Array;
  /** Writes the gradient of g at `x` into `out` and gives F(x). Counted as one gradient evaluation. */
  gradient(x: Float64Array, out: Float64Array): number;
}

/** Options of all three solvers. */
export interface SolverOptions {
  readonly tolerance: number;
  readonly maxIterations: number;
  /** First point; zeros when absent. */
  readonly start?: Float64Array;
  /** Told after every iteration: the point, F at the last gradient evaluation is not needed to be the same. */
  readonly onIteration?: (x: Float64Array, iteration: number, gradients: number) => void;
}

/** Where a solver ended. */
export interface Solution {
  readonly x: Float64Array;
  readonly iterations: number;
  readonly gradientEvaluations: number;
  readonly converged: boolean;
}

/** Defaults of every solver. */
export const DEFAULT_TOLERANCE = 1e-8;
export const DEFAULT_ITERATIONS = 10_000;

/** `sign(x) max(|x| - t, 0)`: the proximal map of t |x|. */
export function softThreshold(x: number, t: number): number {
  return x > t ? x - t : x < -t ? x + t : 0;
}

/**
 * A penalised loss with the intercept free, split into `lambda |x|` and the smooth rest (loss and concave part). Its
 * Lipschitz constant is the larger of the two parts': their curvatures have opposite signs.
 */
export function sparseProblem(loss: SmoothLoss, penalty: Penalty): CompositeProblem {
  const first = loss.intercept ? 1 : 0;
  const levels = new Float64Array(loss.size).fill(penalty.lambda, first);
  return {
    size: loss.size,
    lipschitz: Math.max(loss.lipschitz, concavity(penalty)),
    levels,
    gradient(x, out) {
      let value = loss.gradient(x, out);
      for (let j = first; j < x.length; j++) {
        value += penaltyValue(penalty, x[j]);
        out[j] += concaveDerivative(penalty, x[j]);
      }
      return value;
    },
  };
}

/**
 * Largest violation of the first-order conditions at x: `|g_j|` of free coefficients, `|g_j + level sign(x_j)|` of non-zero
 * ones, `max(0, |g_j| - level)` of zeros, with the objective.
 */
export function kktResidual(problem: CompositeProblem, x: Float64Array): { residual: number; objective: number } {
  const gradient = new Float64Array(problem.size);
  const objective = problem.gradient(x, gradient);
  let residual = 0;
  for (let j = 0; j < problem.size; j++) residual = Math.max(residual, violation(gradient[j], problem.levels[j], x[j]));
  return { residual, objective };
}

function violation(gradient: number, level: number, x: number): number {
  if (x !== 0) return Math.abs(gradient + level * Math.sign(x));
  return Math.max(0, Math.abs(gradient) - level);
}
