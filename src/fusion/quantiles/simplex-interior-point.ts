import { symmetricRankK } from '../../kernels/gemm.js';
import { cholesky, choleskySolve } from '../../linalg/cholesky.js';

/**
 * minimise over w   linear . w + sum_i rho_{tau_i}(r_i),   r = D w
 * on the simplex (w >= 0, sum w = 1), where D [rows, columns] holds differences y_i - z_ik. With `targets` the weights
 * are free instead, D holds z, and r = y - D w.
 */
export interface PinballProgram {
  /** Row-major `[rows, columns]`. */
  readonly design: Float64Array;
  readonly rows: number;
  readonly columns: number;
  /** tau of every row. */
  readonly levels: Float64Array;
  readonly linear: Float64Array;
  /** With free weights: y of every row. */
  readonly targets?: Float64Array;
}

export interface PinballSolution {
  readonly weights: Float64Array;
  /** a_i in [tau_i - 1, tau_i]: the dual of the residuals, strictly feasible. */
  readonly dual: Float64Array;
  readonly iterations: number;
  /** The largest of the complementarity gap and the violations of the constraints, over 1 + |objective|. */
  readonly error: number;
}

const MOST_ITERATIONS = 100;
/** Iterations without a smaller error after which rounding has the last word. */
const MOST_STALE = 8;
const STEP_SHARE = 0.9995;
/** Slacks never reach 0. */
const TINY = 1e-300;

/**
 * Everything that an iteration knows. Residuals are u - v with u, v >= 0; the dual a has the slacks upper = tau - a and
 * lower = 1 - tau + a, which are exact; s are the reduced costs of the weights, lambda the price of their sum.
 */
interface State {
  readonly program: PinballProgram;
  readonly free: boolean;
  /** r = base + sign D w. */
  readonly sign: 1 | -1;
  readonly base: Float64Array;
  readonly w: Float64Array;
  readonly s: Float64Array;
  readonly u: Float64Array;
  readonly v: Float64Array;
  readonly a: Float64Array;
  readonly upper: Float64Array;
  readonly lower: Float64Array;
  lambda: number;
  /** Violations: r - (u - v), stationarity of the weights, and the sum of the weights. */
  readonly primalError: Float64Array;
  readonly dualError: Float64Array;
  total: number;
  /** Mean complementarity product. */
  mu: number;
}

/** A direction; `du` to `dLower` belong to the state's vectors. */
interface Direction {
  readonly dw: Float64Array;
  readonly ds: Float64Array;
  readonly du: Float64Array;
  readonly dv: Float64Array;
  readonly da: Float64Array;
  dLambda: number;
}

/** The factored system of an iteration: S/W + D^T Theta D, Theta = 1 / (u / upper + v / lower). */
interface Factored {
  readonly theta: Float64Array;
  readonly factor: Float64Array;
  /** Its solution for a right-hand side of ones, on the simplex. */
  readonly ones: Float64Array | undefined;
}

/** result = D x */
function timesDesign({ design, rows, columns }: PinballProgram, x: Float64Array, result: Float64Array): void {
  for (let i = 0; i < rows; i++) {
    let sum = 0;
    for (let k = 0, at = i * columns; k < columns; k++, at++) sum += design[at] * x[k];
    result[i] = sum;
  }
}

/** result = D^T x */
function timesTransposed({ design, rows, columns }: PinballProgram, x: Float64Array, result: Float64Array): void {
  result.fill(0);
  for (let i = 0; i < rows; i++) {
    const factor = x[i];
    for (let k = 0, at = i * columns; k < columns; k++, at++) result[k] += factor * design[at];
  }
}

/**
 * Mehrotra's predictor-corrector method on a pinball program. Each iteration solves one system of the size of the
 * weights (the Frisch-Newton method of Portnoy & Koenker 1997, with a simplex beside the box).
 * @param tolerance error at which it stops
 */
export function solvePinballProgram(program: PinballProgram, tolerance = 1e-11, threads = 1): PinballSolution {
  const { rows: n, columns: p } = program;
  const state = startingPoint(program);
  const scaled = new Float64Array(n * p);
  const direction: Direction = {
    dw: new Float64Array(p),
    ds: new Float64Array(p),
    du: new Float64Array(n),
    dv: new Float64Array(n),
    da: new Float64Array(n),
    dLambda: 0,
  };
  let best: PinballSolution = measured(state, 0);
  for (let iteration = 1; iteration <= MOST_ITERATIONS && best.error >= tolerance; iteration++) {
    const system = factoredSystem(state, scaled, threads);
    if (system === undefined) break;
    findDirection(state, system, direction, 0, false);
    const target = state.mu * (affineMu(state, direction) / state.mu) ** 3;
    findDirection(state, system, direction, target, true);
    move(state, direction);
    const now = measured(state, iteration);
    // Rounding may spoil the constraints of degenerate programs while complementarity goes on falling.
    if (now.error < best.error) best = now;
    else if (iteration - best.iterations > MOST_STALE || Number.isNaN(now.error)) break;
  }
  return best;
}

