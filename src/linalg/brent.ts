/** Where a one-dimensional search ended. */
export interface ScalarSearch {
  readonly x: number;
  readonly value: number;
  readonly evaluations: number;
}

/** A root that could not be bracketed gives undefined instead. */
export interface BracketedRoot extends ScalarSearch {
  /** Width of the bracket that still holds the root. */
  readonly width: number;
}

const EPSILON = 2 ** -52;

/**
 * Root of a continuous function in [low, high] by Brent's method (Brent 1973, chapter 4: bisection, secant and inverse
 * quadratic steps), to `tolerance` in x beyond rounding. Undefined when f(low) and f(high) have the same sign.
 * @param atLow f(low), where the caller knows it already
 */
export function brentRoot(
  f: (x: number) => number,
  low: number,
  high: number,
  tolerance = 1e-12,
  atLow?: number,
  atHigh?: number,
): BracketedRoot | undefined {
  let evaluations = 0;
  const evaluate = (x: number): number => {
    evaluations++;
    return f(x);
  };
  let a = low;
  let b = high;
  let fa = atLow ?? evaluate(a);
  let fb = atHigh ?? evaluate(b);
  if (!(fa * fb <= 0)) return undefined;
  let c = a;
  let fc = fa;
  let step = b - a;
  let previousStep = step;
  for (let i = 0; i < 200; i++) {
    if (fb > 0 === fc > 0) {
      c = a;
      fc = fa;
      step = b - a;
      previousStep = step;
    }
    // b is the best point, c the other end of the bracket, a the best point before.
    if (Math.abs(fc) < Math.abs(fb)) {
      a = b;
      b = c;
      c = a;
      fa = fb;
      fb = fc;
      fc = fa;
    }
    const limit = 2 * EPSILON * Math.abs(b) + 0.5 * tolerance;
    const half = 0.5 * (c - b);
    if (Math.abs(half) <= limit || fb === 0) break;
    const interpolated = Math.abs(previousStep) >= limit && Math.abs(fa) > Math.abs(fb);
    const wanted = interpolated ? interpolationStep(a, b, c, fa, fb, fc) : half;
    const accepted =
      interpolated && 2 * Math.abs(wanted) < Math.min(3 * Math.abs(half) - limit, Math.abs(previousStep));
    const towards = wanted * half > 0;
    previousStep = accepted && towards ? step : half;
    step = accepted && towards ? wanted : half;
    a = b;
    fa = fb;
    b += Math.abs(step) > limit ? step : half > 0 ? limit : -limit;
    fb = evaluate(b);
  }
  return { x: b, value: fb, evaluations, width: Math.abs(c - b) };
}

/** The step from b to the root of the secant, or of the inverse parabola through three points. */
function interpolationStep(a: number, b: number, c: number, fa: number, fb: number, fc: number): number {
  const s = fb / fa;
  if (a === c) return (s * (b - c)) / (1 - s);
  const q = fa / fc;
  const r = fb / fc;
  const numerator = s * (q * (q - r) * (c - b) - (b - a) * (r - 1));
  return -numerator / ((q - 1) * (r - 1) * (s - 1));
}

const GOLDEN = (3 - Math.sqrt(5)) / 2;

/**
 * Minimum of a unimodal function on [low, high] without derivatives (Brent 1973, chapter 5: golden section and
 * parabolic steps), to about `tolerance * |x|` in x; below sqrt(epsilon) = 1.5e-8 little is gained. The ends themselves are
 * tried last, so that a minimum at an end is that end.
 */
export function brentMinimum(f: (x: number) => number, low: number, high: number, tolerance = 1e-8): ScalarSearch {
  let evaluations = 0;
  const evaluate = (x: number): number => {
    evaluations++;
    const value = f(x);
    return Number.isNaN(value) ? Number.POSITIVE_INFINITY : value;
  };
  let a = low;
  let b = high;
  let x = a + GOLDEN * (b - a);
  let w = x;
  let v = x;
  let fx = evaluate(x);
  let fw = fx;
  let fv = fx;
  let step = 0;
  let previousStep = 0;
  for (let i = 0; i < 200; i++) {
    const middle = 0.5 * (a + b);
    const limit = tolerance * Math.abs(x) + 1e-12;
    if (Math.abs(x - middle) <= 2 * limit - 0.5 * (b - a)) break;
    let parabolic = false;
    if (Math.abs(previousStep) > limit) {
      // The parabola through (v, fv), (w, fw), (x, fx).
      const r = (x - w) * (fx - fv);
      let q = (x - v) * (fx - fw);
      let p = (x - v) * q - (x - w) * r;
      q = 2 * (q - r);
      if (q > 0) p = -p;
      q = Math.abs(q);
      if (Math.abs(p) < Math.abs(0.5 * q * previousStep) && p > q * (a - x) && p < q * (b - x)) {
        previousStep = step;
        step = p / q;
        const u = x + step;
        if (u - a < 2 * limit || b - u < 2 * limit) step = x < middle ? limit : -limit;
        parabolic = true;
      }
    }
    if (!parabolic) {
      previousStep = (x < middle ? b : a) - x;
      step = GOLDEN * previousStep;
    }
    const u = x + (Math.abs(step) >= limit ? step : step > 0 ? limit : -limit);
    const fu = evaluate(u);
    if (fu <= fx) {
      if (u < x) b = x;
      else a = x;
      v = w;
      fv = fw;
      w = x;
      fw = fx;
      x = u;
      fx = fu;
    } else {
      if (u < x) a = u;
      else b = u;
      if (fu <= fw || w === x) {
        v = w;
        fv = fw;
        w = u;
        fw = fu;
      } else if (fu <= fv || v === x || v === w) {
        v = u;
        fv = fu;
      }
    }
  }
  for (const end of [low, high]) {
    const value = evaluate(end);
    if (value <= fx) {
      x = end;
      fx = value;
    }
  }
  return { x, value: fx, evaluations };
}
