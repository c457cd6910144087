import { decodeOnnxModel } from '../../src/formats/onnx.js';
import { indexOnnxGraph } from '../../src/formats/onnx-graph.js';
import { findResidualChain, type ResidualSum } from '../../src/steering/onnx/residual-chain.js';
import type { Json } from './harness.js';

export function run(inputs: { [key: string]: Json }): unknown {
  if (typeof inputs.onnx_base64 !== 'string') throw new TypeError('onnx_base64 is not a string');
  const { graph } = decodeOnnxModel(Buffer.from(inputs.onnx_base64, 'base64'), 'case');
  if (!graph) throw new TypeError('the case holds no graph');
  const chain = findResidualChain(indexOnnxGraph(graph));
  const outputs = (sums: readonly ResidualSum[]): (string | null)[] => sums.map(({ output }) => output);
  return {
    n_nodes: graph.node.length,
    n_initializers: graph.initializer.length,
    n_blocks: chain.blocks,
    residual_chain: [chain.embedding, ...outputs(chain.sums)],
    block_output: outputs(chain.blockSums),
    branch: chain.sums.map(({ node, operandIndex, branch }) => ({
      sum_node: node.name,
      operand_index: operandIndex,
      branch_tensor: branch,
    })),
  };
}
