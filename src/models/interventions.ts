import type { GraphComposer } from './graph.js';

/**
 * Operators on the residual stream x [n, hidden], each at the masked positions only:
 * - `add`: x + c v
 * - `ablate`: x - (x.n) n with n = v / |v|
 * - `ablate_then_add`: ablate, then add c v
 * - `add_keep_norm`: x + c v, rescaled to |x|
 * - `add_keep_norm_if_grew`: x + c v, rescaled to |x| where it is longer than x. Each position decides for itself; the
 *   library that does this decides for all positions of a call at once, so that a token depends on those after it
 * - `clamp`: the component along n is set to c
 * - `rotate`: x turned by c radians towards v in the plane of both, its length kept; unchanged where x and v are parallel
 *
 * Inputs of operator j: `<prefix>steer.j.vector` [hidden], `<prefix>steer.j.scale` [1] (c), and
 * `<prefix>steer.j.mask` [n, 1] with 1 where the operator acts and 0 elsewhere.
 * Source: specification of steering, section 6.2.
 */
export type InterventionKind =
  | 'add'
  | 'ablate'
  | 'ablate_then_add'
  | 'add_keep_norm'
  | 'add_keep_norm_if_grew'
  | 'clamp'
  | 'rotate';

export const INTERVENTION_KINDS: readonly InterventionKind[] = [
  'add',
  'ablate',
  'ablate_then_add',
  'add_keep_norm',
  'add_keep_norm_if_grew',
  'clamp',
  'rotate',
];

/** Below this share of |v|, what is left of v beside its part along x is rounding. */
const PARALLEL = 1e-5;
/** Keeps divisions by the length of a zero row finite. */
const TINY = 1e-30;

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
  if (kind === 'add_keep_norm' || kind === 'add_keep_norm_if_grew') {
    const moved = g.node('Add', [x, step]);
    const ratio = g.node('Div', [rowNorm(g, x), rowNorm(g, moved)]);
    const factor = kind === 'add_keep_norm' ? ratio : g.node('Min', [ratio, g.scalar(1)]);
    return g.node('Sub', [g.node('Mul', [moved, factor]), x]);
  }
  if (kind === 'rotate') return turn(g, x, vector, scale);
  const squared = g.node('ReduceSum', [g.node('Mul', [vector, vector])], { attributes: { keepdims: { int: 1 } } });
  const unit = g.node('Div', [vector, g.node('Sqrt', [squared])]);
  const column = g.node('Reshape', [unit, g.integers([hiddenSize, 1])]);
  const component = g.node('MatMul', [x, column]);
  if (kind === 'clamp') return g.node('Mul', [g.node('Sub', [scale, component]), unit]);
  const removed = g.node('Neg', [g.node('Mul', [component, unit])]);
  return kind === 'ablate' ? removed : g.node('Add', [removed, step]);
}

/** |x| (cos c e + sin c f) - x with e = x / |x| and f the unit vector of v's part orthogonal to x. */
function turn(g: GraphComposer, x: string, vector: string, angle: string): string {
  const length = rowNorm(g, x);
  const squared = g.node('Max', [g.node('Mul', [length, length]), g.scalar(TINY)]);
  const along = g.node('Div', [rowSum(g, g.node('Mul', [x, vector])), squared]);
  const side = g.node('Sub', [vector, g.node('Mul', [x, along])]);
  const sideLength = rowNorm(g, side);
  const least = g.node('Mul', [rowNorm(g, vector), g.scalar(PARALLEL)]);
  const turns = g.node('Greater', [sideLength, least]);
  // 1 - cos c = 2 sin^2(c / 2).
  const half = g.node('Sin', [g.node('Mul', [angle, g.scalar(0.5)])]);
  const shorter = g.node('Mul', [x, g.node('Mul', [g.node('Mul', [half, half]), g.scalar(-2)])]);
  const reach = g.node('Mul', [length, g.node('Sin', [angle])]);
  const sideways = g.node('Mul', [side, g.node('Div', [reach, g.node('Max', [sideLength, g.scalar(TINY)])])]);
  return g.node('Where', [turns, g.node('Add', [shorter, sideways]), g.node('Mul', [x, g.scalar(0)])]);
}

function rowSum(g: GraphComposer, value: string): string {
  return g.node('ReduceSum', [value, g.integers([-1])], { attributes: { keepdims: { int: 1 } } });
}

function rowNorm(g: GraphComposer, x: string): string {
  return g.node('Sqrt', [rowSum(g, g.node('Mul', [x, x]))]);
}
