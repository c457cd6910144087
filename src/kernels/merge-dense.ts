import { DTYPE_BYTES } from '../formats/tensor.js';
import { DTYPE_CODES } from './dtypes.js';
import {
  combineElementsReference,
  type ElementGroups,
  GRAM_BLOCK,
  gramBlocksReference,
  gramColumnsReference,
  groupCount,
  pairCount,
  type StoredElements,
  swapNearReference,
} from './merge-dense-reference.js';
import { kernelThreads, nativeKernels } from './native.js';

export { type ElementGroups, groupCount, pairCount, type StoredElements } from './merge-dense-reference.js';

export interface DenseOptions {
  /**
   * The first input is a base: each of the others counts as its difference from the base, rounded to f32, or to f64
   * where an input is F64.
   */
  readonly relative?: boolean;
  readonly threads?: number;
}

export interface GramOptions extends DenseOptions {
  /**
   * Instead of all dot products, the square of one vector: sum over i of c_i x_i, formed element by element, so that
   * vectors which cancel leave nothing but their own rounding. Not for columns.
   */
  readonly combination?: Float64Array;
}

/** kMostMergeInputs of native/src/merge_dense.hpp; more go through the reference. */
const MOST_INPUTS = 64;
const GROUP_KINDS: readonly ElementGroups['along'][] = ['all', 'rows', 'columns'];

/** Number of an element type in the addon. */
export function codeOf(elements: StoredElements): number {
  return DTYPE_CODES.indexOf(elements.dtype);
}

/** Numbers of the element types of several tensors. */
export function codesOf(inputs: readonly StoredElements[]): Int32Array {
  return Int32Array.from(inputs, codeOf);
}

/** All elements of a tensor as one group. */
export function allElements(elements: number): ElementGroups {
  return { rows: 1, columns: elements, along: 'all' };
}

function checkLengths(inputs: readonly StoredElements[], groups: ElementGroups, output?: StoredElements): void {
  const elements = groups.rows * groups.columns;
  for (const { dtype, bytes } of output === undefined ? inputs : [...inputs, output]) {
    if (bytes.length !== elements * DTYPE_BYTES[dtype]) {
      throw new RangeError(
        `${elements} elements of ${dtype} take ${elements * DTYPE_BYTES[dtype]} bytes, not ${bytes.length}`,
      );
    }
  }
  if (inputs.length === 0) throw new RangeError('no inputs');
}

/**
 * Weighted sum of stored elements: output = sum over i of c_i x_i, each product and sum in f64 in the order of the
 * inputs, rounded once (f64 to f32 to the output's type). Coefficients are [inputs, groups]: each group of elements has
 * its own. The same bits whatever the number of threads and the instruction set.
 * @throws RangeError when lengths disagree
 */
export function combineElements(
  inputs: readonly StoredElements[],
  coefficients: Float64Array,
  output: StoredElements,
  groups: ElementGroups,
  options: DenseOptions = {},
): void {
  checkLengths(inputs, groups, output);
  if (coefficients.length !== inputs.length * groupCount(groups)) {
    throw new RangeError(
      `${coefficients.length} coefficients of ${inputs.length} inputs in ${groupCount(groups)} groups`,
    );
  }
  const { relative = false, threads } = options;
  const native = inputs.length <= MOST_INPUTS ? nativeKernels() : undefined;
  if (native === undefined) {
    combineElementsReference(inputs, coefficients, output, groups, relative);
    return;
  }
  native.mergeCombine(
    inputs.map((input) => input.bytes),
    codesOf(inputs),
    groups.rows,
    groups.columns,
    Number(relative),
    coefficients,
    GROUP_KINDS.indexOf(groups.along),
    output.bytes,
    codeOf(output),
    kernelThreads(threads),
  );
}

/**
 * Dot products of stored vectors, one Gram matrix for each group of elements: [groups, pairs] with the pairs (0, 0),
 * (0, 1) ... (1, 1) ... of the inputs, with `relative` of the differences of all but the first from the first. Sums are
 * f64 over fixed blocks in a fixed order: the same bits whatever the number of threads and the instruction set.
 * @throws RangeError when lengths disagree
 */
export function gramOfElements(
  inputs: readonly StoredElements[],
  groups: ElementGroups,
  options: GramOptions = {},
): Float64Array {
  checkLengths(inputs, groups);
  const { relative = false, combination, threads } = options;
  const vectors = inputs.length - (relative ? 1 : 0);
  const pairs = combination === undefined ? pairCount(vectors) : 1;
  const { rows, columns, along } = groups;
  if (combination !== undefined && (combination.length !== vectors || along === 'columns')) {
    throw new RangeError(`a combination of ${combination.length} of ${vectors} vectors along ${along}`);
  }
  const native = inputs.length <= MOST_INPUTS ? nativeKernels() : undefined;
  const bytes = inputs.map((input) => input.bytes);
  const codes = codesOf(inputs);
  if (along === 'columns') {
    const result = new Float64Array(columns * pairs);
    if (native === undefined) gramColumnsReference(inputs, rows, columns, relative, result);
    else native.mergeGramColumns(bytes, codes, rows, columns, Number(relative), result, kernelThreads(threads));
    return result;
  }
  const [count, length] = along === 'rows' ? [rows, columns] : [1, rows * columns];
  const blocks = Math.ceil(length / GRAM_BLOCK);
  const partial = new Float64Array(count * blocks * pairs);
  if (native === undefined) gramBlocksReference(inputs, count, length, relative, combination, partial);
  else {
    const settings = [Number(relative), combination ?? null] as const;
    native.mergeGramBlocks(bytes, codes, count, length, ...settings, partial, kernelThreads(threads));
  }
  const result = new Float64Array(count * pairs);
  for (let group = 0; group < count; group++) {
    for (let block = 0; block < blocks; block++) {
      const at = (group * blocks + block) * pairs;
      for (let pair = 0; pair < pairs; pair++) result[group * pairs + pair] += partial[at + pair];
    }
  }
  return result;
}

/**
 * Two stored tensors mixed element by element: g b + (1 - g) a with g = clamp(t / max(|a - b|, 1e-6), 0, 1). The
 * difference is rounded to f32 (f64 where an input is F64), all else is f64 and rounded once.
 * @throws RangeError when lengths disagree
 */
export function swapNear(
  a: StoredElements,
  b: StoredElements,
  t: number,
  output: StoredElements,
  threads?: number,
): void {
  const elements = output.bytes.length / DTYPE_BYTES[output.dtype];
  checkLengths([a, b], allElements(elements), output);
  const native = nativeKernels();
  if (native === undefined) {
    swapNearReference(a, b, t, output);
    return;
  }
  const pair = [a.bytes, codeOf(a), b.bytes, codeOf(b)] as const;
  native.mergeSwapNear(...pair, elements, t, output.bytes, codeOf(output), kernelThreads(threads));
}
