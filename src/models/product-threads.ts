import type { LayerDescription } from './description.js';

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
 * operators between the products depend on threads too; such sessions have one.) Checked on onnxruntime 1.30; `test/models/equal-bits.test.ts` holds it.
 */
export function equalBitThreads(products: readonly Product[], rows: number, threads: number): number {
  let most = threads;
  for (const { columns, depth } of products) {
    if (columns <= rows || depth <= DEPTH) continue;
    most = Math.min(most, Math.floor(Math.ceil(columns / PANEL) / LEAST_PANELS));
  }
  return Math.max(1, most);
}

/** Products of one layer over all rows, and those over the unknown number of rows that choose an expert. */
export function layerProducts(
  layer: LayerDescription,
  hiddenSize: number,
): { readonly dense: readonly Product[]; readonly routed: readonly Product[] } {
  const { heads, kvHeads, headDim, projection } = layer.attention;
  const queries = heads * headDim;
  const keys = kvHeads * headDim;
  const inward = projection === 'separate' ? [queries, keys] : [queries + 2 * keys];
  const mlp = layer.mlp;
  const feed = (width: number, fused: boolean): Product[] => [
    { columns: fused ? 2 * width : width, depth: hiddenSize },
    { columns: hiddenSize, depth: width },
  ];
  const dense: Product[] = [
    ...inward.map((columns) => ({ columns, depth: hiddenSize })),
    { columns: hiddenSize, depth: queries },
  ];
  if (mlp.kind === 'dense') return { dense: [...dense, ...feed(mlp.width, mlp.fusedGateUp)], routed: [] };
  dense.push({ columns: mlp.experts, depth: hiddenSize });
  if (mlp.shared) dense.push(...feed(mlp.shared.width, false), { columns: 1, depth: hiddenSize });
  return { dense, routed: feed(mlp.width, false) };
}
