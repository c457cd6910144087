/** Bins of the reliability table. */
const BINS = 15;

export interface CalibrationBin {
  readonly low: number;
  readonly high: number;
  readonly rows: number;
  readonly mean_confidence: number | null;
  readonly accuracy: number | null;
}

/** Reliability of the greatest probability, over equal bins (low, high]. */
export interface Calibration {
  /** Expected calibration error: |accuracy - confidence| of each bin by its share of rows (Guo et al. 2017). */
  readonly error: number;
  readonly bins: readonly CalibrationBin[];
}

export interface CalibrationGatherer {
  add(confidence: number, correct: boolean): void;
  finish(): Calibration;
}

/** Counts of equal bins over confidences; rows come one by one. */
export function gatherCalibration(): CalibrationGatherer {
  const rows = new Float64Array(BINS);
  const confidences = new Float64Array(BINS);
  const hits = new Float64Array(BINS);
  return {
    add(confidence, correct) {
      const bin = Math.min(BINS - 1, Math.max(0, Math.ceil(confidence * BINS) - 1));
      rows[bin]++;
      confidences[bin] += confidence;
      if (correct) hits[bin]++;
    },
    finish() {
      const total = rows.reduce((sum, count) => sum + count, 0);
      let error = 0;
      const bins = Array.from({ length: BINS }, (_, bin) => {
        const count = rows[bin];
        error += total === 0 ? 0 : Math.abs(hits[bin] - confidences[bin]) / total;
        const shared = { low: bin / BINS, high: (bin + 1) / BINS, rows: count };
        return count === 0
          ? { ...shared, mean_confidence: null, accuracy: null }
          : { ...shared, mean_confidence: confidences[bin] / count, accuracy: hits[bin] / count };
      });
      return { error, bins };
    },
  };
}
