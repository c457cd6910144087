/** Any of the two widths of reals that products take. */
export type Reals = Float64Array | Float32Array;

/** Depth after which partial sums of single products are added to a double result. */
export const PANEL_DEPTH = 256;

/** One matrix of a product: entry (i, j) of op(X) lies at `i * rowStep + j * columnStep`. */
export interface Operand {
  readonly data: Reals;
  readonly rowStep: number;
  readonly columnStep: number;
}

/**
 * C[i, j] = beta C[i, j] + alpha sum_l A[i, l] B[l, j] for i < m and j < n, or j <= i with `lower`. Sums run in the
 * precision of the operands over panels of {@link PANEL_DEPTH}, and panels are added in that of C: what the compiled
 * kernels do, but for the order inside a panel and their fused products.
 */
export function productReference(
  a: Operand,
  b: Operand,
  c: Reals,
  shape: { m: number; n: number; k: number; strideC: number; alpha: number; beta: number; lower: boolean },
): void {
  const single = a.data instanceof Float32Array;
  for (let i = 0; i < shape.m; i++) {
    for (let j = 0; j < (shape.lower ? Math.min(i + 1, shape.n) : shape.n); j++) {
      const at = i * shape.strideC + j;
      // beta = 0 forgets what was there, NaN included.
      let total = shape.beta === 0 ? 0 : shape.beta * c[at];
      for (let from = 0; from < shape.k; from += PANEL_DEPTH) {
        const to = Math.min(shape.k, from + PANEL_DEPTH);
        total += shape.alpha * (single ? singlePanel(a, b, i, j, from, to) : doublePanel(a, b, i, j, from, to));
      }
      c[at] = total;
    }
  }
}

function doublePanel(a: Operand, b: Operand, i: number, j: number, from: number, to: number): number {
  let sum = 0;
  for (let l = from; l < to; l++) {
    sum += a.data[i * a.rowStep + l * a.columnStep] * b.data[l * b.rowStep + j * b.columnStep];
  }
  return sum;
}

function singlePanel(a: Operand, b: Operand, i: number, j: number, from: number, to: number): number {
  let sum = 0;
  for (let l = from; l < to; l++) {
    const product = a.data[i * a.rowStep + l * a.columnStep] * b.data[l * b.rowStep + j * b.columnStep];
    sum = Math.fround(sum + product);
  }
  return sum;
}
