import type { ModelProto } from '../formats/onnx_pb.js';
import { attribute } from '../formats/onnx-attributes.js';
import { graphOf } from '../formats/onnx-edit.js';
import { indexOnnxGraph } from '../formats/onnx-graph.js';
import { equalBitThreads, type Product } from '../kernels/product-threads.js';

/** Weight matrices [depth, columns] of the linear layers of a graph. */
export function weightProducts(model: ModelProto): Product[] {
  const graph = graphOf(model);
  const index = indexOnnxGraph(graph);
  const products: Product[] = [];
  for (const node of graph.node) {
    if (node.opType !== 'MatMul' && node.opType !== 'Gemm') continue;
    const dims = index.initializer(node.input[1])?.dims.map(Number);
    if (dims?.length !== 2) continue;
    const isTransposed = Number(attribute(node, 'transB')?.i ?? 0n) === 1;
    products.push({ depth: dims[isTransposed ? 1 : 0], columns: dims[isTransposed ? 0 : 1] });
  }
  return products;
}

/**
 * The most threads with which a training step on `rows` rows gives the bits of one thread (see `equalBitThreads`): the
 * products X W, dY W^T and X^T dY of every linear layer count.
 * @param rows rows that a linear layer reads at least
 * @param mostRows and at most, where it reads more than one for each row of the batch
 */
export function trainingThreads(
  products: readonly Product[],
  rows: number,
  threads: number,
  mostRows: number = rows,
): number {
  const across = products.flatMap(({ columns, depth }) => [
    { columns, depth },
    { columns: depth, depth: columns },
  ]);
  return products.reduce(
    (most, { columns, depth }) => Math.min(most, equalBitThreads([{ columns, depth: mostRows }], depth, threads)),
    equalBitThreads(across, rows, threads),
  );
}
