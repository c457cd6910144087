import { InputError } from '../../errors.js';
import { windowMeans } from './window-entropy.js';

/** A token's text as trigger words are compared: without leading space marks of tokenizers, trimmed, lower-case. */
export function normalisedToken(text: string): string {
  return text
    .replace(/^[\u0120\u2581]+/u, '')
    .trim()
    .toLowerCase();
}

/**
 * Trigger words of a file: one a line, blank lines and lines from `#` left out.
 * @throws InputError when there is none.
 */
export function parseTriggerWords(text: string): string[] {
  const lines = text.split(/\r?\n/).map((line) => line.trim());
  const words = new Set(lines.filter((line) => line !== '' && !line.startsWith('#')).map(normalisedToken));
  words.delete('');
  if (words.size === 0) throw new InputError('the list of trigger words is empty; write one word a line');
  return [...words];
}

/** Windows behind the triggers of one response (published code, spec 4.3). */
export interface TriggerCounts {
  /** Triggers whose window mean reaches the threshold, and those whose does not. */
  readonly valid: number;
  readonly invalid: number;
  /** Sum over triggers of max(0, window mean - threshold), nats. */
  readonly softCost: number;
  /** Positions of the valid ones. */
  readonly positions: Int32Array;
}

/**
 * Counts triggers by the entropy of the `width` tokens behind them; triggers with fewer behind them are not counted.
 * @param entropy [T], nats, tail-corrected.
 * @param isTrigger whether the most likely token at a position is a trigger word
 */
export function triggerCounts(
  entropy: Float64Array,
  isTrigger: (position: number) => boolean,
  width: number,
  threshold: number,
): TriggerCounts {
  const following = windowMeans(entropy, width);
  const positions: number[] = [];
  let invalid = 0;
  let softCost = 0;
  for (let i = 0; i + 1 < following.length; i++) {
    if (!isTrigger(i)) continue;
    const mean = following[i + 1];
    softCost += Math.max(0, mean - threshold);
    if (mean >= threshold) positions.push(i);
    else invalid++;
  }
  return { valid: positions.length, invalid, softCost, positions: Int32Array.from(positions) };
}
