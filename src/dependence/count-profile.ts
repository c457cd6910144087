import { InputError } from '../errors.js';

/**
 * Counts of symbols, grouped: all estimators of entropy see a symbol by its count alone. `multiplicities[g]` symbols
 * were seen `values[g]` times each.
 */
export interface CountProfile {
  /** N, the number of observations. */
  readonly total: number;
  /** k, the number of symbols that were seen. */
  readonly observed: number;
  /** f1 and f2, symbols seen once and twice. */
  readonly singles: number;
  readonly doubles: number;
  /** Distinct counts, ascending, above 0. */
  readonly values: Float64Array;
  readonly multiplicities: Float64Array;
}

/** Up to this count symbols are tallied in an array; larger counts are few and are sorted. */
const TALLIED = 4096;

/**
 * The profile of `counts`; zeros are left out, since a symbol that was not seen enters by the support alone. For counts
 * that this program made: what a user gives goes through `checkedCounts`.
 */
export function profileOf(counts: ArrayLike<number>): CountProfile {
  const tally = new Float64Array(TALLIED + 1);
  const large: number[] = [];
  let highest = 0;
  for (let i = 0; i < counts.length; i++) {
    const count = counts[i];
    if (count <= TALLIED) {
      tally[count]++;
      if (count > highest) highest = count;
    } else large.push(count);
  }
  const values: number[] = [];
  const multiplicities: number[] = [];
  for (let count = 1; count <= highest; count++) {
    if (tally[count] === 0) continue;
    values.push(count);
    multiplicities.push(tally[count]);
  }
  large.sort((a, b) => a - b);
  for (const count of large) {
    if (values[values.length - 1] === count) multiplicities[multiplicities.length - 1]++;
    else {
      values.push(count);
      multiplicities.push(1);
    }
  }
  return groupedProfile(values, multiplicities);
}

function groupedProfile(values: ArrayLike<number>, multiplicities: ArrayLike<number>): CountProfile {
  let total = 0;
  let observed = 0;
  let singles = 0;
  let doubles = 0;
  for (let g = 0; g < values.length; g++) {
    total += values[g] * multiplicities[g];
    observed += multiplicities[g];
    if (values[g] === 1) singles = multiplicities[g];
    else if (values[g] === 2) doubles = multiplicities[g];
  }
  return {
    total,
    observed,
    singles,
    doubles,
    values: Float64Array.from(values),
    multiplicities: Float64Array.from(multiplicities),
  };
}

/** The profile after one observation of a symbol that was seen `count` times has been taken away. */
export function withoutOne(profile: CountProfile, count: number): CountProfile {
  const values: number[] = [];
  const multiplicities: number[] = [];
  let placed = count === 1;
  const add = (value: number, multiplicity: number): void => {
    if (multiplicity === 0) return;
    values.push(value);
    multiplicities.push(multiplicity);
  };
  for (let g = 0; g < profile.values.length; g++) {
    const value = profile.values[g];
    if (!placed && value >= count - 1) {
      placed = true;
      if (value === count - 1) {
        add(value, profile.multiplicities[g] + 1);
        continue;
      }
      add(count - 1, 1);
    }
    add(value, profile.multiplicities[g] - (value === count ? 1 : 0));
  }
  return groupedProfile(values, multiplicities);
}

/** 1 - f1/N, Good's estimate of the probability of the symbols that were seen. */
export function coverageOf(profile: Pick<CountProfile, 'total' | 'singles'>): number {
  return 1 - profile.singles / profile.total;
}

/**
 * Counts as a user gives them.
 * @throws InputError naming the entry that is negative, not a whole number or too large, or when nothing was counted
 */
export function checkedCounts(counts: ArrayLike<number>, origin: string): Float64Array {
  let total = 0;
  for (let i = 0; i < counts.length; i++) {
    const count = counts[i];
    if (!(Number.isInteger(count) && count >= 0)) {
      const fault = Number.isNaN(count) ? 'no number' : count < 0 ? 'negative' : 'no whole number';
      throw new InputError(`${origin}, row ${i}: the count ${count} is ${fault}; counts are whole numbers from 0 on`);
    }
    total += count;
  }
  if (total === 0) throw new InputError(`${origin}: all counts are 0; at least one observation is needed`);
  if (total > Number.MAX_SAFE_INTEGER)
    throw new InputError(`${origin}: the counts sum to ${total}, more than 2^53; divide the table`);
  return Float64Array.from(counts);
}

/** Throws InputError when the stated support is smaller than what was seen. */
export function checkSupport(support: number, observed: number, what: string): void {
  if (support >= observed) return;
  throw new InputError(
    `${what}: a support of ${support} is stated, but ${observed} different symbols were seen; raise --support or leave it out`,
  );
}
