import type { GraphComposer } from './graph.js';

/**
 * Operators on the residual stream x [n, hidden], each at the masked positions only:
 * - `add`: x + c v
 * - `ablate`: x - (x.n) n with n = v / |v|
 * - `ablate_then_add`: ablate, then add c v
 * - `add_keep_norm`: x + c v, rescaled to |x|
 * - `clamp`: the component along n is set to c
 *
 * Inputs of operator j: `<prefix>steer.j.vector` [hidden], `<prefix>steer.j.scale` [1] (c), and
 * `<prefix>steer.j.mask` [n, 1] with 1 where the operator acts and 0 elsewhere.
 * Source: specification of steering, section 6.2.
 */
export type InterventionKind = 'add' | 'ablate' | 'ablate_then_add' | 'add_keep_norm' | 'clamp';

export const INTERVENTION_KINDS: readonly InterventionKind[] = [
  'add',
  'ablate',
  'ablate_then_add',
  'add_keep_norm',
  'clamp',
];

/** Applies the operators in order and returns the new stream. */
export function applyInterventions(
  g: GraphComposer,
  stream: string,
  kinds: readonly InterventionKind[],
  prefix: string,
  hiddenSize: number,
): string {
  return kinds.reduce((x, kind, j) => {
    const vector = g.input(`${prefix}steer.${j}.vector`, g.float, [hiddenSize]);
    const scale = g.input(`${prefix}steer.${j}.scale`, g.float, [1]);
    const mask = g.input(`${prefix}steer.${j}.mask`, g.float, ['rows', 1]);
    const delta = change(g, x, kind, vector, scale, hiddenSize);
    return g.node('Add', [x, g.node('Mul', [delta, mask])]);
  }, stream);
}

/** What the operator adds to x. */
function change(
  g: GraphComposer,
  x: string,
  kind: InterventionKind,
  vector: string,
  scale: string,
  hiddenSize: number,
): string {
  const step = g.node('Mul', [vector, scale]);
  if (kind === 'add') return step;
  if (kind === 'add_keep_norm') {
    const moved = g.node('Add', [x, step]);
    const ratio = g.node('Div', [rowNorm(g, x), rowNorm(g, moved)]);
    return g.node('Sub', [g.node('Mul', [moved, ratio]), x]);
  }
  const squared = g.node('ReduceSum', [g.node('Mul', [vector, vector])], { attributes: { keepdims: { int: 1 } } });
  const unit = g.node('Div', [vector, g.node('Sqrt', [squared])]);
  const column = g.node('Reshape', [unit, g.integers([hiddenSize, 1])]);
  const component = g.node('MatMul', [x, column]);
  if (kind === 'clamp') return g.node('Mul', [g.node('Sub', [scale, component]), unit]);
  const removed = g.node('Neg', [g.node('Mul', [component, unit])]);
  return kind === 'ablate' ? removed : g.node('Add', [removed, step]);
}

function rowNorm(g: GraphComposer, x: string): string {
  const squares = g.node('Mul', [x, x]);
  return g.node('Sqrt', [g.node('ReduceSum', [squares, g.integers([-1])], { attributes: { keepdims: { int: 1 } } })]);
}
