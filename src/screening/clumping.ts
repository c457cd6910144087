/** A column that was kept, or dropped because of one that was. */
export interface ClumpDecision {
  readonly column: number;
  /** The kept column whose information with this one is above the threshold; -1 where it is kept itself. */
  readonly because: number;
  /** That information in nats; of a kept column the largest with those kept before, or NaN for the first. */
  readonly nats: number;
}

/** Columns that are compared with all kept ones at a time. */
const WINDOW = 64;

/**
 * Walks columns in rank order and drops those whose mutual information with a kept one is above `threshold`, until `most`
 * are kept. Deterministic in the order alone: the window only decides how much is computed at once.
 * @param ranked columns by descending rank
 * @param between information, in nats, of one column with each of several
 */
export function clumpColumns(
  ranked: Int32Array,
  threshold: number,
  most: number,
  between: (column: number, others: Int32Array) => Float64Array,
): ClumpDecision[] {
  const kept: number[] = [];
  const decisions: ClumpDecision[] = [];
  for (let start = 0; start < ranked.length && kept.length < most; start += WINDOW) {
    const window = ranked.slice(start, start + WINDOW);
    const largest = new Float64Array(window.length).fill(Number.NaN);
    const because = new Int32Array(window.length).fill(-1);
    const compare = (column: number, from: number): void => {
      const places: number[] = [];
      for (let k = from; k < window.length; k++) if (because[k] < 0) places.push(k);
      if (places.length === 0) return;
      const nats = between(
        column,
        Int32Array.from(places, (k) => window[k]),
      );
      places.forEach((k, i) => {
        if (!(nats[i] <= largest[k])) largest[k] = nats[i];
        if (nats[i] > threshold) because[k] = column;
      });
    };
    for (const column of kept) compare(column, 0);
    for (let k = 0; k < window.length && kept.length < most; k++) {
      decisions.push({ column: window[k], because: because[k], nats: largest[k] });
      if (because[k] >= 0) continue;
      kept.push(window[k]);
      compare(window[k], k + 1);
    }
  }
  return decisions;
}
