import { acceleratedGradient } from './accelerated-gradient.js';
import { type CompositeProblem, kktResidual, type Solution } from './composite.js';
import { conjugateGradient, type LineSearch } from './proximal-conjugate-gradient.js';
import { proximalGradient } from './proximal-gradient.js';

/** Restarted accelerated proximal gradient, proximal conjugate gradient, plain proximal gradient. */
export type SolverName = 'ag' | 'ncg' | 'pg';

export const SOLVERS: readonly SolverName[] = ['ag', 'ncg', 'pg'];

export interface SolveOptions {
  readonly solver: SolverName;
  readonly lineSearch?: LineSearch;
  readonly tolerance: number;
  readonly maxIterations: number;
  readonly start?: Float64Array;
}

/** A solution with what proves it. */
export interface Solved extends Solution {
  readonly kktResidual: number;
  readonly objective: number;
}

/** The KKT residual that every solution is driven to, in units of the largest level (at least 1e-10). */
const KKT_SHARE = 1e-7;
/** How often the tolerance is tightened, tenfold each time. */
const TIGHTENINGS = 6;

/**
 * Minimises by the named solver. A small move does not prove a small KKT residual on an ill-conditioned problem: while the
 * residual is above 1e-7 of the largest level (or `tolerance`, where that is more), the solver goes on from where it
 * stands with a tenth of the tolerance, within the same limit of iterations.
 */
export function solve(problem: CompositeProblem, options: SolveOptions): Solved {
  const level = problem.levels.reduce((most, value) => Math.max(most, value), 0);
  const wanted = Math.max(options.tolerance, KKT_SHARE * level, 1e-10);
  let { start } = options;
  let iterations = 0;
  let gradientEvaluations = 0;
  for (let round = 0; ; round++) {
    const found = runSolver(problem, {
      ...options,
      start,
      tolerance: options.tolerance * 10 ** -round,
      maxIterations: options.maxIterations - iterations,
    });
    iterations += found.iterations;
    gradientEvaluations += found.gradientEvaluations;
    const { residual, objective } = kktResidual(problem, found.x);
    const exhausted = !found.converged || round === TIGHTENINGS || iterations >= options.maxIterations;
    if (residual <= wanted || exhausted) {
      return {
        x: found.x,
        iterations,
        gradientEvaluations,
        converged: residual <= wanted,
        kktResidual: residual,
        objective,
      };
    }
    start = found.x;
  }
}

function runSolver(problem: CompositeProblem, options: SolveOptions): Solution {
  if (options.solver === 'ncg') return conjugateGradient(problem, options);
  return options.solver === 'ag' ? acceleratedGradient(problem, options) : proximalGradient(problem, options);
}
