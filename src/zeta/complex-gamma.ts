/** A complex number. */
export interface Complex {
  readonly re: number;
  readonly im: number;
}

export const complex = (re: number, im = 0): Complex => ({ re, im });

export const product = (a: Complex, b: Complex): Complex => ({
  re: a.re * b.re - a.im * b.im,
  im: a.re * b.im + a.im * b.re,
});

export function quotient(a: Complex, b: Complex): Complex {
  // Smith's method: no overflow in the squares.
  if (Math.abs(b.re) >= Math.abs(b.im)) {
    const r = b.im / b.re;
    const d = b.re + b.im * r;
    return { re: (a.re + a.im * r) / d, im: (a.im - a.re * r) / d };
  }
  const r = b.re / b.im;
  const d = b.re * r + b.im;
  return { re: (a.re * r + a.im) / d, im: (a.im * r - a.re) / d };
}

const HALF_LOG_TWO_PI = 0.9189385332046727;
/** B_2k / (2k (2k - 1)). */
const STIRLING = [1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156, -3617 / 122400];
const ASYMPTOTIC = 14;

const logOf = ({ re, im }: Complex): Complex => ({ re: Math.log(Math.hypot(re, im)), im: Math.atan2(im, re) });

/**
 * ln Gamma(z), Re z > 0, the branch that is real on the positive axis and continuous: recurrence up to |z| >= 14, then
 * Stirling's series (Abramowitz & Stegun 6.1.41).
 */
export function logGammaComplex(z: Complex): Complex {
  let { re } = z;
  let shiftedLog = complex(0);
  while (Math.hypot(re, z.im) < ASYMPTOTIC) {
    const factor = logOf({ re, im: z.im });
    shiftedLog = { re: shiftedLog.re + factor.re, im: shiftedLog.im + factor.im };
    re++;
  }
  const point = { re, im: z.im };
  const log = logOf(point);
  const main = product({ re: re - 0.5, im: z.im }, log);
  const inverse = quotient(complex(1), point);
  const square = product(inverse, inverse);
  let tail = complex(0);
  for (let k = STIRLING.length - 1; k >= 0; k--) {
    tail = product(tail, square);
    tail = { re: tail.re + STIRLING[k], im: tail.im };
  }
  tail = product(tail, inverse);
  return {
    re: main.re - re + HALF_LOG_TWO_PI + tail.re - shiftedLog.re,
    im: main.im - z.im + tail.im - shiftedLog.im,
  };
}
