import { type CoOccurrence, countCoOccurrence, refineByCoOccurrence } from './co-occurrence.js';
import { countMatches, type MatchCounts, type StatisticsRule, statisticsMap } from './mapping-statistics.js';
import { alignSequences, type TokenCosts } from './sequence-alignment.js';
import type { TokenPair } from './token-pair.js';
import type { MoveRule, TokenMap, TokenMapKind } from './types.js';
import { exactMap, minimumEditMap } from './vocabulary-map.js';

/** Half-width of the window in which tokens occur together, as in FuseLLM. */
const CO_OCCURRENCE_WINDOW = 5;

/** Sequences of one source beside the pivot's, the same texts. */
export interface SequencePairs {
  readonly count: number;
  source(s: number): Int32Array;
  pivot(s: number): Int32Array;
}

/** How distributions are moved with a kind of map: as the project that made it does. */
export function moveRuleOf(kind: TokenMapKind): MoveRule {
  return kind === 'exact' ? 'fusellm-hard' : kind === 'ms' ? 'fusechat' : 'fusellm-soft';
}

/** Maps a source's vocabulary, by the strings alone or by the texts too. */
export function buildTokenMap(
  kind: TokenMapKind,
  pair: TokenPair,
  sequences: SequencePairs,
  costs: TokenCosts,
  statistics: StatisticsRule,
): TokenMap {
  switch (kind) {
    case 'exact':
      return exactMap(pair);
    case 'mined':
      return withEnds(pair, minimumEditMap(pair));
    case 'cooccurrence': {
      const ofSource: CoOccurrence = new Map();
      const ofPivot: CoOccurrence = new Map();
      for (let s = 0; s < sequences.count; s++) {
        countCoOccurrence(ofSource, sequences.source(s), CO_OCCURRENCE_WINDOW);
        countCoOccurrence(ofPivot, sequences.pivot(s), CO_OCCURRENCE_WINDOW);
      }
      return withEnds(pair, refineByCoOccurrence(pair, minimumEditMap(pair), ofSource, ofPivot));
    }
    case 'ms': {
      const counts: MatchCounts = new Map();
      for (let s = 0; s < sequences.count; s++) {
        const [source, pivot] = [sequences.source(s), sequences.pivot(s)];
        countMatches(counts, source, pivot, alignSequences(source, pivot, costs));
      }
      return statisticsMap(pair, counts, statistics);
    }
  }
}

/** The tokens that begin and end a text stand for each other, whatever their strings. */
function withEnds({ source, pivot }: TokenPair, map: TokenMap): TokenMap {
  const pivotIds = map.pivotIds.slice();
  if (source.bosId !== undefined && pivot.bosId !== undefined) pivotIds[source.bosId] = pivot.bosId;
  if (source.eosId !== undefined && pivot.eosId !== undefined) pivotIds[source.eosId] = pivot.eosId;
  return { ...map, pivotIds };
}
