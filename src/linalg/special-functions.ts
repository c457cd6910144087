/** Gamma functions and their kin for real arguments, to about 1e-14 relative. */

export const EULER_GAMMA = 0.5772156649015329;
/** Above this the asymptotic series below have reached the last bit. */
const ASYMPTOTIC = 12;
const HALF_LOG_TWO_PI = 0.9189385332046727;

/** ln Γ(x) - [(x - 1/2) ln x - x + ln(2π)/2], for x >= 12 (Abramowitz & Stegun 6.1.41). */
function stirlingTail(x: number): number {
  const r = 1 / x;
  const s = r * r;
  const inner = 1 / 1260 - s * (1 / 1680 - s * (1 / 1188 - s * (691 / 360360 - s / 156)));
  return r * (1 / 12 - s * (1 / 360 - s * inner));
}

/** ln Γ(x), x > 0. */
export function logGamma(x: number): number {
  if (!(x > 0)) return Number.NaN;
  if (x === Number.POSITIVE_INFINITY) return x;
  if (x === 1 || x === 2) return 0;
  let shifted = x;
  let product = 1;
  while (shifted < ASYMPTOTIC) product *= shifted++;
  return (shifted - 0.5) * Math.log(shifted) - shifted + HALF_LOG_TWO_PI + stirlingTail(shifted) - Math.log(product);
}

/**
 * ln [Γ(x + n) / Γ(x)] - (n ln n - n), for x > 0 and n >= 0. The part that does not depend on x is left out, so that
 * weights over x can be compared where n is in the billions, or x is so large that the two gammas would cancel.
 */
export function logRisingFactorial(x: number, n: number): number {
  if (n === 0) return 0;
  if (x >= ASYMPTOTIC) {
    const growth = (x - 0.5) * Math.log1p(n / x) + n * Math.log1p(x / n);
    return growth + stirlingTail(x + n) - stirlingTail(x);
  }
  const steps = Math.ceil(ASYMPTOTIC - x);
  const offset = n * Math.log(n) - n;
  if (Number.isInteger(n) && n <= steps) {
    let product = 1;
    for (let j = 0; j < n; j++) product *= x + j;
    return Math.log(product) - offset;
  }
  let product = 1;
  for (let j = 0; j < steps; j++) product *= x + j;
  const y = x + steps;
  // Γ(x+n)/Γ(x) = product · Γ(x+n)/Γ(y)
  const top = x + n;
  if (top >= ASYMPTOTIC) {
    const upper = n * Math.log1p(x / n) + (x - 0.5) * Math.log(top) - x + stirlingTail(top);
    return Math.log(product) + upper - ((y - 0.5) * Math.log(y) - y + stirlingTail(y));
  }
  return logGamma(top) - logGamma(x) - offset;
}

/** ψ(x) = d ln Γ(x) / dx, x > 0. */
export function digamma(x: number): number {
  if (!(x > 0)) return Number.NaN;
  let shifted = x;
  let sum = 0;
  while (shifted < ASYMPTOTIC) sum += 1 / shifted++;
  const s = 1 / (shifted * shifted);
  const series =
    s * (1 / 12 - s * (1 / 120 - s * (1 / 252 - s * (1 / 240 - s * (1 / 132 - s * (691 / 32760 - s / 12))))));
  return Math.log(shifted) - 0.5 / shifted - series - sum;
}

/** ψ'(x), x > 0. */
export function trigamma(x: number): number {
  if (!(x > 0)) return Number.NaN;
  let shifted = x;
  let sum = 0;
  while (shifted < ASYMPTOTIC) {
    sum += 1 / (shifted * shifted);
    shifted++;
  }
  const r = 1 / shifted;
  const s = r * r;
  const inner = 1 / 30 - s * (1 / 42 - s * (1 / 30 - s * (5 / 66 - s * (691 / 2730 - (s * 7) / 6))));
  return r + 0.5 * s + r * s * (1 / 6 - s * inner) + sum;
}

