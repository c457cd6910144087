/**
 * Sums of two f64 numbers (Dekker 1971; Knuth): some 32 digits, for phases t ln n whose whole turns must be taken off
 * before they are rounded.
 */
export interface DoubleDouble {
  readonly hi: number;
  readonly lo: number;
}

const SPLITTER = 134217729; // 2^27 + 1
const TWO_PI: DoubleDouble = { hi: 6.283185307179586, lo: 2.4492935982947064e-16 };
const LN_2: DoubleDouble = { hi: Math.LN2, lo: 2.3190468138462996e-17 };
/** ln 2 pi. */
export const LN_TWO_PI: DoubleDouble = { hi: 1.8378770664093456, lo: -7.756588316134483e-17 };

/** a * b - fl(a * b), exactly. */
function productError(a: number, b: number, product: number): number {
  const ca = SPLITTER * a;
  const ah = ca - (ca - a);
  const al = a - ah;
  const cb = SPLITTER * b;
  const bh = cb - (cb - b);
  const bl = b - bh;
  return ah * bh - product + ah * bl + al * bh + al * bl;
}

const renormalised = (hi: number, lo: number): DoubleDouble => {
  const sum = hi + lo;
  return { hi: sum, lo: lo - (sum - hi) };
};

export function add(a: DoubleDouble, b: DoubleDouble): DoubleDouble {
  const sum = a.hi + b.hi;
  const part = sum - a.hi;
  return renormalised(sum, a.hi - (sum - part) + (b.hi - part) + a.lo + b.lo);
}

export function multiply(a: DoubleDouble, b: DoubleDouble): DoubleDouble {
  const product = a.hi * b.hi;
  return renormalised(product, productError(a.hi, b.hi, product) + a.hi * b.lo + a.lo * b.hi);
}

export function divide(a: DoubleDouble, b: DoubleDouble): DoubleDouble {
  const first = a.hi / b.hi;
  const rest = add(a, multiply(b, { hi: -first, lo: 0 }));
  const second = rest.hi / b.hi;
  const last = add(rest, multiply(b, { hi: -second, lo: 0 }));
  return add(renormalised(first, second), { hi: last.hi / b.hi, lo: 0 });
}

/** ln x of a positive finite f64: exponent times ln 2 plus 2 artanh((m - 1) / (m + 1)) of a mantissa near 1. */
export function logarithm(x: number): DoubleDouble {
  let exponent = Math.round(Math.log2(x));
  let mantissa = x * 2 ** -exponent;
  if (mantissa > Math.SQRT2) {
    mantissa /= 2;
    exponent++;
  }
  // m - 1 and m + 1 as exact sums of two numbers.
  const z = divide(add({ hi: mantissa, lo: 0 }, { hi: -1, lo: 0 }), add({ hi: mantissa, lo: 0 }, { hi: 1, lo: 0 }));
  const square = multiply(z, z);
  let power = z;
  let sum = z;
  for (let k = 3; Math.abs(power.hi) > 1e-34 * Math.abs(sum.hi); k += 2) {
    power = multiply(power, square);
    sum = add(sum, divide(power, { hi: k, lo: 0 }));
  }
  return add(multiply(LN_2, { hi: exponent, lo: 0 }), { hi: 2 * sum.hi, lo: 2 * sum.lo });
}

/** t (hi + lo) less whole turns, in [-pi, pi], to an absolute error of some 1e-16 up to |t (hi + lo)| of 1e15. */
export function turnedPhase(t: number, hi: number, lo: number): number {
  const product = t * hi;
  const error = productError(t, hi, product) + t * lo;
  const turns = Math.round(product / TWO_PI.hi);
  const whole = turns * TWO_PI.hi;
  return product - whole - productError(turns, TWO_PI.hi, whole) + (error - turns * TWO_PI.lo);
}
