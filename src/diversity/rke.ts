/**
 * `||M||_F^2` of a matrix. For `M = K/n`, `M = X^T X / n` or a weighted form, its reciprocal is the order-2 Rényi kernel
 * score (RKE), the Vendi score of order 2, without eigenvalues.
 */
export function squaredNorm(matrix: Float64Array): number {
  // Rows of a few thousand squares a partial sum: sixteen digits are kept for any size.
  let sum = 0;
  for (let start = 0; start < matrix.length; start += 4096) {
    const end = Math.min(matrix.length, start + 4096);
    let part = 0;
    for (let i = start; i < end; i++) part += matrix[i] * matrix[i];
    sum += part;
  }
  return sum;
}

/** The order-2 score from `||K/n||_F^2`, and its logarithm: the order-2 Rényi entropy of the kernel, in nats. */
export function rkeScore(norm: number): { score: number; entropyNats: number } {
  return { score: 1 / norm, entropyNats: -Math.log(norm) };
}

/**
 * What every item adds to the order-2 score, `RKE(all) - RKE(all without i)`, in closed form for all items at once.
 * @param n number of items (at least 2)
 * @param norm `||K||_F^2 / n^2`
 * @param rowSquares `[n]`: `sum_j K_ij^2`
 */
export function rkeGains(n: number, norm: number, rowSquares: Float64Array): Float64Array {
  const all = norm * n * n;
  const others = (n - 1) * (n - 1);
  return rowSquares.map((row) => 1 / norm - others / (all - 2 * row + 1));
}
