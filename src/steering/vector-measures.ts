import { InputError } from '../errors.js';

/** Inner product in f64. */
export function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

/** Euclidean length. */
export function norm(a: ArrayLike<number>): number {
  return Math.sqrt(dot(a, a));
}

/** Cosine of the angle between two vectors; NaN where one of them is zero. */
export function cosine(a: ArrayLike<number>, b: ArrayLike<number>): number {
  const lengths = norm(a) * norm(b);
  return lengths === 0 ? Number.NaN : Math.max(-1, Math.min(1, dot(a, b) / lengths));
}

/** Inner products of the rows of `[n, width]` with a vector. */
export function projections(rows: ArrayLike<number>, width: number, vector: ArrayLike<number>): Float64Array {
  if (vector.length !== width) throw new RangeError(`a vector of ${vector.length} entries, rows of ${width}`);
  const result = new Float64Array(rows.length / width);
  for (let r = 0; r < result.length; r++) {
    let sum = 0;
    for (let i = 0, at = r * width; i < width; i++, at++) sum += rows[at] * vector[i];
    result[r] = sum;
  }
  return result;
}

/** Column means of rows `[n, width]`. */
export function meanRow(rows: ArrayLike<number>, width: number): Float64Array {
  const mean = new Float64Array(width);
  const count = rows.length / width;
  for (let at = 0; at < rows.length; at++) mean[at % width] += rows[at];
  for (let i = 0; i < width; i++) mean[i] /= count;
  return mean;
}

/**
 * The vector over its length.
 * @throws InputError naming what the vector is when its length is zero or not finite
 */
export function unit(vector: Float64Array, what: string): Float64Array {
  const length = norm(vector);
  if (!(length > 0) || !Number.isFinite(length))
    throw new InputError(`${what}: its length is ${length}, so it has no direction`);
  return vector.map((value) => value / length);
}

/** z + strength * v at every row of `[n, width]`: the operator `add` on stored activations. */
export function addToRows(rows: ArrayLike<number>, vector: ArrayLike<number>, strength: number): Float64Array {
  return Float64Array.from(rows, (value, at) => value + strength * vector[at % vector.length]);
}
