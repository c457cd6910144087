import { didYouMean, InputError } from '../errors.js';
import { matchesPattern } from '../formats/name-patterns.js';

/** Which names are trained, by globs. */
export interface NameSelection {
  /** Trained names; all when absent. */
  readonly train?: readonly string[];
  /** Names that are left out of these. */
  readonly freeze?: readonly string[];
}

/**
 * The trained ones of `names`, in their order.
 * @throws InputError for a glob that matches no name
 */
export function selectNames(names: readonly string[], { train, freeze = [] }: NameSelection): string[] {
  const matching = (glob: string): Set<string> => {
    const found = names.filter((name) => matchesPattern(name, glob));
    if (found.length > 0) return new Set(found);
    throw new InputError(`no tensor is named "${glob}"${didYouMean(glob, names)}; * stands for any characters`);
  };
  const wanted = train?.map(matching);
  const frozen = freeze.map(matching);
  return names.filter(
    (name) => (wanted === undefined || wanted.some((set) => set.has(name))) && !frozen.some((set) => set.has(name)),
  );
}
