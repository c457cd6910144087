import { createRandom } from '../random.js';
import type { Floats } from './types.js';

/**
 * values <- values + deviation * N(0, 1), entry by entry. The numbers are those of stream `step` of the seed: a run that
 * resumes draws what the unbroken one would have drawn.
 */
export function addLangevinNoise(values: Floats, deviation: number, seed: number, step: number): void {
  if (deviation === 0) return;
  const random = createRandom(seed).fork(step);
  for (let i = 0; i < values.length; i++) values[i] += deviation * random.normal();
}
