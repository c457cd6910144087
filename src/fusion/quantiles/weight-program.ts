import type { Floats } from '../../formats/feature-matrix.js';
import type { Forecasts, WeightForm } from './weight-forms.js';

/**
 * One quantile regression on the simplex: minimise (1/N) sum_r rho_{tau_r}(y_r - sum_k w_k z_{r k}) over weights w >= 0
 * with sum 1. Row r reads the cells offset_r + k step of z.
 */
export interface WeightProgram {
  readonly values: Floats;
  /** First cell of each row of the program `[N]`. */
  readonly offsets: Uint32Array;
  readonly step: number;
  /** K: how many inputs are weighted. */
  readonly columns: number;
  /** y `[N]` and tau `[N]`. */
  readonly targets: Float64Array;
  readonly levels: Float64Array;
  /** Rows that were left out because an input or the outcome is missing. */
  readonly incomplete: number;
}

/** A lower bound of the optimum from a dual point: (1/N) (a . y - max_k (Z^T a)_k) for any a_r in [tau_r - 1, tau_r]. */
export interface DualBound {
  readonly bound: number;
  /** (D^T a)_k with D_rk = y_r - z_rk: the least of them times 1/N is the bound. */
  readonly prices: Float64Array;
}

/**
 * The programs whose solutions are the optimal weights of a form, made one after another: one for coarse, over all rows
 * and levels at once, else one a level. Rows with a missing input are left out.
 * @param rows which rows of z are fitted
 */
export function* weightPrograms(
  forecasts: Forecasts,
  outcomes: ArrayLike<number>,
  levels: ArrayLike<number>,
  form: WeightForm,
  rows: ArrayLike<number>,
): Generator<WeightProgram, void, undefined> {
  const m = forecasts.levels;
  if (form === 'fine') yield* finePrograms(forecasts, outcomes, levels, rows);
  else if (form === 'coarse') yield programOf(forecasts, outcomes, levels, rows, levelPlaces(0, m));
  else for (let j = 0; j < m; j++) yield programOf(forecasts, outcomes, levels, rows, levelPlaces(j, j + 1));
}

const levelPlaces = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, j) => from + j);

/** The fine form's programs share their rows: every level reads all inputs. */
function* finePrograms(
  { values, models, levels: m }: Forecasts,
  outcomes: ArrayLike<number>,
  levels: ArrayLike<number>,
  rows: ArrayLike<number>,
): Generator<WeightProgram, void, undefined> {
  const columns = models * m;
  const offsets = new Uint32Array(rows.length);
  const targets = new Float64Array(rows.length);
  let count = 0;
  for (let at = 0; at < rows.length; at++) {
    const offset = rows[at] * columns;
    let complete = !Number.isNaN(outcomes[rows[at]]);
    for (let cell = offset; cell < offset + columns && complete; cell++) complete = !Number.isNaN(values[cell]);
    if (!complete) continue;
    offsets[count] = offset;
    targets[count++] = outcomes[rows[at]];
  }
  const shared = { values, offsets: offsets.subarray(0, count), step: 1, columns, targets: targets.subarray(0, count) };
  for (let j = 0; j < m; j++) {
    yield { ...shared, levels: new Float64Array(count).fill(levels[j]), incomplete: rows.length - count };
  }
}

/** Coarse and medium: rows are pairs of a row of z and one of the levels `places`. */
function programOf(
  { values, models, levels: m }: Forecasts,
  outcomes: ArrayLike<number>,
  levels: ArrayLike<number>,
  rows: ArrayLike<number>,
  places: readonly number[],
): WeightProgram {
  const width = models * m;
  const most = rows.length * places.length;
  const offsets = new Uint32Array(most);
  const targets = new Float64Array(most);
  const taus = new Float64Array(most);
  let count = 0;
  for (let at = 0; at < rows.length; at++) {
    const i = rows[at];
    if (Number.isNaN(outcomes[i])) continue;
    for (const j of places) {
      const offset = i * width + j;
      let complete = true;
      for (let k = 0, cell = offset; k < models && complete; k++, cell += m) complete = !Number.isNaN(values[cell]);
      if (!complete) continue;
      offsets[count] = offset;
      targets[count] = outcomes[i];
      taus[count] = levels[j];
      count++;
    }
  }
  return {
    values,
    offsets: offsets.subarray(0, count),
    step: m,
    columns: models,
    targets: targets.subarray(0, count),
    levels: taus.subarray(0, count),
    incomplete: most - count,
  };
}

/** Residuals y - Z w of all rows, by the columns whose weight is not 0. */
export function programResiduals(
  program: WeightProgram,
  weights: ArrayLike<number>,
  result: Float64Array,
): Float64Array {
  const { values, offsets, step, targets } = program;
  const used = Array.from({ length: program.columns }, (_, k) => k).filter((k) => weights[k] !== 0);
  const cells = Int32Array.from(used, (k) => k * step);
  const factors = Float64Array.from(used, (k) => weights[k]);
  for (let r = 0; r < offsets.length; r++) {
    const offset = offsets[r];
    // Differences first: weights sum to 1, and large levels of y cancel exactly.
    const y = targets[r];
    let sum = 0;
    for (let k = 0; k < factors.length; k++) sum += factors[k] * (y - values[offset + cells[k]]);
    result[r] = sum;
  }
  return result;
}

/** Mean pinball loss of residuals. */
export function programObjective({ levels }: WeightProgram, residuals: Float64Array): number {
  let sum = 0;
  for (let r = 0; r < residuals.length; r++) {
    sum += residuals[r] >= 0 ? levels[r] * residuals[r] : (levels[r] - 1) * residuals[r];
  }
  return sum / residuals.length;
}

/** The bound of a dual point `a` [N] within its box. */
export function dualBound(program: WeightProgram, dual: Float64Array): DualBound {
  const { values, offsets, step, columns, targets } = program;
  const prices = new Float64Array(columns);
  for (let r = 0; r < offsets.length; r++) {
    const factor = dual[r];
    const y = targets[r];
    for (let k = 0, cell = offsets[r]; k < columns; k++, cell += step) prices[k] += factor * (y - values[cell]);
  }
  let least = Number.POSITIVE_INFINITY;
  for (let k = 0; k < columns; k++) least = Math.min(least, prices[k]);
  return { bound: least / offsets.length, prices };
}
