import { InputError } from '../../../errors.js';
import { type MassFunction, normalised, type Source } from '../mass-function.js';
import { conjunctive } from '../products.js';
import type { CombinationRule } from './rule.js';

const listed = (names: readonly string[]): string =>
  names.length <= 4 ? names.join(', ') : `${names.slice(0, 3).join(', ')} and ${names.length - 3} more`;

/** What is wrong where nothing is left after sources contradict each other. */
export function totalConflict(before: readonly string[], next: string): InputError {
  const who =
    before.length === 1 ? `sources ${before[0]} and ${next}` : `sources ${listed(before)} together and ${next}`;
  return new InputError(
    `total conflict: ${who} have no set in common, and Dempster's rule is undefined; use --rule pcr5, yager, ` +
      'dubois-prade or murphy, or discount a source by --reliability',
  );
}

/** Dempster's rule, step by step. @throws InputError naming the sources in total conflict */
export function dempsterFold(sources: readonly Source[], trim: (masses: MassFunction) => MassFunction): MassFunction {
  let folded = sources[0].masses;
  for (let s = 1; s < sources.length; s++) {
    const next = normalised(conjunctive(folded, sources[s].masses));
    if (next === undefined) {
      throw totalConflict(
        sources.slice(0, s).map(({ name }) => name),
        sources[s].name,
      );
    }
    folded = trim(next);
  }
  return folded;
}

export const DEMPSTER: CombinationRule = {
  name: 'dempster',
  title: 'conjunctive, conflict divided out',
  source: 'Shafer 1976',
  ordered: false,
  combine: dempsterFold,
};
