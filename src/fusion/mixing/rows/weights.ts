import { exponentiatedStep, proportionsOf, uniformLogWeights, withFloor } from '../exponentiated-gradient.js';
import type { MixerStart } from '../types.js';

/** Multiplied weights that a method keeps as logarithms, and the proportions that it trains on. */
export interface Weights {
  readonly proportions: Float64Array;
  /** p_j <- p_j exp(exponent_j), from the proportions as they are. */
  multiply(exponent: Float64Array): Float64Array;
  /** p_j <- exp(exponent_j), from uniform. */
  restart(exponent: Float64Array): Float64Array;
  /** Goes on from other proportions. */
  replace(p: Float64Array): Float64Array;
}

/** Weights at the method's initial proportions. */
export function createWeights({ groups, parameters, initial }: MixerStart): Weights {
  const k = groups.length;
  let logs = initial ? initial.map(Math.log) : uniformLogWeights(k);
  let proportions = withFloor(proportionsOf(logs), parameters.floor);
  const move = (next: Float64Array): Float64Array => {
    logs = next;
    const p = proportionsOf(logs);
    proportions = withFloor(p, parameters.floor);
    // A raised proportion is raised for good: otherwise its weight would sink where nobody sees it.
    if (proportions !== p) logs = proportions.map(Math.log);
    return proportions;
  };
  return {
    get proportions() {
      return proportions;
    },
    multiply: (exponent) => move(exponentiatedStep(logs, exponent)),
    restart: (exponent) => move(exponentiatedStep(uniformLogWeights(k), exponent)),
    replace: (p) => move(p.map(Math.log)),
  };
}

/** Mean of proportions over updates. */
export function createMean(groups: number): { add(p: Float64Array): void; value(): Float64Array | undefined } {
  const sums = new Float64Array(groups);
  let count = 0;
  return {
    add(p) {
      count++;
      for (let j = 0; j < groups; j++) sums[j] += p[j];
    },
    value: () => (count === 0 ? undefined : sums.map((sum) => sum / count)),
  };
}
