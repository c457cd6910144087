import type { Floats } from '../../formats/feature-matrix.js';

/**
 * How many weights there are (Fakoor et al. 2023, section 3): `coarse` one a model, `medium` one a model and level,
 * `fine` for each output level one a model and input level.
 */
export type WeightForm = 'coarse' | 'medium' | 'fine';

export const WEIGHT_FORMS: readonly WeightForm[] = ['coarse', 'medium', 'fine'];

/** Base forecasts z `[n, p, m]`, row-major; NaN where a model gave none. */
export interface Forecasts {
  readonly values: Floats;
  readonly rows: number;
  readonly models: number;
  readonly levels: number;
}

/** Shape of the weights of a form: coarse [p, 1], medium [p, m], fine [p m, m] (row k m + l is model k at level l). */
export function weightShape(form: WeightForm, models: number, levels: number): readonly [number, number] {
  if (form === 'coarse') return [models, 1];
  return form === 'medium' ? [models, levels] : [models * levels, levels];
}

/** Softmax down the columns of logits `[rows, columns]`: every column is a point of the simplex. */
export function softmaxColumns(logits: ArrayLike<number>, rows: number, columns: number): Float64Array {
  const weights = new Float64Array(rows * columns);
  for (let c = 0; c < columns; c++) {
    let top = Number.NEGATIVE_INFINITY;
    for (let r = 0; r < rows; r++) top = Math.max(top, logits[r * columns + c]);
    let sum = 0;
    for (let r = 0; r < rows; r++) {
      const value = Math.exp(logits[r * columns + c] - top);
      weights[r * columns + c] = value;
      sum += value;
    }
    for (let r = 0; r < rows; r++) weights[r * columns + c] /= sum;
  }
  return weights;
}

/** For output level j the inputs are z[i, first + r step], r = 0..count-1, with weights [r, column]. */
export interface InputSlots {
  readonly first: number;
  readonly step: number;
  readonly count: number;
  readonly column: number;
}

/** Which cells of a row of z feed output level `level` under a form. */
export function inputSlots(form: WeightForm, models: number, levels: number, level: number): InputSlots {
  if (form === 'fine') return { first: 0, step: 1, count: models * levels, column: level };
  return { first: level, step: levels, count: models, column: form === 'coarse' ? 0 : level };
}

/**
 * Weighted quantiles of all rows. In a row where inputs are missing, the weights of the others are scaled so that they
 * keep their sum; a cell whose inputs carry no weight at all is their plain mean, and NaN where none is there.
 * @param weights in the form's shape
 * @param chosen rows of z; all of them when absent
 * @returns `[n, m]`
 */
export function aggregate(
  forecasts: Forecasts,
  form: WeightForm,
  weights: ArrayLike<number>,
  chosen?: ArrayLike<number>,
): Float64Array {
  const { values, models, levels: m } = forecasts;
  const rows = chosen?.length ?? forecasts.rows;
  const width = models * m;
  const columns = form === 'coarse' ? 1 : m;
  const result = new Float64Array(rows * m);
  for (let j = 0; j < m; j++) {
    const slots = inputSlots(form, models, m, j);
    // Optimal weights are sparse: only those that are not zero are visited.
    const used: number[] = [];
    let total = 0;
    for (let r = 0; r < slots.count; r++) {
      const weight = weights[r * columns + slots.column];
      total += weight;
      if (weight !== 0) used.push(r);
    }
    const positions = Int32Array.from(used, (r) => slots.first + r * slots.step);
    const factors = Float64Array.from(used, (r) => weights[r * columns + slots.column]);
    for (let i = 0; i < rows; i++) {
      const base = (chosen === undefined ? i : chosen[i]) * width;
      let sum = 0;
      for (let u = 0; u < factors.length; u++) sum += factors[u] * values[base + positions[u]];
      if (Number.isNaN(sum)) sum = renormalised(values, base, positions, factors, total, slots);
      result[i * m + j] = sum;
    }
  }
  return result;
}

function renormalised(
  values: ArrayLike<number>,
  base: number,
  positions: Int32Array,
  factors: Float64Array,
  total: number,
  slots: InputSlots,
): number {
  let sum = 0;
  let kept = 0;
  for (let u = 0; u < factors.length; u++) {
    const value = values[base + positions[u]];
    if (Number.isNaN(value)) continue;
    sum += factors[u] * value;
    kept += factors[u];
  }
  if (kept > 0) return (sum / kept) * total;
  let plain = 0;
  let count = 0;
  for (let r = 0; r < slots.count; r++) {
    const value = values[base + slots.first + r * slots.step];
    if (Number.isNaN(value)) continue;
    plain += value;
    count++;
  }
  return (plain / count) * total;
}
