/** A running sum of doubles, [sum, rounding errors] (Neumaier 1974). */
export type CompensatedSum = Float64Array;

export function createCompensatedSum(): CompensatedSum {
  return new Float64Array(2);
}

/** Adds a value in place. */
export function addTo(total: CompensatedSum, value: number): void {
  const before = total[0];
  const sum = before + value;
  total[1] += Math.abs(before) >= Math.abs(value) ? before - sum + value : value - sum + before;
  total[0] = sum;
}

export function totalOf(total: CompensatedSum): number {
  return total[0] + total[1];
}

/** Mean of all values; NaN when there are none. */
export function meanOf(values: ArrayLike<number>): number {
  const total = createCompensatedSum();
  for (let i = 0; i < values.length; i++) addTo(total, values[i]);
  return totalOf(total) / values.length;
}
