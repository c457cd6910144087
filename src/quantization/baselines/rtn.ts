import type { Baseline } from './baseline.js';
import { forEachGroup, groupLength, groupsOf, largestMagnitude, settingsGrid, storeScales } from './group-scales.js';
import { symmetricBits, symmetricQuantizer } from './symmetric-codes.js';

/** Round to nearest with the scale max|w| / (2^(bits-1) - 1) of each group, stored as f16. */
export const RTN: Baseline = {
  name: 'rtn',
  title: 'RTN',
  settings: settingsGrid([2, 3, 4, 5, 6, 8], [32, 64, 128]),
  storedBits: ({ bits, group }, rows, columns) => symmetricBits(bits, groupLength(group, columns), rows, columns),
  groupColumns: ({ group }, columns) => (group > 0 && group < columns ? group : undefined),
  fit({ weights, rows, columns }, { bits, group }) {
    const length = groupLength(group, columns);
    const scales = new Float64Array(rows * groupsOf(columns, length));
    forEachGroup(rows, columns, length, (index, from, to) => {
      scales[index] = largestMagnitude(weights, from, to) / (2 ** (bits - 1) - 1);
    });
    return symmetricQuantizer(bits, length, rows, columns, storeScales(scales));
  },
};
