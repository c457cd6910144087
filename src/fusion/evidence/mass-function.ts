import { InputError } from '../../errors.js';
import { createSetIndex, elementIndex, type Frame, parseSet, setName, wholeFrame } from './focal-sets.js';

/**
 * A mass function m: 2^frame -> [0, 1] by its focal sets (Shafer 1976), in ascending order of their masks. Masses make 1.
 * The empty set has mass under the unnormalised rule of Smets only.
 */
export interface MassFunction {
  readonly frame: Frame;
  /** Words of the focal sets [n]. */
  readonly low: Int32Array;
  readonly high: Int32Array;
  /** Mass of every focal set [n], all above 0. */
  readonly mass: Float64Array;
}

/** A mass function with the name of what it came from. */
export interface Source {
  readonly name: string;
  readonly masses: MassFunction;
}

/** Masses that grow by addition. */
export interface MassSums {
  add(low: number, high: number, mass: number): void;
  /** Sets whose sum is above 0, in ascending order. */
  result(): MassFunction;
}

export function createMassSums(frame: Frame): MassSums {
  const index = createSetIndex();
  let sums = new Float64Array(32);
  return {
    add(low, high, mass) {
      const place = index.place(low, high);
      if (place >= sums.length) {
        const larger = new Float64Array(2 * sums.length);
        larger.set(sums);
        sums = larger;
      }
      sums[place] += mass;
    },
    result() {
      const { low, high, count } = index;
      const order = Int32Array.from({ length: count }, (_, i) => i)
        .filter((i) => sums[i] > 0)
        .sort((a, b) => (high[a] >>> 0) - (high[b] >>> 0) || (low[a] >>> 0) - (low[b] >>> 0));
      return {
        frame,
        low: order.map((i) => low[i]),
        high: order.map((i) => high[i]),
        mass: Float64Array.from(order, (i) => sums[i]),
      };
    },
  };
}

/** How far from 1 the masses of a source may sum. */
export const SUM_TOLERANCE = 1e-6;

export interface MassEntry {
  /** Written set, `A|C`; empty for the empty set. */
  readonly set: string;
  readonly mass: number;
  /** For messages: the file and line. */
  readonly where?: string;
}

export interface MassReading {
  /** Divides masses by their sum instead of refusing one that is not 1. */
  readonly renormalize?: boolean;
  /** Whether the empty set may have mass. */
  readonly allowEmpty?: boolean;
}

/**
 * Masses of one source; those of a set that stands twice are added.
 * @throws InputError naming the source: a mass that is negative or no number, a sum that is not 1 within 1e-6, mass on
 *   the empty set, an unknown element
 */
export function massFunction(
  frame: Frame,
  source: string,
  entries: readonly MassEntry[],
  reading: MassReading = {},
): MassFunction {
  const index = elementIndex(frame.elements);
  const sums = createMassSums(frame);
  let total = 0;
  for (const { set, mass, where = `source ${source}` } of entries) {
    if (!(Number.isFinite(mass) && mass >= 0)) {
      throw new InputError(`${where}: mass ${mass} of "${set}" of source ${source}; masses are from 0 to 1`);
    }
    const { low, high } = parseSet(set, index, where);
    if (low === 0 && high === 0 && mass > 0 && reading.allowEmpty !== true) {
      throw new InputError(
        `${where}: source ${source} gives mass ${mass} to the empty set; only --rule smets takes it`,
      );
    }
    total += mass;
    sums.add(low, high, mass);
  }
  if (!(total > 0)) throw new InputError(`source ${source} has no mass`);
  if (reading.renormalize !== true && Math.abs(total - 1) > SUM_TOLERANCE) {
    throw new InputError(
      `the masses of source ${source} sum to ${Number(total.toPrecision(9))}, not 1; mend them, or use --renormalize`,
    );
  }
  return reading.renormalize === true ? scaled(sums.result(), 1 / total) : sums.result();
}

/** The source that knows nothing: all mass on the frame. */
export function vacuous(frame: Frame): MassFunction {
  const { low, high } = wholeFrame(frame);
  return { frame, low: Int32Array.of(low), high: Int32Array.of(high), mass: Float64Array.of(1) };
}

/** Masses times a factor. */
export function scaled(masses: MassFunction, factor: number): MassFunction {
  return { ...masses, mass: masses.mass.map((mass) => mass * factor) };
}

/** Discounting by a reliability r (Shafer 1976, chapter 11): m'(A) = r m(A), and 1 - r more on the frame. */
export function discounted(masses: MassFunction, reliability: number): MassFunction {
  if (!(reliability >= 0 && reliability <= 1)) throw new InputError(`reliability ${reliability} is not from 0 to 1`);
  return sumsOf(masses, (mass) => mass * reliability, 1 - reliability);
}

/** Focal sets below a threshold give their mass to the frame. */
export function withoutSmall(masses: MassFunction, threshold: number): MassFunction {
  if (!masses.mass.some((mass) => mass < threshold)) return masses;
  let moved = 0;
  for (const mass of masses.mass) if (mass < threshold) moved += mass;
  return sumsOf(masses, (mass) => (mass < threshold ? 0 : mass), moved);
}

/** Masses through a function, and something more on the frame. */
function sumsOf(masses: MassFunction, map: (mass: number) => number, onFrame: number): MassFunction {
  const sums = createMassSums(masses.frame);
  masses.mass.forEach((mass, i) => {
    sums.add(masses.low[i], masses.high[i], map(mass));
  });
  const { low, high } = wholeFrame(masses.frame);
  if (onFrame > 0) sums.add(low, high, onFrame);
  return sums.result();
}

/** Weighted sum of mass functions on one frame. */
export function mixture(all: readonly MassFunction[], weights: ArrayLike<number>): MassFunction {
  const sums = createMassSums(all[0].frame);
  all.forEach(({ low, high, mass }, s) => {
    for (let i = 0; i < mass.length; i++) sums.add(low[i], high[i], weights[s] * mass[i]);
  });
  return sums.result();
}

/** Mass on the empty set. */
export function emptyMass({ low, high, mass }: MassFunction): number {
  return mass.length > 0 && low[0] === 0 && high[0] === 0 ? mass[0] : 0;
}

/** The mass function without its empty set, divided by what is left; undefined where nothing is left. */
export function normalised(masses: MassFunction): MassFunction | undefined {
  const from = emptyMass(masses) > 0 ? 1 : 0;
  if (masses.mass.length === from) return undefined;
  const kept = {
    frame: masses.frame,
    low: masses.low.slice(from),
    high: masses.high.slice(from),
    mass: masses.mass.slice(from),
  };
  return scaled(kept, 1 / kept.mass.reduce((sum, mass) => sum + mass, 0));
}

/** Masses by the names of their sets, as tables and reports show them. */
export function namedMasses({ frame, low, high, mass }: MassFunction): Map<string, number> {
  return new Map(Array.from(mass, (value, i) => [setName(frame.elements, low[i], high[i]), value]));
}
