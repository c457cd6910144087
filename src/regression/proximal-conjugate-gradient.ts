import { brentRoot } from '../linalg/brent.js';
import { type CompositeProblem, type Solution, type SolverOptions, softThreshold } from './composite.js';

export type LineSearch = 'exact' | 'wolfe';

export interface ConjugateGradientOptions extends SolverOptions {
  /** Step of the proximal map, in (0, 1/L); default 0.9 / L. */
  readonly rho?: number;
  /** eta of Hager & Zhang's lower bound of beta; default 0.01. */
  readonly eta?: number;
  readonly lineSearch?: LineSearch;
}

export const DEFAULT_RHO_SHARE = 0.9;
export const DEFAULT_ETA = 0.01;
/** Doublings of the first bracket; without a change of sign the direction is given up. */
const DOUBLINGS = 30;
/** Wolfe's constants, as Hager & Zhang (2005) choose them. */
const DECREASE = 0.1;
const CURVATURE = 0.9;
const LEAST_COSINE = 1e-14;

/** The point p = prox(x - rho grad g(x)) and the gradient analogue s = x - p at some x. */
export interface ProximalStep {
  readonly point: Float64Array;
  readonly analogue: Float64Array;
  /** F(x) as the problem gave it. */
  readonly objective: number;
  readonly gradient: Float64Array;
}

/** `s(x) = x - prox_{rho h}(x - rho grad g(x))`, which is 0 at stationary points alone. */
export function proximalStep(problem: CompositeProblem, x: Float64Array, rho: number): ProximalStep {
  const gradient = new Float64Array(problem.size);
  const objective = problem.gradient(x, gradient);
  const point = new Float64Array(problem.size);
  const analogue = new Float64Array(problem.size);
  for (let j = 0; j < problem.size; j++) {
    point[j] = softThreshold(x[j] - rho * gradient[j], rho * problem.levels[j]);
    analogue[j] = x[j] - point[j];
  }
  return { point, analogue, objective, gradient };
}

/** beta of Hager & Zhang with its lower bound; undefined where the direction must be given up. */
export interface ConjugateWeight {
  readonly beta: number;
  readonly lowerBound: number;
  readonly used: number;
}

/**
 * `beta = <y - 2 d |y|^2 / <d, y>, s'> / <d, y>` with y = s' - s, bounded below by `-1 / (|d| min(eta, |s|))`.
 * Undefined when `<d, y> <= 1e-14 |d| |y|`.
 */
export function hagerZhangWeight(
  direction: Float64Array,
  before: Float64Array,
  after: Float64Array,
  eta = DEFAULT_ETA,
): ConjugateWeight | undefined {
  let dy = 0;
  let yy = 0;
  let dd = 0;
  let ss = 0;
  let ys = 0;
  let ds = 0;
  for (let j = 0; j < direction.length; j++) {
    const y = after[j] - before[j];
    dy += direction[j] * y;
    yy += y * y;
    dd += direction[j] * direction[j];
    ss += before[j] * before[j];
    ys += y * after[j];
    ds += direction[j] * after[j];
  }
  if (!(dy > LEAST_COSINE * Math.sqrt(dd) * Math.sqrt(yy))) return undefined;
  const beta = (ys - (2 * yy * ds) / dy) / dy;
  const lowerBound = -1 / (Math.sqrt(dd) * Math.min(eta, Math.sqrt(ss)));
  return { beta, lowerBound, used: Math.max(beta, lowerBound) };
}

const dot = (a: Float64Array, b: Float64Array): number => {
  let sum = 0;
  for (let j = 0; j < a.length; j++) sum += a[j] * b[j];
  return sum;
};

const largest = (a: Float64Array): number => a.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

interface Step {
  readonly alpha: number;
  readonly x: Float64Array;
  readonly next: ProximalStep;
}

/**
 * Proximal conjugate gradient of Hager & Zhang's kind (Yang, "robust and efficient high-dimensional statistics"): the
 * gradient analogue s(x) takes the place of the gradient. Ends when `|s|_inf / rho < tolerance`; the result is the
 * sparse point prox(x - rho grad g(x)).
 */
