import { InputError } from '../errors.js';
import { logGammaComplex } from './complex-gamma.js';
import { add, LN_TWO_PI, logarithm, turnedPhase } from './double-double.js';
import { LARGEST_T, logTables, zeta } from './zeta-function.js';

/** From here on Z is summed by the Riemann-Siegel formula, whose error is then below 3e-11. */
export const RIEMANN_SIEGEL_FROM = 1000;

/** Coefficients of t^-1, t^-3, ... of theta (Edwards, section 6.5). */
const THETA_SERIES = [1 / 48, 7 / 5760, 31 / 80640, 127 / 430080, 511 / 1216512];
const THETA_FROM = 10;

function thetaTail(t: number): number {
  const r = 1 / t;
  return r * THETA_SERIES.reduceRight((sum, coefficient) => sum * r * r + coefficient, 0);
}

/**
 * Riemann-Siegel theta: t/2 ln(t / (2 pi e)) - pi/8 + 1/(48 t) + 7/(5760 t^3) + ... for t >= 10, below from
 * Im ln Gamma(1/4 + it/2) - t/2 ln pi. Odd in t.
 */
export function theta(t: number): number {
  if (t < 0) return -theta(-t);
  if (t < THETA_FROM) return logGammaComplex({ re: 0.25, im: t / 2 }).im - (t / 2) * Math.log(Math.PI);
  return (t / 2) * (Math.log(t / (2 * Math.PI)) - 1) - Math.PI / 8 + thetaTail(t);
}

/** theta(t) less whole turns; the large part is reduced before it is rounded. */
function turnedTheta(t: number): number {
  if (t < THETA_FROM) return theta(t);
  const log = logarithm(t);
  const rest = add(add(log, { hi: -LN_TWO_PI.hi, lo: -LN_TWO_PI.lo }), { hi: -1, lo: 0 });
  return turnedPhase(t / 2, rest.hi, rest.lo) - Math.PI / 8 + thetaTail(t);
}

/** d theta / dt, to the digits that a Newton step needs. */
const thetaSlope = (t: number): number => 0.5 * Math.log(t / (2 * Math.PI)) - 1 / (48 * t * t);

const FIXED_BITS = 400n;
const ONE = 1n << FIXED_BITS;

/** sin and cos by their series and pi by Machin's formula, in fixed point with 400 bits. */
function fixedSeries(x: bigint, first: bigint, from: bigint): bigint {
  const square = (x * x) >> FIXED_BITS;
  let term = first;
  let sum = term;
  for (let n = from; term !== 0n; n += 2n) {
    term = -((term * square) >> FIXED_BITS) / (n * (n + 1n));
    sum += term;
  }
  return sum;
}

function fixedArctan(inverse: bigint): bigint {
  let power = ONE / inverse;
  let sum = power;
  for (let n = 3n, sign = -1n; power !== 0n; n += 2n, sign = -sign) {
    power /= inverse * inverse;
    sum += (sign * power) / n;
  }
  return sum;
}

/**
 * Coefficients of (p - 1/2)^2k, k = 0..count-1, of Psi(p) = cos(2 pi (p^2 - p - 1/16)) / cos(2 pi p). The quotient of the
 * two series loses four bits a term where the cosine below has its zeros, so it is taken in fixed point.
 */
export function psiCoefficients(count: number): Float64Array {
  const pi = 4n * (4n * fixedArctan(5n) - fixedArctan(239n));
  const angle = (5n * pi) / 8n;
  const sine = fixedSeries(angle, angle, 2n);
  const cosine = fixedSeries(angle, ONE, 1n);
  // With y = (p - 1/2)^2: Psi = -(cos 2 pi y cos 5pi/8 + sin 2 pi y sin 5pi/8) / cos(2 pi sqrt(y)).
  const above: bigint[] = [];
  const below: bigint[] = [];
  let upper = ONE;
  let lower = ONE;
  for (let k = 0n; k < BigInt(count); k++) {
    const sign = k % 4n < 2n ? -1n : 1n;
    above.push((sign * upper * (k % 2n === 0n ? cosine : sine)) >> FIXED_BITS);
    below.push(lower);
    upper = ((upper * 2n * pi) >> FIXED_BITS) / (k + 1n);
    lower = -((((lower * 4n * pi) >> FIXED_BITS) * pi) >> FIXED_BITS) / ((2n * k + 1n) * (2n * k + 2n));
  }
  const quotient: bigint[] = [];
  for (let k = 0; k < count; k++) {
    let value = above[k];
    for (let j = 1; j <= k; j++) value -= (below[j] * quotient[k - j]) >> FIXED_BITS;
    quotient.push(value);
  }
  return Float64Array.from(quotient, (value) => Number(value >> (FIXED_BITS - 200n)) * 2 ** -200);
}

