import { contains, createSetIndex, setSize } from './focal-sets.js';
import { emptyMass, type MassFunction, normalised, type Source } from './mass-function.js';
import { MOST_DENSE_ELEMENTS, sumSubsets, sumSupersets } from './moebius.js';
import { conjunctive } from './products.js';

/** Bel(A): mass of the sets within A, without the empty set. */
export function belief(masses: MassFunction, low: number, high: number): number {
  return massWhere(masses, (l, h) => (l & ~low) === 0 && (h & ~high) === 0 && (l !== 0 || h !== 0));
}

/** Pl(A): mass of the sets that meet A. */
export function plausibility(masses: MassFunction, low: number, high: number): number {
  return massWhere(masses, (l, h) => (l & low) !== 0 || (h & high) !== 0);
}

/** Q(A): mass of the sets that hold A. */
export function commonality(masses: MassFunction, low: number, high: number): number {
  return massWhere(masses, (l, h) => (low & ~l) === 0 && (high & ~h) === 0);
}

function massWhere({ low, high, mass }: MassFunction, holds: (low: number, high: number) => boolean): number {
  let sum = 0;
  for (let i = 0; i < mass.length; i++) if (holds(low[i], high[i])) sum += mass[i];
  return sum;
}

/**
 * Pignistic probability of every element (Smets and Kennes 1994): a set's mass in equal parts to its elements, over one
 * less the mass of the empty set. NaN where the empty set has all.
 */
export function pignistic(masses: MassFunction): Float64Array {
  const { frame, low, high, mass } = masses;
  const probabilities = new Float64Array(frame.elements.length);
  for (let i = 0; i < mass.length; i++) {
    const size = setSize(low[i], high[i]);
    if (size === 0) continue;
    for (let e = 0; e < probabilities.length; e++) {
      if (contains(low[i], high[i], e)) probabilities[e] += mass[i] / size;
    }
  }
  const empty = emptyMass(masses);
  return empty === 0 ? probabilities : probabilities.map((value) => (empty < 1 ? value / (1 - empty) : Number.NaN));
}

const LN2 = Math.LN2;

/** Deng entropy (Deng 2016): -sum of m(A) ln(m(A) / (2^|A| - 1)), in nats. */
export function dengEntropyNats({ low, high, mass }: MassFunction): number {
  let sum = 0;
  for (let i = 0; i < mass.length; i++) {
    const size = setSize(low[i], high[i]);
    if (size > 0) sum -= mass[i] * Math.log(mass[i] / (2 ** size - 1));
  }
  return sum;
}

/** Nonspecificity (Dubois and Prade 1985): sum of m(A) ln |A|, in nats. */
export function nonspecificityNats({ low, high, mass }: MassFunction): number {
  let sum = 0;
  for (let i = 0; i < mass.length; i++) {
    const size = setSize(low[i], high[i]);
    if (size > 1) sum += mass[i] * Math.log(size);
  }
  return sum;
}

/** Shannon entropy of probabilities, in nats. */
export function shannonNats(probabilities: Float64Array): number {
  let sum = 0;
  for (const p of probabilities) if (!(p <= 0)) sum -= p * Math.log(p);
  return sum;
}

/** What is uncertain in a mass function. */
export interface Uncertainty {
  readonly dengNats: number;
  readonly dengBits: number;
  readonly nonspecificityNats: number;
  readonly nonspecificityBits: number;
  readonly pignisticEntropyNats: number;
  readonly pignisticEntropyBits: number;
}

export function uncertaintyOf(masses: MassFunction): Uncertainty {
  const deng = dengEntropyNats(masses);
  const nonspecificity = nonspecificityNats(masses);
  const entropy = shannonNats(pignistic(masses));
  return {
    dengNats: deng,
    dengBits: deng / LN2,
    nonspecificityNats: nonspecificity,
    nonspecificityBits: nonspecificity / LN2,
    pignisticEntropyNats: entropy,
    pignisticEntropyBits: entropy / LN2,
  };
}

