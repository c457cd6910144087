import { InputError } from '../errors.js';
import { kktResidual, sparseProblem } from './composite.js';
import type { SmoothLoss } from './loss.js';
import { type Penalty, withLambda } from './penalty.js';
import { type SolveOptions, solve } from './solve.js';

/** Coefficients that are not 0, by column. */
export interface SparseCoefficients {
  readonly columns: Int32Array;
  readonly values: Float64Array;
}

/** The solution at one lambda. */
export interface PathPoint {
  readonly lambda: number;
  readonly intercept: number;
  readonly coefficients: SparseCoefficients;
  readonly objective: number;
  /** The loss alone, without the penalty. */
  readonly loss: number;
  /** Over all columns, those that the strong rule had left out included. */
  readonly kktResidual: number;
  readonly iterations: number;
  readonly gradientEvaluations: number;
  readonly converged: boolean;
  /** Columns that entered the solver at last. */
  readonly screened: number;
  /** Columns that the strong rule had discarded and the check of the KKT conditions brought back. */
  readonly returned: number;
}

export const DEFAULT_PATH_LENGTH = 100;

/**
 * The least lambda at which all penalised coefficients are 0: the largest `|gradient_j|` at the best intercept. For the
 * linear loss that is max |X_j' y| / n with X and y centred.
 */
export function largestLambda(loss: SmoothLoss, options: SolveOptions): number {
  const none = interceptOnly(loss, options);
  const gradient = new Float64Array(loss.size);
  loss.gradient(none, gradient);
  return gradient.reduce((most, value, j) => (loss.intercept && j === 0 ? most : Math.max(most, Math.abs(value))), 0);
}

/** Coefficients with the best intercept and nothing else. */
function interceptOnly(loss: SmoothLoss, options: SolveOptions): Float64Array {
  const b = new Float64Array(loss.size);
  if (!loss.intercept) return b;
  const alone = loss.restrictedTo(new Int32Array(0));
  const problem = { size: 1, lipschitz: alone.lipschitz, levels: new Float64Array(1), gradient: alone.gradient };
  b[0] = solve(problem, { ...options, solver: 'ag', tolerance: 1e-14, start: undefined }).x[0];
  return b;
}

/**
 * `count` values from `largest` down to `largest * ratio`, equally far apart in logarithm.
 * @throws InputError when no column has anything to do with the outcome
 */
export function lambdaSequence(largest: number, count = DEFAULT_PATH_LENGTH, ratio = 1e-3): Float64Array {
  if (!(largest > 0)) throw new InputError('every column is uncorrelated with the outcome: there is nothing to select');
  if (count === 1) return new Float64Array([largest * ratio]);
  return Float64Array.from({ length: count }, (_, i) => largest * ratio ** (i / (count - 1)));
}

/** What the solutions start from: the one before on the path, or zeros each time. */
export type PathStart = 'path' | 'zeros';

export interface PathOptions extends SolveOptions {
  readonly from: PathStart;
  /** Whether columns are discarded by the sequential strong rule before the KKT conditions are checked for all. */
  readonly strongRule: boolean;
  readonly onPoint?: (index: number) => void;
}

/**
 * Solutions along descending lambdas. Sequential strong rule (Tibshirani et al. 2012): column j is left out when its
 * gradient at the solution before is below `2 lambda - lambda_before`; then the KKT conditions of all columns are checked,
 * violators enter and the problem is solved again, until none is left.
 * @param penalty its lambda is replaced by each of `lambdas`
 */
export function solvePath(
  loss: SmoothLoss,
  penalty: Penalty,
  lambdas: Float64Array,
  options: PathOptions,
): PathPoint[] {
  const first = loss.intercept ? 1 : 0;
  const columns = loss.size - first;
  const gradient = new Float64Array(loss.size);
  let b = interceptOnly(loss, options);
  const origin = Float64Array.from(b);
  loss.gradient(b, gradient);
  let before = lambdas.length > 0 ? largestEntry(gradient, first) : 0;
  const points: PathPoint[] = [];
  lambdas.forEach((lambda, index) => {
    const current = withLambda(penalty, lambda);
    const inside = new Uint8Array(columns);
    for (let j = 0; j < columns; j++) {
      const keep = !options.strongRule || b[first + j] !== 0 || Math.abs(gradient[first + j]) >= 2 * lambda - before;
      inside[j] = keep ? 1 : 0;
    }
    let start = options.from === 'path' ? b : origin;
    let iterations = 0;
    let gradientEvaluations = 0;
    let returned = 0;
    for (;;) {
      const members = membersOf(inside);
      const problem = sparseProblem(members.length === columns ? loss : loss.restrictedTo(members), current);
      const restricted = gather(start, members, first);
      const found = solve(problem, { ...options, start: restricted });
      iterations += found.iterations;
      gradientEvaluations += found.gradientEvaluations;
      const full = scatter(found.x, members, first, loss.size);
      const lossValue = loss.gradient(full, gradient);
      let violators = 0;
      for (let j = 0; j < columns; j++) {
        if (inside[j] !== 0 || Math.abs(gradient[first + j]) <= lambda * (1 + 1e-9)) continue;
        inside[j] = 1;
        violators++;
      }
      start = full;
      if (violators > 0) {
        returned += violators;
        continue;
      }
      b = full;
      const { residual, objective } = kktResidual(sparseProblem(loss, current), full);
      points.push({
        lambda,
        intercept: first === 1 ? full[0] : 0,
        coefficients: sparse(full, first),
        objective,
        loss: lossValue,
        kktResidual: residual,
        iterations,
        gradientEvaluations,
        converged: found.converged,
        screened: members.length,
        returned,
      });
      break;
    }
    before = lambda;
    options.onPoint?.(index);
  });
  return points;
}

function largestEntry(gradient: Float64Array, first: number): number {
  let most = 0;
  for (let j = first; j < gradient.length; j++) most = Math.max(most, Math.abs(gradient[j]));
  return most;
}

function membersOf(inside: Uint8Array): Int32Array {
  const members: number[] = [];
  for (let j = 0; j < inside.length; j++) if (inside[j] !== 0) members.push(j);
  return Int32Array.from(members);
}

function gather(full: Float64Array, members: Int32Array, first: number): Float64Array {
  const part = new Float64Array(members.length + first);
  if (first === 1) part[0] = full[0];
  for (let k = 0; k < members.length; k++) part[first + k] = full[first + members[k]];
  return part;
}

function scatter(part: Float64Array, members: Int32Array, first: number, size: number): Float64Array {
  const full = new Float64Array(size);
  if (first === 1) full[0] = part[0];
  for (let k = 0; k < members.length; k++) full[first + members[k]] = part[first + k];
  return full;
}

function sparse(full: Float64Array, first: number): SparseCoefficients {
  const columns: number[] = [];
  for (let j = first; j < full.length; j++) if (full[j] !== 0) columns.push(j - first);
  return { columns: Int32Array.from(columns), values: Float64Array.from(columns, (j) => full[first + j]) };
}
