/** Heads by quarters of a largest entropy: `[0, m/4), [m/4, m/2), [m/2, 3m/4), [3m/4, m]`. */
export interface QuartileBins {
  /** Bin 0..3 of every head, -1 where the entropy is NaN. */
  readonly bins: Int32Array;
  /** Share of the heads in each bin, of those that have an entropy. */
  readonly fractions: Float64Array;
  readonly maximum: number;
}

/**
 * Quarter of each head entropy relative to `maximum`, by default the largest one (Jha & Reagen 2025). A maximum of 0 puts
 * every head into the first quarter.
 */
export function quartileBins(headEntropies: ArrayLike<number>, maximum?: number): QuartileBins {
  let largest = maximum ?? 0;
  if (maximum === undefined) {
    for (let i = 0; i < headEntropies.length; i++) if (headEntropies[i] > largest) largest = headEntropies[i];
  }
  const bins = new Int32Array(headEntropies.length).fill(-1);
  const fractions = new Float64Array(4);
  let counted = 0;
  for (let i = 0; i < headEntropies.length; i++) {
    const entropy = headEntropies[i];
    if (Number.isNaN(entropy)) continue;
    let bin = 0;
    if (largest > 0) while (bin < 3 && entropy >= ((bin + 1) * largest) / 4) bin++;
    bins[i] = bin;
    fractions[bin]++;
    counted++;
  }
  for (let bin = 0; bin < 4; bin++) fractions[bin] /= counted;
  return { bins, fractions, maximum: largest };
}
