import { selectLargest } from '../../linalg/streamed-selection.js';
import type { RolloutIndex, RolloutStep, TokenBlock } from '../rollouts/types.js';
import type { InterventionParameter } from './types.js';

/** Over what a method takes means and ranks: the whole step, each group of its own, each record of its own. */
export const SCOPES = ['batch', 'group', 'record'] as const;
export type Scope = (typeof SCOPES)[number];

export const SCOPE_PARAMETER: InterventionParameter = {
  kind: 'choice',
  initial: 'batch',
  choices: SCOPES,
  help: 'over what means and ranks are taken: the whole step, each group or each record on its own',
};

/** The units of a step under a scope. */
export interface ScopeUnits {
  readonly count: number;
  /** [units]: tokens that count. */
  readonly counted: Float64Array;
  /** Unit of a record of the step. */
  of(record: number): number;
}

/** Units of a step. */
export function scopeUnits(
  step: RolloutStep,
  scope: Scope,
  index: Pick<RolloutIndex, 'group' | 'counted'>,
): ScopeUnits {
  if (scope === 'batch') return { count: 1, counted: Float64Array.of(step.counted), of: () => 0 };
  const units = new Map<number, number>();
  const keyOf = (record: number): number => (scope === 'group' ? index.group[record] : record);
  for (const record of step.records) {
    const key = keyOf(record);
    if (!units.has(key)) units.set(key, units.size);
  }
  const of = (record: number): number => units.get(keyOf(record)) ?? 0;
  const counted = new Float64Array(units.size);
  for (const record of step.records) counted[of(record)] += index.counted[record];
  return { count: units.size, counted, of };
}

/** Scores of the tokens of a step. */
export interface TokenScores {
  /** [units]: candidates, the tokens whose score is not NaN. */
  readonly candidates: Float64Array;
  /** Writes the score of every position of the block, NaN where it is no candidate. */
  score(block: TokenBlock, out: Float64Array): void;
}

/** The tokens with the largest scores, unit by unit; of equal scores those that come first in the step. */
export interface ScopedSelection {
  /** [units]: score of the last token taken; Infinity where none is. */
  readonly threshold: Float64Array;
  /** [units]: how many were taken. */
  readonly taken: Float64Array;
  /** Whether a token is among them; `flat` is its position in the step. */
  has(unit: number, score: number, flat: number): boolean;
}

/** Scores that are held at a time. */
const HELD_VALUES = 2 ** 22;

/** A score and how many of the scores equal to it are taken. */
interface Cut {
  readonly threshold: number;
  readonly ties: number;
  readonly equal: number;
}

function swap(values: Float64Array, a: number, b: number): void {
  const held = values[a];
  values[a] = values[b];
  values[b] = held;
}

/**
 * The k-th largest value, by quickselect with the median of three as pivot; reorders `values`.
 * @param k from 1 to the number of values
 */
export function kthLargest(values: Float64Array, k: number): number {
  const place = values.length - k;
  let low = 0;
  let high = values.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] < values[low]) swap(values, middle, low);
    if (values[high] < values[low]) swap(values, high, low);
    if (values[high] < values[middle]) swap(values, high, middle);
    const pivot = values[middle];
    let i = low;
    let j = high;
    while (i <= j) {
      while (values[i] < pivot) i++;
      while (values[j] > pivot) j--;
      if (i <= j) swap(values, i++, j--);
    }
    if (place <= j) high = j;
    else if (place >= i) low = i;
    else break;
  }
  return values[place];
}

/** Calls `visit` with the candidates of a step in order. */
function eachCandidate(
  step: RolloutStep,
  units: ScopeUnits,
  scores: TokenScores,
  visit: (unit: number, score: number, flat: number) => void,
): void {
  let buffer = new Float64Array(0);
  for (const block of step.blocks()) {
    if (buffer.length < block.mask.length) buffer = new Float64Array(block.mask.length);
    scores.score(block, buffer);
    for (let r = 0; r < block.records.length; r++) {
      const unit = units.of(block.records[r]);
      for (let i = block.offsets[r]; i < block.offsets[r + 1]; i++) {
        if (!Number.isNaN(buffer[i])) visit(unit, buffer[i], block.firstToken + i);
      }
    }
  }
}

