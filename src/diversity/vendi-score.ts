import { InputError } from '../errors.js';

/** Eigenvalues of K/n below this share of the largest are rounding noise. */
export const RELATIVE_CUT = 1e-14;
/** An eigenvalue of K/n below this says that the kernel is not positive semidefinite. */
export const LEAST_EIGENVALUE = -1e-6;

/** The spectrum of a kernel over a sample, ready for scores. */
export interface KernelSpectrum {
  /** Eigenvalues of K/n (of `sqrt(p_i) K_ij sqrt(p_j)` under weights) above the cut, descending. */
  readonly eigenvalues: Float64Array;
  /** Eigenvalues below this were dropped. Orders below 1 depend on it. */
  readonly cut: number;
  /** How many of the eigenvalues that were given were dropped. */
  readonly dropped: number;
  /** The smallest eigenvalue that was given; negative ones within rounding are dropped. */
  readonly smallest: number;
  /** Sum of the absolute values of the negative eigenvalues. */
  readonly negativeMass: number;
}

export interface SpectrumOptions {
  /** What to do with a kernel that is not positive semidefinite: refuse it (default), or drop what is negative. */
  readonly negative?: 'error' | 'drop';
  /** Eigenvalues below this share of the largest are dropped; default `RELATIVE_CUT`, or n rounding errors if that is more. */
  readonly relativeCut?: number;
  /** What made the kernel, for the message when it is not positive semidefinite. */
  readonly origin?: string;
}

/**
 * Drops rounding noise from the eigenvalues of K/n and puts the rest in descending order. The cut is `1e-14` of the
 * largest eigenvalue, or `n` times the rounding unit where that is more, as a matrix rank is counted.
 * @param eigenvalues in any order; not changed
 * @throws InputError when one is below -1e-6 (below `-1e-6 n` for K itself): the kernel is not positive semidefinite
 */
export function kernelSpectrum(eigenvalues: Float64Array, options: SpectrumOptions = {}): KernelSpectrum {
  const sorted = Float64Array.from(eigenvalues).sort().reverse();
  const largest = sorted[0];
  const smallest = sorted[sorted.length - 1];
  if (smallest < LEAST_EIGENVALUE && options.negative !== 'drop') {
    const relative = Math.abs(smallest / largest).toExponential(1);
    throw new InputError(
      `${options.origin ?? 'the kernel'} is not positive semidefinite: the smallest eigenvalue of K/n is ` +
        `${smallest.toPrecision(6)} (${relative} of the largest); use a positive semidefinite kernel, or drop the negative ` +
        'part with --negative-eigenvalues drop',
    );
  }
  const cut = largest * (options.relativeCut ?? Math.max(RELATIVE_CUT, sorted.length * Number.EPSILON));
  let kept = 0;
  while (kept < sorted.length && sorted[kept] > cut) kept++;
  let negativeMass = 0;
  for (const value of sorted) if (value < 0) negativeMass -= value;
  return { eigenvalues: sorted.slice(0, kept), cut, dropped: sorted.length - kept, smallest, negativeMass };
}

/** The spectrum with its eigenvalues divided by their sum, so that scores stay between 1 and the rank. */
export function withUnitTrace(spectrum: KernelSpectrum): KernelSpectrum {
  const total = spectrum.eigenvalues.reduce((sum, value) => sum + value, 0);
  return {
    ...spectrum,
    eigenvalues: spectrum.eigenvalues.map((value) => value / total),
    cut: spectrum.cut / total,
  };
}

/** Nearer to order 1 than this, `log(sum x^q) / (1 - q)` loses digits and is written with expm1 and log1p. */
const NEAR_ONE = 1e-3;

/**
 * Vendi score of order q, `VS_q = exp(log(sum lambda^q) / (1 - q))`: the effective number of distinct items (Friedman &
 * Dieng 2022; orders of Pasarkar & Dieng 2023). Order 1 is `exp(-sum lambda log lambda)`, order 0 the rank, order
 * infinity `1 / max lambda`. A sample without eigenvalues has score NaN.
 * @param eigenvalues of K/n, positive, in any order, with sum 1
 * @throws RangeError for a negative order
 */
export function vendiScore(eigenvalues: Float64Array, q: number): number {
  if (!(q >= 0)) throw new RangeError(`an order of a Vendi score is at least 0, not ${q}`);
  if (eigenvalues.length === 0) return Number.NaN;
  if (q === 0) return eigenvalues.length;
  if (q === 1) {
    let entropy = 0;
    for (const value of eigenvalues) entropy -= value * Math.log(value);
    return Math.exp(entropy);
  }
  let largest = 0;
  for (const value of eigenvalues) largest = Math.max(largest, value);
  if (q === Number.POSITIVE_INFINITY) return 1 / largest;
  if (Math.abs(q - 1) < NEAR_ONE) {
    let deviation = 0;
    for (const value of eigenvalues) deviation += value * Math.expm1((q - 1) * Math.log(value));
    return Math.exp(Math.log1p(deviation) / (1 - q));
  }
  // Over the largest, so that high orders neither vanish nor overflow.
  let sum = 0;
  for (const value of eigenvalues) sum += (value / largest) ** q;
  return Math.exp((q * Math.log(largest) + Math.log(sum)) / (1 - q));
}

/** Reads an order: a number of at least 0, or `inf`. Throws InputError. */
export function parseOrder(text: string): number {
  const spelled = text.trim().toLowerCase();
  if (/^\+?inf(inity)?$/.test(spelled)) return Number.POSITIVE_INFINITY;
  const value = spelled === '' ? Number.NaN : Number(spelled);
  if (!(value >= 0)) throw new InputError(`"${text}" is no order of a Vendi score; give numbers of at least 0, or inf`);
  return value;
}
