import { create } from '@bufbuild/protobuf';
import { Tensor } from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { decodeOnnxModel } from '../../../src/formats/onnx.js';
import {
  AttributeProto_AttributeType,
  AttributeProtoSchema,
  FunctionProtoSchema,
  GraphProtoSchema,
  type ModelProto,
  OperatorSetIdProtoSchema,
  TensorProto_DataType,
} from '../../../src/formats/onnx_pb.js';
import { floatAttribute, graphAttribute } from '../../../src/formats/onnx-attributes.js';
import { graphOf, onnxNode, onnxTensor, onnxValueInfo } from '../../../src/formats/onnx-edit.js';
import { composeGraph } from '../../../src/models/graph.js';
import { floatsOf } from '../../../src/models/sessions.js';
import { differentiate } from '../../../src/training/autodiff/differentiate.js';
import { doubles, runDifferentiated } from './graph-gradients.js';

function emptyModel(): ModelProto {
  const g = composeGraph('calls', 'f64');
  g.input('x', 'f64', ['n']);
  g.output('y', 'f64', ['n']);
  return decodeOnnxModel(g.encode(), 'calls');
}

async function gradientAt(model: ModelProto, x: number[]): Promise<{ value: number[]; gradient: number[] }> {
  const inputs = { x: doubles(x) };
  const made = await differentiate({ model, wanted: ['x'], seeds: ['y'], precision: 'f64' }, inputs);
  const ones = () => doubles(x.map(() => 1));
  const { outputs, gradients } = await runDifferentiated(made, inputs, ones, ['y']);
  return { value: Array.from(floatsOf(outputs.y)), gradient: Array.from(floatsOf(gradients['grad.x'])) };
}

const functionOpset = [
  create(OperatorSetIdProtoSchema, { domain: '', version: 23n }),
  create(OperatorSetIdProtoSchema, { domain: 'own', version: 1n }),
];

describe("a model's own functions", () => {
  it('are written out, attributes and inner calls included', async () => {
    const model = emptyModel();
    const leaky = onnxNode('LeakyRelu', 'leak', ['a'], ['b']);
    leaky.attribute.push(
      create(AttributeProtoSchema, { name: 'alpha', refAttrName: 'slope', type: AttributeProto_AttributeType.FLOAT }),
    );
    const call = (name: string, input: string, output: string) => {
      const node = onnxNode('Bent', name, [input], [output], [floatAttribute('slope', 0.5)]);
      node.domain = 'own';
      return node;
    };
    const twice = onnxNode('Twice', 'outer', ['x'], ['y']);
    twice.domain = 'own';
    model.functions.push(
      create(FunctionProtoSchema, {
        name: 'Bent',
        domain: 'own',
        input: ['a'],
        output: ['b'],
        attribute: ['slope'],
        node: [leaky],
        opsetImport: functionOpset,
      }),
      create(FunctionProtoSchema, {
        name: 'Twice',
        domain: 'own',
        input: ['a'],
        output: ['c'],
        node: [call('first', 'a', 'b'), call('second', 'b', 'c')],
        opsetImport: functionOpset,
      }),
    );
    model.opsetImport.push(functionOpset[1]);
    graphOf(model).node.push(twice);
    expect(await gradientAt(model, [-4, 3])).toEqual({ value: [-1, 3], gradient: [0.25, 1] });
  });

  it('are refused when they never end', async () => {
    const model = emptyModel();
    const node = onnxNode('Loop', 'inner', ['a'], ['b']);
    node.domain = 'own';
    const call = onnxNode('Loop', 'outer', ['x'], ['y']);
    call.domain = 'own';
    model.functions.push(
      create(FunctionProtoSchema, { name: 'Loop', domain: 'own', input: ['a'], output: ['b'], node: [node] }),
    );
    graphOf(model).node.push(call);
    await expect(gradientAt(model, [1])).rejects.toThrow('calls itself');
  });
});

describe('branches', () => {
  const branch = (name: string, operator: string) =>
    create(GraphProtoSchema, {
      name,
      node: [onnxNode(operator, `${name}.node`, ['x'], ['result'])],
      output: [onnxValueInfo('result', TensorProto_DataType.DOUBLE, ['n'])],
    });
  const branching = (taken: number): ModelProto => {
    const model = emptyModel();
    const graph = graphOf(model);
    graph.initializer.push(onnxTensor('condition', TensorProto_DataType.BOOL, [], Uint8Array.of(taken)));
    const attributes = [
      graphAttribute('then_branch', branch('a', 'Exp')),
      graphAttribute('else_branch', branch('b', 'Neg')),
    ];
    graph.node.push(onnxNode('If', 'choice', ['condition'], ['y'], attributes));
    return model;
  };
  it('of constant conditions are written out', async () => {
    expect((await gradientAt(branching(1), [0, 0])).gradient).toEqual([1, 1]);
    expect((await gradientAt(branching(0), [2, 3])).gradient).toEqual([-1, -1]);
  });
  it('of computed conditions are refused', async () => {
    const model = branching(1);
    const graph = graphOf(model);
    graph.initializer = [];
    graph.input.push(onnxValueInfo('condition', TensorProto_DataType.BOOL, []));
    const inputs = { x: doubles([1]), condition: new Tensor('bool', Uint8Array.of(1), []) };
    await expect(differentiate({ model, wanted: ['x'], seeds: ['y'], precision: 'f64' }, inputs)).rejects.toThrow(
      'If "choice" of operator set 23 (the graph branches)',
    );
  });
});
