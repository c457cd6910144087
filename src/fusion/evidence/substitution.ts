import { InputError } from '../../errors.js';
import { type AlloyTable, canonicalRows } from './alloy-table.js';
import { type Combinations, type CoreIndex, combinationName, coreIndex } from './exchanges.js';
import { setSize } from './focal-sets.js';
import { combineSupports } from './simple-support.js';

/**
 * Readings of the method in its authors' code. v1 and v2 weigh all pairs alike, v3 and v5 by their likeness J; v1 takes
 * similarity as support of a label, the others dissimilarity as support of the other labels too; v5 has the weight of the
 * known alloy in the prediction.
 */
export const VERSIONS = ['v1', 'v2', 'v3', 'v5'] as const;
export type Version = (typeof VERSIONS)[number];

export const usesLikeness = (version: Version): boolean => version === 'v3' || version === 'v5';

export interface SubstitutionSettings {
  /** Mass that one pair of alloys gives, above 0 and at most 1. */
  readonly alpha: number;
  readonly version: Version;
}

/** Likeness of two alloys: J = (sqrt(|core|^2 / (|union| min n)) + 1) / (2 max(|t|, |v|)), within (0, 1]. */
export function likeness(core: number, t: number, v: number): number {
  const smaller = core + Math.min(t, v);
  return (Math.sqrt((core * core) / ((core + t + v) * smaller)) + 1) / (2 * Math.max(t, v));
}

/** Sums over the pieces of evidence of every pair of combinations {t, v} that has any. */
export interface SubstitutionEvidence {
  readonly combinations: Combinations;
  /** Slot of the pair a < b at `a * count + b`, -1 without evidence. */
  readonly slotOf: Int32Array;
  readonly slots: number;
  /** Numbers of the combinations of every slot, first < second. */
  readonly first: Int32Array;
  readonly second: Int32Array;
  /** Number of pieces that say similar and dissimilar [slots]. */
  readonly similar: Float64Array;
  readonly dissimilar: Float64Array;
  /** Where masses differ: sums of ln(1 - mass) over pieces below 1, and the number of certain pieces. */
  readonly logs?: {
    readonly similar: Float64Array;
    readonly dissimilar: Float64Array;
    readonly certainSimilar: Float64Array;
    readonly certainDissimilar: Float64Array;
  };
  /** Pairs of alloys that gave a piece. */
  readonly pieces: number;
}

/** Slot of an unordered pair of combinations; -1 where it has no evidence. */
export function slotOfPair({ combinations, slotOf }: SubstitutionEvidence, a: number, b: number): number {
  return slotOf[a < b ? a * combinations.count + b : b * combinations.count + a];
}

/** Mass of the piece of two rows with core and exchanged sizes. */
export function pieceMass(
  { weights }: AlloyTable,
  { alpha, version }: SubstitutionSettings,
  i: number,
  j: number,
  sizes: { readonly core: number; readonly t: number; readonly v: number },
): number {
  const scale = usesLikeness(version) ? likeness(sizes.core, sizes.t, sizes.v) : 1;
  return alpha * scale * (weights === undefined ? 1 : weights[i] * weights[j]);
}

/** @throws InputError for an alpha outside (0, 1], or weights that make a mass above 1 */
export function checkSettings({ weights }: AlloyTable, { alpha }: SubstitutionSettings): void {
  if (!(alpha > 0 && alpha <= 1)) throw new InputError(`alpha ${alpha} is not above 0 and at most 1`);
  const largest = weights?.reduce((most, weight) => Math.max(most, weight), 0) ?? 1;
  if (alpha * largest * largest > 1) {
    throw new InputError(`weights up to ${largest} make masses above 1 with alpha ${alpha}; scale the weights`);
  }
}

interface Slots {
  readonly slotOf: Int32Array;
  place(a: number, b: number): number;
  count(): number;
  first(): Int32Array;
  second(): Int32Array;
}

function growingSlots(count: number): Slots {
  const slotOf = new Int32Array(count * count).fill(-1);
  const [first, second]: [number[], number[]] = [[], []];
  return {
    slotOf,
    place(a, b) {
      const key = a < b ? a * count + b : b * count + a;
      if (slotOf[key] < 0) {
        slotOf[key] = first.length;
        first.push(Math.min(a, b));
        second.push(Math.max(a, b));
      }
      return slotOf[key];
    },
    count: () => first.length,
    first: () => Int32Array.from(first),
    second: () => Int32Array.from(second),
  };
}

/** Indexes rows of a table in an order of their own. */
export function alloyIndex(combinations: Combinations, table: AlloyTable, rows: Int32Array): CoreIndex {
  return coreIndex(combinations, table, canonicalRows(table, rows));
}

/** A pair of rows that exchanges combination t of the first for v of the second. */
type PairTaker = (i: number, j: number, t: number, v: number, core: number) => void;

/** All pairs of indexed rows that differ by at most n elements on each side and share one, each once. */
export function forEachPair(combinations: Combinations, index: CoreIndex, take: PairTaker): void {
  const { low, high } = combinations;
  const { cores, starts, rows, removed } = index;
  for (let c = 0; c < cores.count; c++) {
    const size = setSize(cores.low[c], cores.high[c]);
    for (let p = starts[c]; p < starts[c + 1]; p++) {
      const [t, i] = [removed[p], rows[p]];
      const [l, h] = [low[t], high[t]];
      for (let q = p + 1; q < starts[c + 1]; q++) {
        const v = removed[q];
        if ((l & low[v]) !== 0 || (h & high[v]) !== 0 || (t === 0 && v === 0)) continue;
        take(i, rows[q], t, v, size);
      }
    }
  }
}

