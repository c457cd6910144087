import { createRandom } from '../random.js';
import { createLoss, type Design, type Family } from './loss.js';
import { type PathOptions, type PathPoint, solvePath } from './path.js';
import type { Penalty } from './penalty.js';
import { standardiseRows } from './standardise.js';

/** The error of prediction at every lambda. */
export interface CrossValidation {
  /** Fold of every row, 0..folds-1. */
  readonly foldOfRow: Int32Array;
  readonly folds: number;
  /** Mean over the rows: squared error (linear) or log-loss in nats (logistic). */
  readonly meanError: Float64Array;
  /** Standard error of that mean over the folds. */
  readonly standardError: Float64Array;
  /** Index of the lambda of the least error, and of the largest lambda within one standard error of it. */
  readonly best: number;
  readonly oneStandardError: number;
}

/**
 * Balanced folds: a seeded permutation dealt in turn; the two classes of a logistic outcome are dealt one after the other,
 * so that every fold has both where that is possible.
 */
export function assignFolds(family: Family, y: Float64Array, folds: number, seed: number): Int32Array {
  const order = createRandom(seed).fork(0xf01d).permutation(y.length);
  const dealt = family === 'logistic' ? [...order].sort((a, b) => y[a] - y[b]) : [...order];
  const foldOfRow = new Int32Array(y.length);
  dealt.forEach((row, i) => {
    foldOfRow[row] = i % folds;
  });
  return foldOfRow;
}

/** Error of one row: squared residual, or `-log p(y)`. */
function rowError(family: Family, y: number, eta: number): number {
  if (family === 'linear') return (y - eta) * (y - eta);
  const signed = y > 0.5 ? -eta : eta;
  return signed > 0 ? signed + Math.log1p(Math.exp(-signed)) : Math.log1p(Math.exp(signed));
}

/** Linear predictors of some rows of a design in original units, from coefficients in original units. */
function predict(design: Design, rows: Int32Array, point: PathPoint, scale: Float64Array, centre: Float64Array) {
  const eta = new Float64Array(rows.length).fill(point.intercept);
  const { columns, values } = point.coefficients;
  for (let k = 0; k < columns.length; k++) {
    const j = columns[k];
    const start = j * design.rows;
    const coefficient = values[k] / scale[j];
    for (let i = 0; i < rows.length; i++) eta[i] += coefficient * (design.values[start + rows[i]] - centre[j]);
  }
  return eta;
}

/**
 * K-fold cross-validation along one sequence of lambdas. Every fold is standardised by its own training rows.
 * @param design in original units
 */
export function crossValidate(
  family: Family,
  design: Design,
  y: Float64Array,
  penalty: Penalty,
  lambdas: Float64Array,
  options: PathOptions & { readonly folds: number; readonly seed: number; readonly standardise: boolean },
): CrossValidation {
  const { folds } = options;
  const foldOfRow = assignFolds(family, y, folds, options.seed);
  const foldMeans = new Float64Array(folds * lambdas.length);
  const foldSizes = new Int32Array(folds);
  const total = new Float64Array(lambdas.length);
  for (let fold = 0; fold < folds; fold++) {
    const rows = Array.from(foldOfRow, (_, i) => i);
    const training = Int32Array.from(rows.filter((i) => foldOfRow[i] !== fold));
    const held = Int32Array.from(rows.filter((i) => foldOfRow[i] === fold));
    foldSizes[fold] = held.length;
    const { design: inner, centre, scale } = standardiseRows(design, training, options.standardise);
    const loss = createLoss(
      family,
      inner,
      Float64Array.from(training, (i) => y[i]),
    );
    solvePath(loss, penalty, lambdas, options).forEach((point, l) => {
      const eta = predict(design, held, point, scale, centre);
      let sum = 0;
      for (let i = 0; i < held.length; i++) sum += rowError(family, y[held[i]], eta[i]);
      foldMeans[fold * lambdas.length + l] = sum / held.length;
      total[l] += sum;
    });
  }
  const meanError = total.map((sum) => sum / y.length);
  const standardError = meanError.map((mean, l) => {
    let squares = 0;
    for (let fold = 0; fold < folds; fold++) {
      squares += (foldSizes[fold] * (foldMeans[fold * lambdas.length + l] - mean) ** 2) / y.length;
    }
    return Math.sqrt(squares / (folds - 1));
  });
  const best = meanError.reduce((at, value, l) => (value < meanError[at] ? l : at), 0);
  const limit = meanError[best] + standardError[best];
  const oneStandardError = meanError.findIndex((value) => value <= limit);
  return { foldOfRow, folds, meanError, standardError, best, oneStandardError };
}
