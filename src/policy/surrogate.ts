import type { Surrogate } from './interventions/types.js';
import { ofBlock } from './rollouts/small-blocks.js';
import type { TokenBlock } from './rollouts/types.js';

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
  const { logRatioLimit } = surrogate;
  const held = logRatioLimit !== undefined && Math.abs(logRatio) > logRatioLimit;
  const ratio = held ? Math.sign(logRatio) * logRatioLimit : logRatio;
  applyClips(advantage, Math.exp(ratio), held, surrogate, term);
  term.logRatio = ratio;
  return term;
}

/** The same from rho = e^(log-ratio as it was limited); `held` where the limit holds it. */
function applyClips(
  advantage: number,
  rho: number,
  held: boolean,
  { clip, dualClip }: Surrogate,
  term: SurrogateTerm,
): void {
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
}

/** What holds the surrogate of a token, as bits of {@link SurrogateTerms.held}. */
export const HELD_HIGH = 1;
export const HELD_LOW = 2;
export const HELD_DUAL = 4;

/** The surrogate of every token of a block, 0 under a mask of 0. */
export interface SurrogateTerms {
  readonly loss: Float64Array;
  readonly gradient: Float64Array;
  readonly held: Uint8Array;
}

const one = createSurrogateTerm();

/** e^(log pi - log pi_old) of every position of a block. */
export function tokenRatios(block: TokenBlock): Float64Array {
  return ofBlock(block, tokenRatios, ({ logProb, oldLogProb = logProb, mask }) => {
    const ratios = new Float64Array(mask.length);
    if (logProb === undefined || oldLogProb === undefined) return ratios.fill(1);
    for (let i = 0; i < ratios.length; i++) ratios[i] = Math.exp(logProb[i] - oldLogProb[i]);
    return ratios;
  });
}

function computeTerms(block: TokenBlock, surrogate: Surrogate, advantage: Float64Array): SurrogateTerms {
  const { mask, logProb, oldLogProb } = block;
  const { logRatioLimit = Number.POSITIVE_INFINITY } = surrogate;
  const loss = new Float64Array(mask.length);
  const gradient = new Float64Array(mask.length);
  const held = new Uint8Array(mask.length);
  const ratios = tokenRatios(block);
  for (let i = 0; i < mask.length; i++) {
    if (mask[i] === 0) continue;
    const logRatio = logProb === undefined || oldLogProb === undefined ? 0 : logProb[i] - oldLogProb[i];
    if (Math.abs(logRatio) > logRatioLimit) evaluateSurrogate(advantage[i], logRatio, surrogate, one);
    else applyClips(advantage[i], ratios[i], false, surrogate, one);
    loss[i] = one.loss;
    gradient[i] = one.gradient;
    held[i] = (one.clippedHigh && HELD_HIGH) | (one.clippedLow && HELD_LOW) | (one.dualClipped && HELD_DUAL);
  }
  return { loss, gradient, held };
}

/**
 * {@link evaluateSurrogate} of every token of a block. Blocks of `smallBlocks` keep the terms of their own advantages.
 * @param advantage [tokens of the block]
 */
export function surrogateTerms(block: TokenBlock, surrogate: Surrogate, advantage: Float64Array): SurrogateTerms {
  if (advantage !== block.advantage) return computeTerms(block, surrogate, advantage);
  const known = ofBlock(block, surrogateTerms, (): [Surrogate, SurrogateTerms][] => []);
  const found = known.find(([other]) => sameSurrogate(other, surrogate));
  if (found !== undefined) return found[1];
  const terms = computeTerms(block, surrogate, advantage);
  known.push([surrogate, terms]);
  return terms;
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
