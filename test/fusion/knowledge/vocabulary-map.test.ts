import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type CoOccurrence,
  countCoOccurrence,
  refineByCoOccurrence,
} from '../../../src/fusion/knowledge/co-occurrence.js';
import { levenshteinReference } from '../../../src/fusion/knowledge/levenshtein.js';
import {
  countCoordinates,
  countMatches,
  type MatchCounts,
  statisticsMap,
} from '../../../src/fusion/knowledge/mapping-statistics.js';
import { tokenPair } from '../../../src/fusion/knowledge/token-pair.js';
import { mapByText, mapFromText, minimumEditMap } from '../../../src/fusion/knowledge/vocabulary-map.js';

const WINDOW = 3;
const PIVOT = ['<unk>', '▁cot', '▁cut', '▁cat', 'x', '▁p', '▁q', '▁r', 'y'];
const SOURCE = ['<unk>', 'Ġcit', 'Ġp', 'Ġq', 'Ġr', 'x', 'cvt', ''];
const PAIR = tokenPair({ texts: SOURCE, marker: 'Ġ' }, { texts: PIVOT, marker: '▁', unkId: 0 });
const ids = (most: number) => fc.array(fc.array(fc.integer({ min: 0, max: most }), { maxLength: 9 }), { maxLength: 4 });

/** Counts by the dense definition. */
function denseCounts(texts: readonly (readonly number[])[], size: number): number[][] {
  const counts = Array.from({ length: size }, () => new Array<number>(size).fill(0));
  for (const text of texts) {
    text.forEach((token, i) => {
      for (let j = Math.max(0, i - WINDOW); j < Math.min(i + WINDOW, text.length); j++) {
        if (j === i) continue;
        counts[token][text[j]]++;
        counts[text[j]][token]++;
      }
    });
  }
  return counts;
}

function sparseCounts(texts: readonly (readonly number[])[]): CoOccurrence {
  const rows: CoOccurrence = new Map();
  for (const text of texts) countCoOccurrence(rows, Int32Array.from(text), WINDOW);
  return rows;
}

describe('co-occurrence', () => {
  it('chooses among the nearest as dense matrices do', () => {
    fc.assert(
      fc.property(ids(6), ids(8), (sourceTexts, pivotTexts) => {
        const mined = minimumEditMap(PAIR);
        const refined = refineByCoOccurrence(PAIR, mined, sparseCounts(sourceTexts), sparseCounts(pivotTexts));
        const [source, pivot] = [denseCounts(sourceTexts, SOURCE.length), denseCounts(pivotTexts, PIVOT.length)];
        const columns = PIVOT.flatMap((_, p) => {
          const s = mined.pivotIds.lastIndexOf(p);
          return s < 0 ? [] : [[p, s]];
        });
        SOURCE.forEach((text, s) => {
          if (text === '' || PAIR.equal[s] >= 0) return;
          const distances = PIVOT.map((own) => levenshteinReference(PAIR.swapped[s], own));
          const least = Math.min(...distances);
          const similarity = PIVOT.map((_, p) => {
            if (distances[p] > least) return -1;
            const x = columns.map(([, column]) => source[s][column]);
            const y = columns.map(([column]) => pivot[p][column]);
            const norm = (values: number[]): number => Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
            return x.reduce((sum, value, i) => sum + value * y[i], 0) / (norm(x) * norm(y) + 1e-6);
          });
          expect(refined.pivotIds[s]).toBe(similarity.indexOf(Math.max(...similarity)));
        });
        expect(refined.pivotIds[7]).toBe(-1);
      }),
    );
  });
});

describe('mapping statistics', () => {
  const alignment = { offsets: Int32Array.of(0, 3, 4), positions: Int32Array.of(0, 1, 2, 2), cost: 0 };
  const count = (times: number): MatchCounts => {
    const counts: MatchCounts = new Map();
    for (let i = 0; i < times; i++) countMatches(counts, Int32Array.of(5, 5, 1), Int32Array.of(3, 2), alignment);
    return counts;
  };

  it('counts a repeated token of a position once', () => {
    expect(countCoordinates(count(2))).toEqual([
      [2, 1, 2],
      [3, 1, 2],
      [3, 5, 2],
    ]);
  });

  it('breaks ties by distance or id; what never occurred is unknown; what is no token is nothing', () => {
    const counts = count(1);
    counts.set(
      1,
      new Map([
        [8, 2],
        [3, 2],
        [2, 1],
      ]),
    );
    expect(statisticsMap(PAIR, counts, { rule: 'frequency' }).pivotIds).toEqual(Int32Array.of(0, 3, 0, 0, 0, 3, 0, -1));
    expect(
      statisticsMap(
        PAIR,
        new Map([
          [
            1,
            new Map([
              [3, 1],
              [1, 1],
            ]),
          ],
        ]),
        { rule: 'frequency', ties: 'id' },
      ).pivotIds[1],
    ).toBe(1);
  });

  it('lets the rarer of equal strings win by the rule of FuseChat', () => {
    const counts: MatchCounts = new Map([
      [
        1,
        new Map([
          [1, 9],
          [2, 1],
          [3, 4],
        ]),
      ],
    ]);
    expect(statisticsMap(PAIR, counts, { rule: 'fusechat' }).pivotIds[1]).toBe(2);
    expect(statisticsMap(PAIR, counts, { rule: 'frequency' }).pivotIds[1]).toBe(1);
  });
});

describe('maps as files', () => {
  it('come back as they went', () => {
    const mined = minimumEditMap(PAIR);
    const byText = JSON.parse(JSON.stringify(mapByText(PAIR, mined))) as Record<string, string>;
    expect(byText['▁cit']).toBe('▁cot');
    const read = mapFromText(PAIR, byText, 'mined', 'm.json');
    expect(read.pivotIds).toEqual(mined.pivotIds);
    expect(read.distances).toEqual(mined.distances);
  });

  it('are refused where they name no pivot token', () => {
    expect(() => mapFromText(PAIR, { x: 'nowhere' }, 'mined', 'm.json')).toThrow(/m\.json: "x" stands for "nowhere"/);
  });
});
