import { normalCdf } from '../linalg/special-functions.js';

/** Value and first three derivatives of a function at a point. */
export type Jet = readonly [value: number, first: number, second: number, third: number];

export const constantJet = (value: number): Jet => [value, 0, 0, 0];
export const variableJet = (value: number): Jet => [value, 1, 0, 0];

export const addJets = (a: Jet, b: Jet): Jet => [a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]];
export const scaleJet = (a: Jet, factor: number): Jet => [a[0] * factor, a[1] * factor, a[2] * factor, a[3] * factor];

/** Leibniz's rule. */
export const multiplyJets = (a: Jet, b: Jet): Jet => [
  a[0] * b[0],
  a[1] * b[0] + a[0] * b[1],
  a[2] * b[0] + 2 * a[1] * b[1] + a[0] * b[2],
  a[3] * b[0] + 3 * a[2] * b[1] + 3 * a[1] * b[2] + a[0] * b[3],
];

/** g(a) for the jet `outer` of g at a's value (Faà di Bruno). A derivative of 0 inside forgets an infinite one outside. */
export function composeJets(outer: Jet, a: Jet): Jet {
  const [, g1, g2, g3] = outer;
  const [, a1, a2, a3] = a;
  const term = (g: number, inner: number): number => (inner === 0 ? 0 : g * inner);
  return [
    outer[0],
    term(g1, a1),
    term(g2, a1 * a1) + term(g1, a2),
    term(g3, a1 * a1 * a1) + 3 * term(g2, a1 * a2) + term(g1, a3),
  ];
}

/** a^c for a constant c. */
export function powerJet(a: Jet, c: number): Jet {
  const x = a[0];
  const factor = (n: number, coefficient: number): number => (coefficient === 0 ? 0 : coefficient * x ** (c - n));
  const outer: Jet = [x ** c, factor(1, c), factor(2, c * (c - 1)), factor(3, c * (c - 1) * (c - 2))];
  return composeJets(outer, a);
}

/** The jet of the inverse function at f's value: x' = 1/f', x'' = -f''/f'^3, x''' = (3 f''^2 - f' f''')/f'^5. */
export function inverseJet(f: Jet, at: number): Jet {
  const [, f1, f2, f3] = f;
  const y1 = 1 / f1;
  return [at, y1, -f2 * y1 ** 3, (3 * f2 * f2 * y1 - f3) * y1 ** 4];
}

const logistic = (x: number): number => (x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x)));

/** ln(1 + e^x) without overflow. */
const softplus = (x: number): number => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));

function logisticJet(x: number): Jet {
  const s = logistic(x);
  const d = s * logistic(-x);
  return [s, d, d * (1 - 2 * s), d * (1 - 6 * d)];
}

function tanhJet(x: number): Jet {
  const t = Math.tanh(x);
  const d = 1 / Math.cosh(x) ** 2;
  return [t, d, -2 * t * d, d * (6 * t * t - 2)];
}

/** Standard normal distribution function: its derivatives are those of the density. */
function cdfJet(x: number): Jet {
  const p = Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI);
  return [normalCdf(x), p, -x * p, (x * x - 1) * p];
}

function atanJet(x: number): Jet {
  const r = 1 / (1 + x * x);
  return [Math.atan(x), r, -2 * x * r * r, (6 * x * x - 2) * r ** 3];
}

/** Functions of one argument by name, each as its jet at a number. At a kink the derivative is that of the right side. */
export const JET_FUNCTIONS: Readonly<Record<string, (x: number) => Jet>> = {
  exp: (x) => [Math.exp(x), Math.exp(x), Math.exp(x), Math.exp(x)],
  expm1: (x) => [Math.expm1(x), Math.exp(x), Math.exp(x), Math.exp(x)],
  log: (x) => [Math.log(x), 1 / x, -1 / x ** 2, 2 / x ** 3],
  log1p: (x) => [Math.log1p(x), 1 / (1 + x), -1 / (1 + x) ** 2, 2 / (1 + x) ** 3],
  sqrt: (x) => [Math.sqrt(x), 0.5 * x ** -0.5, -0.25 * x ** -1.5, 0.375 * x ** -2.5],
  sin: (x) => [Math.sin(x), Math.cos(x), -Math.sin(x), -Math.cos(x)],
  cos: (x) => [Math.cos(x), -Math.sin(x), -Math.cos(x), Math.sin(x)],
  atan: atanJet,
  tanh: tanhJet,
  sigmoid: logisticJet,
  softplus: (x) => {
    const [s, d, dd] = logisticJet(x);
    return [softplus(x), s, d, dd];
  },
  cdf: cdfJet,
  erf: (x) => {
    const [p, d, dd, ddd] = cdfJet(x * Math.SQRT2);
    return [2 * p - 1, 2 * d * Math.SQRT2, 4 * dd, 4 * Math.SQRT2 * ddd];
  },
  relu: (x) => (x >= 0 ? [x, 1, 0, 0] : [0, 0, 0, 0]),
  abs: (x) => [Math.abs(x), x >= 0 ? 1 : -1, 0, 0],
};
