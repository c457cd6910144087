import {
  countCoordinates,
  countMatches,
  type MatchCounts,
  statisticsMap,
} from '../../src/fusion/knowledge/mapping-statistics.js';
import { moveDistribution } from '../../src/fusion/knowledge/move-distribution.js';
import { alignSequences, matchesOf, tokenCosts } from '../../src/fusion/knowledge/sequence-alignment.js';
import { type CostRule, type TokenPair, tokenPair } from '../../src/fusion/knowledge/token-pair.js';
import type { AlignedRows, SequenceAlignment, TokenMap } from '../../src/fusion/knowledge/types.js';
import { mapFromText } from '../../src/fusion/knowledge/vocabulary-map.js';
import type { Json } from './harness.js';
import { keysOf, numbers } from './tensors.js';

type Inputs = { [key: string]: Json };

const id = (value: Json): number | undefined => (typeof value === 'number' ? value : undefined);
const ids = (value: Json, name: string): Int32Array => Int32Array.from(numbers(value, name));

export function strings(value: Json, name: string): string[] {
  if (!Array.isArray(value)) throw new TypeError(`${name} is not a list`);
  return value.map(String);
}

export function pairOf(inputs: Inputs): TokenPair {
  const texts = (side: 'source' | 'pivot') => ({
    texts: strings(inputs[`${side}_vocab`], `${side}_vocab`),
    marker: String(inputs[`${side}_space_marker`]),
    unkId: id(inputs[`${side}_unk`]),
    bosId: id(inputs[`${side}_bos`]),
    eosId: id(inputs[`${side}_eos`]),
  });
  return tokenPair(texts('source'), texts('pivot'));
}

function lists(value: Json, name: string): number[][] {
  if (!Array.isArray(value)) throw new TypeError(`${name} is not a list`);
  return value.map((row) => numbers(row, name));
}

function byPosition({ offsets, positions }: SequenceAlignment): Int32Array[] {
  return Array.from(offsets.subarray(1), (end, j) => positions.subarray(offsets[j], end));
}

export function run(inputs: Inputs, wanted: Json): unknown {
  const pair = pairOf(inputs);
  const source = ids(inputs.source_ids, 'source_ids');
  const pivot = ids(inputs.pivot_ids, 'pivot_ids');
  const aligned = (rule: CostRule, from = source, to = pivot) => alignSequences(from, to, tokenCosts(pair, rule));
  const fusellm = aligned('fusellm');
  const fusechat = aligned('fusechat');

  const topIds = lists(inputs.source_topk_indices, 'source_topk_indices');
  const topLogits = lists(inputs.source_topk_logits, 'source_topk_logits');
  const offsets = new Int32Array(topIds.length + 1);
  topIds.forEach((row, t) => {
    offsets[t + 1] = offsets[t] + row.length;
  });
  const rows = { offsets, ids: Int32Array.from(topIds.flat()), logits: Float64Array.from(topLogits.flat()) };

  const counts: MatchCounts = new Map();
  for (const text of inputs.statistics_corpus_pivot_source_ids as Json[][]) {
    const [to, from] = lists(text, 'statistics_corpus').map((list) => Int32Array.from(list));
    countMatches(counts, from, to, aligned('fusechat', from, to));
  }
  const ms = statisticsMap(pair, counts, { rule: 'fusechat' });
  const frequent = statisticsMap(pair, counts, { rule: 'frequency', ties: 'id', special: false });
  const mined = mapFromText(pair, inputs.mined_mapping as Record<string, string>, 'mined', 'mined_mapping');

  const fused = (rule: 'fusellm-hard' | 'fusellm-soft', map?: TokenMap) =>
    moveDistribution(pair, { source, pivot, alignment: fusellm }, rows, map, { rule, fallback: 'fusellm' });
  const chat = (alignmentMatrix: boolean) =>
    moveDistribution(pair, { source, pivot, alignment: fusechat }, rows, ms, { rule: 'fusechat', alignmentMatrix });
  const named: Record<string, unknown> = {
    fusellm_dtw_cost: fusellm.cost,
    fusellm_matches: matchesOf(fusellm),
    fusellm_base_to_blend: byPosition(fusellm),
    fusechat_dtw_cost: fusechat.cost,
    fusechat_matches: matchesOf(fusechat),
    fusechat_base_to_blend: byPosition(fusechat),
    fusechat_count_matrix_nonzero: countCoordinates(counts),
    fusechat_code_source_to_pivot: ms.pivotIds,
    most_frequent_source_to_pivot: frequent.pivotIds,
  };
  const moved: Record<string, AlignedRows> = {
    fusellm_hard: fused('fusellm-hard'),
    fusellm_soft: fused('fusellm-soft', mined),
    'fusechat_default_matrix=False': chat(false),
    'fusechat_default_matrix=True': chat(true),
  };
  for (const [name, value] of Object.entries(moved)) {
    const cut = (list: Int32Array | Float64Array | Float32Array) =>
      Array.from(value.offsets.subarray(1), (end, j) => list.subarray(value.offsets[j], end));
    named[`${name}_logits`] = cut(value.logits);
    named[`${name}_indices`] = cut(value.ids);
  }
  return Object.fromEntries(keysOf(wanted).map((key) => [key, named[key]]));
}