/**
 * Collects the evidence on substitutions from all pairs of alloys: similar where labels agree, dissimilar where they
 * differ (Ha et al. 2025). With equal masses two counts a pair of combinations are enough.
 * @param extra pairs of combinations that get a slot without evidence, for sources beside the data
 * @throws InputError as `checkSettings`, and where certain pieces contradict each other
 */
export function collectEvidence(
  table: AlloyTable,
  combinations: Combinations,
  index: CoreIndex,
  settings: SubstitutionSettings,
  extra: Iterable<readonly [number, number]> = [],
): SubstitutionEvidence {
  checkSettings(table, settings);
  const slots = growingSlots(combinations.count);
  for (const [a, b] of extra) slots.place(a, b);
  const { labels } = table;
  const { size } = combinations;
  const uneven = usesLikeness(settings.version) || table.weights !== undefined;
  const grow = (values: Float64Array<ArrayBuffer>, slot: number): Float64Array<ArrayBuffer> => {
    if (slot < values.length) return values;
    const larger = new Float64Array(2 * values.length);
    larger.set(values);
    return larger;
  };
  let sums = Array.from({ length: uneven ? 6 : 2 }, () => new Float64Array(1024));
  let pieces = 0;
  forEachPair(combinations, index, (i, j, t, v, core) => {
    const slot = slots.place(t, v);
    if (slot >= sums[0].length) sums = sums.map((values) => grow(values, slot));
    const side = labels[i] === labels[j] ? 0 : 1;
    pieces++;
    sums[side][slot]++;
    if (!uneven) return;
    const mass = pieceMass(table, settings, i, j, { core, t: size[t], v: size[v] });
    if (mass >= 1) sums[4 + side][slot]++;
    else sums[2 + side][slot] += Math.log1p(-mass);
  });
  const count = slots.count();
  // A slot beyond the last piece's has no sums yet.
  while (sums[0].length < count) sums = sums.map((values) => grow(values, values.length));
  const [similar, dissimilar, ...logs] = sums.map((values) => values.subarray(0, count));
  const evidence: SubstitutionEvidence = {
    combinations,
    slotOf: slots.slotOf,
    slots: count,
    first: slots.first(),
    second: slots.second(),
    similar,
    dissimilar,
    ...(uneven && {
      logs: { similar: logs[0], dissimilar: logs[1], certainSimilar: logs[2], certainDissimilar: logs[3] },
    }),
    pieces,
  };
  refuseContradiction(evidence, settings);
  return evidence;
}

function refuseContradiction(evidence: SubstitutionEvidence, { alpha }: SubstitutionSettings): void {
  const { logs, combinations, first, second } = evidence;
  const similar = logs?.certainSimilar ?? (alpha === 1 ? evidence.similar : undefined);
  const dissimilar = logs?.certainDissimilar ?? evidence.dissimilar;
  if (similar === undefined) return;
  const slot = similar.findIndex((count, s) => count > 0 && dissimilar[s] > 0);
  if (slot < 0) return;
  const [t, v] = [first[slot], second[slot]].map((number) => combinationName(combinations, number) || 'nothing');
  throw new InputError(
    `total conflict on ${t} for ${v}: with masses of 1, ${similar[slot]} pairs of alloys say similar and ` +
      `${dissimilar[slot]} dissimilar; use --alpha below 1`,
  );
}

/** What a leave-out takes from a slot: pieces of one alloy with the others. */
export interface OwnPieces {
  similar: number;
  dissimilar: number;
  logSimilar: number;
  logDissimilar: number;
  certainSimilar: number;
  certainDissimilar: number;
}

export const noPieces = (): OwnPieces => ({
  similar: 0,
  dissimilar: 0,
  logSimilar: 0,
  logDissimilar: 0,
  certainSimilar: 0,
  certainDissimilar: 0,
});

const pair = new Float64Array(2);

/** Sum of ln(1 - mass) over `count` pieces of mass alpha. */
const logOf = (count: number, alpha: number): number => (count > 0 ? count * Math.log1p(-alpha) : 0);

/**
 * Masses of similar, dissimilar and both [3] of a slot by Dempster's rule on all its pieces, less those of `own`.
 * @returns ln(1 - conflict)
 */
export function pairMasses(
  evidence: SubstitutionEvidence,
  settings: SubstitutionSettings,
  slot: number,
  out: Float64Array,
  own?: OwnPieces,
): number {
  const { logs } = evidence;
  // What is left of a sum after all its pieces have gone is rounding.
  const similar = evidence.similar[slot] - (own?.similar ?? 0);
  const dissimilar = evidence.dissimilar[slot] - (own?.dissimilar ?? 0);
  if (logs === undefined) {
    pair[0] = logOf(similar, settings.alpha);
    pair[1] = logOf(dissimilar, settings.alpha);
  } else {
    const log = (count: number, certain: number, sum: number): number =>
      certain > 0 ? Number.NEGATIVE_INFINITY : count > 0 ? Math.min(0, sum) : 0;
    pair[0] = log(
      similar,
      logs.certainSimilar[slot] - (own?.certainSimilar ?? 0),
      logs.similar[slot] - (own?.logSimilar ?? 0),
    );
    pair[1] = log(
      dissimilar,
      logs.certainDissimilar[slot] - (own?.certainDissimilar ?? 0),
      logs.dissimilar[slot] - (own?.logDissimilar ?? 0),
    );
  }
  return combineSupports(pair, out);
}
