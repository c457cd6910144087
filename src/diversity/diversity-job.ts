import type { ComputeReference } from '../kernels/compute-thread.js';
import { openProducts } from '../linalg/tiled-products.js';
import { openSets } from './kernel-opening.js';
import { compareSets, type SetComparison } from './set-comparison.js';
import { measureSet, type SetMeasures } from './set-measures.js';
import type { DiversitySet, DiversitySettings } from './settings.js';

/** One set, and others that it is compared with under the same kernel. */
export interface DiversityArguments {
  readonly set: DiversitySet;
  readonly against: readonly DiversitySet[];
  readonly settings: DiversitySettings;
}

export interface DiversityMeasures {
  readonly set: SetMeasures;
  readonly comparisons: readonly SetComparison[];
  /** Of a Gaussian kernel; null for others. */
  readonly sigma: number | null;
  readonly medianDistance: number | null;
  readonly columns: number;
  readonly warnings: readonly string[];
}

/** Measures a set and its comparisons. Progress counts decompositions. */
export async function measureDiversity(
  { set, against, settings }: DiversityArguments,
  progress: (value: unknown) => void,
): Promise<DiversityMeasures> {
  const products = openProducts({ threads: settings.threads });
  let steps = 0;
  const onStep = (): void => progress(++steps);
  try {
    const sets = [set, ...against];
    const opened = await openSets(sets, settings, products);
    try {
      const measured = await measureSet(opened, 0, set, settings, { onStep });
      const comparisons: SetComparison[] = [];
      for (let other = 1; other < sets.length; other++)
        comparisons.push(await compareSets(opened, [0, other], sets, measured.figures, settings, { onStep }));
      const { bandwidth } = opened;
      return {
        set: measured,
        comparisons,
        sigma: bandwidth?.sigma ?? null,
        medianDistance: bandwidth?.medianDistance ?? null,
        columns: opened.columns,
        warnings: bandwidth?.warning === undefined ? [] : [bandwidth.warning],
      };
    } finally {
      opened.close();
    }
  } finally {
    await products.close();
  }
}

export const MEASURE_DIVERSITY: ComputeReference<DiversityArguments, DiversityMeasures> = {
  module: import.meta.url,
  job: measureDiversity,
};
