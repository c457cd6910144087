import type { NodeProto } from '../../formats/onnx_pb.js';
import { attribute } from '../../formats/onnx-attributes.js';
import type { GraphAnalysis } from './analysis.js';
import type { NodeWriter } from './backward-graph.js';
import { elementTypeOf } from './precision.js';
import type { DecompositionContext, RuleContext } from './types.js';

type Shared = Omit<RuleContext, 'cotangents' | 'needs' | 'unbroadcast' | 'dims' | 'zerosLike'>;

const decoder = new TextDecoder();

/** What contexts of rules and of decompositions have in common. */
function sharedContext(node: NodeProto, analysis: GraphAnalysis, writer: NodeWriter): Shared {
  const own = (name: string) => attribute(node, name);
  const floatType = (): number => {
    const float = [...node.output, ...node.input].find((name) => analysis.has(name) && analysis.isFloat(name));
    return float === undefined ? elementTypeOf(analysis.precision) : analysis.elementType(float);
  };
  const integerConstant = (tensor: string): readonly number[] | undefined =>
    writer.constantIntegers(tensor) ?? analysis.constantValues(tensor);
  return {
    node,
    opset: analysis.opset,
    precision: analysis.precision,
    inputs: node.input,
    outputs: node.output,
    constantIntegers: integerConstant,
    constantFloats: (tensor) => analysis.constantValues(tensor),
    elementType: (tensor) => analysis.elementType(tensor),
    attribute: own,
    intAttribute: (name, fallback) => Number(own(name)?.i ?? fallback),
    intsAttribute: (name) => own(name)?.ints.map(Number),
    floatAttribute: (name, fallback) => own(name)?.f ?? fallback,
    stringAttribute(name, fallback) {
      const found = own(name);
      return found ? decoder.decode(found.s) : fallback;
    },
    emit: (operator, inputs, attributes) => writer.emitMany(operator, inputs, 1, attributes)[0],
    emitMany: (operator, inputs, outputs, attributes) => writer.emitMany(operator, inputs, outputs, attributes),
    integers: (values, scalar) => writer.integers(values, scalar),
    scalar: (value) => writer.scalar(value, floatType()),
    shapeOf: (tensor) => writer.shapeOf(tensor),
  };
}

/** The context of one node for its rule. `needed` tells by position whether the gradient of an input is wanted. */
export function createRuleContext(
  node: NodeProto,
  cotangents: readonly (string | undefined)[],
  needed: readonly boolean[],
  analysis: GraphAnalysis,
  writer: NodeWriter,
): RuleContext {
  const dims = (tensor: string): readonly number[] => {
    const known = writer.dims(tensor);
    if (known === undefined) throw new Error(`the extents of ${tensor} are not known in the rule of ${node.opType}`);
    return known;
  };
  return {
    ...sharedContext(node, analysis, writer),
    cotangents,
    needs: (input) => needed[input] ?? false,
    dims,
    zerosLike: (tensor) => writer.zeros(writer.shapeOf(tensor), analysis.elementType(tensor)),
    unbroadcast(gradient, operand) {
      return unbroadcast(writer, gradient, writer.dims(gradient) ?? dims(node.output[0]), dims(operand));
    },
  };
}

/** Sums over the axes along which an operand was repeated. Shapes are those of the example. */
function unbroadcast(writer: NodeWriter, gradient: string, from: readonly number[], to: readonly number[]): string {
  const leading = from.length - to.length;
  const repeated = to.flatMap((extent, axis) => (extent === 1 && from[axis + leading] !== 1 ? [axis + leading] : []));
  const added = Array.from({ length: leading }, (_, axis) => axis);
  const sum = (tensor: string, axes: readonly number[], keep: number): string =>
    axes.length === 0
      ? tensor
      : writer.emitMany('ReduceSum', [tensor, writer.integers(axes)], 1, { keepdims: { int: keep } })[0];
  if (repeated.length === 0) return sum(gradient, added, 0);
  const kept = sum(gradient, [...added, ...repeated], 1);
  return added.length === 0 ? kept : writer.emitMany('Squeeze', [kept, writer.integers(added)], 1)[0];
}

/** The context of one node of the forward graph for its decomposition. */
export function createDecompositionContext(
  node: NodeProto,
  analysis: GraphAnalysis,
  writer: NodeWriter,
  define: (index: number, value: string) => void,
): DecompositionContext {
  return {
    ...sharedContext(node, analysis, writer),
    rank: (tensor) => writer.dims(tensor)?.length,
    define,
  };
}
