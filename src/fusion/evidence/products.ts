import { createMassSums, type MassFunction } from './mass-function.js';
import { MOST_DENSE_ELEMENTS, subtractSubsets, subtractSupersets, sumSubsets, sumSupersets } from './moebius.js';

/** Steps of a transform of one subset and element, in units of one pair of focal sets. */
const TRANSFORM_COST = 0.5;

/** Transforms of two mass functions and of two indicators, there and back. */
const transformIsCheaper = (a: MassFunction, b: MassFunction): boolean => {
  const n = a.frame.elements.length;
  return n <= MOST_DENSE_ELEMENTS && a.mass.length * b.mass.length > TRANSFORM_COST * 6 * n * 2 ** n;
};

const dense = ({ frame, low, mass }: MassFunction, indicator: boolean): Float64Array => {
  const values = new Float64Array(2 ** frame.elements.length);
  for (let i = 0; i < mass.length; i++) values[low[i]] = indicator ? 1 : mass[i];
  return values;
};

/**
 * The masses of a product by transforms. Differences of the way back leave rounding on sets that no pair of focal sets
 * gives; the same way with ones instead of masses counts pairs, exactly in doubles, and says which sets these are.
 */
function byTransform(
  a: MassFunction,
  b: MassFunction,
  there: (values: Float64Array, n: number) => void,
  back: (values: Float64Array, n: number) => void,
): MassFunction {
  const n = a.frame.elements.length;
  const product = (indicator: boolean): Float64Array => {
    const [x, y] = [dense(a, indicator), dense(b, indicator)];
    there(x, n);
    there(y, n);
    for (let set = 0; set < x.length; set++) x[set] *= y[set];
    back(x, n);
    return x;
  };
  const masses = product(false);
  const pairs = product(true);
  const sums = createMassSums(a.frame);
  for (let set = 0; set < masses.length; set++) if (pairs[set] > 0.5 && masses[set] > 0) sums.add(set, 0, masses[set]);
  return sums.result();
}

/** Conjunctive product: m(C) = sum of a(A) b(B) over A and B with intersection C; conflict stays on the empty set. */
export function conjunctive(a: MassFunction, b: MassFunction): MassFunction {
  if (transformIsCheaper(a, b)) return byTransform(a, b, sumSupersets, subtractSupersets);
  const sums = createMassSums(a.frame);
  for (let i = 0; i < a.mass.length; i++) {
    for (let j = 0; j < b.mass.length; j++) sums.add(a.low[i] & b.low[j], a.high[i] & b.high[j], a.mass[i] * b.mass[j]);
  }
  return sums.result();
}

/** Disjunctive product: m(C) = sum of a(A) b(B) over A and B with union C (Dubois and Prade 1986). */
export function disjunctive(a: MassFunction, b: MassFunction): MassFunction {
  if (transformIsCheaper(a, b)) return byTransform(a, b, sumSubsets, subtractSubsets);
  const sums = createMassSums(a.frame);
  for (let i = 0; i < a.mass.length; i++) {
    for (let j = 0; j < b.mass.length; j++) sums.add(a.low[i] | b.low[j], a.high[i] | b.high[j], a.mass[i] * b.mass[j]);
  }
  return sums.result();
}

/** Takes the mass a(A) b(B) of two sets without a common element. */
export type ConflictTaker = (
  add: (low: number, high: number, mass: number) => void,
  a: { readonly low: number; readonly high: number; readonly mass: number },
  b: { readonly low: number; readonly high: number; readonly mass: number },
) => void;

/** Conjunctive product in which every conflicting pair goes where `take` puts it. */
export function withConflict(a: MassFunction, b: MassFunction, take: ConflictTaker): MassFunction {
  const sums = createMassSums(a.frame);
  for (let i = 0; i < a.mass.length; i++) {
    for (let j = 0; j < b.mass.length; j++) {
      const [low, high] = [a.low[i] & b.low[j], a.high[i] & b.high[j]];
      if (low !== 0 || high !== 0) sums.add(low, high, a.mass[i] * b.mass[j]);
      else {
        take(
          sums.add,
          { low: a.low[i], high: a.high[i], mass: a.mass[i] },
          { low: b.low[j], high: b.high[j], mass: b.mass[j] },
        );
      }
    }
  }
  return sums.result();
}
