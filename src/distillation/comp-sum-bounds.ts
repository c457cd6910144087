/**
 * How much zero-one error an excess of a comp-sum loss can hide: best conditional risks, the bound
 * zero-one excess <= Gamma_tau(surrogate excess) and its simple forms. Mao, Mohri and Zhong, "Cross-Entropy Loss
 * Functions: Theoretical Analysis and Applications", 2023. Risks are in the units of the loss.
 */
import { InputError } from '../errors.js';
import { logSumExpRow } from '../kernels/loss-rows-reference.js';

const HALVINGS = 200;

/** @throws InputError unless tau is finite and not negative */
export function checkTau(tau: number): number {
  if (!(Number.isFinite(tau) && tau >= 0)) throw new InputError(`tau must be a number from 0 on; it is ${tau}`);
  return tau;
}

/** Phi^tau(u) = ((1 + u)^(1 - tau) - 1) / (1 - tau), log(1 + u) at tau = 1: the loss where u = sum exp(h_j - h_y). */
export function compSumOuter(u: number, tau: number): number {
  const log = Math.log1p(u);
  return tau === 1 ? log : Math.expm1((1 - tau) * log) / (1 - tau);
}

/**
 * The least conditional risk that any scores reach for label probabilities p [classes]: for tau < 2 by softmax scores
 * proportional to p^(1 / (2 - tau)), for tau >= 2 by a vertex.
 */
export function bestConditionalRisk(p: ArrayLike<number>, tau: number): number {
  let largest = 0;
  for (let i = 0; i < p.length; i++) largest = Math.max(largest, p[i]);
  if (tau >= 2) return (1 - largest) / (tau - 1);
  if (tau === 1) {
    let entropy = 0;
    for (let i = 0; i < p.length; i++) if (p[i] > 0) entropy -= p[i] * Math.log(p[i]);
    return entropy;
  }
  const powered = Float64Array.from(p, (value) => Math.log(value) / (2 - tau));
  return Math.expm1((2 - tau) * logSumExpRow(powered, 0, powered.length)) / (1 - tau);
}

/**
 * Least loss of a one-hot label when all scores lie in [-bound, bound]: Phi^tau((n - 1) exp(-2 bound)).
 */
export function bestBoundedLoss(classes: number, bound: number, tau: number): number {
  return compSumOuter((classes - 1) * Math.exp(-2 * bound), tau);
}

/** log of the mean of (1 + b)^a and (1 - b)^a, times 1 / a: the log of M in the paper's T, with a = 1 / (2 - tau). */
function logPowerMean(b: number, a: number): number {
  const mean = 0.5 * (Math.expm1(a * Math.log1p(b)) + Math.expm1(a * Math.log1p(-b)));
  return Math.log1p(mean) / a;
}

/** T_tau(beta): the least surrogate excess that goes with a zero-one excess of beta in [0, 1], for n classes. */
export function surrogateOfError(beta: number, tau: number, classes: number): number {
  if (tau >= 2) return beta / ((tau - 1) * classes ** (tau - 1));
  if (tau === 1) {
    const low = beta === 1 ? 0 : (1 - beta) * Math.log1p(-beta);
    return 0.5 * ((1 + beta) * Math.log1p(beta) + low);
  }
  const logMean = logPowerMean(beta, 1 / (2 - tau));
  return tau < 1
    ? (-Math.expm1(logMean) * 2 ** (1 - tau)) / (1 - tau)
    : Math.expm1(logMean) / ((tau - 1) * classes ** (tau - 1));
}

/**
 * Gamma_tau(x): the largest zero-one excess that a surrogate excess of x allows; the inverse of `surrogateOfError`,
 * 1 from its value at 1 on, 0 for x <= 0. NaN gives NaN.
 */
export function errorOfSurrogate(x: number, tau: number, classes: number): number {
  if (Number.isNaN(x)) return Number.NaN;
  if (x <= 0) return 0;
  if (x >= surrogateOfError(1, tau, classes)) return 1;
  if (tau >= 2) return (tau - 1) * classes ** (tau - 1) * x;
  let low = 0;
  let high = 1;
  for (let i = 0; i < HALVINGS && high - low > Number.EPSILON * high; i++) {
    const middle = 0.5 * (low + high);
    if (surrogateOfError(middle, tau, classes) < x) low = middle;
    else high = middle;
  }
  return 0.5 * (low + high);
}

/** The simple bound on Gamma_tau(x); it may pass 1. */
export function simpleErrorBound(x: number, tau: number, classes: number): number {
  const excess = Math.max(0, x);
  if (tau < 1) return Math.sqrt(2 ** tau * (2 - tau) * excess);
  if (tau < 2) return Math.sqrt(2 * classes ** (tau - 1) * excess);
  return (tau - 1) * classes ** (tau - 1) * excess;
}
