import { InputError } from '../../errors.js';
import { quantileOfSorted } from '../../linalg/quantile-sketch.js';

/** Classes of the probe, in the order of its outputs (DiffAdapt, arXiv 2510.19669, section 3). */
export const DIFFICULTIES = ['easy', 'normal', 'hard'] as const;
export type Difficulty = (typeof DIFFICULTIES)[number];

/** Thresholds of the proxy labels. The paper states none: defaults are medians of the data and one third. */
export interface LabelThresholds {
  /** Least accuracy of a normal question. */
  readonly alpha: number;
  /** Greatest entropy of a normal question, nats. */
  readonly beta: number;
  /** A question with less accuracy is hard. */
  readonly gamma: number;
}

export const DEFAULT_GAMMA = 1 / 3;

const median = (values: ArrayLike<number>): number => quantileOfSorted(Float64Array.from(values).sort(), 0.5);

/**
 * Thresholds by the data where none are given: alpha the median accuracy, beta the median entropy, gamma 1/3.
 * @param accuracy [questions] share of correct samples
 * @param entropyNats [questions] mean over samples of the mean token entropy
 */
export function labelThresholds(
  accuracy: ArrayLike<number>,
  entropyNats: ArrayLike<number>,
  given: Partial<LabelThresholds> = {},
): LabelThresholds {
  return {
    alpha: given.alpha ?? median(accuracy),
    beta: given.beta ?? median(entropyNats),
    gamma: given.gamma ?? DEFAULT_GAMMA,
  };
}

/**
 * Class of every question, as a place in `DIFFICULTIES`. The rules apply in order: accuracy >= alpha and entropy <= beta is
 * normal; accuracy < gamma is hard; the rest is easy (spec 8.1: solved in an overthinking way, with high entropy).
 * @param accuracy [questions]
 * @param entropyNats [questions]
 */
export function proxyLabels(
  accuracy: ArrayLike<number>,
  entropyNats: ArrayLike<number>,
  { alpha, beta, gamma }: LabelThresholds,
): Uint8Array {
  return Uint8Array.from(accuracy, (share, i) => {
    if (share >= alpha && entropyNats[i] <= beta) return DIFFICULTIES.indexOf('normal');
    return DIFFICULTIES.indexOf(share < gamma ? 'hard' : 'easy');
  });
}

/** Questions of every class. */
export function classCounts(labels: ArrayLike<number>): number[] {
  const counts = DIFFICULTIES.map(() => 0);
  for (let i = 0; i < labels.length; i++) counts[labels[i]]++;
  return counts;
}

/** @throws InputError naming the class without a question and the thresholds that left it empty */
export function checkClasses(counts: readonly number[], { alpha, beta, gamma }: LabelThresholds): void {
  const empty = DIFFICULTIES.find((_, c) => counts[c] === 0);
  if (empty === undefined) return;
  throw new InputError(
    `no question is ${empty} (alpha ${alpha}, beta ${beta} nats, gamma ${gamma}; ` +
      `${DIFFICULTIES.map((name, c) => `${counts[c]} ${name}`).join(', ')}): move a threshold with --alpha, --beta or --gamma`,
  );
}
