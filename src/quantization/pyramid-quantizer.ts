import { type SearchMode, searchInMetric, searchPulses } from '../kernels/pulse-search.js';
import type { BlockQuantizer } from './error-feedback.js';

type Reals = Float32Array | Float64Array;

export interface PyramidQuantizerOptions {
  /** Search where there are no metrics; default greedy. */
  readonly mode?: SearchMode;
  /** Search and gain in the metric of each block, `[blocks, D, D]`; default Euclidean. */
  readonly metrics?: Float64Array;
}

/** A pyramid quantizer of blocks and what it has chosen. */
export interface PyramidQuantizer<T extends Reals> extends BlockQuantizer<T> {
  /** `[rows, groups * D]`, padded columns 0. */
  readonly pulses: Int16Array;
  /** `[rows, groups]`: a decoded group is `gain y`. */
  readonly gains: Float64Array;
}

/** Rows of the first `w` of `D` columns and rows of a metric `[D, D]`. */
function corner(metric: Float64Array, D: number, w: number): Float64Array {
  if (w === D) return metric;
  const cut = new Float64Array(w * w);
  for (let i = 0; i < w; i++) cut.set(metric.subarray(i * D, i * D + w), i * w);
  return cut;
}

/** `(y M aᵀ) / (y M yᵀ)`, M the identity where there is none; 0 for a group of zeros. */
function projectionGain(a: Reals, y: Int16Array, w: number, metric: Float64Array | undefined): number {
  let xy = 0;
  let yy = 0;
  for (let i = 0; i < w; i++) {
    if (metric === undefined) {
      xy += a[i] * y[i];
      yy += y[i] * y[i];
      continue;
    }
    for (let j = 0; j < w; j++) {
      xy += y[i] * metric[i * w + j] * a[j];
      yy += y[i] * metric[i * w + j] * y[j];
    }
  }
  return xy / yy;
}

/**
 * Quantises blocks of D columns to points of P(D, K) with projection gains that stay as they are: the method of error
 * feedback without the code of a gain. Stored gains go through {@link quantizeWithHessian}.
 */
export function pyramidQuantizer<T extends Reals>(
  rows: number,
  columns: number,
  shape: { readonly groupLength: number; readonly pulses: number },
  options: PyramidQuantizerOptions = {},
): PyramidQuantizer<T> {
  const { groupLength: D, pulses: K } = shape;
  const { metrics, mode = 'greedy' } = options;
  const groups = Math.ceil(columns / D);
  const pulses = new Int16Array(rows * groups * D);
  const gains = new Float64Array(rows * groups);
  const quantize = (target: T, count: number, column0: number, w: number, out: T): void => {
    const group = column0 / D;
    const block = target.subarray(0, count * w);
    const points = new Int16Array(count * w);
    const metric = metrics && corner(metrics.subarray(group * D * D, (group + 1) * D * D), D, w);
    if (metric === undefined) searchPulses(block, count, w, { D: w, K, mode }, points);
    else searchInMetric(block, count, metric, { D: w, K }, points);
    for (let r = 0; r < count; r++) {
      const y = points.subarray(r * w, (r + 1) * w);
      const gain = projectionGain(block.subarray(r * w, (r + 1) * w), y, w, metric);
      gains[r * groups + group] = gain;
      pulses.set(y, (r * groups + group) * D);
      for (let c = 0; c < w; c++) out[r * w + c] = gain * y[c];
    }
  };
  return { blockColumns: D, quantize, pulses, gains };
}
