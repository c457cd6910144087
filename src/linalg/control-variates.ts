/** Quantities with known means, taken over the same samples: orthogonal columns, and how far their means are off. */
export interface Controls {
  readonly columns: Float64Array[];
  /** Mean over the samples minus the known value, in the same combinations. */
  readonly excess: number[];
  /**
   * What the residual of each sample counts in an error: the estimate's weight of the sample over one minus its leverage.
   * The root of the sum of squares of these times the residuals is the standard error (HC3, MacKinnon & White 1985), which
   * does not take all residuals to be alike.
   */
  readonly errorWeights: Float64Array;
}

/**
 * Control variates from samples `[samples]` of quantities whose expectations `exact` are known: Gram-Schmidt of the
 * centred samples; one that the earlier ones explain is left out.
 */
export function controlsOf(samples: number, controls: readonly Float64Array[], exact: readonly number[]): Controls {
  const columns: Float64Array[] = [];
  const excess: number[] = [];
  controls.forEach((values, k) => {
    const centre = mean(values);
    const column = values.map((value) => value - centre);
    let off = centre - exact[k];
    const before = dot(column, column);
    columns.forEach((other, j) => {
      const share = dot(column, other) / dot(other, other);
      for (let p = 0; p < column.length; p++) column[p] -= share * other[p];
      off -= share * excess[j];
    });
    // Controls that hardly vary are exact already, up to rounding.
    const varies = before > column.length * (1e-12 * Math.abs(centre)) ** 2;
    if (varies && dot(column, column) > 1e-10 * before) {
      columns.push(column);
      excess.push(off);
    }
  });
  const squares = columns.map((column) => dot(column, column));
  const errorWeights = Float64Array.from({ length: samples }, (_, p) => {
    let weight = 1 / samples;
    let leverage = 1 / samples;
    columns.forEach((column, k) => {
      weight -= (excess[k] * column[p]) / squares[k];
      leverage += column[p] ** 2 / squares[k];
    });
    // A sample that the fit goes through has no residual.
    return weight / Math.max(1 - leverage, 1e-3);
  });
  return { columns, excess, errorWeights };
}

/** The standard error of an estimate from its residuals. */
export function standardError(residual: Float64Array, errorWeights: Float64Array): number {
  let sum = 0;
  for (let p = 0; p < residual.length; p++) sum += (residual[p] * errorWeights[p]) ** 2;
  return Math.sqrt(sum);
}

/** The mean of the values and their deviations, after regression on the controls. */
export function withControls(
  values: Float64Array,
  { columns, excess }: Controls,
): { value: number; residual: Float64Array } {
  let value = mean(values);
  const centre = value;
  const residual = values.map((own) => own - centre);
  columns.forEach((column, k) => {
    const slope = dot(residual, column) / dot(column, column);
    for (let p = 0; p < residual.length; p++) residual[p] -= slope * column[p];
    value -= slope * excess[k];
  });
  return { value, residual };
}

export function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

export function mean(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i];
  return sum / values.length;
}

const Z = 1.959963984540054;

/** The 97.5 % quantile of Student's distribution by its expansion in 1/freedom; within 3e-4 from 5 on. */
export function studentQuantile(freedom: number): number {
  const z3 = Z ** 3;
  const z5 = Z ** 5;
  const z7 = Z ** 7;
  const z9 = Z ** 9;
  return (
    Z +
    (z3 + Z) / (4 * freedom) +
    (5 * z5 + 16 * z3 + 3 * Z) / (96 * freedom ** 2) +
    (3 * z7 + 19 * z5 + 17 * z3 - 15 * Z) / (384 * freedom ** 3) +
    (79 * z9 + 776 * z7 + 1482 * z5 - 1920 * z3 - 945 * Z) / (92160 * freedom ** 4)
  );
}
