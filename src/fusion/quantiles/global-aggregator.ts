import { multiply } from '../../kernels/gemm.js';
import { type Aggregator, addRowSlopes, equalWeights, incompleteRows, rowQuantiles } from './aggregator.js';
import { type Forecasts, softmaxColumns, type WeightForm, weightShape } from './weight-forms.js';

/** Weights from parameters of the form's shape: a softmax of them, or they themselves beside the equal average. */
export function globalWeights(
  form: WeightForm,
  models: number,
  levels: number,
  parameters: Float64Array,
  normalised: boolean,
): Float64Array {
  const [rows, columns] = weightShape(form, models, levels);
  if (normalised) return softmaxColumns(parameters, rows, columns);
  const weights = equalWeights(form, models, levels);
  for (let at = 0; at < weights.length; at++) weights[at] += parameters[at];
  return weights;
}

/**
 * One set of weights for all rows: softmax of logits that start at 0, or free weights that start at the equal average.
 * @param threads of the products of the fine form
 */
export function globalAggregator(forecasts: Forecasts, form: WeightForm, normalised: boolean, threads = 1): Aggregator {
  const { values, models, levels: m } = forecasts;
  const width = models * m;
  const [inputs, columns] = weightShape(form, models, m);
  const incomplete = incompleteRows(forecasts);
  let batch: Int32Array = new Int32Array(0);
  let complete: number[] = [];
  let partial: number[] = [];
  let weights: Float64Array = new Float64Array(0);
  let gathered = new Float64Array(0);
  let quantiles = new Float64Array(0);
  let kept = new Float64Array(0);
  const gather = (): void => {
    if (gathered.length < complete.length * width) gathered = new Float64Array(complete.length * width);
    complete.forEach((at, b) => {
      const base = batch[at] * width;
      for (let c = 0; c < width; c++) gathered[b * width + c] = values[base + c];
    });
  };
  return {
    form,
    parameterCount: inputs * columns,
    initial: () => new Float64Array(inputs * columns),
    forward(parameters, rows) {
      batch = rows;
      complete = [];
      partial = [];
      for (let at = 0; at < rows.length; at++) (incomplete[rows[at]] === 1 ? partial : complete).push(at);
      weights = globalWeights(form, models, m, parameters, normalised);
      if (quantiles.length !== rows.length * m) quantiles = new Float64Array(rows.length * m);
      if (kept.length !== rows.length * m) kept = new Float64Array(rows.length * m);
      gather();
      const n = complete.length;
      if (form === 'fine') {
        const product = multiply(gathered, weights, new Float64Array(n * m), { m: n, n: m, k: width }, { threads });
        complete.forEach((at, b) => {
          quantiles.set(product.subarray(b * m, (b + 1) * m), at * m);
        });
      } else {
        complete.forEach((at, b) => {
          for (let j = 0; j < m; j++) {
            let sum = 0;
            for (let k = 0; k < models; k++)
              sum += weights[k * columns + (j % columns)] * gathered[b * width + k * m + j];
            quantiles[at * m + j] = sum;
          }
        });
      }
      for (const at of partial) {
        const slice = [at * m, (at + 1) * m] as const;
        rowQuantiles(forecasts, form, rows[at], weights, quantiles.subarray(...slice), kept.subarray(...slice));
      }
      return quantiles;
    },
    backward(_parameters, slopes, gradient) {
      // dL/dweights of the complete rows; the softmax follows once for all of them.
      const direct = new Float64Array(inputs * columns);
      const n = complete.length;
      if (form === 'fine') {
        const chosen = new Float64Array(n * m);
        complete.forEach((at, b) => {
          chosen.set(slopes.subarray(at * m, (at + 1) * m), b * m);
        });
        multiply(gathered, chosen, direct, { m: width, n: m, k: n }, { transposeA: true, strideA: width, threads });
      } else {
        complete.forEach((at, b) => {
          for (let j = 0; j < m; j++) {
            const slope = slopes[at * m + j];
            for (let k = 0; k < models; k++)
              direct[k * columns + (j % columns)] += slope * gathered[b * width + k * m + j];
          }
        });
      }
      if (!normalised) {
        for (let at = 0; at < direct.length; at++) gradient[at] += direct[at];
        return;
      }
      for (let c = 0; c < columns; c++) {
        let mean = 0;
        for (let r = 0; r < inputs; r++) mean += weights[r * columns + c] * direct[r * columns + c];
        for (let r = 0; r < inputs; r++)
          gradient[r * columns + c] += weights[r * columns + c] * (direct[r * columns + c] - mean);
      }
      for (const at of partial) {
        const slice = [at * m, (at + 1) * m] as const;
        addRowSlopes(
          forecasts,
          form,
          batch[at],
          weights,
          quantiles.subarray(...slice),
          kept.subarray(...slice),
          slopes.subarray(...slice),
          gradient,
        );
      }
    },
  };
}
