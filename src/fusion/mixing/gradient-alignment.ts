/** Inner products and norms of gradients, added in the order of the elements. */

export interface GroupAlignments {
  /** <g_j, g_val>, [k]. */
  readonly inner: Float64Array;
  /** |g_j|, [k]. */
  readonly norms: Float64Array;
}

/** <a, b> in double precision. */
export function innerProduct(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let e = 0; e < a.length; e++) sum += a[e] * b[e];
  return sum;
}

/**
 * What steps on single groups do to the validation loss, to first order.
 * @param gradients [k, width], one row a group
 * @param validation [width]
 */
export function groupAlignments(gradients: Float64Array, validation: Float64Array, width: number): GroupAlignments {
  const k = gradients.length / width;
  const row = (j: number): Float64Array => gradients.subarray(j * width, (j + 1) * width);
  return {
    inner: Float64Array.from({ length: k }, (_, j) => innerProduct(row(j), validation)),
    norms: Float64Array.from({ length: k }, (_, j) => Math.sqrt(innerProduct(row(j), row(j)))),
  };
}
