import type { GraphAnalysis } from './analysis.js';

/** Operators whose first result has the shape of the first operand. */
const KEEPS_SHAPE = new Set(
  (
    'Abs Acos Acosh Asin Asinh Atan Atanh Cast CastLike Ceil Celu Clip Cos Cosh CumSum Dropout Elu Erf Exp Floor Gelu ' +
    'GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization LayerNormalization LeakyRelu Log ' +
    'LogSoftmax Mish Neg Not PRelu RMSNormalization Reciprocal Relu Round Selu Sigmoid Sign Sin Sinh Softmax Softplus ' +
    'Softsign Sqrt Swish Tan Tanh ThresholdedRelu Trilu BatchNormalization ScatterElements ScatterND'
  ).split(' '),
);
/** Operators whose result has the shape of every operand that is not repeated. */
const BROADCASTS = new Set('Add Sub Mul Div Pow Where Max Min Sum Mean Mod'.split(' '));

/**
 * Tensors known to have the same shape, whatever is fed: a result and the operands that keep it. An operand of a
 * broadcasting operator counts where it has the result's extents on the example and none of them is 1 (two dynamic axes
 * that broadcast against each other have extents of their own there).
 */
export function groupEqualShapes(analysis: GraphAnalysis): (tensor: string) => readonly string[] {
  const group = new Map<string, string[]>();
  const groupOf = (name: string): string[] => {
    const known = group.get(name) ?? [name];
    group.set(name, known);
    return known;
  };
  const join = (a: string, b: string): void => {
    const [into, from] = [groupOf(a), groupOf(b)];
    if (into === from) return;
    into.push(...from);
    for (const name of from) group.set(name, into);
  };
  for (const node of analysis.graph.node) {
    const [result] = node.output;
    if (KEEPS_SHAPE.has(node.opType)) join(result, node.input[0]);
    if (!BROADCASTS.has(node.opType)) continue;
    const dims = analysis.dims(result);
    if (dims.includes(1)) continue;
    for (const operand of node.input) {
      const own = analysis.dims(operand);
      if (own.length === dims.length && own.every((extent, axis) => extent === dims[axis])) join(result, operand);
    }
  }
  return (tensor) => group.get(tensor) ?? [tensor];
}
