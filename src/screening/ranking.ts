/** Columns by descending figure, ties by their place; NaN last. */
export function rankColumns(figures: ArrayLike<number>): Int32Array {
  const order = Array.from({ length: figures.length }, (_, j) => j);
  const key = (j: number): number => (Number.isNaN(figures[j]) ? Number.NEGATIVE_INFINITY : figures[j]);
  return Int32Array.from(order.sort((a, b) => (key(a) === key(b) ? a - b : key(b) - key(a))));
}