export function conjugateGradient(problem: CompositeProblem, options: ConjugateGradientOptions): Solution {
  const rho = options.rho ?? DEFAULT_RHO_SHARE / problem.lipschitz;
  const { eta = DEFAULT_ETA, lineSearch = 'exact' } = options;
  let gradients = 0;
  const stepAt = (x: Float64Array): ProximalStep => {
    gradients++;
    return proximalStep(problem, x, rho);
  };
  let x = Float64Array.from(options.start ?? new Float64Array(problem.size));
  let current = stepAt(x);
  let direction = current.analogue.map((s) => -s);
  const search = lineSearch === 'exact' ? exactStep : wolfeStep;
  for (let k = 1; k <= options.maxIterations; k++) {
    if (largest(current.analogue) / rho < options.tolerance) {
      return { x: current.point, iterations: k - 1, gradientEvaluations: gradients, converged: true };
    }
    let step = search(problem, x, direction, current, rho, stepAt);
    if (step === undefined) {
      direction = current.analogue.map((s) => -s);
      // A plain proximal step never fails to descend.
      step = search(problem, x, direction, current, rho, stepAt) ?? {
        alpha: 1,
        x: Float64Array.from(current.point),
        next: stepAt(current.point),
      };
    }
    const weight = hagerZhangWeight(direction, current.analogue, step.next.analogue, eta);
    const used = weight?.used ?? 0;
    for (let j = 0; j < direction.length; j++) direction[j] = -step.next.analogue[j] + used * direction[j];
    x = Float64Array.from(step.x);
    current = step.next;
    options.onIteration?.(current.point, k, gradients);
  }
  const converged = largest(current.analogue) / rho < options.tolerance;
  return { x: current.point, iterations: options.maxIterations, gradientEvaluations: gradients, converged };
}

function moved(x: Float64Array, direction: Float64Array, alpha: number): Float64Array {
  return x.map((value, j) => value + alpha * direction[j]);
}

/**
 * The root of `<s(x + alpha d), d>` on a bracket doubled from 1 (Brent). Undefined when d is no descent direction, or
 * when no bracket is found.
 */
export function exactStep(
  _problem: CompositeProblem,
  x: Float64Array,
  direction: Float64Array,
  current: ProximalStep,
  _rho: number,
  stepAt: (x: Float64Array) => ProximalStep,
): Step | undefined {
  const atZero = dot(current.analogue, direction);
  if (!(atZero < 0)) return undefined;
  let last: Step | undefined;
  const slope = (alpha: number): number => {
    const at = moved(x, direction, alpha);
    last = { alpha, x: at, next: stepAt(at) };
    return dot(last.next.analogue, direction);
  };
  let low = 0;
  let lowValue = atZero;
  let high = 1;
  let highValue = slope(high);
  for (let i = 0; highValue < 0 && i < DOUBLINGS; i++) {
    low = high;
    lowValue = highValue;
    high *= 2;
    highValue = slope(high);
  }
  if (!(highValue >= 0)) return undefined;
  const root = brentRoot(slope, low, high, 1e-10 * high, lowValue, highValue);
  if (root === undefined) return undefined;
  if (last?.alpha !== root.x) slope(root.x);
  return last;
}

/** The forward-backward envelope of F at x, from its proximal step. */
function envelope(problem: CompositeProblem, x: Float64Array, step: ProximalStep, rho: number): number {
  let value = step.objective;
  for (let j = 0; j < x.length; j++) {
    const away = step.point[j] - x[j];
    const { levels } = problem;
    value += away * (step.gradient[j] + away / (2 * rho)) + levels[j] * (Math.abs(step.point[j]) - Math.abs(x[j]));
  }
  return value;
}

/**
 * A step by Wolfe's conditions on the forward-backward envelope `g(x) + <grad g, p - x> + |p - x|^2 / 2 rho + h(p)`, with
 * s / rho in the place of its gradient, by bisection of a doubled bracket.
 */
export function wolfeStep(
  problem: CompositeProblem,
  x: Float64Array,
  direction: Float64Array,
  current: ProximalStep,
  rho: number,
  stepAt: (x: Float64Array) => ProximalStep,
): Step | undefined {
  const slope = dot(current.analogue, direction) / rho;
  if (!(slope < 0)) return undefined;
  const value = envelope(problem, x, current, rho);
  let low = 0;
  let high = Number.POSITIVE_INFINITY;
  let alpha = 1;
  let best: Step | undefined;
  for (let i = 0; i < DOUBLINGS + 10; i++) {
    const at = moved(x, direction, alpha);
    const next = stepAt(at);
    const reached = envelope(problem, at, next, rho);
    // Rounding of the envelope hides decreases below this.
    const rounding = 1e-15 * Math.abs(value);
    if (reached > value + DECREASE * alpha * slope * (1 - DEFAULT_RHO_SHARE) + rounding) high = alpha;
    else {
      best = { alpha, x: at, next };
      if (dot(next.analogue, direction) / rho >= CURVATURE * slope) return best;
      low = alpha;
    }
    alpha = Number.isFinite(high) ? 0.5 * (low + high) : 2 * low;
  }
  return best;
}
