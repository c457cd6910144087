import type { Product } from '../kernels/product-threads.js';
import { type LayerDescription, routerOutputs } from './description.js';

export { equalBitThreads } from '../kernels/product-threads.js';

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
  dense.push({ columns: routerOutputs(mlp), depth: hiddenSize });
  if (mlp.shared) dense.push(...feed(mlp.shared.width, false), { columns: 1, depth: hiddenSize });
  return { dense, routed: feed(mlp.width, false) };
}
