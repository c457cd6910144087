import { candidateSearch, editIndex } from './minimum-edit.js';
import type { TokenPair } from './token-pair.js';
import type { TokenMap } from './types.js';
import { mapDistances, withoutEqual } from './vocabulary-map.js';

/** Symmetric counts of tokens near each other: rows that are not there are zero. */
export type CoOccurrence = Map<number, Map<number, number>>;

function add(rows: CoOccurrence, row: number, column: number): void {
  let entries = rows.get(row);
  if (!entries) {
    entries = new Map();
    rows.set(row, entries);
  }
  entries.set(column, (entries.get(column) ?? 0) + 1);
}

/**
 * Counts a text: for each position i and each j != i of [max(0, i - window), min(i + window, length)) one to both
 * (t_i, t_j) and (t_j, t_i). The right end i + window is outside, as in FuseLLM.
 */
export function countCoOccurrence(rows: CoOccurrence, ids: Int32Array, window: number): void {
  for (let i = 0; i < ids.length; i++) {
    const end = Math.min(i + window, ids.length);
    for (let j = Math.max(0, i - window); j < end; j++) {
      if (j === i) continue;
      add(rows, ids[i], ids[j]);
      add(rows, ids[j], ids[i]);
    }
  }
}

/**
 * Pairs of columns in which rows of the two vocabularies are compared: every pivot token that is an image of the map with
 * the last source token, in the vocabulary's order, that stands for it.
 */
export function sharedColumns(map: TokenMap): ReadonlyMap<number, number> {
  const columns = new Map<number, number>();
  map.pivotIds.forEach((pivot, source) => {
    if (pivot >= 0) columns.set(pivot, source);
  });
  return columns;
}

function norm(row: ReadonlyMap<number, number> | undefined, columns: ReadonlySet<number>): number {
  let sum = 0;
  for (const [column, count] of row ?? []) if (columns.has(column)) sum += count * count;
  return Math.sqrt(sum);
}

const SIMILARITY_FLOOR = 1e-6;

/**
 * Co-occurrence refinement of a MinED map: where several pivot tokens are at the least distance, the one whose neighbours
 * are most like the source token's, `x.y / (|x| |y| + 1e-6)` over the shared columns; the first among equals. FuseLLM.
 */
export function refineByCoOccurrence(
  pair: TokenPair,
  mined: TokenMap,
  source: CoOccurrence,
  pivot: CoOccurrence,
): TokenMap {
  const columns = sharedColumns(mined);
  const pivotColumns = new Set(columns.keys());
  const sourceColumns = new Set(columns.values());
  const nearestOf = candidateSearch(editIndex(pair.pivot.texts));
  const pivotIds = mined.pivotIds.slice();
  const refined: number[] = [];
  for (const [text, ids] of withoutEqual(pair)) {
    // FuseLLM's map is keyed by strings: of several tokens with one string the last is the row.
    const row = source.get(ids[ids.length - 1]);
    const own = norm(row, sourceColumns);
    const candidates = nearestOf(text);
    let best = -1;
    let most = -Infinity;
    for (const candidate of candidates) {
      const other = pivot.get(candidate);
      let product = 0;
      for (const [column, count] of other ?? []) {
        const paired = columns.get(column);
        if (paired !== undefined) product += count * (row?.get(paired) ?? 0);
      }
      const similarity = product / (own * norm(other, pivotColumns) + SIMILARITY_FLOOR);
      if (similarity <= most) continue;
      most = similarity;
      best = candidate;
    }
    for (const id of ids) {
      if (best !== mined.pivotIds[id]) refined.push(id);
      pivotIds[id] = best;
    }
  }
  return {
    kind: 'cooccurrence',
    pivotIds,
    distances: mapDistances(pair, pivotIds),
    refined: Int32Array.from(refined),
  };
}
