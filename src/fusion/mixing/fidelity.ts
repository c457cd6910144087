import { columnSums } from './group-matrix.js';

/** How well a law predicts losses. */
export interface Prediction {
  /** Mean squared error over all runs and groups. */
  readonly mse: number;
  /** 1 - residual / total sum of squares about the mean of all losses. */
  readonly r2: number;
  /** The same within each group, about its own mean, [evaluated]; NaN where a group's losses are all equal. */
  readonly groupR2: Float64Array;
}

/** @param predicted [n, width] beside `measured` [n, width] */
export function predictionOf(predicted: Float64Array, measured: Float64Array, width: number): Prediction {
  const count = measured.length / width;
  const mean = measured.reduce((sum, x) => sum + x, 0) / measured.length;
  const groupR2 = new Float64Array(width);
  let [residual, total] = [0, 0];
  for (let i = 0; i < width; i++) {
    let own = 0;
    for (let r = 0; r < count; r++) own += measured[r * width + i] / count;
    let [ownResidual, ownTotal] = [0, 0];
    for (let r = 0; r < count; r++) {
      const e = r * width + i;
      ownResidual += (measured[e] - predicted[e]) ** 2;
      ownTotal += (measured[e] - own) ** 2;
      total += (measured[e] - mean) ** 2;
    }
    residual += ownResidual;
    groupR2[i] = ownTotal === 0 ? Number.NaN : 1 - ownResidual / ownTotal;
  }
  return { mse: residual / measured.length, r2: total === 0 ? Number.NaN : 1 - residual / total, groupR2 };
}

/** How alike two mixing matrices are. */
export interface MatrixAgreement {
  /** Cosine of all entries. */
  readonly cosine: number;
  /**
   * Cosine when every row has its mean taken off: proportions sum to 1, so a constant on a row changes no difference between
   * mixtures.
   */
  readonly centredCosine: number;
  /** Cosine of the column sums, which alone move the proportions; and of them about their mean. */
  readonly columnCosine: number;
  readonly centredColumnCosine: number;
  /** Spearman's rank correlation of the column sums. */
  readonly columnRankCorrelation: number;
}

/** @param a, b [k, k], row = evaluated group */
export function matrixAgreement(a: Float64Array, b: Float64Array, k: number): MatrixAgreement {
  const [sumsOfA, sumsOfB] = [columnSums(a, k), columnSums(b, k)];
  return {
    cosine: cosine(a, b),
    centredCosine: cosine(centredRows(a, k), centredRows(b, k)),
    columnCosine: cosine(sumsOfA, sumsOfB),
    centredColumnCosine: cosine(centredRows(sumsOfA, k), centredRows(sumsOfB, k)),
    columnRankCorrelation: cosine(centredRows(ranks(sumsOfA), k), centredRows(ranks(sumsOfB), k)),
  };
}

/** NaN where one of them is 0. */
export function cosine(a: Float64Array, b: Float64Array): number {
  let [inner, ofA, ofB] = [0, 0, 0];
  for (let e = 0; e < a.length; e++) {
    inner += a[e] * b[e];
    ofA += a[e] * a[e];
    ofB += b[e] * b[e];
  }
  return inner / Math.sqrt(ofA * ofB);
}

/** Every stretch of k entries without its mean. */
function centredRows(matrix: Float64Array, k: number): Float64Array {
  const centred = matrix.slice();
  for (let from = 0; from < matrix.length; from += k) {
    const row = centred.subarray(from, from + k);
    const mean = row.reduce((sum, x) => sum + x, 0) / k;
    for (let j = 0; j < k; j++) row[j] -= mean;
  }
  return centred;
}

/** Ranks from 1 on, ties share their mean. */
function ranks(values: Float64Array): Float64Array {
  return values.map((value) => {
    let [below, equal] = [0, 0];
    for (const other of values) {
      if (other < value) below++;
      else if (other === value) equal++;
    }
    return below + (equal + 1) / 2;
  });
}