/** Equal weights (zero where they are free), the middle of the box, slacks of the size of the residuals. */
function startingPoint(program: PinballProgram): State {
  const { rows: n, columns: p, levels, linear, targets } = program;
  const free = targets !== undefined;
  const sign = free ? -1 : 1;
  const base = targets ?? new Float64Array(n);
  const w = new Float64Array(p).fill(free ? 0 : 1 / p);
  const residual = new Float64Array(n);
  timesDesign(program, w, residual);
  let size = 0;
  for (let i = 0; i < n; i++) {
    residual[i] = base[i] + sign * residual[i];
    size += Math.abs(residual[i]) / n;
  }
  const shift = Math.max(1e-8, 0.1 * size);
  const a = levels.map((level) => level - 0.5);
  const reduced = new Float64Array(p);
  timesTransposed(program, a, reduced);
  let least = Number.POSITIVE_INFINITY;
  let sum = 0;
  for (let k = 0; k < p; k++) {
    reduced[k] = linear[k] + sign * reduced[k];
    least = Math.min(least, reduced[k]);
    sum += reduced[k];
  }
  const lambda = least - Math.max(1e-8, 0.1 * (sum / p - least), 1e-3 * size * Math.sqrt(n));
  return {
    ...{ program, free, sign, base, w, a },
    s: reduced.map((cost) => cost - lambda),
    u: residual.map((value) => Math.max(0, value) + shift),
    v: residual.map((value) => Math.max(0, -value) + shift),
    upper: levels.map((level, i) => level - a[i]),
    lower: levels.map((level, i) => 1 - level + a[i]),
    lambda: free ? 0 : lambda,
    primalError: new Float64Array(n),
    dualError: new Float64Array(p),
    total: 1,
    mu: 0,
  };
}

const products = ({ free, program }: State): number => 2 * program.rows + (free ? 0 : program.columns);

/** Brings the violations up to date and gives the point with its error. */
function measured(state: State, iterations: number): PinballSolution {
  const { program, free, sign, base, w, s, u, v, a, upper, lower, primalError, dualError } = state;
  const { rows: n, columns: p, levels, linear } = program;
  timesDesign(program, w, primalError);
  timesTransposed(program, a, dualError);
  let [objective, gap, worst, total] = [0, 0, 0, 0];
  for (let i = 0; i < n; i++) {
    const residual = base[i] + sign * primalError[i];
    objective += residual >= 0 ? levels[i] * residual : (levels[i] - 1) * residual;
    primalError[i] = residual - u[i] + v[i];
    gap += u[i] * upper[i] + v[i] * lower[i];
    worst = Math.max(worst, Math.abs(primalError[i]));
  }
  for (let k = 0; k < p; k++) {
    objective += linear[k] * w[k];
    dualError[k] = linear[k] + sign * dualError[k] - (free ? 0 : state.lambda + s[k]);
    if (!free) gap += w[k] * s[k];
    worst = Math.max(worst, Math.abs(dualError[k]));
    total += w[k];
  }
  state.total = total;
  state.mu = gap / products(state);
  const error = Math.max(
    gap / (1 + Math.abs(objective)),
    worst / (1 + Math.abs(objective)),
    free ? 0 : Math.abs(1 - total),
  );
  return { weights: w.slice(), dual: a.slice(), iterations, error };
}

function factoredSystem(state: State, scaled: Float64Array, threads: number): Factored | undefined {
  const { program, free, w, s, u, v, upper, lower } = state;
  const { design, rows: n, columns: p } = program;
  const theta = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    theta[i] = 1 / (u[i] / upper[i] + v[i] / lower[i]);
    const root = Math.sqrt(theta[i]);
    for (let k = 0, at = i * p; k < p; k++, at++) scaled[at] = root * design[at];
  }
  const system = symmetricRankK(scaled, new Float64Array(p * p), { n: p, k: n }, { transpose: true, threads });
  let trace = 0;
  for (let k = 0; k < p; k++) {
    if (!free) system[k * p + k] += s[k] / w[k];
    trace += system[k * p + k];
  }
  let factor = cholesky(system, p);
  for (let ridge = 1e-15; factor === undefined && ridge < 1e-6; ridge *= 10) {
    for (let k = 0; k < p; k++) system[k * p + k] += ridge * trace;
    factor = cholesky(system, p);
  }
  if (factor === undefined) return undefined;
  return { theta, factor, ones: free ? undefined : choleskySolve(factor, p, new Float64Array(p).fill(1)) };
}

