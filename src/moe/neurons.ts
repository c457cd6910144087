import type { ExpertMatrices, ExpertShape } from './types.js';

/** @throws RangeError when a matrix of the expert does not fit the shape, or a gate is missing or not expected */
export function checkExpert(name: string, expert: ExpertMatrices, shape: ExpertShape): void {
  const size = shape.hidden * shape.width;
  const { gate, up, down } = expert;
  if (shape.gated !== (gate !== undefined)) {
    throw new RangeError(shape.gated ? `${name} lacks a gate matrix` : `${name} has a gate matrix, its layer has none`);
  }
  for (const matrix of [gate ?? up, up, down]) {
    if (matrix.length === size) continue;
    throw new RangeError(`${name}: ${matrix.length} entries where [${shape.width}, ${shape.hidden}] has ${size}`);
  }
}

/** @throws RangeError when this is no permutation of 0..size-1 */
export function checkPermutation(permutation: Int32Array, size: number): void {
  if (permutation.length !== size) throw new RangeError(`a permutation of ${permutation.length} neurons, not ${size}`);
  const seen = new Uint8Array(size);
  for (const place of permutation) {
    if (place < 0 || place >= size) throw new RangeError(`a permutation of ${size} neurons holds ${place}`);
    if (seen[place] === 1) throw new RangeError(`a permutation of ${size} neurons holds ${place} twice`);
    seen[place] = 1;
  }
}
