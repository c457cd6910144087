import type { RuleContext } from '../types.js';
import { type Emitter, extentsBetween } from './shape-arithmetic.js';

/** Windows of a convolution or a pool over `dims` spatial axes. */
export interface Window {
  readonly dims: number;
  readonly kernel: readonly number[];
  readonly strides: readonly number[];
  readonly dilations: readonly number[];
  /** Begins, then ends. Zeros where `same` says how they follow from the extents. */
  readonly pads: readonly number[];
  readonly group: number;
  /** The side that gets the odd row where pads keep ceil(extent / stride) outputs. */
  readonly same?: 'upper' | 'lower';
}

/** Reads the window of a node. @param kernel extents where the node does not name them */
export function readWindow(
  g: Pick<RuleContext, 'intsAttribute' | 'intAttribute' | 'stringAttribute'>,
  kernel: readonly number[],
): Window {
  const own = g.intsAttribute('kernel_shape') ?? kernel;
  const dims = own.length;
  const fill = (value: number, count = dims): number[] => new Array<number>(count).fill(value);
  const mode = g.stringAttribute('auto_pad', 'NOTSET');
  const same = mode === 'SAME_UPPER' ? 'upper' : mode === 'SAME_LOWER' ? 'lower' : undefined;
  const explicit = mode === 'NOTSET' || mode === '';
  return {
    dims,
    kernel: own,
    strides: g.intsAttribute('strides') ?? fill(1),
    dilations: g.intsAttribute('dilations') ?? fill(1),
    pads: (explicit ? g.intsAttribute('pads') : undefined) ?? fill(0, 2 * dims),
    group: g.intAttribute('group', 1),
    ...(same && { same }),
  };
}

/** Begins and ends of the pads as int64 vectors; from the extents of the input where the node leaves them open. */
export function runtimePads(g: Emitter, x: string, window: Window): { begin: string; end: string } {
  const { dims, kernel, strides, dilations, pads, same } = window;
  if (same === undefined) return { begin: g.integers(pads.slice(0, dims)), end: g.integers(pads.slice(dims)) };
  const extent = extentsBetween(g, x, 2, 2 + dims);
  const steps = g.emit('Div', [g.emit('Sub', [extent, g.integers([1])]), g.integers(strides)]);
  const reach = g.integers(kernel.map((size, i) => dilations[i] * (size - 1) + 1));
  const covered = g.emit('Add', [g.emit('Mul', [steps, g.integers(strides)]), reach]);
  const missing = g.emit('Max', [g.emit('Sub', [covered, extent]), g.integers([0])]);
  const half = g.emit('Div', [missing, g.integers([2])]);
  const rest = g.emit('Sub', [missing, half]);
  return same === 'upper' ? { begin: half, end: rest } : { begin: rest, end: half };
}
