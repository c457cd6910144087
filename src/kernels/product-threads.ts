/** A matrix product [rows, depth] x [depth, columns]. */
export interface Product {
  readonly columns: number;
  readonly depth: number;
}

/** Columns that the runtime gives to a thread at least, and depth it sums in one go. */
const PANEL = 16;
const DEPTH = 128;
/** With fewer panels a thread, the runtime sums over the depth in other pieces, and the last bits change. */
const LEAST_PANELS = 5;

/**
 * The most threads with which products of `rows` rows give the bits that one thread gives.
 *
 * The runtime's matrix product splits the columns over threads when there are more columns than rows. A thread that has
 * 64 columns or fewer sums over the depth in longer pieces, so the bits would depend on the number of
 * threads. Products no deeper than one piece, and products that are split by rows, do not care. (In f64 the
 * operators between the products depend on threads too; graphs with such operators have one.) Checked on onnxruntime
 * 1.30; `test/models/equal-bits.test.ts` and `test/linalg/tiled-products.test.ts` hold it.
 */
export function equalBitThreads(products: readonly Product[], rows: number, threads: number): number {
  let most = threads;
  for (const { columns, depth } of products) {
    if (columns <= rows || depth <= DEPTH) continue;
    most = Math.min(most, Math.floor(Math.ceil(columns / PANEL) / LEAST_PANELS));
  }
  return Math.max(1, most);
}