/** The regularised upper incomplete gamma function Q(a, x) = Γ(a, x) / Γ(a), a > 0, x >= 0. */
export function upperGammaRatio(a: number, x: number): number {
  if (x <= 0) return 1;
  if (x === Number.POSITIVE_INFINITY) return 0;
  // x^a e^-x / Γ(a+1), with the large terms joined so that they do not cancel.
  const logFront =
    a < ASYMPTOTIC
      ? a * Math.log(x) - x - logGamma(a + 1)
      : a * logRatioLess(x / a) - HALF_LOG_TWO_PI - 0.5 * Math.log(a) - stirlingTail(a);
  const front = Math.exp(logFront);
  if (x < a + 1) {
    let term = 1;
    let sum = 1;
    for (let n = 1; n < 100_000; n++) {
      term *= x / (a + n);
      sum += term;
      if (term < sum * 1e-17) break;
    }
    return Math.max(0, 1 - front * sum);
  }
  // Lentz's continued fraction.
  const tiny = 1e-300;
  let b = x + 1 - a;
  let c = 1 / tiny;
  let d = 1 / b;
  let h = d;
  for (let i = 1; i < 100_000; i++) {
    const an = -i * (i - a);
    b += 2;
    d = an * d + b;
    if (Math.abs(d) < tiny) d = tiny;
    c = b + an / c;
    if (Math.abs(c) < tiny) c = tiny;
    d = 1 / d;
    const step = d * c;
    h *= step;
    if (Math.abs(step - 1) < 1e-16) break;
  }
  return Math.min(1, front * a * h);
}

/** ln r - (r - 1), without cancellation near r = 1. */
function logRatioLess(r: number): number {
  const d = r - 1;
  if (Math.abs(d) > 0.01) return Math.log(r) - d;
  let term = d;
  let sum = 0;
  for (let n = 2; n < 12; n++) {
    term *= -d;
    sum += term / n;
  }
  return sum;
}

/** P(χ² with `df` degrees of freedom >= x); 1 with no degree of freedom. */
export function chiSquareSurvival(x: number, df: number): number {
  return df <= 0 ? 1 : upperGammaRatio(df / 2, x / 2);
}

/** e^z E₁(z), z > 0, where E₁(z) = ∫_z^∞ e^-t / t dt. */
export function scaledExponentialIntegral(z: number): number {
  if (z > 1) {
    let b = z + 1;
    let c = 1e300;
    let d = 1 / b;
    let h = d;
    for (let i = 1; i < 10_000; i++) {
      const an = -i * i;
      b += 2;
      d = 1 / (an * d + b);
      c = b + an / c;
      const step = c * d;
      h *= step;
      if (Math.abs(step - 1) < 1e-16) break;
    }
    return h;
  }
  let sum = -EULER_GAMMA - Math.log(z);
  let term = 1;
  for (let n = 1; n < 40; n++) {
    term *= -z / n;
    sum -= term / n;
  }
  return Math.exp(z) * sum;
}

/** Φ(x), the distribution function of the standard normal. */
export function normalCdf(x: number): number {
  if (x === 0) return 0.5;
  const tail = 0.5 * upperGammaRatio(0.5, (x * x) / 2);
  return x > 0 ? 1 - tail : tail;
}

/** Φ⁻¹(p): Acklam's rational approximation, polished by Halley steps to full precision. */
export function normalQuantile(p: number): number {
  if (p === 0.5) return 0;
  if (!(p > 0 && p < 1)) return p === 0 ? Number.NEGATIVE_INFINITY : p === 1 ? Number.POSITIVE_INFINITY : Number.NaN;
  const lower = Math.min(p, 1 - p);
  let x = -acklam(lower);
  for (let i = 0; i < 2; i++) {
    const error = 0.5 * upperGammaRatio(0.5, (x * x) / 2) - lower;
    const step = error * Math.sqrt(2 * Math.PI) * Math.exp((x * x) / 2);
    x += step / (1 - (x * step) / 2);
  }
  return p < 0.5 ? -x : x;
}

/** Φ⁻¹(p) for p < 1/2, to 1e-9. */
function acklam(p: number): number {
  const horner = (coefficients: readonly number[], at: number): number =>
    coefficients.reduce((sum, coefficient) => sum * at + coefficient, 0);
  if (p < 0.02425) {
    const q = Math.sqrt(-2 * Math.log(p));
    const c = [
      -7.784894002430293e-3, -3.223964580411365e-1, -2.400758277161838, -2.549732539343734, 4.374664141464968,
      2.938163982698783,
    ];
    const d = [7.784695709041462e-3, 3.224671290700398e-1, 2.445134137142996, 3.754408661907416, 1];
    return horner(c, q) / horner(d, q);
  }
  const q = p - 0.5;
  const r = q * q;
  const a = [
    -3.969683028665376e1, 2.209460984245205e2, -2.759285104469687e2, 1.38357751867269e2, -3.066479806614716e1,
    2.506628277459239,
  ];
  const b = [
    -5.447609879822406e1, 1.615858368580409e2, -1.556989798598866e2, 6.680131188771972e1, -1.328068155288572e1, 1,
  ];
  return (horner(a, r) * q) / horner(b, r);
}
