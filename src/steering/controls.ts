import { createRandom } from '../random.js';
import { norm } from './vector-measures.js';

/** Streams of a seed: the two controls of one seed do not share numbers. */
const SHUFFLE_STREAM = 0x73687566;
const RANDOM_STREAM = 0x72616e64;

/** Entry i of the result is entry `order[i]` of the vector. */
export function permutedVector(vector: ArrayLike<number>, order: ArrayLike<number>): Float64Array {
  return Float64Array.from({ length: vector.length }, (_, i) => vector[order[i]]);
}

/**
 * The vector with its coordinates in a random order: equal norm and equal values, another direction. The control of
 * Rahn, D'Oro & Bellemare 2024.
 */
export function shuffledVector(vector: ArrayLike<number>, seed: number): Float32Array {
  const order = createRandom(seed).fork(SHUFFLE_STREAM).permutation(vector.length);
  return Float32Array.from(permutedVector(vector, order));
}

/** A vector of the same norm in a direction that is uniform on the sphere. */
export function randomVector(vector: ArrayLike<number>, seed: number): Float32Array {
  const random = createRandom(seed).fork(RANDOM_STREAM);
  const drawn = Float64Array.from({ length: vector.length }, () => random.normal());
  const scale = norm(vector) / norm(drawn);
  return Float32Array.from(drawn, (value) => scale * value);
}