/** Cut of one unit, whose scores need not fit in memory. */
function streamedCut(
  step: RolloutStep,
  units: ScopeUnits,
  scores: TokenScores,
  { unit, k, held }: { readonly unit: number; readonly k: number; readonly held: number },
): Cut {
  const each = (take: (values: Float64Array, mask?: Uint8Array) => void): void => {
    for (const block of step.blocks()) {
      const values = new Float64Array(block.mask.length);
      const mask = new Uint8Array(block.mask.length);
      scores.score(block, values);
      for (let r = 0; r < block.records.length; r++) {
        if (units.of(block.records[r]) !== unit) continue;
        for (let i = block.offsets[r]; i < block.offsets[r + 1]; i++) mask[i] = Number.isNaN(values[i]) ? 0 : 1;
      }
      take(values, mask);
    }
  };
  const count = scores.candidates[unit];
  const [{ threshold, ties }] = selectLargest({ count, each }, [k], { exactLimit: held, name: 'scores' });
  // Whether more values equal the threshold than are taken, only another pass would say.
  return { threshold, ties, equal: Number.POSITIVE_INFINITY };
}

/** Cuts of the units [from, to), whose scores fit in memory together. */
function heldCuts(
  step: RolloutStep,
  units: ScopeUnits,
  scores: TokenScores,
  [from, to]: readonly [number, number],
  taken: Float64Array,
  cuts: (Cut | undefined)[],
): void {
  const starts = new Int32Array(to - from + 1);
  for (let u = from; u < to; u++) starts[u - from + 1] = starts[u - from] + scores.candidates[u];
  const values = new Float64Array(starts[to - from]);
  const next = starts.slice();
  eachCandidate(step, units, scores, (unit, score) => {
    if (unit >= from && unit < to) values[next[unit - from]++] = score;
  });
  for (let u = from; u < to; u++) {
    if (taken[u] === 0) continue;
    const own = values.subarray(starts[u - from], starts[u - from + 1]);
    const threshold = kthLargest(own, taken[u]);
    let above = 0;
    let equal = 0;
    for (const value of own) {
      if (value > threshold) above++;
      else if (value === threshold) equal++;
    }
    cuts[u] = { threshold, ties: taken[u] - above, equal };
  }
}

/** [units]: position in the step of the last token equal to the threshold that is taken. */
function lastTies(step: RolloutStep, units: ScopeUnits, scores: TokenScores, cuts: readonly (Cut | undefined)[]) {
  const last = new Float64Array(units.count).fill(Number.POSITIVE_INFINITY);
  if (!cuts.some((cut) => cut !== undefined && cut.ties < cut.equal)) return last;
  const left = Float64Array.from(cuts, (cut) => cut?.ties ?? 0);
  eachCandidate(step, units, scores, (unit, score, flat) => {
    if (score !== cuts[unit]?.threshold || left[unit] === 0) return;
    left[unit]--;
    last[unit] = flat;
  });
  return last;
}

/**
 * The `wanted` tokens of every unit with the largest scores (all candidates where there are fewer), exactly and in bounded
 * memory: units are gathered as many at a time as fit; one that does not fit alone is selected in several passes.
 * @param wanted [units]
 * @param mostHeld scores that may be in memory at a time
 */
export function selectInScopes(
  step: RolloutStep,
  units: ScopeUnits,
  scores: TokenScores,
  wanted: Float64Array,
  mostHeld: number = HELD_VALUES,
): ScopedSelection {
  const { candidates } = scores;
  const taken = wanted.map((count, u) => Math.min(count, candidates[u]));
  const cuts: (Cut | undefined)[] = new Array(units.count).fill(undefined);
  for (let from = 0; from < units.count; ) {
    let to = from;
    let held = 0;
    while (to < units.count && held + candidates[to] <= mostHeld) held += candidates[to++];
    if (to > from) {
      if (held > 0) heldCuts(step, units, scores, [from, to], taken, cuts);
      from = to;
    } else {
      if (taken[from] > 0)
        cuts[from] = streamedCut(step, units, scores, { unit: from, k: taken[from], held: mostHeld });
      from++;
    }
  }
  const threshold = Float64Array.from(cuts, (cut) => cut?.threshold ?? Number.POSITIVE_INFINITY);
  const last = lastTies(step, units, scores, cuts);
  return {
    threshold,
    taken,
    has: (unit, score, flat) =>
      taken[unit] > 0 && (score > threshold[unit] || (score === threshold[unit] && flat <= last[unit])),
  };
}
