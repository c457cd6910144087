import { decodeIndex, encodeIndex } from '../../src/kernels/pyramid-index.js';
import type { Json } from './harness.js';
import { numbers } from './tensors.js';

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  if (wanted === null || typeof wanted !== 'object') throw new TypeError('expected is not an object');
  const lengths = numbers(inputs.D, 'D');
  const pulseCounts = numbers(inputs.K, 'K');
  if (!Array.isArray(inputs.pulses)) throw new TypeError('pulses is not a list');
  const index = inputs.pulses.map((pulses, i) => {
    const word = numbers(pulses, 'pulses');
    const found = encodeIndex(word, pulseCounts[i]);
    const back = decodeIndex(found, lengths[i], pulseCounts[i]);
    if (word.some((value, j) => value !== back[j])) throw new Error(`index ${found} decodes to [${back}]`);
    return String(found);
  });
  return { index };
}
