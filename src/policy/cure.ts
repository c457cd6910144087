import { InputError } from '../errors.js';
import type { Random } from '../random.js';
import { createBoundedHeap } from './bounded-heap.js';

/** One response as CURE reads it: position t stands at `from + t` of flat arrays. */
export interface CriticalSpan {
  readonly from: number;
  readonly to: number;
  /** Nats, flat; positions out of the mask are not read. */
  readonly entropy: Float64Array;
  /** All count when absent. */
  readonly mask?: Uint8Array;
  /** Whether the token at a flat index may be cut at: not special, and more than one character of text. */
  readonly eligible: (index: number) => boolean;
}

/** Whether the decoded text of a token is long enough to be a critical token: more than one character without spaces. */
export function isCriticalText(text: string): boolean {
  const trimmed = text.trim();
  // One code point may take two units.
  return trimmed.length > 1 && !(trimmed.length === 2 && trimmed.codePointAt(0) !== trimmed.charCodeAt(0));
}

/**
 * Positions of the `topK` eligible tokens of highest entropy, descending, the lowest position first among equals; position 0
 * is never one. Empty where there is none: the response is then regenerated from its beginning.
 */
export function criticalTokens({ from, to, entropy, mask, eligible }: CriticalSpan, topK: number): Int32Array {
  const heap = createBoundedHeap(topK);
  for (let i = from + 1; i < to; i++) {
    if (mask !== undefined && mask[i] === 0) continue;
    if (eligible(i)) heap.offer(entropy[i], i - from);
  }
  return heap.ranked();
}

/** Ablation: the first `topK` eligible positions in a random order. */
export function randomTokens({ from, to, mask, eligible }: CriticalSpan, topK: number, random: Random): Int32Array {
  const heap = createBoundedHeap(topK);
  for (let i = from + 1; i < to; i++) {
    if (mask !== undefined && mask[i] === 0) continue;
    // One draw a position that could be eligible: what the text says of others does not move the draws.
    const key = random.uniform();
    if (eligible(i)) heap.offer(key, i - from);
  }
  return heap.ranked();
}

/**
 * Where a response is cut: one of its critical tokens drawn uniformly, or 0 where it has none.
 * @param drawn Index into `critical` in the place of a draw.
 */
export function drawPosition(critical: Int32Array, draw: Random | { readonly drawn: number }): number {
  if (critical.length === 0) return 0;
  if (!('drawn' in draw)) return critical[draw.integer(critical.length)];
  if (!(draw.drawn >= 0 && draw.drawn < critical.length))
    throw new InputError(`draw ${draw.drawn} of ${critical.length} critical tokens`);
  return critical[draw.drawn];
}

/** A prompt for regeneration. */
export interface BranchPrefix {
  readonly prefix: Int32Array;
  /** Whether the end was cut off, and with it the critical point. */
  readonly truncated: boolean;
}

/** prompt + response[0 : position], cut on the right to the prompt budget. */
export function branchPrefix(
  prompt: ArrayLike<number>,
  response: ArrayLike<number>,
  position: number,
  budget: number,
): BranchPrefix {
  const whole = prompt.length + position;
  const prefix = new Int32Array(Math.min(whole, budget));
  for (let i = 0; i < prefix.length; i++) prefix[i] = i < prompt.length ? prompt[i] : response[i - prompt.length];
  return { prefix, truncated: whole > budget };
}

/** Responses that share one advantage: n1 originals and n2 branches of each. */
export function regenerationGroupSize(originals: number, branches: number): number {
  return originals + originals * branches;
}

/** Mark of a branch in its response id, by which a later dump tells origins apart: `<parent>/branch-<number>`. */
export function branchId(parent: string, branch: number): string {
  return `${parent}/branch-${branch}`;
}

export function isBranchId(id: string): boolean {
  return /\/branch-\d+$/.test(id);
}

export interface OriginRewards {
  readonly records: number;
  /** NaN without records. */
  readonly meanReward: number;
}

/** Mean reward of originals and branches; records of unknown reward are left out. */
export function rewardsByOrigin(
  reward: Float64Array,
  branch: (record: number) => boolean,
): { originals: OriginRewards; branches: OriginRewards } {
  const sums = [0, 0];
  const counts = [0, 0];
  for (let r = 0; r < reward.length; r++) {
    if (Number.isNaN(reward[r])) continue;
    const side = branch(r) ? 1 : 0;
    sums[side] += reward[r];
    counts[side]++;
  }
  const [originals, branches] = [0, 1].map((side) => ({
    records: counts[side],
    meanReward: sums[side] / counts[side],
  }));
  return { originals, branches };
}
