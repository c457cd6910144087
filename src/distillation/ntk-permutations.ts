import { InputError } from '../errors.js';
import { logGamma, normalCdf } from '../linalg/special-functions.js';
import { type KernelScales, kernelOf, kernelPair, type NtkParametrisation, THEOREM_SCALES } from './ntk-kernels.js';

/** Law of one trained network's outputs at a unit input with `ones` equal entries, by where the target has its ones. */
export interface PermutationLaw {
  readonly k: number;
  readonly ones: number;
  /** Mean of the outputs whose target is 1. */
  readonly meanOn: number;
  /** Mean of the others; undefined where there are none. */
  readonly meanOff: number | undefined;
  /** Of every output. */
  readonly variance: number;
}

/** Members of an ensemble whose mean, cut at 0, is right; undefined where no number is enough or the bound has no gap. */
export interface ModelsNeeded {
  /** Smallest N with m Q(mean_on √(N/var)) + (k-m) Q(-mean_off √(N/var)) <= δ. */
  readonly gaussianUnion: number | undefined;
  /** ⌈2 var ln(k/δ) / gap²⌉, gap the smaller of mean_on and -mean_off. */
  readonly tailBound: number | undefined;
}

/** An ensemble of more members than this is as good as none. */
const MOST_MODELS = 2 ** 52;

/**
 * Closed form of the prediction on the basis: K(X,X) is a I + c 11ᵀ, so its inverse is known (arXiv 2502.16763, section 4).
 * A training input (one 1) is learnt exactly: 1, 0 and no variance.
 * @throws InputError when k or ones is no count, or ones > k
 */
export function permutationLaw(
  k: number,
  ones: number,
  parametrisation: NtkParametrisation,
  scales: KernelScales = THEOREM_SCALES,
): PermutationLaw {
  if (!Number.isInteger(k) || k < 1) throw new InputError(`k is ${k}; a whole number above 0 is needed`);
  if (!Number.isInteger(ones) || ones < 1 || ones > k) {
    throw new InputError(`an input of ${k} bits has 1 to ${k} ones, not ${ones}`);
  }
  const off = k - ones;
  if (ones === 1) return { k, ones, meanOn: 1, meanOff: off > 0 ? 0 : undefined, variance: 0 };
  const first = unit(k, 0);
  const second = unit(k, 1);
  const input = new Float64Array(k).fill(1 / Math.sqrt(ones), 0, ones);
  const kernel = kernelOf(parametrisation);
  const diagonal = kernelPair(first, first, scales);
  const other = kernelPair(first, second, scales);
  const onSupport = kernelPair(input, first, scales);
  const offSupport = off > 0 ? kernelPair(input, unit(k, k - 1), scales) : { nngp: 0, ntk: 0, lastLayer: 0 };

  const a = diagonal[kernel] - other[kernel];
  const c = other[kernel];
  const shared = (c * (ones * onSupport[kernel] + off * offSupport[kernel])) / (a + c * k);
  const meanOn = (onSupport[kernel] - shared) / a;
  const meanOff = (offSupport[kernel] - shared) / a;

  const total = ones * meanOn + off * meanOff;
  const squares = ones * meanOn ** 2 + off * meanOff ** 2;
  const variance =
    kernelPair(input, input, scales).nngp -
    2 * (ones * meanOn * onSupport.nngp + off * meanOff * offSupport.nngp) +
    (diagonal.nngp - other.nngp) * squares +
    other.nngp * total ** 2;
  return { k, ones, meanOn, meanOff: off > 0 ? meanOff : undefined, variance };
}

function unit(k: number, at: number): Float64Array {
  const vector = new Float64Array(k);
  vector[at] = 1;
  return vector;
}

/** Union bound on the chance that the mean of N networks, cut at 0, is wrong somewhere at one input. */
export function unionFailure(law: PermutationLaw, models: number): number {
  const { k, ones, meanOn, meanOff, variance } = law;
  const root = Math.sqrt(models / variance);
  return ones * normalCdf(-meanOn * root) + (meanOff === undefined ? 0 : (k - ones) * normalCdf(meanOff * root));
}

