import { distancesFrom, levenshtein } from './levenshtein.js';
import { type CostRule, comparedTexts, strippedPoints, type TokenPair } from './token-pair.js';
import type { SequenceAlignment } from './types.js';

/** Steps back from a cell. */
const DIAGONAL = 0;
const UP = 1;
const LEFT = 2;

/** Cost of matching a source token with a pivot token, by their ids. */
export interface TokenCosts {
  readonly rule: CostRule;
  /** Fills `out[a * pivots.length + b]` with the cost of `sources[a]` and `pivots[b]`; all ids distinct. */
  fill(sources: Int32Array, pivots: Int32Array, out: Uint16Array): void;
}

/** 2^20 pairs of ids: ten bytes each. */
const CACHE_BITS = 20;

/**
 * Levenshtein distances of token strings under a rule. Pairs of ids are kept in a cache of fixed size, in which a pair
 * has one place; a corpus asks for the same pairs over and over.
 */
export function tokenCosts(pair: TokenPair, rule: CostRule): TokenCosts {
  const sourcePoints = strippedPoints(pair.source.texts, pair.source.marker);
  const pivotPoints = strippedPoints(pair.pivot.texts, pair.pivot.marker);
  const pivots = pair.pivot.texts.length;
  const keys = new Float64Array(1 << CACHE_BITS).fill(-1);
  const values = new Uint16Array(1 << CACHE_BITS);
  const place = (source: number, pivot: number): number =>
    (Math.imul(source, 0x9e3779b1) ^ Math.imul(pivot, 0x85ebca6b)) >>> (32 - CACHE_BITS);
  const ofEmpty = (source: number, pivot: number): number => {
    const [a, b] = comparedTexts(pair, source, pivot, rule);
    return levenshtein(a, b);
  };
  return {
    rule,
    fill(sources, targets, out) {
      sources.forEach((source, a) => {
        let distance: ((points: Int32Array) => number) | undefined;
        const points = sourcePoints(source);
        targets.forEach((pivot, b) => {
          const key = source * pivots + pivot;
          const at = place(source, pivot);
          if (keys[at] !== key) {
            const other = pivotPoints(pivot);
            if (points.length === 0 || other.length === 0) values[at] = ofEmpty(source, pivot);
            else {
              distance ??= distancesFrom(points);
              values[at] = distance(other);
            }
            keys[at] = key;
          }
          out[a * targets.length + b] = values[at];
        });
      });
    },
  };
}

/** The distinct ids of a sequence, and each position's index among them. */
function distinctIds(ids: Int32Array): { distinct: Int32Array; indices: Int32Array } {
  const places = new Map<number, number>();
  const indices = ids.map((id) => {
    const known = places.get(id);
    if (known !== undefined) return known;
    places.set(id, places.size);
    return places.size - 1;
  });
  return { distinct: Int32Array.from(places.keys()), indices };
}

/**
 * Aligns a source's token sequence with the pivot's by dynamic time warping: `D[i,j] = cost(i,j) + min(D[i-1,j],
 * D[i,j-1], D[i-1,j-1])`, back from the last cell to the first. Among equal steps back the diagonal comes first, then
 * FuseLLM goes up (an earlier source position) and FuseChat left (an earlier pivot position).
 *
 * Time O(n m), memory a byte a cell. Both sequences have at least one token.
 *
 * Wan et al., Knowledge Fusion of Large Language Models (2024), section 3.2, and FuseChat (2024).
 */
export function alignSequences(source: Int32Array, pivot: Int32Array, costs: TokenCosts): SequenceAlignment {
  const n = source.length;
  const m = pivot.length;
  if (n === 0 || m === 0) throw new RangeError('both sequences need a token');
  const rows = distinctIds(source);
  const columns = distinctIds(pivot);
  const width = columns.distinct.length;
  const table = new Uint16Array(rows.distinct.length * width);
  costs.fill(rows.distinct, columns.distinct, table);
  const steps = new Uint8Array(n * m);
  const cost = costs.rule === 'fusellm' ? walkUpFirst : walkLeftFirst;
  const total = cost(table, rows.indices, columns.indices, width, steps);
  return { ...pathOf(steps, n, m), cost: total };
}

type Walk = (table: Uint16Array, rows: Int32Array, columns: Int32Array, width: number, steps: Uint8Array) => number;

/**
 * The walk over all cells, two rows at a time. A sum is kept as four times itself plus the place of a step in the order of
 * ties, so that one minimum gives both the sum and the step, without a branch.
 *
 * @param order steps in the order in which they win ties, the diagonal first
 */
function createWalk(order: readonly [number, number, number]): Walk {
  const upPlace = order.indexOf(UP);
  const leftPlace = order.indexOf(LEFT);
  return (table, rows, columns, width, steps) => {
    const m = columns.length;
    // Row i - 1, and in the same memory row i as far as it is known.
    const sums = new Int32Array(m);
    let left = 0;
    for (let j = 0; j < m; j++) {
      left += table[rows[0] * width + columns[j]];
      sums[j] = left << 2;
      steps[j] = LEFT;
    }
    for (let i = 1; i < rows.length; i++) {
      const base = rows[i] * width;
      const begin = i * m;
      let diagonal = sums[0];
      let before = sums[0] + (table[base + columns[0]] << 2);
      sums[0] = before;
      steps[begin] = UP;
      for (let j = 1; j < m; j++) {
        const up = sums[j];
        const least = Math.min(diagonal, up + upPlace, before + leftPlace);
        steps[begin + j] = order[least & 3];
        before = (least & -4) + (table[base + columns[j]] << 2);
        sums[j] = before;
        diagonal = up;
      }
    }
    return sums[m - 1] >> 2;
  };
}

const walkUpFirst = createWalk([DIAGONAL, UP, LEFT]);
const walkLeftFirst = createWalk([DIAGONAL, LEFT, UP]);

/** The path back through the steps, as the source positions of every pivot position. */
function pathOf(steps: Uint8Array, n: number, m: number): Pick<SequenceAlignment, 'offsets' | 'positions'> {
  const reversed = new Int32Array(n + m);
  const offsets = new Int32Array(m + 1);
  let count = 0;
  let i = n - 1;
  let j = m - 1;
  for (;;) {
    reversed[count++] = i;
    offsets[j + 1]++;
    if (i === 0 && j === 0) break;
    const step = steps[i * m + j];
    if (step !== LEFT) i--;
    if (step !== UP) j--;
  }
  for (let at = 0; at < m; at++) offsets[at + 1] += offsets[at];
  return { offsets, positions: reversed.slice(0, count).reverse() };
}

/** The cells of the path, `[source position, pivot position]`, in its order. */
export function matchesOf(alignment: SequenceAlignment): [number, number][] {
  const matches: [number, number][] = [];
  for (let j = 0; j + 1 < alignment.offsets.length; j++) {
    for (let at = alignment.offsets[j]; at < alignment.offsets[j + 1]; at++) matches.push([alignment.positions[at], j]);
  }
  return matches;
}
