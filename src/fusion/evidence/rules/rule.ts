import type { MassFunction, Source } from '../mass-function.js';

/** A way to make one mass function of several on one frame. */
export interface CombinationRule {
  /** As on the command line and in reports. */
  readonly name: string;
  readonly title: string;
  readonly source: string;
  /** The result depends on the order of the sources: they are folded from the left, in the order of the file. */
  readonly ordered: boolean;
  /** The result may have mass on the empty set. */
  readonly unnormalised?: boolean;
  /**
   * @param trim applied to every intermediate result, for instance to drop small focal sets
   * @throws InputError where the sources cannot be combined so
   */
  readonly combine: (sources: readonly Source[], trim: (masses: MassFunction) => MassFunction) => MassFunction;
}

/** Folds from the left: ((m1 m2) m3) ... */
export function foldSources(
  sources: readonly Source[],
  trim: (masses: MassFunction) => MassFunction,
  step: (a: MassFunction, b: MassFunction) => MassFunction,
): MassFunction {
  return sources.slice(1).reduce((folded, { masses }) => trim(step(folded, masses)), sources[0].masses);
}
