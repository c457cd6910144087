import type { DecompositionContext } from '../types.js';

/**
 * erf(x) / x for |x| <= 1 in powers of 2 x^2 - 1, and exp(z^2) erfc(z) for 1 <= z <= 6 in powers of (12 u - 1) / 5 with
 * u = (z - 2) / (z + 2): Chebyshev interpolants, computed with 60 digits. Both are good to the last bits of a double.
 */
const INNER: readonly number[] = [
  0.9654687386698673, -0.1405360890227171, 0.019852496688984218, -0.0022854855611441132, 0.00021751715603563404,
  -1.7537169441124826e-5, 1.2233827638116999e-6, -7.51156928660089e-8, 4.115751497588646e-9, -2.035228404899467e-10,
  9.211251258348265e-12, -3.8078827395263415e-13,
];
const OUTER: readonly number[] = [
  0.2214295402299318, -0.16189356804102498, 0.03856057042518243, -0.005588816281839609, 0.0001971391777277114,
  8.079220426292727e-5, -7.340517934856549e-6, -1.9795618189364308e-6, 1.6349935234814868e-7, 7.005319573428159e-8,
  -5.885338391253864e-10, -2.6240218125191535e-9, -2.688335835065745e-10, 7.362723843294616e-11, 2.2281133503204702e-11,
  1.2726572135314738e-13, -1.0200176242562444e-12, -1.421510561619543e-13, 1.9546357875125924e-14,
];
/** Beyond it the error function is 1 in double precision. */
const FARTHEST = 6;

function polynomial(g: DecompositionContext, coefficients: readonly number[], x: string): string {
  let value = g.scalar(coefficients[coefficients.length - 1]);
  for (let i = coefficients.length - 2; i >= 0; i--) {
    value = g.emit('Add', [g.emit('Mul', [value, x]), g.scalar(coefficients[i])]);
  }
  return value;
}

/** The error function in operators that have double kernels. Its derivative is that of the same formula, also at 0. */
export function erfGraph(g: DecompositionContext, x: string): string {
  const size = g.emit('Abs', [x]);
  const isInner = g.emit('LessOrEqual', [size, g.scalar(1)]);
  // Neither branch sees numbers that it was not made for: what overflows there would spoil the gradient of the other.
  const near = g.emit('Where', [isInner, x, g.scalar(0)]);
  const square = g.emit('Sub', [g.emit('Mul', [g.emit('Mul', [near, near]), g.scalar(2)]), g.scalar(1)]);
  const inner = g.emit('Mul', [near, polynomial(g, INNER, square)]);

  const far = g.emit('Where', [isInner, g.scalar(1), g.emit('Min', [size, g.scalar(FARTHEST)])]);
  const ratio = g.emit('Div', [g.emit('Sub', [far, g.scalar(2)]), g.emit('Add', [far, g.scalar(2)])]);
  const variable = g.emit('Sub', [g.emit('Mul', [ratio, g.scalar(2.4)]), g.scalar(0.2)]);
  const decay = g.emit('Exp', [g.emit('Neg', [g.emit('Mul', [far, far])])]);
  const tail = g.emit('Mul', [decay, polynomial(g, OUTER, variable)]);
  const outer = g.emit('Mul', [g.emit('Sign', [x]), g.emit('Sub', [g.scalar(1), tail])]);
  return g.emit('Where', [isInner, inner, outer]);
}
