import { InputError } from '../../errors.js';
import { contains, MOST_ELEMENTS, type SetMask, setName } from './focal-sets.js';

/** Sets of elements, by masks over a common list of elements. */
export interface ElementSets {
  /** In ascending order. */
  readonly elements: readonly string[];
  readonly low: Int32Array;
  readonly high: Int32Array;
}

/** Alloys with known labels. */
export interface AlloyTable extends ElementSets {
  /** Index into `labelNames` [alloys]. */
  readonly labels: Int32Array;
  /** The label of interest first. */
  readonly labelNames: readonly string[];
  /** Weight of every alloy as evidence; all 1 when absent. */
  readonly weights?: Float64Array;
}

/** Position of a row in messages; `alloys` rows as read. */
export interface LabelledSet {
  readonly set: readonly string[];
  readonly label: string;
  readonly weight?: number;
  readonly where: string;
}

/** @throws InputError for more than 64 elements over everything that is read */
export function elementUniverse(sets: Iterable<readonly string[]>): string[] {
  const names = new Set<string>();
  for (const set of sets) for (const name of set) names.add(name);
  const elements = [...names].sort();
  if (elements.length > MOST_ELEMENTS) {
    throw new InputError(
      `${elements.length} elements in alloys and candidates; at most ${MOST_ELEMENTS} can be told apart`,
    );
  }
  return elements;
}

/** @throws InputError for an empty set, or a name that stands twice */
export function maskOf(set: readonly string[], index: ReadonlyMap<string, number>, where: string): SetMask {
  if (set.length === 0) throw new InputError(`${where}: a set without an element`);
  let [low, high] = [0, 0];
  for (const name of set) {
    const e = index.get(name) as number;
    if (contains(low, high, e)) throw new InputError(`${where}: ${name} stands twice in ${set.join('|')}`);
    if (e < 32) low |= 1 << e;
    else high |= 1 << (e - 32);
  }
  return { low, high };
}

/** Sets by masks. @throws InputError as `maskOf` */
export function elementSets(
  elements: readonly string[],
  sets: readonly { readonly set: readonly string[]; readonly where: string }[],
): ElementSets {
  const index = new Map(elements.map((name, e) => [name, e]));
  const masks = sets.map(({ set, where }) => maskOf(set, index, where));
  return {
    elements,
    low: Int32Array.from(masks, ({ low }) => low),
    high: Int32Array.from(masks, ({ high }) => high),
  };
}

/**
 * A table of alloys.
 * @param positive the label of interest; `High` where it occurs, else the first in ascending order
 * @throws InputError for fewer than two labels, an unknown `positive`, a weight that is negative or no number
 */
export function alloyTable(elements: readonly string[], rows: readonly LabelledSet[], positive?: string): AlloyTable {
  const present = [...new Set(rows.map(({ label }) => label))].sort();
  if (present.length < 2) {
    throw new InputError(
      `${present.length === 1 ? `every label is ${present[0]}` : 'no alloys'}; two labels are needed`,
    );
  }
  if (positive !== undefined && !present.includes(positive)) {
    throw new InputError(`no alloy has the label "${positive}"; labels: ${present.join(', ')}`);
  }
  const first = positive ?? (present.includes('High') ? 'High' : present[0]);
  const labelNames = [first, ...present.filter((name) => name !== first)];
  for (const { weight, where } of rows) {
    if (weight !== undefined && !(weight >= 0 && Number.isFinite(weight))) {
      throw new InputError(`${where}: weight ${weight}; weights are not negative`);
    }
  }
  const weighted = rows.some(({ weight }) => weight !== undefined && weight !== 1);
  return {
    ...elementSets(elements, rows),
    labels: Int32Array.from(rows, ({ label }) => labelNames.indexOf(label)),
    labelNames,
    ...(weighted && { weights: Float64Array.from(rows, ({ weight }) => weight ?? 1) }),
  };
}

/** Rows in an order that does not depend on that of the file, so that sums of logarithms do not either. */
export function canonicalRows({ low, high, labels, weights }: AlloyTable, rows: Int32Array): Int32Array {
  return rows
    .slice()
    .sort(
      (a, b) =>
        (high[a] >>> 0) - (high[b] >>> 0) ||
        (low[a] >>> 0) - (low[b] >>> 0) ||
        labels[a] - labels[b] ||
        (weights === undefined ? 0 : weights[a] - weights[b]),
    );
}

/** All rows of a table. */
export const allRows = ({ labels }: AlloyTable): Int32Array => Int32Array.from(labels, (_, i) => i);

/** Name of a set of a table. */
export const nameAt = ({ elements, low, high }: ElementSets, row: number): string =>
  setName(elements, low[row], high[row]);
