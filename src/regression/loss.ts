import { largestEigenvalue } from '../linalg/largest-eigenvalue.js';

/** Columns of a design, one after another: column j is `values.subarray(j * rows, (j + 1) * rows)`. */
export interface Design {
  readonly values: Float64Array;
  readonly rows: number;
  readonly columns: number;
}

export type Family = 'linear' | 'logistic';

export const FAMILIES: readonly Family[] = ['linear', 'logistic'];

/** A smooth convex loss of coefficients that may be restricted to some columns. */
export interface SmoothLoss {
  readonly family: Family;
  readonly design: Design;
  /** Length of the coefficients: the columns, and before them the intercept if there is one. */
  readonly size: number;
  readonly intercept: boolean;
  /** Largest eigenvalue of X X^T / n, the intercept's column included; a quarter of it for the logistic loss. */
  readonly lipschitz: number;
  /** Writes the gradient at `b` into `out` and gives the loss. */
  gradient(b: Float64Array, out: Float64Array): number;
  /** The loss of the columns `members` alone, whose coefficients stand in that order. */
  restrictedTo(members: Int32Array): SmoothLoss;
}

/** X b of some columns, `members[k]` with coefficient `b[offset + k]`. */
function addProducts(design: Design, members: Int32Array, b: Float64Array, offset: number, out: Float64Array): void {
  const { values, rows } = design;
  for (let k = 0; k < members.length; k++) {
    const coefficient = b[offset + k];
    if (coefficient === 0) continue;
    const start = members[k] * rows;
    for (let i = 0; i < rows; i++) out[i] += coefficient * values[start + i];
  }
}

function addTransposed(
  design: Design,
  members: Int32Array,
  r: Float64Array,
  factor: number,
  offset: number,
  out: Float64Array,
): void {
  const { values, rows } = design;
  for (let k = 0; k < members.length; k++) {
    const start = members[k] * rows;
    let sum = 0;
    for (let i = 0; i < rows; i++) sum += values[start + i] * r[i];
    out[offset + k] = factor * sum;
  }
}

/** log(1 + e^x) without overflow. */
function softPlus(x: number): number {
  return x > 0 ? x + Math.log1p(Math.exp(-x)) : Math.log1p(Math.exp(x));
}

/**
 * The loss of a family, as a mean over the rows: linear `|y - X b|^2 / 2n`, logistic `mean log(1 + e^eta) - y eta` with y
 * in {0, 1}. The intercept is coefficient 0.
 */
export function createLoss(family: Family, design: Design, y: Float64Array, intercept = true): SmoothLoss {
  if (y.length !== design.rows) throw new RangeError(`${y.length} outcomes for ${design.rows} rows`);
  return restrictedLoss(
    family,
    design,
    y,
    intercept,
    Int32Array.from({ length: design.columns }, (_, j) => j),
  );
}

function restrictedLoss(
  family: Family,
  design: Design,
  y: Float64Array,
  intercept: boolean,
  members: Int32Array,
): SmoothLoss {
  const { rows } = design;
  const offset = intercept ? 1 : 0;
  const eta = new Float64Array(rows);
  let lipschitz: number | undefined;
  const linearPart = (b: Float64Array): void => {
    eta.fill(intercept ? b[0] : 0);
    addProducts(design, members, b, offset, eta);
  };
  const transposed = (r: Float64Array, out: Float64Array): void => {
    addTransposed(design, members, r, 1 / rows, offset, out);
    if (!intercept) return;
    let sum = 0;
    for (let i = 0; i < rows; i++) sum += r[i];
    out[0] = sum / rows;
  };
  return {
    family,
    design,
    size: members.length + offset,
    intercept,
    get lipschitz() {
      lipschitz ??= largestOf(design, members, intercept) / (family === 'logistic' ? 4 : 1);
      return lipschitz;
    },
    gradient(b, out) {
      linearPart(b);
      let loss = 0;
      if (family === 'linear') {
        for (let i = 0; i < rows; i++) {
          eta[i] -= y[i];
          loss += eta[i] * eta[i];
        }
        loss /= 2 * rows;
      } else {
        for (let i = 0; i < rows; i++) {
          loss += softPlus(eta[i]) - y[i] * eta[i];
          eta[i] = 1 / (1 + Math.exp(-eta[i])) - y[i];
        }
        loss /= rows;
      }
      transposed(eta, out);
      return loss;
    },
    restrictedTo: (chosen) =>
      restrictedLoss(
        family,
        design,
        y,
        intercept,
        chosen.map((k) => members[k]),
      ),
  };
}

/** Largest eigenvalue of X X^T / n of the members and the intercept. */
function largestOf(design: Design, members: Int32Array, intercept: boolean): number {
  const { rows } = design;
  const offset = intercept ? 1 : 0;
  const size = members.length + offset;
  if (size === 0) return 0;
  // The smaller of the two Gram matrices; both have the same largest eigenvalue.
  if (rows <= size) {
    const b = new Float64Array(size);
    return largestEigenvalue((v, out) => {
      addTransposed(design, members, v, 1 / rows, offset, b);
      let sum = 0;
      if (intercept) for (let i = 0; i < rows; i++) sum += v[i] / rows;
      out.fill(sum);
      addProducts(design, members, b, offset, out);
    }, rows);
  }
  const eta = new Float64Array(rows);
  return largestEigenvalue((v, out) => {
    eta.fill(intercept ? v[0] : 0);
    addProducts(design, members, v, offset, eta);
    addTransposed(design, members, eta, 1 / rows, offset, out);
    if (!intercept) return;
    let sum = 0;
    for (let i = 0; i < rows; i++) sum += eta[i];
    out[0] = sum / rows;
  }, size);
}
