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
  return Math.abs(r - 1) > 0.01 ? Math.log(r) - (r - 1) : logLessSeries(r - 1);
}

/** ln(1 + d) - d, without cancellation near d = 0. */
function logLess(d: number): number {
  return Math.abs(d) > 0.01 ? Math.log1p(d) - d : logLessSeries(d);
}

function logLessSeries(d: number): number {
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

/** Γ(x + 1/2) / Γ(x), x > 0, to the last digits where the logarithms of both gammas are large. */
export function gammaHalfStep(x: number): number {
  if (!(x > 0)) return Number.NaN;
  let shifted = x;
  let product = 1;
  for (; shifted < ASYMPTOTIC; shifted++) product *= shifted / (shifted + 0.5);
  const exponent = shifted * Math.log1p(0.5 / shifted) - 0.5 + stirlingTail(shifted + 0.5) - stirlingTail(shifted);
  return product * Math.sqrt(shifted) * Math.exp(exponent);
}

/** ln B(a, b) = ln Γ(a) + ln Γ(b) - ln Γ(a + b), a, b > 0, also where the gammas are far larger than the result. */
export function logBeta(a: number, b: number): number {
  if (!(a > 0 && b > 0)) return Number.NaN;
  const [small, large] = a < b ? [a, b] : [b, a];
  if (large < ASYMPTOTIC) return logGamma(small) + logGamma(large) - logGamma(small + large);
  const sum = small + large;
  // ln Γ(large) - ln Γ(large + small), of which only what depends on the ratio is left.
  const joined =
    -(large - 0.5) * Math.log1p(small / large) - small * (Math.log(sum) - 1) + stirlingTail(large) - stirlingTail(sum);
  if (small < ASYMPTOTIC) return logGamma(small) + joined;
  const own = (small - 0.5) * Math.log(small) - small + HALF_LOG_TWO_PI + stirlingTail(small);
  return own + joined;
}

/** ln [x^a y^b / B(a, b)] with y = 1 - x given, the large terms joined so that they do not cancel. */
function logBetaPowers(x: number, y: number, a: number, b: number): number {
  if (a < ASYMPTOTIC || b < ASYMPTOTIC) {
    const logX = x > 0.5 ? Math.log1p(-y) : Math.log(x);
    const logY = y > 0.5 ? Math.log1p(-x) : Math.log(y);
    return a * logX + b * logY - logBeta(a, b);
  }
  const sum = a + b;
  // With p = a / (a + b): a ln(x / p) + b ln(y / (1 - p)), whose linear parts cancel exactly.
  const apart = x <= y ? a - sum * x : sum * y - b;
  const exponent = a * logLess(-apart / a) + b * logLess(apart / b);
  const tails = stirlingTail(sum) - stirlingTail(a) - stirlingTail(b);
  return exponent + tails + 0.5 * Math.log((a / sum) * b) - HALF_LOG_TWO_PI;
}

/** The density of Beta(a, b) at x, of which y = 1 - x is given where x is near 1. */
export function betaDensity(x: number, a: number, b: number, y = 1 - x): number {
  if (x < 0 || y < 0) return 0;
  if (x === 0) return a > 1 ? 0 : a < 1 ? Number.POSITIVE_INFINITY : b;
  if (y === 0) return b > 1 ? 0 : b < 1 ? Number.POSITIVE_INFINITY : a;
  return Math.exp(logBetaPowers(x, y, a, b)) / (x * y);
}

/** The continued fraction of I_x(a, b) without its front (DiDonato & Morris 1992, bfrac), for x <= a / (a + b). */
function betaFraction(x: number, y: number, a: number, b: number): number {
  const tiny = 1e-300;
  const lambda = a > b ? (a + b) * y - b : a - (a + b) * x;
  // 1 / (e0 + d1 / (e1 + d2 / (e2 + ...))) by Lentz's products.
  let denominator = (a * (lambda + 1)) / (a + 1);
  let c = denominator;
  let d = 0;
  for (let n = 1; n < 100_000; n++) {
    const s = a + 2 * n - 1;
    const w = n * (b - n) * x;
    const dn = ((a + n - 1) / s) * ((a + b + n - 1) / s) * w * x;
    const en = n + w / s + ((a + n) / (s + 2)) * (lambda + 1 + n * (1 + y));
    d = en + dn * d;
    if (Math.abs(d) < tiny) d = tiny;
    c = en + dn / c;
    if (Math.abs(c) < tiny) c = tiny;
    d = 1 / d;
    const step = c * d;
    denominator *= step;
    if (Math.abs(step - 1) <= 2 ** -52) break;
  }
  return 1 / denominator;
}

/** I_x(a, b) and its complement, each to full relative precision where it is the smaller. */
export interface BetaRatio {
  readonly lower: number;
  readonly upper: number;
}

/**
 * The regularised incomplete beta function I_x(a, b) and 1 - I_x(a, b), a, b > 0, 0 <= x <= 1.
 * @param y 1 - x, where the caller has it to more digits
 */
export function betaRatio(x: number, a: number, b: number, y = 1 - x): BetaRatio {
  if (!(a > 0 && b > 0)) return { lower: Number.NaN, upper: Number.NaN };
  if (x <= 0) return { lower: 0, upper: 1 };
  if (y <= 0) return { lower: 1, upper: 0 };
  const front = Math.exp(logBetaPowers(x, y, a, b));
  if (x <= (a + 1) / (a + b + 2)) {
    const lower = Math.min(1, front * betaFraction(x, y, a, b));
    return { lower, upper: 1 - lower };
  }
  const upper = Math.min(1, front * betaFraction(y, x, b, a));
  return { lower: 1 - upper, upper };
}

/** A first guess of the quantile of Beta(a, b) (Abramowitz & Stegun 26.5.22, and the power laws of its ends). */
function betaQuantileGuess(p: number, a: number, b: number): number {
  if (a >= 1 && b >= 1) {
    const z = -normalQuantile(p);
    const [ra, rb] = [1 / (2 * a - 1), 1 / (2 * b - 1)];
    const h = 2 / (ra + rb);
    const lambda = (z * z - 3) / 6;
    const w = (z * Math.sqrt(Math.max(0, lambda + h))) / h - (rb - ra) * (lambda + 5 / 6 - 2 / (3 * h));
    return a / (a + b * Math.exp(2 * w));
  }
  const low = Math.exp(a * Math.log(a / (a + b))) / a;
  const high = Math.exp(b * Math.log(b / (a + b))) / b;
  const both = low + high;
  return p * both < low ? (a * both * p) ** (1 / a) : 1 - (b * both * (1 - p)) ** (1 / b);
}

/**
 * The quantile of Beta(a, b), a, b > 0: x with I_x(a, b) = p, by Halley steps held in a bracket. Relative errors are of
 * the order of those of I, in x and, where it is the smaller, absolute in 1 - x.
 */
export function betaQuantile(p: number, a: number, b: number): number {
  if (!(p >= 0 && p <= 1 && a > 0 && b > 0)) return Number.NaN;
  if (p === 0 || p === 1) return p;
  let low = 0;
  let high = 1;
  let x = betaQuantileGuess(p, a, b);
  if (!(x > 0 && x < 1)) x = a / (a + b);
  for (let i = 0; i < 2000; i++) {
    const ratio = betaRatio(x, a, b);
    const excess = p <= 0.5 ? ratio.lower - p : 1 - p - ratio.upper;
    if (excess === 0) return x;
    if (excess > 0) high = x;
    else low = x;
    const newton = excess / betaDensity(x, a, b);
    const bend = 0.5 * newton * ((a - 1) / x - (b - 1) / (1 - x));
    let next = x - newton / (1 - Math.max(-1, Math.min(0.5, bend)));
    if (!(next > low && next < high)) next = 0.5 * (low + high);
    if (Math.abs(next - x) <= 2 ** -51 * next) return next;
    x = next;
  }
  return x;
}

/**
 * The quantile of Student's t with df > 0 degrees of freedom, by the beta law of df / (df + t^2) (Abramowitz & Stegun 26.7.1).
 */
export function studentQuantile(p: number, df: number): number {
  if (!(p >= 0 && p <= 1 && df > 0)) return Number.NaN;
  const tail = Math.min(p, 1 - p);
  if (tail === 0.5) return 0;
  // t^2 / (df + t^2) keeps its digits near the median, df / (df + t^2) in the tails.
  const share = tail > 0.25 ? betaQuantile(1 - 2 * tail, 0.5, 0.5 * df) : 1 - betaQuantile(2 * tail, 0.5 * df, 0.5);
  const rest = tail > 0.25 ? 1 - share : betaQuantile(2 * tail, 0.5 * df, 0.5);
  return Math.sign(p - 0.5) * Math.sqrt((df * share) / rest);
}
