import { DTYPE_BYTES } from '../formats/tensor.js';
import {
  combineElementsReference,
  type ElementGroups,
  GRAM_BLOCK,
  gramBlocksReference,
  gramColumnsReference,
  groupCount,
  pairCount,
  type StoredElements,
} from './merge-dense-reference.js';

export { type ElementGroups, groupCount, pairCount, type StoredElements } from './merge-dense-reference.js';

export interface DenseOptions {
  /**
   * The first input is a base: each of the others counts as its difference from the base, rounded to f32, or to f64
   * where an input is F64.
   */
  readonly relative?: boolean;
  readonly threads?: number;
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
  combineElementsReference(inputs, coefficients, output, groups, options.relative ?? false);
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
  options: DenseOptions = {},
): Float64Array {
  checkLengths(inputs, groups);
  const relative = options.relative ?? false;
  const pairs = pairCount(inputs.length - (relative ? 1 : 0));
  const { rows, columns, along } = groups;
  if (along === 'columns') {
    const result = new Float64Array(columns * pairs);
    gramColumnsReference(inputs, rows, columns, relative, result);
    return result;
  }
  const [count, length] = along === 'rows' ? [rows, columns] : [1, rows * columns];
  const blocks = Math.ceil(length / GRAM_BLOCK);
  const partial = new Float64Array(count * blocks * pairs);
  gramBlocksReference(inputs, count, length, relative, partial);
  const result = new Float64Array(count * pairs);
  for (let group = 0; group < count; group++) {
    for (let block = 0; block < blocks; block++) {
      const at = (group * blocks + block) * pairs;
      for (let pair = 0; pair < pairs; pair++) result[group * pairs + pair] += partial[at + pair];
    }
  }
  return result;
}
