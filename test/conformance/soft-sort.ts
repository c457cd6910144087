import { withoutCrossing } from '../../src/fusion/quantiles/non-crossing.js';
import { type SoftSortVariant, softSortRows } from '../../src/fusion/quantiles/soft-sort.js';
import type { Json } from './harness.js';
import { float64, keysOf, number, shapeOf, tensor } from './tensors.js';

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const shape = shapeOf(inputs.values, 'values');
  const values = float64(inputs.values, 'values');
  const columns = shape[1];
  return Object.fromEntries(
    keysOf(wanted).map((key) => [
      key,
      tensor(
        shape,
        key === 'hard'
          ? withoutCrossing(values, columns, 'sort')
          : softSortRows(values, columns, number(inputs.eps, 'eps'), key as SoftSortVariant),
      ),
    ]),
  );
}
