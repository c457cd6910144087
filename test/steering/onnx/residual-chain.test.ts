import { describe, expect, it } from 'vitest';
import { readOnnxModel } from '../../../src/formats/onnx.js';
import type { ModelProto } from '../../../src/formats/onnx_pb.js';
import { graphOf, onnxNode } from '../../../src/formats/onnx-edit.js';
import { indexOnnxGraph } from '../../../src/formats/onnx-graph.js';
import { findResidualChain } from '../../../src/steering/onnx/residual-chain.js';
import { fuseSkipNorms, readFixture, scramble } from './graphs.js';

const chainOf = (model: ModelProto, layers?: number) =>
  findResidualChain(indexOnnxGraph(graphOf(model)), layers === undefined ? {} : { layers });

describe('findResidualChain', () => {
  it.each(['optimum.onnx', 'optimum-past.onnx', 'genai.onnx', 'genai-f16.onnx'])(
    '%s: the same sums with all names scrambled',
    (name) => {
      const plain = readFixture(name);
      const scrambled = scramble(readFixture(name));
      const chain = chainOf(plain);
      const found = chainOf(scrambled);
      expect(chain).toMatchObject({ layout: 'sequential', blocks: 2, hiddenSize: 32 });
      const places = (model: ModelProto, { sums }: typeof chain) =>
        sums.map(({ node }) => graphOf(model).node.indexOf(node));
      expect(places(scrambled, found)).toEqual(places(plain, chain));
      expect(found.sums.map(({ operandIndex }) => operandIndex)).toEqual([1, 1, 1, 1]);
      expect(chain.sums.map(({ mixesPositions }) => mixesPositions)).toEqual([true, false, true, false]);
    },
  );

  it('finds sums inside fused norms, and that the last has no output', () => {
    const chain = chainOf(scramble(fuseSkipNorms(readFixture('genai.onnx'))));
    expect(chain).toMatchObject({ layout: 'sequential', blocks: 2, countedBy: 'caches', hiddenSize: 32 });
    expect(chain.sums.map(({ output }) => output === null)).toEqual([false, false, false, true]);
  });

  it('takes the other operand where the branch comes first', () => {
    const model = readFixture('optimum.onnx');
    for (const { node } of chainOf(model).sums) node.input.reverse();
    expect(chainOf(model).sums.map(({ operandIndex }) => operandIndex)).toEqual([0, 0, 0, 0]);
  });

  it('counts a sum of branches that are added one after the other as one', () => {
    const model = readFixture('optimum.onnx');
    const { sums } = chainOf(model);
    const [attention, mlp] = sums;
    // The second branch now computes from the stream before the first: x + attention(x) + mlp(x).
    const from = attention.output ?? '';
    const stream = attention.node.input[0];
    for (const node of graphOf(model).node) {
      if (node === mlp.node) continue;
      node.input = node.input.map((input) => (input === from ? stream : input));
    }
    const chain = findResidualChain(indexOnnxGraph(graphOf(model)), { layers: 3 }).sums;
    expect(chain).toHaveLength(3);
    expect(chain[0]).toMatchObject({ branch: mlp.branch, mixesPositions: true });
  });

  it('follows casts and passes what stands before the first block', () => {
    const model = readFixture('optimum.onnx');
    const graph = graphOf(model);
    const before = chainOf(model);
    // embedding * 2 before everything, as Gemma scales it.
    const lookup = graph.node[0];
    const raw = `${lookup.output[0]}_raw`;
    const scaled = lookup.output[0];
    lookup.output[0] = raw;
    graph.node.splice(1, 0, onnxNode('Add', 'scale', [raw, raw], [scaled]));
    expect(chainOf(model).embedding).toBe(before.embedding);
    expect(chainOf(model).sums).toHaveLength(4);
  });

  it('says what it found where there is no stream', () => {
    expect(() => chainOf(readOnnxModel('fixtures/encoders/onnx/model.onnx'))).toThrow(
      /lost after 1 sums.*post-norm model.*candidates for --tensor are the sums/,
    );
    expect(() => chainOf(readOnnxModel('fixtures/formats/gemm.onnx'))).toThrow(
      /no embedding lookup of token ids was found; the graph has inputs x, ids and operators Gemm \(1\)/,
    );
    expect(() => chainOf(readFixture('optimum.onnx'), 3)).toThrow(/4 sums, which is neither one nor two a block/);
  });
});
