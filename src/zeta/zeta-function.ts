import { InputError } from '../errors.js';
import { type Complex, complex, logGammaComplex, product, quotient } from './complex-gamma.js';
import { logarithm, turnedPhase } from './double-double.js';

/** Largest |t|: the series has 0.6 |t| terms. */
export const LARGEST_T = 1e6;

/** B_2k / (2k)!, k = 1..12. */
const EULER_MACLAURIN = (() => {
  const bernoulli = [
    1 / 6,
    -1 / 30,
    1 / 42,
    -1 / 30,
    5 / 66,
    -691 / 2730,
    7 / 6,
    -3617 / 510,
    43867 / 798,
    -174611 / 330,
    854513 / 138,
    -236364091 / 2730,
  ];
  let factorial = 1;
  return bernoulli.map((value, i) => {
    factorial *= (2 * i + 1) * (2 * i + 2);
    return value / factorial;
  });
})();

let logHigh = Float64Array.of(0, 0);
let logLow = Float64Array.of(0, 0);

/** ln n for n = 0..upTo (0 at n = 0) as sums of two numbers; the tables grow and are kept. */
export function logTables(upTo: number): { readonly high: Float64Array; readonly low: Float64Array } {
  const known = logHigh.length;
  if (upTo >= known) {
    const size = Math.max(upTo + 1, Math.min(2 * known, known + 65_536));
    const [high, low] = [new Float64Array(size), new Float64Array(size)];
    high.set(logHigh);
    low.set(logLow);
    for (let n = known; n < size; n++) {
      const { hi, lo } = logarithm(n);
      high[n] = hi;
      low[n] = lo;
    }
    logHigh = high;
    logLow = low;
  }
  return { high: logHigh, low: logLow };
}

/**
 * Relative error of `zeta` that may be expected at sigma + it: of the series 1e-13 (1e-14 were found from t = 50 on), of the
 * functional equation, sigma < -1.5, what the phase t ln t of the gamma function loses.
 */
export function zetaRelativeError(sigma: number, t: number): number {
  const above = Math.abs(t);
  const series = Math.max(1e-13, 1e-15 * Math.sqrt(above));
  return sigma >= -1.5 ? series : series + 1e-15 * above * Math.log(above + 3);
}

function checkPoint(sigma: number, t: number): void {
  if (!(Number.isFinite(sigma) && Number.isFinite(t))) throw new InputError(`zeta of ${sigma} + ${t}i: not a number`);
  if (sigma === 1 && t === 0) throw new InputError('zeta has a pole at s = 1');
  if (Math.abs(t) > LARGEST_T) {
    throw new InputError(`zeta at t = ${t}: beyond the range |t| <= ${LARGEST_T}, in which its series is summed`);
  }
}

/** zeta(sigma + it) and its derivative with respect to s. */
export interface ZetaValue {
  readonly value: Complex;
  readonly derivative: Complex;
}

/**
 * Euler-Maclaurin summation with N = max(10, ceil(0.6 |t|) + 2) terms and 12 Bernoulli terms, for t >= 0, s != 1 and
 * sigma > -20 (Edwards, "Riemann's zeta function", section 6.4). Without `derivative` that part is 0.
 */
function eulerMaclaurin(sigma: number, t: number, derivative: boolean): ZetaValue {
  const count = Math.max(10, Math.ceil(0.6 * t) + 2);
  const { high, low } = logTables(count);
  let re = 0;
  let im = 0;
  let slopeRe = 0;
  let slopeIm = 0;
  // Small terms first where sigma > 0.
  for (let n = count - 1; n >= 1; n--) {
    const size = Math.exp(-sigma * high[n]);
    const phase = turnedPhase(t, high[n], low[n]);
    const termRe = size * Math.cos(phase);
    const termIm = -size * Math.sin(phase);
    re += termRe;
    im += termIm;
    if (derivative) {
      slopeRe -= high[n] * termRe;
      slopeIm -= high[n] * termIm;
    }
  }
  const logN = high[count];
  const phase = turnedPhase(t, logN, low[count]);
  const size = Math.exp(-sigma * logN);
  const power = complex(size * Math.cos(phase), -size * Math.sin(phase));
  // N^(1-s) / (s - 1) and half of N^-s.
  const lessOne = complex(sigma - 1, t);
  const integral = quotient(complex(count * power.re, count * power.im), lessOne);
  re += integral.re + power.re / 2;
  im += integral.im + power.im / 2;
  if (derivative) {
    const inner = quotient(integral, lessOne);
    slopeRe -= logN * integral.re + inner.re + (logN * power.re) / 2;
    slopeIm -= logN * integral.im + inner.im + (logN * power.im) / 2;
  }
  // a_k = s (s + 1) ... (s + 2k - 2) N^(-s - 2k + 1)
  const s = complex(sigma, t);
  const scaled = complex(power.re / count, power.im / count);
  let term = product(s, scaled);
  let termSlope = complex(scaled.re - logN * term.re, scaled.im - logN * term.im);
  for (let k = 1; k <= EULER_MACLAURIN.length; k++) {
    const coefficient = EULER_MACLAURIN[k - 1];
    re += coefficient * term.re;
    im += coefficient * term.im;
    slopeRe += coefficient * termSlope.re;
    slopeIm += coefficient * termSlope.im;
    const step = product(complex(sigma + 2 * k - 1, t), complex(sigma + 2 * k, t));
    const factor = complex(step.re / count / count, step.im / count / count);
    const slope = complex((2 * sigma + 4 * k - 1) / count / count, (2 * t) / count / count);
    const carried = product(termSlope, factor);
    const added = product(term, slope);
    termSlope = complex(carried.re + added.re, carried.im + added.im);
    term = product(term, factor);
  }
  return { value: { re, im }, derivative: derivative ? { re: slopeRe, im: slopeIm } : complex(0) };
}

