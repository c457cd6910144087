import { setSize } from './focal-sets.js';
import { createMassSums, type MassFunction } from './mass-function.js';

/**
 * Distance of Jousselme, Grenier and Bosse (2001): sqrt(z'Dz / 2) with z = a - b and D(A, B) = |A and B| / |A or B|.
 * The quadratic form is taken of the difference, not as a difference of products: equal sources are at distance 0.
 */
export function jousselmeDistance(a: MassFunction, b: MassFunction): number {
  const { low, high, difference } = differenceOf(a, b);
  let sum = 0;
  for (let i = 0; i < difference.length; i++) {
    sum += difference[i] ** 2;
    for (let j = 0; j < i; j++) {
      const union = setSize(low[i] | low[j], high[i] | high[j]);
      const shared = setSize(low[i] & low[j], high[i] & high[j]);
      sum += (2 * difference[i] * difference[j] * shared) / union;
    }
  }
  return Math.sqrt(Math.max(0, sum) / 2);
}

/** a - b over the focal sets of both. */
function differenceOf(a: MassFunction, b: MassFunction) {
  const sums = createMassSums(a.frame);
  // One for every focal set of either keeps sets whose masses are equal or negative in the union.
  for (const { low, high, mass } of [a, b]) for (let i = 0; i < mass.length; i++) sums.add(low[i], high[i], 1);
  const { low, high } = sums.result();
  const valueAt = (m: MassFunction): Map<string, number> =>
    new Map(Array.from(m.mass, (mass, i) => [`${m.low[i]} ${m.high[i]}`, mass]));
  const [x, y] = [valueAt(a), valueAt(b)];
  const difference = Float64Array.from(low, (l, i) => {
    const key = `${l} ${high[i]}`;
    return (x.get(key) ?? 0) - (y.get(key) ?? 0);
  });
  return { low, high, difference };
}

/** Distances between all sources [n, n]. */
export function jousselmeDistances(all: readonly MassFunction[]): Float64Array {
  const n = all.length;
  const distances = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < i; j++) {
      const distance = jousselmeDistance(all[i], all[j]);
      distances[i * n + j] = distance;
      distances[j * n + i] = distance;
    }
  }
  return distances;
}

/**
 * Credibility of every source (Deng et al. 2004): its support, the sum of 1 - distance over the others, as a share of all
 * supports. Equal where no source supports another, or where there is one.
 */
export function credibilities(all: readonly MassFunction[]): Float64Array {
  const n = all.length;
  const distances = jousselmeDistances(all);
  const support = new Float64Array(n);
  for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) if (j !== i) support[i] += 1 - distances[i * n + j];
  const total = support.reduce((sum, value) => sum + value, 0);
  return total > 0 ? support.map((value) => value / total) : support.fill(1 / n);
}
