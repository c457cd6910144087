import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { statisticsMap } from '../../../src/fusion/knowledge/mapping-statistics.js';
import { moveDistribution } from '../../../src/fusion/knowledge/move-distribution.js';
import { alignSequences, tokenCosts } from '../../../src/fusion/knowledge/sequence-alignment.js';
import { tokenPair } from '../../../src/fusion/knowledge/token-pair.js';
import { alignedRow, type MoveOptions, type TokenMap } from '../../../src/fusion/knowledge/types.js';
import { exactMap, minimumEditMap } from '../../../src/fusion/knowledge/vocabulary-map.js';

const PAIR = tokenPair(
  { texts: ['Ġthe', 'Ġdogs', 's', 'Ġcat', 'Ġdog', 'The', 'x', 'Ġ'], marker: 'Ġ', eosId: 6 },
  { texts: ['▁the', '▁dog', 's', '▁cat', '▁The', '▁', 'ats', 'at'], marker: '▁', unkId: 5 },
);

function rowsOf(lists: readonly (readonly [number, number])[][]) {
  const offsets = new Int32Array(lists.length + 1);
  lists.forEach((list, t) => {
    offsets[t + 1] = offsets[t] + list.length;
  });
  const flat = lists.flat();
  return {
    offsets,
    ids: Int32Array.from(flat, ([id]) => id),
    logits: Float64Array.from(flat, ([, logit]) => logit),
  };
}

function move(source: number[], pivot: number[], lists: [number, number][][], map: TokenMap, options: MoveOptions) {
  const [from, to] = [Int32Array.from(source), Int32Array.from(pivot)];
  const rule = options.rule === 'fusechat' ? 'fusechat' : 'fusellm';
  const alignment = alignSequences(from, to, tokenCosts(PAIR, rule));
  const moved = moveDistribution(PAIR, { source: from, pivot: to, alignment }, rowsOf(lists), map, options);
  return pivot.map((_, t) => {
    const { ids, logits, kind } = alignedRow(moved, t);
    return { kind, entries: Array.from(ids, (id, i) => [id, logits[i]]) };
  });
}

describe('moved distributions', () => {
  const mined = minimumEditMap(PAIR);

  it('keep the first logit that reaches a pivot token, and drop the others', () => {
    const lists: [number, number][][] = [
      [
        [1, 5],
        [4, 4],
        [2, 3],
      ],
      [[3, 1]],
    ];
    const [first] = move([0, 3], [0, 3], lists, mined, { rule: 'fusellm-soft' });
    // " dogs" stands for " dog", which " dog" itself reaches too late.
    expect(first).toEqual({
      kind: 'exact',
      entries: [
        [1, 5],
        [2, 3],
      ],
    });
  });

  it('fall back to the next token, the last row to its own; FuseLLM to the token itself', () => {
    const lists: [number, number][][] = [[[0, 1]], [[0, 1]], [[0, 1]]];
    const rows = (options: MoveOptions) => move([0, 6, 6], [0, 7, 2], lists, exactMap(PAIR), options);
    expect(rows({ rule: 'fusellm-hard' }).map(({ entries }) => entries)).toEqual([[[0, 1]], [[2, 1]], [[2, 1]]]);
    expect(rows({ rule: 'fusellm-hard', fallback: 'fusellm' }).map(({ entries }) => entries[0][0])).toEqual([0, 7, 2]);
    expect(rows({ rule: 'fusellm-hard' })[1].kind).toBe('fallback');
  });

  it('are empty where no token of the list has an equal', () => {
    const [row] = move(
      [0],
      [0],
      [
        [
          [1, 2],
          [6, 1],
        ],
      ],
      exactMap(PAIR),
      { rule: 'fusellm-hard' },
    );
    expect(row).toEqual({ kind: 'empty', entries: [] });
  });

  it('give a bare head the marker that the pivot writes there, at the head alone', () => {
    const lists: [number, number][][] = [[[0, 1]], [[0, 1]]];
    const rows = move([5, 5], [4, 4], lists, exactMap(PAIR), { rule: 'fusellm-hard' });
    expect(rows.map(({ kind }) => kind)).toEqual(['exact', 'fallback']);
  });

  it('take an ending for the whole by the rule of FuseChat', () => {
    const ms = statisticsMap(PAIR, new Map(), { rule: 'frequency' });
    const lists: [number, number][][] = [
      [
        [0, 2],
        [6, 1],
      ],
    ];
    expect(move([5], [4], lists, ms, { rule: 'fusechat' })[0]).toEqual({
      kind: 'mapped',
      entries: [
        [0, 2],
        [5, 1],
      ],
    });
    const several = (alignmentMatrix: boolean) =>
      move([3, 2], [6], [[[0, 2]], [[3, 2]]], ms, { rule: 'fusechat', alignmentMatrix })[0];
    expect(several(true)).toEqual({ kind: 'many-to-one', entries: [[3, 2]] });
    expect(several(false)).toEqual({ kind: 'fallback', entries: [[6, 1]] });
  });

  it('need no more than endings: the pieces of FuseChat decide nothing else', () => {
    // FuseChat's own words: without an ending, consume the pivot's string by the pieces that fit.
    const word = fc.array(fc.constantFrom('a', 'b'), { maxLength: 5 }).map((list) => list.join(''));
    fc.assert(
      fc.property(word, fc.array(word, { minLength: 2, maxLength: 4 }), (target, pieces) => {
        if (pieces.some((piece) => target.endsWith(piece) || piece.endsWith(target))) return;
        let rest = target;
        for (const piece of pieces) if (rest.startsWith(piece)) rest = rest.slice(piece.length);
        const joined = pieces.join('');
        expect(rest).not.toBe('');
        expect(joined.endsWith(target) || target.endsWith(joined)).toBe(false);
      }),
      { numRuns: 2000 },
    );
  });
});
