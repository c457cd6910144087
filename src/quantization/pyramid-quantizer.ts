import { createSearchMemory, metricPoint } from '../kernels/metric-search.js';
import {
  createProblem,
  DOUBLE,
  type SearchMode,
  searchProblem,
  setProblem,
} from '../kernels/pulse-search-reference.js';
import type { BlockQuantizer } from './error-feedback.js';

type Reals = Float32Array | Float64Array;

export interface PyramidQuantizerOptions {
  /** Search where there are no metrics; default greedy. */
  readonly mode?: SearchMode;
  /** Search and gain in the metric of each block, `[blocks, D, D]`; default Euclidean. */
  readonly metrics?: Float64Array;
  /** Row scales and ascending levels of quantised gains; default: gains stay as they are. */
  readonly gains?: { readonly scales: Float32Array; readonly levels: Float32Array };
}

/** A pyramid quantizer of blocks and what it has stored. */
export interface PyramidQuantizer<T extends Reals> extends BlockQuantizer<T> {
  /** `[rows, groups * D]`, padded columns 0. */
  readonly pulses: Int16Array;
  /** Gain of a group, `[rows, groups]`: a decoded group is `gain y`; with quantised gains `scale level / ||y||`. */
  readonly gains: Float64Array;
  /** Codes of quantised gains, `[rows, groups]`. */
  readonly codes: Uint8Array;
}

/** Nearest of ascending levels; a value half way takes the lower one. */
export function nearestLevel(levels: Float32Array, value: number): number {
  let code = 0;
  while (code + 1 < levels.length && value > (levels[code] + levels[code + 1]) / 2) code++;
  return code;
}

/** A search of the first `w` coordinates of a group in the Euclidean metric: `xy = <x, y>`, `yy = ||y||²`. */
function euclideanSearch(
  K: number,
  mode: SearchMode,
): (x: Float64Array, w: number, y: Int32Array) => { xy: number; yy: number } {
  const options = { pulses: K, round: DOUBLE, cap: 0, negativeCap: 0 };
  const problems = new Map<number, ReturnType<typeof createProblem>>();
  return (x, w, y) => {
    const problem = problems.get(w) ?? createProblem(w, options, false);
    problems.set(w, problem);
    if (!setProblem(problem, x, options)) {
      y.fill(0);
      y[0] = K;
      return { xy: 0, yy: 0 };
    }
    searchProblem(problem, mode, mode === 'best', y);
    let xy = 0;
    let yy = 0;
    for (let c = 0; c < w; c++) {
      if (x[c] < 0) y[c] = -y[c];
      xy += x[c] * y[c];
      yy += y[c] * y[c];
    }
    return { xy, yy };
  };
}

/** Quantises blocks of D columns to points of P(D, K) with projection gains, `s = (y M aᵀ) / (y M yᵀ)`, in f64. */
export function pyramidQuantizer<T extends Reals>(
  rows: number,
  columns: number,
  shape: { readonly groupLength: number; readonly pulses: number },
  options: PyramidQuantizerOptions = {},
): PyramidQuantizer<T> {
  const { groupLength: D, pulses: K } = shape;
  const { metrics, gains: quantised } = options;
  const groups = Math.ceil(columns / D);
  const pulses = new Int16Array(rows * groups * D);
  const gains = new Float64Array(rows * groups);
  const codes = new Uint8Array(rows * groups);
  const memory = createSearchMemory(D);
  const search = euclideanSearch(K, options.mode ?? 'greedy');
  const x = new Float64Array(D);
  const y = new Int32Array(D);
  const quantize = (target: T, count: number, column0: number, w: number, out: T): void => {
    const group = column0 / D;
    const metric = metrics?.subarray(group * D * D, (group + 1) * D * D);
    for (let r = 0; r < count; r++) {
      for (let c = 0; c < w; c++) x[c] = target[r * w + c];
      const { xy, yy } = metric === undefined ? search(x, w, y) : metricPoint(x, w, K, metric, D, y, memory);
      let gain = yy > 0 ? xy / yy : 0;
      if (quantised !== undefined) {
        let squares = 0;
        for (let c = 0; c < w; c++) squares += y[c] * y[c];
        const norm = Math.sqrt(squares);
        const scale = quantised.scales[r];
        const code = scale > 0 ? nearestLevel(quantised.levels, (gain * norm) / scale) : 0;
        codes[r * groups + group] = code;
        gain = (scale * quantised.levels[code]) / norm;
      }
      gains[r * groups + group] = gain;
      const at = (r * groups + group) * D;
      for (let c = 0; c < w; c++) {
        pulses[at + c] = y[c];
        out[r * w + c] = gain * y[c];
      }
    }
  };
  return { blockColumns: D, quantize, pulses, gains, codes };
}
