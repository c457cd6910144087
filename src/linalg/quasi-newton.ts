export interface QuasiNewtonOptions {
  readonly maxIterations?: number;
  /** Largest entry of the projected gradient at which the search ends. */
  readonly tolerance?: number;
}

export interface QuasiNewtonResult {
  readonly point: Float64Array;
  readonly value: number;
  readonly iterations: number;
}

/**
 * Minimum of a smooth function on a box by BFGS with a projected line search (Bertsekas 1982; Nocedal & Wright 2006, sections
 * 6.1 and 16.7): coordinates that are held by a bound are left out of the step. Local; deterministic.
 * @param f value, and its gradient into the second argument; not finite where it is not defined
 */
export function minimiseInBox(
  f: (x: Float64Array, gradient: Float64Array) => number,
  start: ArrayLike<number>,
  low: ArrayLike<number>,
  high: ArrayLike<number>,
  { maxIterations = 200, tolerance = 1e-7 }: QuasiNewtonOptions = {},
): QuasiNewtonResult {
  const n = start.length;
  const inside = (value: number, i: number): number => Math.min(high[i], Math.max(low[i], value));
  let x = Float64Array.from(start, inside);
  let gradient = new Float64Array(n);
  let value = f(x, gradient);
  const inverse = new Float64Array(n * n);
  const identity = (): void => {
    inverse.fill(0);
    for (let i = 0; i < n; i++) inverse[i * n + i] = 1;
  };
  identity();
  let fresh = true;
  let iterations = 0;
  while (iterations < maxIterations) {
    const held = x.map((at, i) => ((at <= low[i] && gradient[i] > 0) || (at >= high[i] && gradient[i] < 0) ? 1 : 0));
    if (gradient.every((slope, i) => held[i] === 1 || Math.abs(slope) <= tolerance)) break;
    iterations++;
    const direction = new Float64Array(n);
    let slope = 0;
    for (let i = 0; i < n; i++) {
      if (held[i] === 1) continue;
      for (let j = 0; j < n; j++) if (held[j] === 0) direction[i] -= inverse[i * n + j] * gradient[j];
      slope += direction[i] * gradient[i];
    }
    if (!(slope < 0)) {
      if (fresh) break;
      identity();
      fresh = true;
      continue;
    }
    const found = lineSearch(
      f,
      x,
      value,
      gradient,
      direction,
      inside,
      fresh ? 1 / Math.max(1, Math.hypot(...direction)) : 1,
    );
    if (found === undefined) {
      if (fresh) break;
      identity();
      fresh = true;
      continue;
    }
    updateInverse(inverse, n, x, found.x, gradient, found.gradient, fresh);
    fresh = false;
    const gain = value - found.value;
    ({ x, value, gradient } = found);
    if (gain <= 1e-15 * Math.max(1, Math.abs(value))) break;
  }
  return { point: x, value, iterations };
}

/** Halves the step until the value falls as Armijo's rule asks, measured along the projected path. */
function lineSearch(
  f: (x: Float64Array, gradient: Float64Array) => number,
  x: Float64Array,
  value: number,
  gradient: Float64Array,
  direction: Float64Array,
  inside: (value: number, i: number) => number,
  first: number,
): { x: Float64Array<ArrayBuffer>; value: number; gradient: Float64Array<ArrayBuffer> } | undefined {
  for (let step = first, tries = 0; tries < 50; tries++, step /= 2) {
    const next = Float64Array.from(x, (at, i) => inside(at + step * direction[i], i));
    let expected = 0;
    for (let i = 0; i < x.length; i++) expected += gradient[i] * (next[i] - x[i]);
    const nextGradient = new Float64Array(x.length);
    const nextValue = f(next, nextGradient);
    if (Number.isFinite(nextValue) && nextValue <= value + 1e-4 * expected && nextValue < value) {
      return { x: next, value: nextValue, gradient: nextGradient };
    }
  }
  return undefined;
}

/** The BFGS formula; left out where the curvature along the step is not positive. */
function updateInverse(
  inverse: Float64Array,
  n: number,
  x: Float64Array,
  next: Float64Array,
  gradient: Float64Array,
  nextGradient: Float64Array,
  first: boolean,
): void {
  const s = next.map((value, i) => value - x[i]);
  const y = nextGradient.map((value, i) => value - gradient[i]);
  let [curvature, length] = [0, 0];
  for (let i = 0; i < n; i++) {
    curvature += s[i] * y[i];
    length += y[i] * y[i];
  }
  if (!(curvature > 1e-14 * length)) return;
  if (first) for (let i = 0; i < n; i++) inverse[i * n + i] = curvature / length;
  const product = new Float64Array(n);
  let quadratic = 0;
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) product[i] += inverse[i * n + j] * y[j];
    quadratic += product[i] * y[i];
  }
  const factor = (1 + quadratic / curvature) / curvature;
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) {
      inverse[i * n + j] += factor * s[i] * s[j] - (product[i] * s[j] + s[i] * product[j]) / curvature;
    }
  }
}
