import type { Random } from '../../random.js';
import type { Forecasts, WeightForm } from './weight-forms.js';
import { inputSlots, weightShape } from './weight-forms.js';

/**
 * Weights as a differentiable function of parameters. `forward` gives the quantiles of a batch and keeps what `backward`
 * needs; both work on the same batch.
 */
export interface Aggregator {
  readonly form: WeightForm;
  readonly parameterCount: number;
  /** First values of the parameters. */
  initial(random: Random): Float64Array;
  /**
   * Quantiles `[rows.length, m]` of rows of z. Valid until the next call.
   * @param dropout stream of the masks while training; without it nothing is dropped
   */
  forward(parameters: Float64Array, rows: Int32Array, dropout?: Random): Float64Array;
  /** Adds dL/dparameters to `gradient`, given dL/dq `[rows.length, m]`. */
  backward(parameters: Float64Array, slopes: Float64Array, gradient: Float64Array): void;
  /** Adds the weights that each row of the last batch had, where they differ from row to row. */
  addWeights?(sum: Float64Array): void;
}

/**
 * Where raw weights start when they are not a softmax: the equal average of the models at the output's own level, in the
 * form's shape.
 */
export function equalWeights(form: WeightForm, models: number, levels: number): Float64Array {
  const [rows, columns] = weightShape(form, models, levels);
  const weights = new Float64Array(rows * columns);
  if (form !== 'fine') return weights.fill(1 / models);
  for (let k = 0; k < models; k++)
    for (let j = 0; j < levels; j++) weights[(k * levels + j) * columns + j] = 1 / models;
  return weights;
}

/** Which rows of z have a missing cell: `[n]`, 1 where they do. */
export function incompleteRows({ values, rows, models, levels }: Forecasts): Uint8Array {
  const width = models * levels;
  const marks = new Uint8Array(rows);
  for (let i = 0; i < rows; i++) {
    for (let cell = i * width; cell < (i + 1) * width; cell++) {
      if (Number.isNaN(values[cell])) {
        marks[i] = 1;
        break;
      }
    }
  }
  return marks;
}

/**
 * Quantiles of one row under its own weights, renormalised over the inputs that are there.
 * @param weights in the form's shape, of this row
 * @param kept receives for each level the sum of the weights that took part
 */
export function rowQuantiles(
  { values, models, levels: m }: Forecasts,
  form: WeightForm,
  row: number,
  weights: ArrayLike<number>,
  result: Float64Array,
  kept: Float64Array,
): void {
  const columns = form === 'coarse' ? 1 : m;
  const base = row * models * m;
  for (let j = 0; j < m; j++) {
    const { first, step, count, column } = inputSlots(form, models, m, j);
    let sum = 0;
    let total = 0;
    for (let r = 0, cell = base + first; r < count; r++, cell += step) {
      const value = values[cell];
      if (Number.isNaN(value)) continue;
      const weight = weights[r * columns + column];
      sum += weight * value;
      total += weight;
    }
    result[j] = sum / total;
    kept[j] = total;
  }
}

/**
 * Adds dL/dlogits of one row, given dL/dq `[m]`: with v the renormalised softmax weights, dq/dlogit_r = v_r (z_r - q).
 * @param weights softmax of the logits, in the form's shape
 * @param quantiles, kept as {@link rowQuantiles} gave them
 */
export function addRowSlopes(
  { values, models, levels: m }: Forecasts,
  form: WeightForm,
  row: number,
  weights: ArrayLike<number>,
  quantiles: ArrayLike<number>,
  kept: ArrayLike<number>,
  slopes: ArrayLike<number>,
  gradient: Float64Array,
): void {
  const columns = form === 'coarse' ? 1 : m;
  const base = row * models * m;
  for (let j = 0; j < m; j++) {
    const slope = slopes[j];
    if (slope === 0 || Number.isNaN(slope)) continue;
    const { first, step, count, column } = inputSlots(form, models, m, j);
    const scale = slope / kept[j];
    for (let r = 0, cell = base + first; r < count; r++, cell += step) {
      const value = values[cell];
      if (Number.isNaN(value)) continue;
      const at = r * columns + column;
      gradient[at] += scale * weights[at] * (value - quantiles[j]);
    }
  }
}
