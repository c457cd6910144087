import { multiply } from '../kernels/gemm.js';
import { activateInner } from '../kernels/inner-activation.js';
import type { Floats } from '../models/layer-runner.js';
import { checkExpert } from './neurons.js';
import type { ExpertMatrices, ExpertShape } from './types.js';

/** Inner activations of a block of rows: what a call holds beside its arguments is twice this. */
const BLOCK_BYTES = 32 * 2 ** 20;

export interface ExpertRunOptions {
  /** Receives the inner activations, the input of the down projection, [rows, I]. */
  readonly hidden?: Floats;
  /** Receives the outputs, [rows, H]; default a new array. */
  readonly out?: Floats;
  /** Results are the same bits whatever the number. */
  readonly threads?: number;
}

/** An array of `length` elements as wide as those of `like`. */
export function floatsLike(like: Floats, length: number): Floats {
  return like instanceof Float32Array ? new Float32Array(length) : new Float64Array(length);
}

/** @throws RangeError for a matrix of another size, TypeError for one of another width */
function checkRows(expert: ExpertMatrices, shape: ExpertShape, x: Floats, rows: number): void {
  checkExpert('an expert', expert, shape);
  for (const matrix of [expert.gate ?? expert.up, expert.up, expert.down]) {
    if (matrix instanceof Float32Array !== x instanceof Float32Array) {
      throw new TypeError('the matrices of an expert and the rows that it runs on differ in width');
    }
  }
  if (rows * shape.hidden > x.length) {
    throw new RangeError(`x: [${rows}, ${shape.hidden}] needs more than ${x.length} elements`);
  }
}

/**
 * Inner activations of an expert, act(x G^T) * (x U^T), or act(x U^T) without a gate.
 *
 * @param x [rows, H], of the precision of the matrices
 * @param inner receives [rows, I]
 */
export function runInner(
  expert: ExpertMatrices,
  shape: ExpertShape,
  x: Floats,
  rows: number,
  inner: Floats,
  options: { readonly threads?: number } = {},
): void {
  const sizes = { m: rows, n: shape.width, k: shape.hidden };
  const product = { transposeB: true, ...options };
  multiply(x, expert.up, inner, sizes, product);
  const used = inner.subarray(0, rows * shape.width);
  const gate =
    expert.gate === undefined ? undefined : multiply(x, expert.gate, floatsLike(x, used.length), sizes, product);
  activateInner(shape.activation, used, gate, options.threads);
}

/**
 * Output of one expert: y = D (act(G x) * U x), or y = D act(U x) without a gate (Switch), in the precision of its
 * arguments, f32 or f64. Rows run in blocks, so that inner activations of wide experts stay small.
 *
 * @param x [rows, H], of the precision of the matrices
 * @returns [rows, H]
 * @throws RangeError when a matrix does not fit the shape, TypeError when precisions differ
 */
export function runExpert(
  expert: ExpertMatrices,
  shape: ExpertShape,
  x: Floats,
  rows: number,
  options: ExpertRunOptions = {},
): Floats {
  checkRows(expert, shape, x, rows);
  const { hidden: size, width } = shape;
  const { threads } = options;
  const out = options.out ?? floatsLike(x, rows * size);
  const block = Math.max(1, Math.floor(BLOCK_BYTES / (width * x.BYTES_PER_ELEMENT)));
  // Without a place to leave them, the inner activations of all blocks share one.
  const kept = options.hidden;
  const inners = kept ?? floatsLike(x, Math.min(block, rows) * width);
  for (let from = 0; from < rows; from += block) {
    const count = Math.min(block, rows - from);
    const inner = inners.subarray(kept === undefined ? 0 : from * width);
    runInner(expert, shape, x.subarray(from * size, (from + count) * size), count, inner, { threads });
    const target = out.subarray(from * size, (from + count) * size);
    multiply(inner, expert.down, target, { m: count, n: size, k: width }, { transposeB: true, threads });
  }
  return out;
}