/** Terms of the corrections: weights of derivatives of Psi, by order. */
const CORRECTIONS: readonly (readonly (readonly [order: number, weight: number])[])[] = (() => {
  const p = Math.PI ** 2;
  return [
    [[0, 1]],
    [[3, -1 / (96 * p)]],
    [
      [2, 1 / (64 * p)],
      [6, 1 / (18432 * p ** 2)],
    ],
    [
      [1, -1 / (64 * p)],
      [5, -1 / (3840 * p ** 2)],
      [9, -1 / (5308416 * p ** 3)],
    ],
    [
      [0, 1 / (128 * p)],
      [4, 19 / (24576 * p ** 2)],
      [8, 11 / (5898240 * p ** 3)],
      [12, 1 / (2038431744 * p ** 4)],
    ],
  ];
})();

const PSI_TERMS = 40;
let correctionSeries: readonly Float64Array[] | undefined;

/** Power series of C_0..C_4 in p - 1/2. */
function corrections(): readonly Float64Array[] {
  if (correctionSeries) return correctionSeries;
  const psi = psiCoefficients(PSI_TERMS);
  correctionSeries = CORRECTIONS.map((terms) => {
    const series = new Float64Array(2 * PSI_TERMS);
    for (const [order, weight] of terms) {
      psi.forEach((coefficient, k) => {
        if (2 * k < order) return;
        let falling = weight * coefficient;
        for (let j = 0; j < order; j++) falling *= 2 * k - j;
        series[2 * k - order] += falling;
      });
    }
    return series;
  });
  return correctionSeries;
}

/**
 * Hardy's Z(t) by the Riemann-Siegel formula with the corrections C_0..C_4 (Edwards, chapter 7), t >= 2 pi. The remainder
 * is below 0.017 t^(-11/4) for t >= 200 (Gabcke 1979); rounding adds some 1e-14.
 * @param terms corrections that are used, 1..5
 */
export function riemannSiegelZ(t: number, terms = 5): number {
  if (!(t >= 2 * Math.PI && t <= 1e12)) {
    throw new InputError(`the Riemann-Siegel formula at t = ${t}: t must lie between 2 pi and 1e12`);
  }
  const root = Math.sqrt(t / (2 * Math.PI));
  const count = Math.floor(root);
  const x = root - count - 0.5;
  const { high, low } = logTables(count);
  const phase = turnedTheta(t);
  let sum = 0;
  for (let n = count; n >= 1; n--) sum += Math.cos(phase - turnedPhase(t, high[n], low[n])) / Math.sqrt(n);
  let remainder = 0;
  for (let j = terms - 1; j >= 0; j--) {
    const value = corrections()[j].reduceRight((total, coefficient) => total * x + coefficient, 0);
    remainder = remainder / root + value;
  }
  return 2 * sum + ((count % 2 === 0 ? -1 : 1) * remainder) / Math.sqrt(root);
}

/**
 * Hardy's Z(t) = exp(i theta(t)) zeta(1/2 + it), real, |Z| = |zeta|: by the Riemann-Siegel formula from t = 1000 on, where
 * five corrections reach 3e-11 and better, and below from zeta itself. Throws InputError beyond |t| = 1e12.
 */
export function hardyZ(t: number): number {
  const above = Math.abs(t);
  if (above >= RIEMANN_SIEGEL_FROM) return riemannSiegelZ(above);
  const { re, im } = zeta(0.5, above);
  const angle = turnedTheta(above);
  return re * Math.cos(angle) - im * Math.sin(angle);
}

/**
 * The Gram point g_n: theta(g_n) = n pi, n >= -1. Newton from 2 pi exp(1 + W((8n + 1) / 8e)).
 * @throws InputError for n < -1 and points beyond 1e6
 */
export function gramPoint(n: number): number {
  if (!(Number.isInteger(n) && n >= -1)) throw new InputError(`Gram point ${n}: a whole number of at least -1`);
  const argument = (8 * n + 1) / (8 * Math.E);
  // Lambert's W by Halley's iteration; n = -1 lies below 0, near W = -0.7.
  let w = n === -1 ? -0.6 : Math.log1p(argument);
  for (let i = 0; i < 20 && n >= 0; i++) {
    const e = Math.exp(w);
    const excess = w * e - argument;
    w -= excess / (e * (w + 1) - ((w + 2) * excess) / (2 * w + 2));
  }
  let t = n === -1 ? 9.67 : 2 * Math.PI * Math.exp(1 + w);
  for (let i = 0; i < 20; i++) {
    const step = (theta(t) - n * Math.PI) / thetaSlope(t);
    t -= step;
    if (Math.abs(step) < 4e-16 * t) break;
  }
  if (t > LARGEST_T) throw new InputError(`Gram point ${n} lies at t = ${t}, beyond ${LARGEST_T}`);
  return t;
}
