import { InputError } from '../errors.js';
import { brentRoot } from '../linalg/brent.js';
import { gramPoint, hardyZ, theta } from './riemann-siegel.js';
import { LARGEST_T, zeta, zetaWithDerivative } from './zeta-function.js';

/** Right of this |zeta - 1| < 0.35, so that the argument is the principal one. */
const RIGHT_EDGE = 2;
/** Largest turn between neighbouring points of the path; steps halve until it is kept. */
const LARGEST_TURN = 0.5;

/** A continuous argument of zeta(1/2 + it), followed from the right along the horizontal line. */
function argumentOnLine(t: number): number {
  let here = zeta(RIGHT_EDGE, t);
  let sigma = RIGHT_EDGE;
  let angle = Math.atan2(here.im, here.re);
  let step = 0.25;
  while (sigma > 0.5) {
    const next = Math.max(0.5, sigma - step);
    const there = zeta(next, t);
    const turn = Math.atan2(here.re * there.im - here.im * there.re, here.re * there.re + here.im * there.im);
    if (Math.abs(turn) > LARGEST_TURN) {
      step /= 2;
      if (step < 1e-9) throw new InputError(`t = ${t} lies on a zero of zeta; the count needs a height between zeros`);
      continue;
    }
    angle += turn;
    sigma = next;
    here = there;
    step = Math.min(0.25, 1.5 * step);
  }
  return angle;
}

/**
 * N(T): zeros of zeta with 0 < Im s <= T, all of them whether on the critical line or not, by the argument principle:
 * theta(T)/pi + 1 + S(T), S(T) = arg zeta(1/2 + iT)/pi followed continuously from sigma = 2.
 * @throws InputError beyond 1e6, or where T lies on a zero or the count does not come out whole
 */
export function countZeros(t: number): number {
  if (!(t >= 0 && t <= LARGEST_T)) throw new InputError(`N(T) at T = ${t}: T must lie between 0 and ${LARGEST_T}`);
  // |zeta| has no zero with ordinate in (0, 10]: theta is not monotone there, and nothing is to be counted.
  if (t < 10) return 0;
  const count = theta(t) / Math.PI + 1 + argumentOnLine(t) / Math.PI;
  const whole = Math.round(count);
  if (Math.abs(count - whole) > 1e-6) {
    throw new InputError(`N(T) at T = ${t} comes out as ${count}: T lies too near to a zero`);
  }
  return whole;
}

/** Zeros of zeta on the critical line in a window, with the count that they must reach. */
export interface LineZeros {
  readonly ordinates: Float64Array;
  /** N(b) - N(a). */
  readonly expected: number;
  /** Whether all that the strip holds were found on the line. */
  readonly complete: boolean;
}

/** Halvings of the grid before the search for sign changes gives up. */
const MOST_HALVINGS = 8;

/**
 * Zeros 1/2 + i gamma, a < gamma <= b, from sign changes of Hardy's Z, refined by Brent's method. The grid, at first a
 * third of the mean spacing, is halved until as many are found as the argument principle counts.
 */
export function zerosOnLine(a: number, b: number): LineZeros {
  if (!(a >= 0 && b > a)) throw new InputError(`zeros between ${a} and ${b}: 0 <= a < b is needed`);
  const expected = countZeros(b) - countZeros(a);
  if (expected === 0) return { ordinates: new Float64Array(0), expected, complete: true };
  const spacing = (2 * Math.PI) / Math.log(Math.max(b, 14) / (2 * Math.PI));
  let points = Math.max(8, Math.ceil((3 * (b - a)) / spacing));
  let brackets: [low: number, high: number, atLow: number, atHigh: number][] = [];
  for (let halving = 0; halving <= MOST_HALVINGS; halving++, points *= 2) {
    brackets = [];
    let before = hardyZ(a);
    let from = a;
    for (let i = 1; i <= points; i++) {
      const t = i === points ? b : a + ((b - a) * i) / points;
      const value = hardyZ(t);
      if (before < 0 !== value < 0) brackets.push([from, t, before, value]);
      from = t;
      before = value;
    }
    if (brackets.length >= expected) break;
  }
  const ordinates = Float64Array.from(
    brackets,
    ([low, high, atLow, atHigh]) => brentRoot(hardyZ, low, high, 1e-14, atLow, atHigh)?.x ?? Number.NaN,
  );
  return { ordinates, expected, complete: ordinates.length === expected };
}

/**
 * Zeros number `from`, ..., `from + count - 1` in the order of their ordinates, the first being 14.13...
 * @throws InputError for numbers below 1, beyond t = 1e6, or where a zero of the window was not found on the line
 */
export function zerosByNumber(from: number, count: number): Float64Array {
  if (!(Number.isInteger(from) && from >= 1 && Number.isInteger(count) && count >= 1)) {
    throw new InputError(`zeros ${from} and ${count - 1} more: whole numbers from 1 on are needed`);
  }
  // Zero n lies near the Gram point n - 3/2; Gram's law fails by few places, and the counts tell.
  let below = from - 2;
  let low = from <= 3 ? 10 : gramPoint(below);
  while (low > 10 && countZeros(low) >= from) {
    below -= 2;
    low = below < 0 ? 10 : gramPoint(below);
  }
  let above = from + count - 1;
  let high = gramPoint(above);
  while (countZeros(high) < from + count - 1) high = gramPoint(++above);
  const { ordinates, expected, complete } = zerosOnLine(low, high);
  if (!complete) {
    throw new InputError(`between ${low} and ${high} ${ordinates.length} of ${expected} zeros were found on the line`);
  }
  const skipped = from - 1 - countZeros(low);
  return ordinates.slice(skipped, skipped + count);
}

/** |zeta'(1/2 + i gamma)| of each ordinate: at a zero also |Z'(gamma)|. */
export function slopesAtZeros(ordinates: Float64Array): Float64Array {
  return ordinates.map((t) => {
    const { derivative } = zetaWithDerivative(0.5, t);
    return Math.hypot(derivative.re, derivative.im);
  });
}

/** Heights that divide (a, b) into pieces of about one zero each: the Gram points within, and the ends. */
export function gramTiles(a: number, b: number): Float64Array {
  const edges = [a];
  let n = Math.max(-1, Math.floor(theta(Math.max(a, 10)) / Math.PI));
  for (let g = gramPoint(n); g < b; g = gramPoint(++n)) if (g > a) edges.push(g);
  edges.push(b);
  return Float64Array.from(edges);
}
