/** What belongs to the tokens with the largest scores so far. */
export interface LargestTokens<T> {
  /** `make` is called where the token is among them; of equal scores the first ones stay. */
  offer(score: number, make: () => T): void;
  /** Largest first. */
  rows(): readonly T[];
}

/** Keeps at most twice `most` tokens at a time. */
export function createLargestTokens<T>(most: number): LargestTokens<T> {
  let kept: { readonly score: number; readonly row: T }[] = [];
  let least = Number.NEGATIVE_INFINITY;
  const trim = (): void => {
    // Sorting is stable: equal scores stay in the order in which they came.
    kept = kept.sort((a, b) => b.score - a.score).slice(0, most);
    if (kept.length === most) least = kept[most - 1].score;
  };
  return {
    offer(score, make) {
      if (!(score > least)) return;
      kept.push({ score, row: make() });
      if (kept.length >= 2 * most) trim();
    },
    rows() {
      trim();
      return kept.map(({ row }) => row);
    },
  };
}
