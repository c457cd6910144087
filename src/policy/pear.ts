import { addTo, createCompensatedSum, totalOf } from './compensated-sum.js';

/** Parameters of PEAR (spec 3). */
export interface PearSettings {
  /** Weight of the answer's entropy in the penalty. Default 1. */
  readonly alpha?: number;
  /** Score of a correct answer without penalty, in (0, 1]. Default 1. */
  readonly baseScore?: number;
  /** Reward of a wrong answer, in [0, 1). Default 0. */
  readonly formatScore?: number;
  /** Least reward of a correct answer; absent: as low as the penalty takes it. */
  readonly floor?: number;
}

/** Where a response lies in arrays of tokens, and the end-of-thinking marker within it. */
export interface PhaseSpan {
  readonly from: number;
  readonly to: number;
  /** First and last position of the marker, counted from `from`; -1 without a marker. */
  readonly markerStart: number;
  readonly markerEnd: number;
}

export interface PhaseMeans {
  /** Mean entropy of the tokens before the marker and behind it, nats; 0 for a phase without tokens. */
  readonly think: number;
  readonly answer: number;
  readonly thinkTokens: number;
  readonly answerTokens: number;
}

/**
 * Mean token entropy of thinking and answer. The tokens of the marker are in neither; without a marker everything is thinking.
 * @param entropy Nats, [tokens]; positions out of the mask are not read.
 * @param mask [tokens]; all count when absent.
 */
export function phaseMeans(entropy: Float64Array, mask: Uint8Array | undefined, span: PhaseSpan): PhaseMeans {
  const { from, to, markerStart, markerEnd } = span;
  const marked = markerEnd >= 0;
  const first = marked ? from + (markerStart >= 0 ? markerStart : markerEnd) : to;
  const behind = marked ? from + markerEnd + 1 : to;
  const mean = (start: number, end: number): { mean: number; tokens: number } => {
    const total = createCompensatedSum();
    let tokens = 0;
    for (let i = start; i < end; i++) {
      if (mask !== undefined && mask[i] === 0) continue;
      addTo(total, entropy[i]);
      tokens++;
    }
    return { mean: tokens === 0 ? 0 : totalOf(total) / tokens, tokens };
  };
  const think = mean(from, Math.min(first, to));
  const answer = mean(behind, to);
  return { think: think.mean, answer: answer.mean, thinkTokens: think.tokens, answerTokens: answer.tokens };
}

/** P = max(0, H_think - alpha H_answer), nats. */
export function pearPenalty(means: Pick<PhaseMeans, 'think' | 'answer'>, alpha = 1): number {
  return Math.max(0, means.think - alpha * means.answer);
}

/** min(1, s - P) for a correct answer, not below the floor where there is one; the format score for a wrong one. */
export function pearReward(penalty: number, correct: boolean, settings: PearSettings = {}): number {
  const { baseScore = 1, formatScore = 0, floor = Number.NEGATIVE_INFINITY } = settings;
  return correct ? Math.max(floor, Math.min(1, baseScore - penalty)) : formatScore;
}

/** What PEAR says of one response. */
export interface PearRecord extends PhaseMeans {
  readonly penalty: number;
  readonly reward: number;
  /** A correct answer that is rewarded less than a wrong one. */
  readonly belowWrong: boolean;
}

/** Phase means, penalty and reward of one response. */
export function pearRecord(
  entropy: Float64Array,
  mask: Uint8Array | undefined,
  span: PhaseSpan,
  correct: boolean,
  settings: PearSettings = {},
): PearRecord {
  const means = phaseMeans(entropy, mask, span);
  const penalty = pearPenalty(means, settings.alpha ?? 1);
  const reward = pearReward(penalty, correct, settings);
  return { ...means, penalty, reward, belowWrong: correct && reward < (settings.formatScore ?? 0) };
}

/** Shares of the thinking tokens that the filtering experiment keeps. */
export const FILTER_SHARES = [1, 0.8, 0.6, 0.4, 0.2] as const;

export interface FilteredThinking {
  /** Thinking tokens that stay: floor(share n) of the lowest entropy. */
  readonly kept: number;
  /** Mean entropy of those, 0 without any, and the largest among them; nats. */
  readonly meanEntropy: number;
  readonly threshold: number;
}

/**
 * The thinking of one response with the lowest-entropy share of its tokens alone, for every share.
 * @param ascending Entropies of its thinking tokens, ascending.
 */
export function filterThinking(ascending: Float64Array, shares: readonly number[] = FILTER_SHARES): FilteredThinking[] {
  return shares.map((share) => {
    // Products such as 0.29 * 100 fall short of their whole number by rounding.
    const kept = Math.floor(share * ascending.length + 1e-9);
    const total = createCompensatedSum();
    for (let i = 0; i < kept; i++) addTo(total, ascending[i]);
    return {
      kept,
      meanEntropy: kept === 0 ? 0 : totalOf(total) / kept,
      threshold: kept === 0 ? Number.NaN : ascending[kept - 1],
    };
  });
}
