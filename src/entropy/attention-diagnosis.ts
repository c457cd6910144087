import { type QuartileBins, quartileBins } from '../linalg/quartile-bins.js';

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
