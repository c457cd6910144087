import { type Aggregator, addRowSlopes, equalWeights, rowQuantiles } from './aggregator.js';
import { type PerceptronShape, perceptron } from './perceptron.js';
import { type Forecasts, inputSlots, softmaxColumns, type WeightForm, weightShape } from './weight-forms.js';

/** Features x `[n, d]`, standardised by the rows that weights are fitted on. */
export interface LocalFeatures {
  readonly values: Float64Array;
  readonly columns: number;
}

/**
 * Weights of every row from its features by a perceptron: its outputs are the logits of the row's softmax (or, free,
 * are added to the equal average).
 */
export function localAggregator(
  forecasts: Forecasts,
  features: LocalFeatures,
  form: WeightForm,
  network: Pick<PerceptronShape, 'hidden' | 'layers' | 'dropout'>,
  normalised: boolean,
  threads = 1,
): Aggregator {
  const { values, models, levels: m } = forecasts;
  const [inputs, columns] = weightShape(form, models, m);
  const size = inputs * columns;
  const net = perceptron({ ...network, inputs: features.columns, outputs: size }, threads);
  const equal = normalised ? undefined : equalWeights(form, models, m);
  let batch: Int32Array = new Int32Array(0);
  let weights: Float64Array[] = [];
  let quantiles = new Float64Array(0);
  let kept = new Float64Array(0);
  const weightsOf = (logits: Float64Array): Float64Array =>
    equal === undefined ? softmaxColumns(logits, inputs, columns) : equal.map((weight, at) => weight + logits[at]);
  return {
    form,
    parameterCount: net.parameterCount,
    initial: (random) => net.initial(random),
    forward(parameters, rows, dropout) {
      const d = features.columns;
      batch = rows;
      if (quantiles.length !== rows.length * m) quantiles = new Float64Array(rows.length * m);
      if (kept.length !== rows.length * m) kept = new Float64Array(rows.length * m);
      const x = new Float64Array(rows.length * d);
      rows.forEach((row, at) => {
        x.set(features.values.subarray(row * d, (row + 1) * d), at * d);
      });
      const logits = net.forward(parameters, x, rows.length, dropout);
      weights = [];
      for (let at = 0; at < rows.length; at++) {
        const own = weightsOf(logits.subarray(at * size, (at + 1) * size));
        weights.push(own);
        const slice = [at * m, (at + 1) * m] as const;
        rowQuantiles(forecasts, form, rows[at], own, quantiles.subarray(...slice), kept.subarray(...slice));
        if (!normalised) for (let j = 0; j < m; j++) quantiles[at * m + j] *= kept[at * m + j];
      }
      return quantiles;
    },
    addWeights(sum) {
      for (const own of weights) for (let at = 0; at < size; at++) sum[at] += own[at];
    },
    backward(parameters, slopes, gradient) {
      const outer = new Float64Array(batch.length * size);
      for (let at = 0; at < batch.length; at++) {
        const into = outer.subarray(at * size, (at + 1) * size);
        const own = slopes.subarray(at * m, (at + 1) * m);
        if (normalised) {
          const slice = [at * m, (at + 1) * m] as const;
          const row = quantiles.subarray(...slice);
          addRowSlopes(forecasts, form, batch[at], weights[at], row, kept.subarray(...slice), own, into);
          continue;
        }
        const base = batch[at] * models * m;
        for (let j = 0; j < m; j++) {
          const { first, step, count, column } = inputSlots(form, models, m, j);
          for (let r = 0; r < count; r++) into[r * columns + column] += own[j] * values[base + first + r * step];
        }
      }
      net.backward(parameters, outer, gradient);
    },
  };
}

/**
 * Features with mean 0 and deviation 1 over `rows`; a column that is constant there becomes 0. Missing values become
 * the mean.
 * @param values `[n, d]`
 */
export function standardiseFeatures(values: Float64Array, d: number, rows: ArrayLike<number>): LocalFeatures {
  const result = new Float64Array(values.length);
  const n = values.length / d;
  for (let c = 0; c < d; c++) {
    let [sum, squares, count] = [0, 0, 0];
    for (let at = 0; at < rows.length; at++) {
      const value = values[rows[at] * d + c];
      if (Number.isNaN(value)) continue;
      sum += value;
      count++;
    }
    const mean = sum / count;
    for (let at = 0; at < rows.length; at++) {
      const value = values[rows[at] * d + c];
      if (!Number.isNaN(value)) squares += (value - mean) ** 2;
    }
    const deviation = Math.sqrt(squares / count);
    for (let i = 0; i < n; i++) {
      const value = values[i * d + c];
      result[i * d + c] = Number.isNaN(value) || !(deviation > 0) ? 0 : (value - mean) / deviation;
    }
  }
  return { values: result, columns: d };
}
