import { CURVE_NAMES, type LabCurves } from './types.js';

/** Curves of `steps` steps, NaN where nothing has been measured yet. */
export function createCurves(steps: number, extra: readonly string[] = []): LabCurves {
  const empty = () => new Float64Array(steps).fill(Number.NaN);
  return {
    ...(Object.fromEntries(CURVE_NAMES.map((name) => [name, empty()])) as Record<
      (typeof CURVE_NAMES)[number],
      Float64Array
    >),
    extra: Object.fromEntries(extra.map((name) => [name, empty()])),
  };
}
