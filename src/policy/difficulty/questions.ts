import { InputError } from '../../errors.js';
import { requireColumns } from '../rollouts/require-columns.js';
import type { Rollouts } from '../rollouts/types.js';

/** What the samples of every question say. A question is a prompt of one step. */
export interface Questions {
  readonly step: number;
  /** Name of the prompt, and its group in the dump. */
  readonly ids: readonly string[];
  readonly groups: Int32Array;
  readonly samples: Int32Array;
  /** Share of correct samples. */
  readonly accuracy: Float64Array;
  /** Mean over samples of the mean token entropy, nats. */
  readonly entropyNats: Float64Array;
  /** Tokens of every sample, and 1 where it is correct. */
  readonly lengths: readonly (readonly number[])[];
  readonly correct: readonly (readonly number[])[];
  /** Difficulty as the dump words it. */
  readonly difficulty: readonly (string | undefined)[];
}

/** Mean entropy of every record of a step. */
function recordEntropies(rollouts: Rollouts, stepNumber: number): Map<number, number> {
  const found = new Map<number, number>();
  const step = rollouts.steps.find((one) => one.step === stepNumber);
  for (const { records, offsets, mask, entropy } of step?.blocks() ?? []) {
    if (entropy === undefined) continue;
    records.forEach((record, r) => {
      let sum = 0;
      let count = 0;
      for (let t = offsets[r]; t < offsets[r + 1]; t++) {
        if (mask[t] === 0) continue;
        sum += entropy[t];
        count++;
      }
      found.set(record, sum / count);
    });
  }
  return found;
}

/** The step whose samples are taken: the one asked for, else the last. @throws InputError for a step that is not there */
function chooseStep(rollouts: Rollouts, wanted: number | undefined): number {
  const steps = rollouts.steps.map(({ step }) => step);
  const last = steps.at(-1);
  if (last === undefined) throw new InputError('the dump holds no record');
  if (wanted === undefined) return last;
  if (!steps.includes(wanted)) {
    throw new InputError(`--step ${wanted}: the dump has the steps ${steps[0]} to ${last} (${steps.length} of them)`);
  }
  return wanted;
}

/**
 * Questions of one step of a dump, in the order of their first record.
 * @param needsEntropy lengths and correctness alone are read otherwise
 * @throws InputError where the dump lacks what is correct, or entropies
 */
export function questionsOf(rollouts: Rollouts, wanted: number | undefined, needsEntropy: boolean): Questions {
  requireColumns(rollouts, needsEntropy ? ['correct', 'entropy'] : ['correct'], 'difficulty');
  const step = chooseStep(rollouts, wanted);
  const { index } = rollouts;
  const entropies = needsEntropy ? recordEntropies(rollouts, step) : undefined;
  const place = new Map<number, number>();
  const lists = { lengths: [] as number[][], correct: [] as number[][], entropy: [] as number[][] };
  const difficulty: (string | undefined)[] = [];
  for (let record = 0; record < index.records; record++) {
    if (index.step[record] !== step) continue;
    const right = index.correct?.[record] ?? Number.NaN;
    if (Number.isNaN(right))
      throw new InputError(
        `${rollouts.place(record)}: nothing says whether the response is correct; name the column with --map correct=COLUMN`,
      );
    const group = index.group[record];
    let q = place.get(group);
    if (q === undefined) {
      q = place.size;
      place.set(group, q);
      for (const list of Object.values(lists)) list.push([]);
      difficulty.push(index.difficulty?.[record]);
    }
    lists.lengths[q].push(index.counted[record]);
    lists.correct[q].push(right);
    if (entropies) lists.entropy[q].push(entropies.get(record) ?? Number.NaN);
  }
  const mean = (list: readonly number[]): number => list.reduce((sum, one) => sum + one, 0) / list.length;
  const groups = Int32Array.from(place.keys());
  return {
    step,
    ids: Array.from(groups, (group) => index.promptIds[group]),
    groups,
    samples: Int32Array.from(lists.correct, ({ length }) => length),
    accuracy: Float64Array.from(lists.correct, mean),
    entropyNats: Float64Array.from(lists.entropy, mean),
    lengths: lists.lengths,
    correct: lists.correct,
    difficulty,
  };
}

/**
 * Levels of difficulty as numbers: the number that a word ends with (`Level 3`), or its place in `order`.
 * @returns NaN for questions without one
 * @throws InputError naming a word that is neither
 */
export function levelsOf(difficulty: readonly (string | undefined)[], order?: readonly string[]): Float64Array {
  return Float64Array.from(difficulty, (word) => {
    if (word === undefined) return Number.NaN;
    if (order) {
      const at = order.indexOf(word);
      if (at < 0)
        throw new InputError(
          `--levels: the dump also has the difficulty "${word}"; name all of them, from the easiest on`,
        );
      return at + 1;
    }
    const number = /-?\d+(?:\.\d+)?$/.exec(word.trim());
    if (number === null)
      throw new InputError(
        `the difficulty "${word}" ends with no number; name all of them, from the easiest on, with --levels`,
      );
    return Number(number[0]);
  });
}
