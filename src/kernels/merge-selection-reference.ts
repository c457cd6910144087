/**
 * The first elements of a tensor in the order of falling magnitude, equal ones by rising index: those above `magnitude`,
 * and those equal to it whose index is below `end`.
 */
export interface MagnitudeCut {
  readonly magnitude: number;
  readonly end: number;
}

/** The cut that no element is inside of. */
export const NOTHING: MagnitudeCut = { magnitude: Number.POSITIVE_INFINITY, end: 0 };

/** The entry of ascending rank k of the first `count` entries, which are reordered (quickselect, middle of three). */
function partitioned(values: Float64Array, count: number, k: number): number {
  let low = 0;
  let high = count - 1;
  while (low < high) {
    const a = values[low];
    const b = values[(low + high) >>> 1];
    const c = values[high];
    const pivot = Math.max(Math.min(a, b), Math.min(Math.max(a, b), c));
    let i = low;
    let j = high;
    while (i <= j) {
      while (values[i] < pivot) i++;
      while (values[j] > pivot) j--;
      if (i > j) break;
      const held = values[i];
      values[i++] = values[j];
      values[j--] = held;
    }
    if (k <= j) high = j;
    else if (k >= i) low = i;
    else break;
  }
  return values[k];
}

/** The value of ascending rank k (from 0) among `values`, which stay as they are and hold no NaN. */
export function selectKthReference(values: ArrayLike<number>, k: number): number {
  return partitioned(Float64Array.from(values), values.length, k);
}

/** The cut with exactly `rank` elements inside, 0 <= rank <= values.length. */
export function cutReference(values: Float64Array, rank: number): MagnitudeCut {
  if (rank === 0) return NOTHING;
  const magnitude = selectKthReference(values, values.length - rank);
  let wanted = rank;
  for (const value of values) if (value > magnitude) wanted--;
  let end = 0;
  for (let i = 0; wanted > 0; i++) {
    if (values[i] !== magnitude) continue;
    end = i + 1;
    wanted--;
  }
  return { magnitude, end };
}

/** Whether element `index` of magnitude `value` is inside a cut. */
export function isInside(cut: MagnitudeCut, value: number, index: number): boolean {
  return value > cut.magnitude || (value === cut.magnitude && index < cut.end);
}
