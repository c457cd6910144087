import { type MassFunction, mixture, type Source } from '../mass-function.js';
import { dempsterFold } from './dempster.js';
import type { CombinationRule } from './rule.js';

/** Mean of the sources' masses. */
export function averageMasses(sources: readonly Source[]): MassFunction {
  return mixture(
    sources.map(({ masses }) => masses),
    new Float64Array(sources.length).fill(1 / sources.length),
  );
}

/** Dempster's rule on n copies of one mass function. */
export function selfCombined(
  masses: MassFunction,
  copies: number,
  trim: (masses: MassFunction) => MassFunction,
): MassFunction {
  const copy = { name: 'average', masses };
  return dempsterFold(new Array<Source>(copies).fill(copy), trim);
}

export const MURPHY: CombinationRule = {
  name: 'murphy',
  title: 'the average, combined with itself by Dempster once for every further source',
  source: 'Murphy 2000',
  ordered: false,
  combine: (sources, trim) => selfCombined(averageMasses(sources), sources.length, trim),
};
