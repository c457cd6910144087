import { applyOffsets, columnOf, conformalOffsets } from '../../src/fusion/quantiles/conformal.js';
import { centralIntervals } from '../../src/fusion/quantiles/levels.js';
import type { Json } from './harness.js';
import { float64, keysOf } from './tensors.js';

const finiteOrNull = (value: number): number | null => (Number.isFinite(value) ? value : null);

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const levels = inputs.tau as number[];
  const m = levels.length;
  const calibration = float64(inputs.calibration_quantiles, 'calibration_quantiles');
  const outcomes = float64(inputs.calibration_y, 'calibration_y');
  const list = (wanted as { intervals: Json[] }).intervals;
  const { intervals } = centralIntervals(levels);
  return {
    intervals: list.map((entry, at) => {
      const { lower, upper, miscoverage } = intervals[at];
      const ends = [columnOf(calibration, m, lower), columnOf(calibration, m, upper)] as const;
      const symmetric = conformalOffsets(...ends, outcomes, miscoverage, false);
      const asymmetric = conformalOffsets(...ends, outcomes, miscoverage, true);
      const test = float64(inputs.test_quantiles, 'test_quantiles');
      applyOffsets(test, m, lower, upper, symmetric);
      const named: Record<string, unknown> = {
        miscoverage,
        rank: symmetric.rank,
        offset: finiteOrNull(symmetric.upper),
        asym_rank: asymmetric.rank,
        asym_lower: finiteOrNull(asymmetric.lower),
        asym_upper: finiteOrNull(asymmetric.upper),
        test_lower: columnOf(test, m, lower),
        test_upper: columnOf(test, m, upper),
      };
      return Object.fromEntries(keysOf(entry).map((key) => [key, named[key]]));
    }),
  };
}