/**
 * The Newton direction towards complementarity products of `target`.
 * @param direction overwritten; with `corrected` the products of the direction that it holds are taken into account
 */
function findDirection(
  state: State,
  { theta, factor, ones }: Factored,
  direction: Direction,
  target: number,
  corrected: boolean,
): void {
  const { program, free, sign, w, s, u, v, upper, lower, primalError, dualError } = state;
  const { rows: n, columns: p } = program;
  const { dw, ds, du, dv, da } = direction;
  const h = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    // dUpper = -da and dLower = da.
    const ru = target - u[i] * upper[i] + (corrected ? du[i] * da[i] : 0);
    const rv = target - v[i] * lower[i] - (corrected ? dv[i] * da[i] : 0);
    h[i] = primalError[i] - ru / upper[i] + rv / lower[i];
    du[i] = ru;
    dv[i] = rv;
    da[i] = h[i] * theta[i];
  }
  const right = new Float64Array(p);
  timesTransposed(program, da, right);
  for (let k = 0; k < p; k++) {
    const rw = free ? 0 : (target - w[k] * s[k] - (corrected ? dw[k] * ds[k] : 0)) / w[k];
    right[k] = rw - dualError[k] - sign * right[k];
    ds[k] = rw;
  }
  const solved = choleskySolve(factor, p, right);
  direction.dLambda = 0;
  if (ones) {
    const sum = (values: Float64Array): number => values.reduce((total, value) => total + value, 0);
    direction.dLambda = (1 - state.total - sum(solved)) / sum(ones);
  }
  for (let k = 0; k < p; k++) {
    dw[k] = solved[k] + (ones ? direction.dLambda * ones[k] : 0);
    if (!free) ds[k] -= (s[k] / w[k]) * dw[k];
  }
  timesDesign(program, dw, da);
  for (let i = 0; i < n; i++) {
    da[i] = (h[i] + sign * da[i]) * theta[i];
    du[i] = (du[i] + u[i] * da[i]) / upper[i];
    dv[i] = (dv[i] - v[i] * da[i]) / lower[i];
  }
}

/** Largest step up to `most` along which `x + step sign dx` stays positive. */
function stepLength(x: Float64Array, dx: Float64Array, sign: 1 | -1, most: number): number {
  let step = most;
  for (let i = 0; i < x.length; i++) if (sign * dx[i] < 0) step = Math.min(step, -x[i] / (sign * dx[i]));
  return step;
}

/** Primal and dual steps to the boundary, at most 1. */
function stepLengths(state: State, { dw, ds, du, dv, da }: Direction): readonly [number, number] {
  const { free, w, s, u, v, upper, lower } = state;
  const primal = stepLength(v, dv, 1, stepLength(u, du, 1, 1));
  const dual = stepLength(lower, da, 1, stepLength(upper, da, -1, 1));
  if (free) return [primal, dual];
  return [stepLength(w, dw, 1, primal), stepLength(s, ds, 1, dual)];
}

/** Mean complementarity product behind a full step to the boundary. */
function affineMu(state: State, direction: Direction): number {
  const { free, w, s, u, v, upper, lower } = state;
  const { dw, ds, du, dv, da } = direction;
  const [primal, dual] = stepLengths(state, direction);
  let sum = 0;
  for (let i = 0; i < u.length; i++) {
    sum += (u[i] + primal * du[i]) * (upper[i] - dual * da[i]) + (v[i] + primal * dv[i]) * (lower[i] + dual * da[i]);
  }
  if (!free) for (let k = 0; k < w.length; k++) sum += (w[k] + primal * dw[k]) * (s[k] + dual * ds[k]);
  return sum / products(state);
}

/** Goes a little less far than the boundary. */
function move(state: State, direction: Direction): void {
  const { program, free, w, s, u, v, a, upper, lower } = state;
  const { dw, ds, du, dv, da, dLambda } = direction;
  const [primal, dual] = stepLengths(state, direction).map((step) => (step === 1 ? 1 : STEP_SHARE * step));
  for (let i = 0; i < u.length; i++) {
    u[i] = Math.max(TINY, u[i] + primal * du[i]);
    v[i] = Math.max(TINY, v[i] + primal * dv[i]);
    a[i] += dual * da[i];
    upper[i] = Math.max(TINY, program.levels[i] - a[i]);
    lower[i] = Math.max(TINY, 1 - program.levels[i] + a[i]);
  }
  for (let k = 0; k < w.length; k++) {
    w[k] += primal * dw[k];
    if (free) continue;
    w[k] = Math.max(TINY, w[k]);
    s[k] = Math.max(TINY, s[k] + dual * ds[k]);
  }
  state.lambda += dual * dLambda;
}
