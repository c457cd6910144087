import type { ModelProto, TensorProto } from '../formats/onnx_pb.js';
import { graphOf, onnxNode, withGraph } from '../formats/onnx-edit.js';
import { indexOnnxGraph } from '../formats/onnx-graph.js';
import { FLOAT_TYPES, onnxFloats } from './autodiff/precision.js';
import type { Floats } from './types.js';

/** Equal by chance is out of the question from here on. */
const FEWEST_ENTRIES = 16;

/** Whether b [m, n] is the transpose of a [n, m], and no constant. */
function isTranspose(a: Floats, b: Floats, rows: number, columns: number): boolean {
  let varies = false;
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      const value = a[i * columns + j];
      if (value !== b[j * rows + i]) return false;
      varies ||= value !== a[0];
    }
  }
  return varies;
}

/**
 * Exporters write a head that is tied to the embedding as a second, transposed matrix, which training would pull away
 * from the first. This makes the second the transpose of the first again.
 * @returns the model itself when it has no such pair
 */
export function tieTransposes(model: ModelProto): ModelProto {
  const graph = graphOf(model);
  const matrices = graph.initializer.filter(
    ({ dims, dataType }) =>
      dims.length === 2 &&
      FLOAT_TYPES.has(dataType) &&
      dims.every((extent) => extent > 1n) &&
      sizeOf(dims) >= FEWEST_ENTRIES,
  );
  const embeddings = new Set(graph.node.filter(({ opType }) => opType === 'Gather').map(({ input }) => input[0]));
  const replaced = new Map<string, string>();
  for (const a of matrices) {
    if (!embeddings.has(a.name)) continue;
    for (const b of matrices) {
      if (b === a || b.dataType !== a.dataType || a.dims[0] !== b.dims[1] || a.dims[1] !== b.dims[0]) continue;
      if (replaced.has(b.name) || embeddings.has(b.name)) continue;
      const [rows, columns] = a.dims.map(Number);
      if (isTranspose(onnxFloats(a, 'f64'), onnxFloats(b, 'f64'), rows, columns)) replaced.set(b.name, a.name);
    }
  }
  if (replaced.size === 0) return model;
  const { freshName } = indexOnnxGraph(graph);
  const isKept = ({ name }: TensorProto): boolean => !replaced.has(name);
  return withGraph(model, {
    initializer: graph.initializer.filter(isKept),
    input: graph.input.filter(({ name }) => !replaced.has(name)),
    node: [...[...replaced].map(([b, a]) => onnxNode('Transpose', freshName(`${b}.tied`), [a], [b])), ...graph.node],
  });
}

const sizeOf = (dims: readonly bigint[]): bigint => dims.reduce((product, extent) => product * extent, 1n);