/** Belief, plausibility, commonality and pignistic probability of sets, each [sets]. */
export interface SetMeasures {
  readonly mass: Float64Array;
  readonly belief: Float64Array;
  readonly plausibility: Float64Array;
  readonly commonality: Float64Array;
  readonly pignistic: Float64Array;
}

/** Above this many comparisons of sets, all subsets at once are cheaper where the frame is small. */
const MOST_COMPARISONS = 1 << 16;

/** Measures of the sets with these words. */
export function measureSets(masses: MassFunction, low: Int32Array, high: Int32Array): SetMeasures {
  const elements = masses.frame.elements.length;
  const single = pignistic(masses);
  const places = createSetIndex();
  for (let i = 0; i < masses.mass.length; i++) places.place(masses.low[i], masses.high[i]);
  const mass = Float64Array.from(low, (l, i) => masses.mass[places.find(l, high[i])] ?? 0);
  const probability = Float64Array.from(low, (l, i) => {
    let sum = 0;
    for (let e = 0; e < elements; e++) if (contains(l, high[i], e)) sum += single[e];
    return sum;
  });
  if (elements <= MOST_DENSE_ELEMENTS && low.length * masses.mass.length > MOST_COMPARISONS) {
    return { ...denseMeasures(masses, low), mass, pignistic: probability };
  }
  return {
    mass,
    belief: Float64Array.from(low, (l, i) => belief(masses, l, high[i])),
    plausibility: Float64Array.from(low, (l, i) => plausibility(masses, l, high[i])),
    commonality: Float64Array.from(low, (l, i) => commonality(masses, l, high[i])),
    pignistic: probability,
  };
}

function denseMeasures(masses: MassFunction, low: Int32Array) {
  const n = masses.frame.elements.length;
  const subsets = new Float64Array(2 ** n);
  for (let i = 0; i < masses.mass.length; i++) subsets[masses.low[i]] = masses.mass[i];
  const supersets = Float64Array.from(subsets);
  sumSubsets(subsets, n);
  sumSupersets(supersets, n);
  const empty = emptyMass(masses);
  const whole = 2 ** n - 1;
  return {
    belief: Float64Array.from(low, (set) => subsets[set] - empty),
    // What does not meet A lies within its complement.
    plausibility: Float64Array.from(low, (set) => subsets[whole] - subsets[whole & ~set]),
    commonality: Float64Array.from(low, (set) => supersets[set]),
  };
}

/** Conflict of sources, whatever rule combines them. */
export interface Conflict {
  /** K of Dempster's rule at every step of the fold; it ends with 1 at a step that leaves nothing. */
  readonly perStep: Float64Array;
  /** Mass of the empty set after the conjunctive product of all. */
  readonly total: number;
  /** Weight of conflict, -ln(1 - K) over all sources, in nats (Shafer 1976); infinite at total conflict. */
  readonly weightNats: number;
}

export function conflictOf(sources: readonly Source[]): Conflict {
  const steps: number[] = [];
  let folded: MassFunction | undefined = sources[0].masses;
  // ln(1 - K) adds over the steps and keeps what 1 - K near 0 loses.
  let logAgreement = Math.log1p(-emptyMass(folded));
  for (const { masses } of sources.slice(1)) {
    const product = conjunctive(folded, masses);
    const conflict = emptyMass(product);
    folded = normalised(product);
    steps.push(folded === undefined ? 1 : conflict);
    const agreement = product.mass.reduce((sum, mass) => sum + mass, 0) - conflict;
    logAgreement += folded === undefined ? Number.NEGATIVE_INFINITY : Math.log(agreement);
    if (folded === undefined) break;
  }
  return { perStep: Float64Array.from(steps), total: 0 - Math.expm1(logAgreement), weightNats: 0 - logAgreement };
}
