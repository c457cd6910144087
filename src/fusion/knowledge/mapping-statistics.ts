import { containedDistance, type TokenPair } from './token-pair.js';
import type { SequenceAlignment, TokenMap } from './types.js';
import { mapDistances } from './vocabulary-map.js';

/** How often pivot tokens were matched with source tokens: per source id its pivot ids. */
export type MatchCounts = Map<number, Map<number, number>>;

/**
 * Counts the matched pairs of a text: 1 for every pivot position and every distinct source token matched to it (FuseChat
 * assigns through an index, so a repeated id counts once).
 */
export function countMatches(
  counts: MatchCounts,
  source: Int32Array,
  pivot: Int32Array,
  { offsets, positions }: SequenceAlignment,
): void {
  for (let j = 0; j < pivot.length; j++) {
    const matched = new Set<number>();
    for (let at = offsets[j]; at < offsets[j + 1]; at++) matched.add(source[positions[at]]);
    for (const token of matched) {
      let row = counts.get(token);
      if (!row) {
        row = new Map();
        counts.set(token, row);
      }
      row.set(pivot[j], (row.get(pivot[j]) ?? 0) + 1);
    }
  }
}

/** The counts in coordinates, `[pivot id, source id, count]`, in the order of the pivot's ids, then the source's. */
export function countCoordinates(counts: MatchCounts): [number, number, number][] {
  const entries: [number, number, number][] = [];
  for (const [source, row] of counts) for (const [pivot, count] of row) entries.push([pivot, source, count]);
  return entries.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
}

export interface StatisticsRule {
  /** `frequency`: the largest count. `fusechat`: the least `sigmoid(count) * distance`, so that of equals the rarer wins. */
  readonly rule: 'frequency' | 'fusechat';
  /** Among equal counts of `frequency`: the nearer string, then the lower id; or the lower id alone. Default `distance`. */
  readonly ties?: 'distance' | 'id';
  /** Whether BOS and EOS stand for BOS and EOS, whatever was counted. Default true. */
  readonly special?: boolean;
}

/** Lower is better; among equals the lower id wins. */
function preference(
  pair: TokenPair,
  options: StatisticsRule,
  source: number,
): (pivot: number, count: number) => number[] {
  if (options.rule === 'fusechat') {
    return (pivot, count) => [containedDistance(pair, source, pivot) * (1 / (1 + Math.exp(-count)))];
  }
  if (options.ties === 'id') return (_, count) => [-count];
  return (pivot, count) => [-count, containedDistance(pair, source, pivot)];
}

function precedes(a: readonly number[], b: readonly number[]): boolean {
  const at = a.findIndex((value, i) => value !== b[i]);
  return at >= 0 && a[at] < b[at];
}

/**
 * Map by mapping statistics: of the pivot tokens that a source token was matched with, the one that the rule prefers.
 * Source tokens that never occurred stand for the pivot's unknown token, else for its EOS. FuseChat (2024), section 3.
 */
export function statisticsMap(pair: TokenPair, counts: MatchCounts, options: StatisticsRule): TokenMap {
  const { source, pivot } = pair;
  const unseen = pivot.unkId ?? pivot.eosId ?? -1;
  const pivotIds = Int32Array.from(source.texts, (text) => (text === '' ? -1 : unseen));
  const chosen = new Float64Array(source.texts.length);
  for (const [token, row] of counts) {
    const rank = preference(pair, options, token);
    let best: number[] | undefined;
    for (const [id, count] of [...row].sort((a, b) => a[0] - b[0])) {
      const own = rank(id, count);
      if (best !== undefined && !precedes(own, best)) continue;
      best = own;
      pivotIds[token] = id;
      chosen[token] = count;
    }
  }
  if (options.special !== false) {
    const pairs = [
      [source.bosId, pivot.bosId],
      [source.eosId, pivot.eosId],
    ];
    for (const [from, to] of pairs) {
      if (from === undefined || to === undefined) continue;
      pivotIds[from] = to;
      chosen[from] = counts.get(from)?.get(to) ?? 0;
    }
  }
  return { kind: 'ms', pivotIds, distances: mapDistances(pair, pivotIds), counts: chosen };
}
