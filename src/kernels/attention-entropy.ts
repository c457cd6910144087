import { InputError } from '../errors.js';
import { kernelThreads, nativeKernels } from './native.js';

/** Softmax probabilities [rows, keys], rows `rowStride` elements apart (default `keys`). */
export interface AttentionRows {
  readonly data: Float32Array;
  readonly rows: number;
  readonly keys: number;
  readonly rowStride?: number;
}

export interface AttentionEntropyOptions {
  /** First visible key of every row, [rows]. Default 0. */
  readonly starts?: Int32Array;
  /** One past the last visible key of every row, [rows]. Default `keys`. */
  readonly ends?: Int32Array;
  readonly threads?: number;
}

/** Entropy in nats and sum of the visible probabilities, [rows] each. A row with nothing visible has both 0. */
export interface AttentionRowEntropies {
  readonly entropyNats: Float64Array;
  readonly mass: Float64Array;
}

function entropiesReference(
  rows: AttentionRows,
  starts: Int32Array | undefined,
  ends: Int32Array | undefined,
  out: AttentionRowEntropies,
): number {
  const stride = rows.rowStride ?? rows.keys;
  for (let r = 0; r < rows.rows; r++) {
    let entropy = 0;
    let mass = 0;
    const last = ends?.[r] ?? rows.keys;
    for (let j = starts?.[r] ?? 0; j < last; j++) {
      const a = rows.data[r * stride + j];
      if (!(a >= 0 && a < Number.POSITIVE_INFINITY)) return r;
      mass += a;
      if (a > 0) entropy -= a * Math.log(a);
    }
    out.entropyNats[r] = entropy;
    out.mass[r] = mass;
  }
  return -1;
}

/**
 * Entropy -sum a log a (0 log 0 = 0) of every row over its visible keys, accumulated in f64. The rows are not
 * normalised; `mass` tells how far from 1 they sum.
 * @throws InputError naming row and key of a visible entry that is negative, NaN or infinite.
 */
export function attentionEntropy(rows: AttentionRows, options: AttentionEntropyOptions = {}): AttentionRowEntropies {
  const { starts, ends } = options;
  const stride = rows.rowStride ?? rows.keys;
  if (stride < rows.keys || (rows.rows > 0 && (rows.rows - 1) * stride + rows.keys > rows.data.length)) {
    throw new RangeError(`${rows.rows} rows of ${rows.keys} keys do not fit ${rows.data.length} probabilities`);
  }
  for (const range of [starts, ends]) {
    if (range === undefined) continue;
    if (range.length !== rows.rows) throw new RangeError(`${range.length} visible ranges for ${rows.rows} rows`);
    if (range.some((at) => at < 0 || at > rows.keys)) throw new RangeError('a visible range lies outside the keys');
  }
  const out = { entropyNats: new Float64Array(rows.rows), mass: new Float64Array(rows.rows) };
  const native = nativeKernels();
  const bad =
    native === undefined
      ? entropiesReference(rows, starts, ends, out)
      : native.attentionEntropy(
          rows.data,
          rows.rows,
          rows.keys,
          stride,
          starts ?? null,
          ends ?? null,
          out.entropyNats,
          out.mass,
          kernelThreads(options.threads),
        );
  if (bad < 0) return out;
  const first = starts?.[bad] ?? 0;
  const visible = rows.data.subarray(bad * stride + first, bad * stride + (ends?.[bad] ?? rows.keys));
  const key = visible.findIndex((a) => !(a >= 0 && a < Number.POSITIVE_INFINITY));
  throw new InputError(
    `attention probabilities: row ${bad}, key ${first + key} is ${visible[key]}; they must be finite and not negative`,
  );
}
