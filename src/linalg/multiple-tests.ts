/** Indices of the p values in ascending order; NaN (no test) left out. */
function ranked(pValues: ArrayLike<number>): number[] {
  const order: number[] = [];
  for (let i = 0; i < pValues.length; i++) if (!Number.isNaN(pValues[i])) order.push(i);
  return order.sort((a, b) => pValues[a] - pValues[b] || a - b);
}

/** Holm's step-down adjusted p values (family-wise error), [tests]. */
export function holm(pValues: ArrayLike<number>): Float64Array {
  const adjusted = new Float64Array(pValues.length).fill(Number.NaN);
  const order = ranked(pValues);
  let highest = 0;
  order.forEach((test, rank) => {
    highest = Math.max(highest, Math.min(1, (order.length - rank) * pValues[test]));
    adjusted[test] = highest;
  });
  return adjusted;
}

/** Benjamini and Hochberg's step-up adjusted p values (false discovery rate), [tests]. */
export function benjaminiHochberg(pValues: ArrayLike<number>): Float64Array {
  const adjusted = new Float64Array(pValues.length).fill(Number.NaN);
  const order = ranked(pValues);
  let lowest = 1;
  for (let rank = order.length - 1; rank >= 0; rank--) {
    const test = order[rank];
    lowest = Math.min(lowest, (pValues[test] * order.length) / (rank + 1));
    adjusted[test] = lowest;
  }
  return adjusted;
}
