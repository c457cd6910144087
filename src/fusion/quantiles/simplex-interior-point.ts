import { symmetricRankK } from '../../kernels/gemm.js';
import { cholesky, choleskySolve } from '../../linalg/cholesky.js';

/**
 * minimise over w   linear . w + sum_i rho_{tau_i}((D w)_i)
 * on the simplex (w >= 0, sum w = 1), where D [rows, columns] holds differences y_i - z_ik.
 * Without `simplex` the weights are free, and targets y take the place of 0: residual y - D w (D then holds z).
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
  /** Primal minus dual objective over 1 + |primal|, of this program. */
  readonly relativeGap: number;
}

const MOST_ITERATIONS = 100;
const STEP_SHARE = 0.9995;
/** Sizes of slacks never reach 0. */
const TINY = 1e-300;

interface Iterate {
  readonly w: Float64Array;
  readonly s: Float64Array;
  readonly u: Float64Array;
  readonly v: Float64Array;
  readonly a: Float64Array;
  lambda: number;
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

/** Largest step in (0, 1] along which `x + step dx` stays positive, a little short of the boundary. */
function stepLength(x: Float64Array, dx: Float64Array, step: number): number {
  let most = step;
  for (let i = 0; i < x.length; i++) if (dx[i] < 0) most = Math.min(most, -x[i] / dx[i]);
  return most;
}

/**
 * Mehrotra's predictor-corrector method on a pinball program, with residuals u - v, u and v >= 0, and duals a whose
 * slacks tau - a and 1 - tau + a are exact. Each iteration solves one system of the size of the weights
 * (the Frisch-Newton method of Portnoy & Koenker 1997, with a simplex beside the box).
 * @param tolerance relative gap at which it stops
 */
export function solvePinballProgram(program: PinballProgram, tolerance = 1e-11, threads = 1): PinballSolution {
  const { rows: n, columns: p, levels, design, linear, targets } = program;
  const free = targets !== undefined;
  // The residual is r0 + sign D w.
  const sign = free ? -1 : 1;
  const base = targets ?? new Float64Array(n);
  const at = startingPoint(program, sign, base);
  const { w, s, u, v, a } = at;
  const upper = new Float64Array(n);
  const lower = new Float64Array(n);
  const refresh = (): void => {
    for (let i = 0; i < n; i++) {
      upper[i] = Math.max(TINY, levels[i] - a[i]);
      lower[i] = Math.max(TINY, 1 - levels[i] + a[i]);
    }
  };
  refresh();
  const scaled = new Float64Array(n * p);
  const product = new Float64Array(n);
  const inverse = new Float64Array(n);
  const rho = new Float64Array(n);
  const h = new Float64Array(n);
  const [du, dv, da, dUpper, dLower] = Array.from({ length: 5 }, () => new Float64Array(n));
  const [right, transposed, rs, dw, ds] = Array.from({ length: 5 }, () => new Float64Array(p));
  const system = new Float64Array(p * p);
  let iterations = 0;
  let best: PinballSolution | undefined;

  for (; iterations < MOST_ITERATIONS; iterations++) {
    // Residuals of the linear constraints.
    timesDesign(program, w, product);
    let primal = 0;
    let total = 0;
    for (let k = 0; k < p; k++) {
      primal += linear[k] * w[k];
      total += w[k];
    }
    let infeasible = 0;
    for (let i = 0; i < n; i++) {
      const residual = base[i] + sign * product[i];
      rho[i] = residual - u[i] + v[i];
      infeasible = Math.max(infeasible, Math.abs(rho[i]));
      primal += residual >= 0 ? levels[i] * residual : (levels[i] - 1) * residual;
    }
    // Stationarity: linear + sign D^T a - lambda - s = 0 (the residual enters the objective as a . residual).
    timesTransposed(program, a, transposed);
    let stationarity = 0;
    for (let k = 0; k < p; k++) {
      rs[k] = linear[k] + sign * transposed[k] - (free ? 0 : at.lambda + s[k]);
      stationarity = Math.max(stationarity, Math.abs(rs[k]));
    }
    let mu = 0;
    for (let i = 0; i < n; i++) mu += u[i] * upper[i] + v[i] * lower[i];
    if (!free) for (let k = 0; k < p; k++) mu += w[k] * s[k];
    mu /= 2 * n + (free ? 0 : p);
    const gap = (mu * (2 * n + (free ? 0 : p))) / (1 + Math.abs(primal));
    if (best === undefined || gap < best.relativeGap) {
      best = { weights: w.slice(), dual: a.slice(), iterations, relativeGap: gap };
    }
    const feasible = Math.max(infeasible, stationarity) < 1e-9 * (1 + Math.abs(primal));
    if (gap < tolerance && feasible) break;

    for (let i = 0; i < n; i++) {
      const weight = 1 / (u[i] / upper[i] + v[i] / lower[i]);
      inverse[i] = weight;
      const root = Math.sqrt(weight);
      for (let k = 0, cell = i * p; k < p; k++, cell++) scaled[cell] = root * design[cell];
    }
    symmetricRankK(scaled, system, { n: p, k: n }, { transpose: true, threads });
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
    if (factor === undefined) break;
    const ones = free ? undefined : choleskySolve(factor, p, new Float64Array(p).fill(1));

    /** Direction for the targets of complementarity mu' - second-order terms. */
    const direction = (target: number, second: boolean): number => {
      for (let i = 0; i < n; i++) {
        const ru = target - u[i] * upper[i] - (second ? du[i] * dUpper[i] : 0);
        const rv = target - v[i] * lower[i] - (second ? dv[i] * dLower[i] : 0);
        // Kept in place of the old directions, which the second-order terms no longer need.
        du[i] = ru;
        dv[i] = rv;
        h[i] = rho[i] - ru / upper[i] + rv / lower[i];
        da[i] = h[i] * inverse[i];
      }
      timesTransposed(program, da, transposed);
      for (let k = 0; k < p; k++) {
        const rw = free ? 0 : (target - w[k] * s[k] - (second ? dw[k] * ds[k] : 0)) / w[k];
        // (S/W + D^T inverse D) dw = rw / w - rs - sign D^T (inverse h) + dLambda
        right[k] = rw - rs[k] - sign * transposed[k];
        ds[k] = rw;
      }
      const solved = choleskySolve(factor as Float64Array, p, right);
      let dLambda = 0;
      if (ones) {
        let [sumRight, sumOnes] = [0, 0];
        for (let k = 0; k < p; k++) {
          sumRight += solved[k];
          sumOnes += ones[k];
        }
        dLambda = (1 - total - sumRight) / sumOnes;
      }
      for (let k = 0; k < p; k++) {
        dw[k] = solved[k] + (ones ? dLambda * ones[k] : 0);
        if (!free) ds[k] -= (s[k] / w[k]) * dw[k];
      }
      timesDesign(program, dw, product);
      for (let i = 0; i < n; i++) {
        da[i] = (h[i] + sign * product[i]) * inverse[i];
        dUpper[i] = -da[i];
        dLower[i] = da[i];
        du[i] = (du[i] + u[i] * da[i]) / upper[i];
        dv[i] = (dv[i] - v[i] * da[i]) / lower[i];
      }
      return dLambda;
    };
    const steps = (): { primalStep: number; dualStep: number } => {
      let primalStep = stepLength(v, dv, stepLength(u, du, 1));
      let dualStep = stepLength(lower, dLower, stepLength(upper, dUpper, 1));
      if (!free) {
        primalStep = stepLength(w, dw, primalStep);
        dualStep = stepLength(s, ds, dualStep);
      }
      return { primalStep, dualStep };
    };
    direction(0, false);
    const affine = steps();
    let after = 0;
    for (let i = 0; i < n; i++) {
      after += (u[i] + affine.primalStep * du[i]) * (upper[i] + affine.dualStep * dUpper[i]);
      after += (v[i] + affine.primalStep * dv[i]) * (lower[i] + affine.dualStep * dLower[i]);
    }
    if (!free) {
      for (let k = 0; k < p; k++) after += (w[k] + affine.primalStep * dw[k]) * (s[k] + affine.dualStep * ds[k]);
    }
    after /= 2 * n + (free ? 0 : p);
    const dLambda = direction(mu * (after / mu) ** 3, true);
    const { primalStep, dualStep } = steps();
    const forward = primalStep === 1 ? 1 : STEP_SHARE * primalStep;
    const back = dualStep === 1 ? 1 : STEP_SHARE * dualStep;
    for (let i = 0; i < n; i++) {
      u[i] = Math.max(TINY, u[i] + forward * du[i]);
      v[i] = Math.max(TINY, v[i] + forward * dv[i]);
      a[i] += back * da[i];
    }
    for (let k = 0; k < p; k++) {
      w[k] += forward * dw[k];
      if (!free) {
        w[k] = Math.max(TINY, w[k]);
        s[k] = Math.max(TINY, s[k] + back * ds[k]);
      }
    }
    at.lambda += back * dLambda;
    refresh();
    if (!(mu >= 0)) break;
  }
  return best as PinballSolution;
}

/** Equal weights (zero where they are free), the middle of the box, slacks of the size of the residuals. */
function startingPoint(program: PinballProgram, sign: number, base: Float64Array): Iterate {
  const { rows: n, columns: p, levels, linear, targets } = program;
  const w = new Float64Array(p).fill(targets === undefined ? 1 / p : 0);
  const residual = new Float64Array(n);
  timesDesign(program, w, residual);
  let size = 0;
  for (let i = 0; i < n; i++) {
    residual[i] = base[i] + sign * residual[i];
    size += Math.abs(residual[i]) / n;
  }
  const shift = Math.max(1e-8, 0.1 * size);
  const u = residual.map((value) => Math.max(0, value) + shift);
  const v = residual.map((value) => Math.max(0, -value) + shift);
  const a = levels.map((level) => level - 0.5);
  const reduced = new Float64Array(p);
  timesTransposed(program, a, reduced);
  let lambda = Number.POSITIVE_INFINITY;
  let spread = 0;
  for (let k = 0; k < p; k++) {
    reduced[k] = linear[k] + sign * reduced[k];
    lambda = Math.min(lambda, reduced[k]);
  }
  for (let k = 0; k < p; k++) spread += (reduced[k] - lambda) / p;
  const gapShift = Math.max(1e-8, 0.1 * spread, 1e-3 * size * Math.sqrt(n));
  lambda -= gapShift;
  const s = reduced.map((value) => value - lambda);
  return { w, s, u, v, a, lambda: targets === undefined ? lambda : 0 };
}
