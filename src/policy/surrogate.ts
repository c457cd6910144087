import type { Surrogate } from './interventions/types.js';

/** The PPO clip and dual clip of plain GRPO, against which interventions are told apart. */
export const PLAIN_SURROGATE: Surrogate = { clip: { low: 0.2, high: 0.2 }, dualClip: 3 };

/** Log-ratios beyond this are held there by recipes that limit them. */
export const LOG_RATIO_LIMIT = 20;

/** The surrogate of one token; written anew by every {@link evaluateSurrogate}. */
export interface SurrogateTerm {
  loss: number;
  /** d loss / d log pi(token). */
  gradient: number;
  /** The log-ratio as it was used. */
  logRatio: number;
  /** 1 where L2 > L1, by the side of the band that was left. */
  clippedHigh: 0 | 1;
  clippedLow: 0 | 1;
  /** 1 where the dual clip holds the loss. */
  dualClipped: 0 | 1;
}

export function createSurrogateTerm(): SurrogateTerm {
  return { loss: 0, gradient: 0, logRatio: 0, clippedHigh: 0, clippedLow: 0, dualClipped: 0 };
}

/**
 * Clipped policy-gradient loss of one token and its gradient (PPO, Schulman et al. 2017; dual clip, Ye et al. 2020; spec 0.4):
 * L1 = -A rho, L2 = -A clip(rho), L = max(L1, L2), for A < 0 no more than -A c. The gradient is -A rho where L1 >= L2, else 0, and
 * 0 where dual clip or the limit of the log-ratio holds. Without a clip, L = L1.
 * @param logRatio log pi - log pi_old
 * @param term is overwritten
 */
export function evaluateSurrogate(
  advantage: number,
  logRatio: number,
  surrogate: Surrogate,
  term: SurrogateTerm,
): SurrogateTerm {
  const { clip, dualClip, logRatioLimit } = surrogate;
  let ratio = logRatio;
  let held = false;
  if (logRatioLimit !== undefined && Math.abs(logRatio) > logRatioLimit) {
    ratio = logRatio > 0 ? logRatioLimit : -logRatioLimit;
    held = true;
  }
  const rho = Math.exp(ratio);
  // An advantage of 0 has no loss even where rho overflows.
  const free = advantage === 0 ? 0 : -advantage * rho;
  let loss = free;
  let gradient = held ? 0 : free;
  term.clippedHigh = 0;
  term.clippedLow = 0;
  term.dualClipped = 0;
  if (clip !== undefined && advantage !== 0) {
    const high = 1 + clip.high;
    const low = 1 - clip.low;
    const inside = Math.min(Math.max(rho, low), high);
    const clipped = -advantage * inside;
    if (clipped > free) {
      loss = clipped;
      gradient = 0;
      if (rho > inside) term.clippedHigh = 1;
      else term.clippedLow = 1;
    }
  }
  if (dualClip !== undefined && advantage < 0) {
    const most = -advantage * dualClip;
    if (loss > most) {
      loss = most;
      gradient = 0;
      term.dualClipped = 1;
    }
  }
  term.loss = loss;
  term.gradient = gradient;
  term.logRatio = ratio;
  return term;
}

/** Whether two surrogates give every token the same loss. */
export function sameSurrogate(a: Surrogate, b: Surrogate): boolean {
  return (
    a.clip?.low === b.clip?.low &&
    a.clip?.high === b.clip?.high &&
    a.dualClip === b.dualClip &&
    a.logRatioLimit === b.logRatioLimit
  );
}