/** Chance that the mean of N networks, cut at 0, is right everywhere at one input: outputs are independent. */
export function exactProbability(law: PermutationLaw, models: number): number {
  const { k, ones, meanOn, meanOff, variance } = law;
  if (variance === 0) return meanOff === undefined || meanOff < 0 ? 1 : 0;
  const root = Math.sqrt(models / variance);
  return normalCdf(meanOn * root) ** ones * (meanOff === undefined ? 1 : normalCdf(-meanOff * root) ** (k - ones));
}

/** Whether more members make the ensemble right in the end: a mean of exactly 0 is decided by rounding alone. */
const separates = ({ meanOn, meanOff }: PermutationLaw): boolean =>
  meanOn > 0 && (meanOff === undefined || meanOff < 0);

/** Smallest N for which `failure`, falling in N, is at most δ: doubling, then bisection. */
function smallest(failure: (models: number) => number, delta: number): number | undefined {
  let high = 1;
  while (failure(high) > delta) {
    high *= 2;
    if (high > MOST_MODELS) return undefined;
  }
  let low = Math.floor(high / 2);
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (failure(middle) > delta) low = middle;
    else high = middle;
  }
  return high;
}

const checkDelta = (delta: number): void => {
  if (!(delta > 0 && delta < 1)) throw new InputError(`delta is ${delta}; a number between 0 and 1 is needed`);
};

/** Models needed for one input. @throws InputError when δ is not in (0, 1) */
export function modelsNeeded(law: PermutationLaw, delta: number): ModelsNeeded {
  checkDelta(delta);
  const { k, meanOn, meanOff, variance } = law;
  if (!separates(law)) return { gaussianUnion: undefined, tailBound: undefined };
  if (variance === 0) return { gaussianUnion: 1, tailBound: undefined };
  const gap = meanOff === undefined ? undefined : Math.min(meanOn, -meanOff);
  return {
    gaussianUnion: smallest((models) => unionFailure(law, models), delta),
    tailBound: gap === undefined ? undefined : Math.ceil((2 * variance * Math.log(k / delta)) / gap ** 2),
  };
}

const logChoose = (n: number, m: number): number => logGamma(n + 1) - logGamma(m + 1) - logGamma(n - m + 1);

/**
 * Models needed for all inputs at once: the union runs over the inputs with two ones or more (training inputs are exact),
 * and the tail bound asks for δ over the number of nonzero inputs, 2^k - 1, at the worst of them.
 * @throws InputError when δ is not in (0, 1)
 */
export function modelsForAllInputs(
  k: number,
  delta: number,
  parametrisation: NtkParametrisation,
  scales: KernelScales = THEOREM_SCALES,
): ModelsNeeded {
  checkDelta(delta);
  const laws = Array.from({ length: k - 1 }, (_, i) => permutationLaw(k, i + 2, parametrisation, scales));
  if (laws.length === 0) return { gaussianUnion: 1, tailBound: undefined };
  if (!laws.every(separates)) return { gaussianUnion: undefined, tailBound: undefined };
  const failure = (models: number): number => {
    let sum = 0;
    for (const law of laws) {
      const share = unionFailure(law, models);
      if (share > 0) sum += Math.exp(logChoose(k, law.ones) + Math.log(share));
    }
    return sum;
  };
  const logCount = k * Math.LN2 + Math.log1p(-(2 ** -k));
  const tails = laws.map(({ meanOn, meanOff, variance }) => {
    const gap = meanOff === undefined ? meanOn : Math.min(meanOn, -meanOff);
    return Math.ceil((2 * variance * (Math.log(k / delta) + logCount)) / gap ** 2);
  });
  return { gaussianUnion: smallest(failure, delta), tailBound: Math.max(...tails) };
}

/** Largest and smallest eigenvalue of K(X,X) on the basis, a + c k and a. */
export function basisSpectrum(
  k: number,
  parametrisation: NtkParametrisation,
  scales: KernelScales = THEOREM_SCALES,
): { readonly largest: number; readonly smallest: number } {
  const kernel = kernelOf(parametrisation);
  const diagonal = kernelPair(unit(k, 0), unit(k, 0), scales)[kernel];
  if (k === 1) return { largest: diagonal, smallest: diagonal };
  const other = kernelPair(unit(k, 0), unit(k, 1), scales)[kernel];
  return { largest: diagonal + (k - 1) * other, smallest: diagonal - other };
}
