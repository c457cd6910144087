import { InputError } from '../errors.js';

/** One group of a round of generation. */
export interface GeneratedGroup<Id> {
  readonly id: Id;
  readonly correct: number;
  readonly size: number;
}

/** A group in the buffer, and the round that generated it. */
export interface BufferedGroup<Id> {
  readonly id: Id;
  readonly round: number;
}

/** Buffers of recent-sample recovery between rounds (spec 7.3). */
export interface RecentSamples<Id> {
  readonly round: number;
  /** Rounds since the last update. */
  readonly waiting: number;
  /** B_c: groups that wait for a full batch. */
  readonly buffer: readonly BufferedGroup<Id>[];
  /** B_r: what the last update left over, used first in the next. */
  readonly carried: readonly BufferedGroup<Id>[];
}

export interface RecentRound<Id> {
  readonly generated: number;
  readonly legitimate: number;
  /** Groups of the update, oldest first; absent where the buffer was not full. */
  readonly used?: readonly BufferedGroup<Id>[];
  /** Rounds that this update took; absent without an update. */
  readonly rounds?: number;
  /** Groups in B_c and B_r after the round. */
  readonly buffered: number;
  readonly recovered: number;
  readonly next: RecentSamples<Id>;
}

export function emptySamples<Id>(): RecentSamples<Id> {
  return { round: 0, waiting: 0, buffer: [], carried: [] };
}

/** Whether a group teaches something: neither all right nor all wrong. */
export function isLegitimate({ correct, size }: Pick<GeneratedGroup<unknown>, 'correct' | 'size'>): boolean {
  return correct > 0 && correct < size;
}

/**
 * One round: the carried groups come first, then those of before, then the new legitimate ones; with `batch` of them there
 * is an update with the first, and the rest is carried.
 * @throws InputError for a batch below 1.
 */
export function recentRound<Id>(
  state: RecentSamples<Id>,
  generated: readonly GeneratedGroup<Id>[],
  batch: number,
): RecentRound<Id> {
  if (!(Number.isInteger(batch) && batch >= 1)) throw new InputError(`a batch of ${batch} groups; give a whole number`);
  const fresh = generated.filter(isLegitimate).map(({ id }) => ({ id, round: state.round }));
  const buffer = [...state.buffer, ...state.carried, ...fresh];
  const facts = { generated: generated.length, legitimate: fresh.length };
  const [round, rounds] = [state.round + 1, state.waiting + 1];
  if (buffer.length < batch) {
    const next = { round, waiting: rounds, buffer, carried: [] };
    return { ...facts, buffered: buffer.length, recovered: 0, next };
  }
  const carried = buffer.slice(batch);
  const next = { round, waiting: 0, buffer: [], carried };
  return { ...facts, used: buffer.slice(0, batch), rounds, buffered: 0, recovered: carried.length, next };
}
