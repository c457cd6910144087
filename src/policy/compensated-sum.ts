/** A running sum of doubles with the rounding errors beside it (Neumaier 1974). */
export interface CompensatedSum {
  sum: number;
  correction: number;
}

export function createSum(): CompensatedSum {
  return { sum: 0, correction: 0 };
}

/** Adds a finite value in place. */
export function addTo(total: CompensatedSum, value: number): void {
  const next = total.sum + value;
  total.correction += Math.abs(total.sum) >= Math.abs(value) ? total.sum - next + value : value - next + total.sum;
  total.sum = next;
}

export function sumOf({ sum, correction }: CompensatedSum): number {
  return sum + correction;
}

/** Mean of all values; NaN when there are none. */
export function meanOf(values: ArrayLike<number>): number {
  const total = createSum();
  for (let i = 0; i < values.length; i++) addTo(total, values[i]);
  return sumOf(total) / values.length;
}
