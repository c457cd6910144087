import { cholesky, choleskySolve } from './cholesky.js';

/** A smooth function on the simplex. */
export interface SimplexFunction {
  value(p: Float64Array): number;
  /** Fills the gradient [k]. */
  gradient(p: Float64Array, into: Float64Array): void;
  /** Fills the Hessian [k, k]. */
  hessian(p: Float64Array, into: Float64Array): void;
}

export interface SimplexMinimum {
  readonly point: Float64Array;
  readonly value: number;
}

const MOST_MULTIPLICATIVE_STEPS = 400;
const MOST_NEWTON_STEPS = 100;
/** Up to this size a Newton step is taken: it factorises [k, k]. */
const MOST_NEWTON_GROUPS = 400;
/** Shares below it are on the boundary for Newton's steps. */
const BOUNDARY = 1e-12;
/** A Newton step that moves no entry by more has arrived. */
const SETTLED = 1e-13;
/** Of values, relative. */
const ROUNDING = 4e-16;

/**
 * Minimises a function over {p >= 0, sum p = 1}: from each start by exponentiated gradient with a step that doubles and halves,
 * then by Newton's method on the support (entries at 0 come back where their derivative is below the others'). The least of all
 * is returned, vertices included. Local from each start: the function need not be convex.
 */
export function minimiseOnSimplex(f: SimplexFunction, groups: number, starts: readonly Float64Array[]): SimplexMinimum {
  let best: SimplexMinimum | undefined;
  const consider = (found: SimplexMinimum): void => {
    // Ties keep the earlier one, within rounding.
    if (best === undefined || found.value < best.value - 1e-14 * Math.max(1, Math.abs(best.value))) best = found;
  };
  for (let j = 0; j < groups; j++) {
    const vertex = new Float64Array(groups).fill(1, j, j + 1);
    consider({ point: vertex, value: f.value(vertex) });
  }
  for (const start of starts) {
    const near = exponentiatedDescent(f, start);
    consider(groups <= MOST_NEWTON_GROUPS ? newtonOnSupport(f, near) : near);
  }
  return best as SimplexMinimum;
}

function exponentiatedDescent(f: SimplexFunction, start: Float64Array): SimplexMinimum {
  const k = start.length;
  let p = start.slice();
  let value = f.value(p);
  const gradient = new Float64Array(k);
  let step = 1;
  for (let n = 0; n < MOST_MULTIPLICATIVE_STEPS; n++) {
    f.gradient(p, gradient);
    const least = gradient.reduce((a, b) => Math.min(a, b));
    // The gap of Frank and Wolfe bounds what is left, for convex functions.
    let gap = 0;
    for (let j = 0; j < k; j++) gap += p[j] * (gradient[j] - least);
    if (gap < 1e-15 * Math.max(1, Math.abs(value))) break;
    let moved = false;
    for (let tries = 0; tries < 60; tries++) {
      const next = p.map((share, j) => share * Math.exp(-step * (gradient[j] - least)));
      const sum = next.reduce((a, b) => a + b, 0);
      for (let j = 0; j < k; j++) next[j] /= sum;
      const found = f.value(next);
      if (found < value) {
        p = next;
        value = found;
        step *= 2;
        moved = true;
        break;
      }
      step /= 2;
    }
    if (!moved) break;
  }
  return { point: p, value };
}

function newtonOnSupport(f: SimplexFunction, start: SimplexMinimum): SimplexMinimum {
  const k = start.point.length;
  let p = start.point.map((share) => (share < BOUNDARY ? 0 : share));
  const total = p.reduce((a, b) => a + b, 0);
  p = p.map((share) => share / total);
  let value = f.value(p);
  const gradient = new Float64Array(k);
  const hessian = new Float64Array(k * k);
  for (let n = 0; n < MOST_NEWTON_STEPS; n++) {
    f.gradient(p, gradient);
    f.hessian(p, hessian);
    let multiplier = 0;
    for (let j = 0; j < k; j++) multiplier += p[j] * gradient[j];
    const free: number[] = [];
    for (let j = 0; j < k; j++) if (p[j] > 0 || gradient[j] < multiplier - 1e-14) free.push(j);
    const direction = constrainedNewton(gradient, hessian, free, k);
    let slope = 0;
    let longest = 1;
    for (const j of free) {
      slope += gradient[j] * direction[j];
      if (direction[j] < 0) longest = Math.min(longest, p[j] / -direction[j]);
    }
    // An entry at 0 that would go below it ends Newton's steps: exponentiated gradient has been there.
    const size = direction.reduce((most, entry) => Math.max(most, Math.abs(entry)), 0);
    if (!(slope < 0) || longest === 0 || size < SETTLED) break;
    let moved = false;
    for (let step = longest; step > 1e-12 * longest; step /= 2) {
      const next = p.map((share, j) => Math.max(0, share + step * direction[j]));
      if (step === longest && longest < 1) {
        for (const j of free) if (direction[j] < 0 && p[j] / -direction[j] === longest) next[j] = 0;
      }
      const sum = next.reduce((a, b) => a + b, 0);
      for (let j = 0; j < k; j++) next[j] /= sum;
      const found = f.value(next);
      // Near the minimum the value does not change any more while the point still does.
      if (found <= value + ROUNDING * Math.max(1, Math.abs(value))) {
        p = next;
        value = found;
        moved = true;
        break;
      }
    }
    if (!moved) break;
  }
  return value <= start.value + ROUNDING * Math.max(1, Math.abs(value)) ? { point: p, value } : start;
}

/** The Newton direction on `free` entries that sums to 0; damped until the Hessian there is positive definite. */
function constrainedNewton(
  gradient: Float64Array,
  hessian: Float64Array,
  free: readonly number[],
  k: number,
): Float64Array {
  const direction = new Float64Array(k);
  const width = free.length - 1;
  if (width < 1) return direction;
  // Differences to the last free entry: d_last = -sum of the others.
  const last = free[width];
  const reduced = new Float64Array(width * width);
  const slope = new Float64Array(width);
  let scale = 0;
  for (let a = 0; a < width; a++) {
    slope[a] = gradient[last] - gradient[free[a]];
    for (let b = 0; b < width; b++) {
      const [i, j] = [free[a], free[b]];
      reduced[a * width + b] =
        hessian[i * k + j] - hessian[i * k + last] - hessian[last * k + j] + hessian[last * k + last];
    }
    scale = Math.max(scale, Math.abs(reduced[a * width + a]));
  }
  for (let damping = 0; ; damping = damping === 0 ? 1e-10 * (scale || 1) : damping * 10) {
    const damped = reduced.slice();
    for (let a = 0; a < width; a++) damped[a * width + a] += damping;
    const factor = cholesky(damped, width);
    if (factor === undefined) continue;
    const solved = choleskySolve(factor, width, slope);
    for (let a = 0; a < width; a++) {
      direction[free[a]] = solved[a];
      direction[last] -= solved[a];
    }
    return direction;
  }
}
