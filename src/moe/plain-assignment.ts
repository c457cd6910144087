export type AssignmentMode = 'exact' | 'greedy' | 'auction';

/** Interim: shortest augmenting paths in double, whatever the mode. */
export function solveAssignment(
  gain: Float32Array | Float64Array,
  n: number,
  _options: { readonly mode?: AssignmentMode; readonly threads?: number; readonly maxBytes?: number } = {},
): { permutation: Int32Array; gain: number; bound: number; gap: number } {
  const u = new Float64Array(n + 1);
  const v = new Float64Array(n + 1);
  const match = new Int32Array(n + 1);
  const way = new Int32Array(n + 1);
  for (let i = 1; i <= n; i++) {
    match[0] = i;
    let j0 = 0;
    const least = new Float64Array(n + 1).fill(Number.POSITIVE_INFINITY);
    const used = new Uint8Array(n + 1);
    do {
      used[j0] = 1;
      const row = match[j0];
      let delta = Number.POSITIVE_INFINITY;
      let next = 0;
      for (let j = 1; j <= n; j++) {
        if (used[j]) continue;
        const cost = -gain[(row - 1) * n + j - 1] - u[row] - v[j];
        if (cost < least[j]) {
          least[j] = cost;
          way[j] = j0;
        }
        if (least[j] < delta) {
          delta = least[j];
          next = j;
        }
      }
      for (let j = 0; j <= n; j++) {
        if (used[j]) {
          u[match[j]] += delta;
          v[j] -= delta;
        } else least[j] -= delta;
      }
      j0 = next;
    } while (match[j0] !== 0);
    do {
      const previous = way[j0];
      match[j0] = match[previous];
      j0 = previous;
    } while (j0 !== 0);
  }
  const permutation = new Int32Array(n);
  let total = 0;
  let bound = 0;
  for (let j = 1; j <= n; j++) {
    permutation[match[j] - 1] = j - 1;
    total += gain[(match[j] - 1) * n + j - 1];
    bound -= u[j] + v[j];
  }
  return { permutation, gain: total, bound, gap: bound - total };
}
