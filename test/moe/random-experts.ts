import type { ExpertMatrices, ExpertShape } from '../../src/moe/types.js';
import { createRandom } from '../../src/random.js';

/** Standard normal numbers of a stream of their own. */
export function normals(length: number, key: number): Float64Array {
  const random = createRandom(3).fork(key);
  return Float64Array.from({ length }, () => random.normal());
}

/** An expert with entries of about the size of trained ones. */
export function randomExpert(shape: ExpertShape, key: number): ExpertMatrices {
  const size = shape.hidden * shape.width;
  const scaled = (values: Float64Array, columns: number) => values.map((value) => value / Math.sqrt(columns));
  const up = scaled(normals(size, 1000 + 3 * key), shape.hidden);
  const down = scaled(normals(size, 1001 + 3 * key), shape.width);
  return shape.gated ? { gate: scaled(normals(size, 1002 + 3 * key), shape.hidden), up, down } : { up, down };
}