/** sin(pi x) and cos(pi x), exact at whole and half numbers. */
function sinCosPi(x: number): { sin: number; cos: number } {
  const r = x - 2 * Math.round(x / 2);
  const quarter = Math.round(2 * r);
  const rest = Math.PI * (r - quarter / 2);
  const [s, c] = [Math.sin(rest), Math.cos(rest)];
  switch ((quarter + 4) % 4) {
    case 1:
      return { sin: c, cos: -s };
    case 2:
      return { sin: -s, cos: -c };
    case 3:
      return { sin: -c, cos: s };
    default:
      return { sin: s, cos: c };
  }
}

/**
 * zeta(s) = 2^s pi^(s-1) sin(pi s / 2) Gamma(1 - s) zeta(1 - s) for sigma < 0, t >= 0, with the logarithm of the gamma
 * function and a sine from which exp(pi t / 2) is taken.
 */
export function reflectedZeta(sigma: number, t: number): Complex {
  const gamma = logGammaComplex({ re: 1 - sigma, im: -t });
  const turn = sinCosPi(sigma / 2);
  const decay = Math.exp(-Math.PI * t);
  // (e^(iz - pi t/2) - e^(-iz - pi t/2)) / 2i with z = pi s / 2
  const sine = complex((turn.sin * (1 + decay)) / 2, (turn.cos * (1 - decay)) / 2);
  const log2 = Math.LN2;
  const logPi = Math.log(Math.PI);
  const exponent = sigma * log2 + (sigma - 1) * logPi + gamma.re + (Math.PI * t) / 2;
  const { hi, lo } = logarithm(2 * Math.PI);
  const angle = turnedPhase(t, hi, lo) + gamma.im;
  const scale = Math.exp(exponent);
  const factor = complex(scale * Math.cos(angle), scale * Math.sin(angle));
  const mirrored = eulerMaclaurin(1 - sigma, t, false).value;
  // zeta(1 - s) at 1 - sigma - it is the conjugate of what lies above the axis.
  return product(product(factor, sine), complex(mirrored.re, -mirrored.im));
}

/**
 * The Riemann zeta function at sigma + it: Euler-Maclaurin, and the functional equation left of the strip (sigma < -1.5).
 * @throws InputError at the pole s = 1, for |t| beyond 1e6, for what is no number
 */
export function zeta(sigma: number, t: number): Complex {
  checkPoint(sigma, t);
  const above = Math.abs(t);
  const reflect = sigma < -1.5;
  const value = reflect ? reflectedZeta(sigma, above) : eulerMaclaurin(sigma, above, false).value;
  return t < 0 ? complex(value.re, -value.im) : value;
}

/** |zeta(sigma + it)|. Throws as `zeta`. */
export function absoluteZeta(sigma: number, t: number): number {
  const { re, im } = zeta(sigma, t);
  return Math.hypot(re, im);
}

/** zeta and zeta' at sigma + it, both from one series; sigma > -20. Throws as `zeta`. */
export function zetaWithDerivative(sigma: number, t: number): ZetaValue {
  checkPoint(sigma, t);
  if (sigma <= -20) throw new InputError(`the derivative of zeta is computed for sigma > -20, not at ${sigma}`);
  const { value, derivative } = eulerMaclaurin(sigma, Math.abs(t), true);
  if (t >= 0) return { value, derivative };
  return { value: complex(value.re, -value.im), derivative: complex(derivative.re, -derivative.im) };
}

/** A zero as Newton's iteration left it. */
export interface PolishedZero {
  readonly sigma: number;
  readonly t: number;
  readonly absoluteValue: number;
  readonly absoluteDerivative: number;
  readonly steps: number;
  /** Whether |zeta| has fallen below 1e-12, or to what rounding leaves. */
  readonly converged: boolean;
}

/** |zeta| that the spacing of f64 numbers at height t leaves next to a zero. */
const roundingFloor = (t: number, slope: number): number => 2 ** -51 * Math.abs(t) * slope;

/**
 * Newton's iteration s <- s - zeta(s) / zeta'(s), to |zeta| < 1e-12 or what the spacing of numbers at this height leaves, and
 * then on while it improves.
 */
export function polishZero(sigma: number, t: number, maxSteps = 50): PolishedZero {
  let s = complex(sigma, t);
  let best: PolishedZero = {
    sigma,
    t,
    absoluteValue: Number.POSITIVE_INFINITY,
    absoluteDerivative: Number.NaN,
    steps: 0,
    converged: false,
  };
  for (let steps = 0; steps <= maxSteps; steps++) {
    const { value, derivative } = zetaWithDerivative(s.re, s.im);
    const absoluteValue = Math.hypot(value.re, value.im);
    const absoluteDerivative = Math.hypot(derivative.re, derivative.im);
    // Where rounding begins, steps no longer improve: the best point stands.
    if (best.converged && !(absoluteValue < best.absoluteValue)) return best;
    const converged = absoluteValue < Math.max(1e-12, roundingFloor(s.im, absoluteDerivative));
    if (absoluteValue < best.absoluteValue) {
      best = { sigma: s.re, t: s.im, absoluteValue, absoluteDerivative, steps, converged };
    }
    if (absoluteValue === 0 || absoluteDerivative === 0) break;
    const step = quotient(value, derivative);
    s = complex(s.re - step.re, s.im - step.im);
    if (!(s.re > -10 && s.re < 40 && Math.abs(s.im) <= LARGEST_T)) break;
  }
  return best;
}
