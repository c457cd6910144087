import { extents, joined, meanOver, ones } from '../rules/shape-arithmetic.js';
import type { Decomposition, DecompositionContext } from '../types.js';

const isGiven = (name: string | undefined): name is string => name !== undefined && name !== '';

/** x standardised over each row of [..., M], by the runtime's own kernel. */
function rowsStandardised(g: DecompositionContext, rows: string, epsilon: number): string {
  const width = g.emit('Shape', [rows], { start: { int: -1 } });
  return g.emit('LayerNormalization', [rows, ones(g, width)], { axis: { int: -1 }, epsilon });
}

const scaled = (g: DecompositionContext, planes: string, scale: string, shift: string): string => {
  const column = (vector: string): string => g.emit('Unsqueeze', [vector, g.integers([1])]);
  return g.emit('Add', [g.emit('Mul', [planes, column(scale)]), column(shift)]);
};

/** Rows of [N, C, M] are standardised. */
const instanceNormalization: Decomposition = (g) => {
  const [x, scale, shift] = g.inputs;
  const planes = g.emit('Reshape', [x, g.integers([0, 0, -1])]);
  const standard = rowsStandardised(g, planes, g.floatAttribute('epsilon', 1e-5));
  g.define(0, g.emit('Reshape', [scaled(g, standard, scale, shift), g.shapeOf(x)]));
  return true;
};

/** Scale and shift belong to groups before operator set 21, to channels from then on. */
const groupNormalization: Decomposition = (g) => {
  const [x, scale, shift] = g.inputs;
  const groups = g.integers([g.intAttribute('num_groups', 1)]);
  const rest = g.integers([-1]);
  const rows = g.emit('Reshape', [x, joined(g, [extents(g, x, [0]), groups, rest])]);
  const standard = rowsStandardised(g, rows, g.floatAttribute('epsilon', 1e-5));
  const planes = g.opset < 21 ? standard : g.emit('Reshape', [standard, joined(g, [extents(g, x, [0, 1]), rest])]);
  g.define(0, g.emit('Reshape', [scaled(g, planes, scale, shift), g.shapeOf(x)]));
  return true;
};

const lpNormalization: Decomposition = (g) => {
  const [x] = g.inputs;
  const norm = g.intAttribute('p', 2) === 1 ? 'ReduceL1' : 'ReduceL2';
  const axis = g.integers([g.intAttribute('axis', -1)]);
  g.define(0, g.emit('Div', [x, g.emit(norm, [x, axis], { keepdims: { int: 1 } })]));
  return true;
};

const meanVarianceNormalization: Decomposition = (g) => {
  const [x] = g.inputs;
  const axes = g.intsAttribute('axes') ?? [0, 2, 3];
  const centred = g.emit('Sub', [x, meanOver(g, x, axes)]);
  const variance = meanOver(g, g.emit('Mul', [centred, centred]), axes);
  g.define(0, g.emit('Div', [centred, g.emit('Add', [g.emit('Sqrt', [variance]), g.scalar(1e-9)])]));
  return true;
};

/** The sum of a residual connection, its bias included. */
function residualSum(g: DecompositionContext, bias: string | undefined): string {
  const terms = [g.inputs[0], g.inputs[1], ...(isGiven(bias) ? [bias] : [])];
  return g.emit('Sum', terms);
}

const skipLayerNormalization: Decomposition = (g) => {
  const [, , gamma, beta, bias] = g.inputs;
  const sum = residualSum(g, bias);
  const inputs = [sum, gamma, ...(isGiven(beta) ? [beta] : [])];
  g.define(0, g.emit('LayerNormalization', inputs, { axis: { int: -1 }, epsilon: g.floatAttribute('epsilon', 1e-12) }));
  g.define(3, sum);
  return true;
};

const skipSimplifiedLayerNormalization: Decomposition = (g) => {
  const [, , gamma, bias] = g.inputs;
  const sum = residualSum(g, bias);
  const attributes = { axis: { int: -1 }, epsilon: g.floatAttribute('epsilon', 1e-12) };
  g.define(0, g.emit('SimplifiedLayerNormalization', [sum, gamma], attributes));
  g.define(3, sum);
  return true;
};

/** Norms that are others with a reshape or an addition. */
export const NORM_DECOMPOSITIONS: Readonly<Record<string, Decomposition>> = {
  InstanceNormalization: instanceNormalization,
  GroupNormalization: groupNormalization,
  LpNormalization: lpNormalization,
  MeanVarianceNormalization: meanVarianceNormalization,
  'com.microsoft::SkipLayerNormalization': skipLayerNormalization,
  'com.microsoft::SkipSimplifiedLayerNormalization': skipSimplifiedLayerNormalization,
};
