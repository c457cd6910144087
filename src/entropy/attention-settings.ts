import type { RegulariserReduction } from '../training/attention-entropy.js';

/** The entropy regulariser over a corpus (Jha & Reagen 2025): thresholds theta as shares of log(contextSize). */
export interface RegulariserSettings {
  readonly reduction: RegulariserReduction;
  /** Tolerance as a share of log(contextSize); deviations up to it are free. */
  readonly gamma: number;
  /** Multiplies loss and gradients. */
  readonly lambda: number;
  /** T of E_max = log T. */
  readonly contextSize: number;
  /** `[layers, heads]` */
  readonly thresholds: Float64Array;
}

/** Values per head, and per position of the query where `positions` is above 1: `[layers, heads, positions]`. */
export interface HeadValues {
  readonly values: Float64Array;
  readonly positions: number;
}

/** The temperatures of queries first..first+count-1 of all heads of a layer, `[heads, count]`. */
export function temperaturesOf(
  { values, positions }: HeadValues,
  layer: number,
  heads: number,
  first: number,
  count: number,
): Float64Array {
  const out = new Float64Array(heads * count);
  for (let head = 0; head < heads; head++) {
    const at = (layer * heads + head) * positions;
    for (let q = 0; q < count; q++) out[head * count + q] = values[positions === 1 ? at : at + first + q];
  }
  return out;
}
