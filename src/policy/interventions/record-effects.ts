import { InputError } from '../../errors.js';
import { type AdvantageVariant, groupAdvantages } from '../advantages.js';
import type { RolloutIndex, RolloutStep, TokenBlock } from '../rollouts/types.js';
import { touchedBySurrogate } from './effects.js';
import { choiceSetting, numberSetting } from './settings.js';
import type { Aggregation, InterventionParameter, InterventionSettings, PolicyEffect, Surrogate } from './types.js';

/** Place of every record of a step in the order of the step. */
export function placesOf(step: RolloutStep): ReadonlyMap<number, number> {
  const places = new Map<number, number>();
  for (let i = 0; i < step.records.length; i++) places.set(step.records[i], i);
  return places;
}

/** Groups of the records of a step, numbered by first appearance. */
export interface StepGroups {
  /** [records of the step]. */
  readonly group: Int32Array;
  readonly groups: number;
  /** Number of every group in the index. */
  readonly numbers: readonly number[];
}

export function stepGroups(step: RolloutStep, index: Pick<RolloutIndex, 'group'>): StepGroups {
  const known = new Map<number, number>();
  const numbers: number[] = [];
  const group = Int32Array.from(step.records, (record) => {
    const number = index.group[record];
    const before = known.get(number);
    if (before !== undefined) return before;
    known.set(number, numbers.length);
    numbers.push(number);
    return numbers.length - 1;
  });
  return { group, groups: numbers.length, numbers };
}

/** Group-relative advantages of the rewards of a step, [records of the step]. */
export function stepAdvantages(
  reward: Float64Array,
  { group, groups }: StepGroups,
  variant: AdvantageVariant,
): Float64Array {
  return groupAdvantages(reward, group, groups, { variant });
}

/** How advantages are made of the rewards that a method gives. */
export const ADVANTAGE_PARAMETER: InterventionParameter = {
  kind: 'choice',
  initial: 'grpo',
  choices: ['grpo', 'no-std'],
  help: 'advantages of the new rewards: divided by the standard deviation of the group, or not',
};

export function advantageVariantOf(settings: InterventionSettings): AdvantageVariant {
  return choiceSetting(settings, 'advantage') === 'no-std' ? 'no-std' : 'grpo';
}

/** 1 or 0 for every record of a step. @throws InputError where it is not known, saying how it is given */
export function stepCorrect(step: RolloutStep, index: RolloutIndex, method: string): Uint8Array {
  const { correct } = index;
  if (correct === undefined) {
    throw new InputError(
      `${method} needs to know which answers are correct: give the field "correct" (--map correct=COLUMN), or rewards of two values`,
    );
  }
  return Uint8Array.from(step.records, (record) => {
    const value = correct[record];
    if (Number.isNaN(value))
      throw new InputError(`${method}: record ${record} does not say whether its answer is correct`);
    return value > 0 ? 1 : 0;
  });
}

/** Which entropies a method reads: those over the whole vocabulary, or a bound of the likeliest tokens. */
export const ENTROPY_PARAMETER: InterventionParameter = {
  kind: 'choice',
  initial: 'full',
  choices: ['full', 'lower', 'upper'],
  help: 'entropies over the whole vocabulary, or the lower or upper bound of top-k log-probabilities with their tail',
};

/**
 * The entropies of a block that `which` names.
 * @throws InputError where the dump has none of that kind; a truncated sum without its tail is never taken in their place
 */
export function entropiesOf(block: TokenBlock, which: string, method: string): Float64Array {
  const column = which === 'lower' ? block.entropyLower : which === 'upper' ? block.entropyUpper : block.entropy;
  if (column !== undefined) return column;
  const bounds = block.entropyLower !== undefined;
  if (which === 'upper' && bounds)
    throw new InputError(`${method}: the upper bound needs the size of the vocabulary (--vocab)`);
  throw new InputError(
    which === 'full' && bounds
      ? `${method} needs entropies over the whole vocabulary, and the dump has top-k log-probabilities: their truncated sum is no ` +
          'entropy; --model re-scores the dump, the setting entropy=lower takes the bound with the tail'
      : `${method} needs the ${which === 'full' ? 'entropy' : `${which} bound on the entropy`} of every token: ` +
          '--map entropy=COLUMN or --map topk=COLUMN names it, --model re-scores the dump',
  );
}

/** Loss of the effects of a step whose advantages a method replaces. */
export interface RecordLoss {
  readonly surrogate: Surrogate;
  readonly aggregation: Aggregation;
  readonly plain: Surrogate | undefined;
}

/**
 * Effect of other advantages: one a record, spread over its tokens.
 * @param advantage [records of the step]
 * @param places of {@link placesOf}
 * @param reward [records of the step], where the method gives rewards
 */
export function advantageEffect(
  block: TokenBlock,
  places: ReadonlyMap<number, number>,
  advantage: Float64Array,
  { surrogate, aggregation, plain }: RecordLoss,
  reward?: Float64Array,
): PolicyEffect {
  const spread = new Float64Array(block.mask.length);
  eachRecord(block, (record, from, to) => {
    const value = advantage[placeOf(places, record)];
    for (let i = from; i < to; i++) if (block.mask[i] !== 0) spread[i] = value;
  });
  return {
    surrogate,
    aggregation,
    advantage: spread,
    ...(reward && { reward: Float64Array.from(block.records, (record) => reward[placeOf(places, record)]) }),
    touched: touchedByAdvantage(block, spread, surrogate, plain),
  };
}

/**
 * 1 where the advantage is another one than the block's, or where the surrogate makes another loss of it.
 * @param advantage [tokens of the block]
 */
export function touchedByAdvantage(
  block: TokenBlock,
  advantage: Float64Array,
  surrogate: Surrogate,
  plain: Surrogate | undefined,
): Uint8Array {
  const touched = touchedBySurrogate(block, surrogate, plain, advantage);
  const { mask, advantage: before } = block;
  for (let i = 0; i < mask.length; i++) {
    if (mask[i] !== 0 && advantage[i] !== (before === undefined ? 0 : before[i])) touched[i] = 1;
  }
  return touched;
}

/** @throws Error for a record that is not of the step */
export function placeOf(places: ReadonlyMap<number, number>, record: number): number {
  const place = places.get(record);
  if (place === undefined) throw new Error(`record ${record} is not in the step that was prepared`);
  return place;
}

/** Calls `use` with every record of a block: its number, its range of positions, its place in the block. */
export function eachRecord(
  block: TokenBlock,
  use: (record: number, from: number, to: number, place: number) => void,
): void {
  for (let r = 0; r < block.records.length; r++) use(block.records[r], block.offsets[r], block.offsets[r + 1], r);
}

/** Positions of a record that count, from its beginning. */
export function countedPositions(mask: Uint8Array, from: number, to: number): Int32Array {
  let n = 0;
  for (let i = from; i < to; i++) n += mask[i];
  const positions = new Int32Array(n);
  for (let i = from, j = 0; i < to; i++) if (mask[i] !== 0) positions[j++] = i - from;
  return positions;
}

/** Values at the positions of a record that count. */
export function countedValues(values: Float64Array, from: number, positions: Int32Array): Float64Array {
  return Float64Array.from(positions, (t) => values[from + t]);
}

/** A number of things. @throws InputError for a fraction */
export function wholeSetting(settings: InterventionSettings, name: string, method: string): number {
  const value = numberSetting(settings, name);
  if (Number.isInteger(value)) return value;
  throw new InputError(`${method}: ${name} is ${value}; give a whole number`);
}
