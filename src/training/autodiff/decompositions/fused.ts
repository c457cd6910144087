import { range } from '../rules/shape-arithmetic.js';
import type { Decomposition, DecompositionContext } from '../types.js';
import { geluGraph } from './windows.js';

const isGiven = (name: string | undefined): name is string => name !== undefined && name !== '';

/** From operator set 20 on there is an operator of it. */
function gelu(g: DecompositionContext, x: string, approximate: 'none' | 'tanh'): string {
  return g.opset >= 20 && g.precision === 'f32' ? g.emit('Gelu', [x], { approximate }) : geluGraph(g, x, approximate);
}

const biased =
  (approximate: 'none' | 'tanh'): Decomposition =>
  (g) => {
    const [x, bias] = g.inputs;
    g.define(0, gelu(g, isGiven(bias) ? g.emit('Add', [x, bias]) : x, approximate));
    return true;
  };

/** alpha A' B', where each operand may be turned. */
const fusedMatMul: Decomposition = (g) => {
  const turned = (input: number, flag: string): string | undefined => {
    if (g.intAttribute(flag, 0) === 0) return g.inputs[input];
    const rank = g.rank(g.inputs[input]);
    if (rank === undefined) return undefined;
    const perm = { ints: [...range(0, rank - 2), rank - 1, rank - 2] };
    return g.emit('Transpose', [g.inputs[input]], { perm });
  };
  if (g.intAttribute('transBatchA', 0) !== 0 || g.intAttribute('transBatchB', 0) !== 0) return false;
  const [a, b] = [turned(0, 'transA'), turned(1, 'transB')];
  if (a === undefined || b === undefined) return false;
  const product = g.emit('MatMul', [a, b]);
  const alpha = g.floatAttribute('alpha', 1);
  g.define(0, alpha === 1 ? product : g.emit('Mul', [product, g.scalar(alpha)]));
  return true;
};

/** Operators that optimisers of graphs make of several. */
export const FUSED_DECOMPOSITIONS: Readonly<Record<string, Decomposition>> = {
  'com.microsoft::FastGelu': biased('tanh'),
  'com.microsoft::BiasGelu': biased('none'),
  'com.microsoft::FusedMatMul': fusedMatMul,
};
