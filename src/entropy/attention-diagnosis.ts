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

/** Shares of heads at which a model is flagged. Derived from the paper's figures; see `diagnoseAttention`. */
export interface DiagnosisThresholds {
  readonly overloadTopShare: number;
  readonly collapseBottomShare: number;
  readonly collapseMedianShare: number;
}

export const DEFAULT_DIAGNOSIS: DiagnosisThresholds = {
  overloadTopShare: 0.4,
  collapseBottomShare: 0.25,
  collapseMedianShare: 0.1,
};

export interface AttentionDiagnosis {
  /** Relative to the largest head entropy, and relative to log(context). */
  readonly relative: QuartileBins;
  readonly absolute: QuartileBins;
  readonly overload: boolean;
  readonly collapse: boolean;
  /** Median head entropy of the last third of the layers, nats. */
  readonly lastThirdMedianNats: number;
  /** Per head: `overload` in the top quarter, `collapse` in the bottom quarter, else an empty string. */
  readonly flags: ('overload' | 'collapse' | '')[];
}

function median(values: number[]): number {
  if (values.length === 0) return Number.NaN;
  const sorted = Float64Array.from(values).sort();
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/**
 * Entropic overload: at least 40 % of the heads in the top quarter (the paper's softmax-only models have 45 and 58 %, the
 * regularised one 23 %). Entropy collapse: at least 25 % in the bottom quarter, and the median head of the last third of
 * the layers below 0.1 log T.
 * @param headEntropies nats, `[layers, heads]`
 */
export function diagnoseAttention(
  headEntropies: Float64Array,
  layers: number,
  contextSize: number,
  thresholds: DiagnosisThresholds = DEFAULT_DIAGNOSIS,
): AttentionDiagnosis {
  const heads = headEntropies.length / layers;
  const logContext = Math.log(contextSize);
  const relative = quartileBins(headEntropies);
  const absolute = quartileBins(headEntropies, logContext);
  const lastThird = Math.max(1, Math.ceil(layers / 3));
  const late = [...headEntropies.subarray((layers - lastThird) * heads)].filter((entropy) => !Number.isNaN(entropy));
  const lastThirdMedianNats = median(late);
  const flags: AttentionDiagnosis['flags'] = Array.from(relative.bins, (bin) =>
    bin === 3 ? 'overload' : bin === 0 ? 'collapse' : '',
  );
  return {
    relative,
    absolute,
    overload: relative.fractions[3] >= thresholds.overloadTopShare,
    collapse:
      relative.fractions[0] >= thresholds.collapseBottomShare &&
      lastThirdMedianNats < thresholds.collapseMedianShare * logContext,
    lastThirdMedianNats,
    flags,
  };
}
