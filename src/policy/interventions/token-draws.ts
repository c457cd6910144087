import { philox } from '../../kernels/merge-masks-reference.js';
import { createRandom } from '../../random.js';

/**
 * Uniform numbers on [0, 1) with 53 bits, one a token of a step: a function of seed, step and position alone (Philox4x32-10,
 * Salmon et al. 2011), so that they do not depend on which tokens are asked for, nor in which order.
 */
export function tokenDraws(seed: number, step: number): (flat: number) => number {
  const word = createRandom(seed).fork(step).next64();
  const key: [number, number] = [Number(word & 0xffffffffn), Number(word >> 32n)];
  const counter: [number, number, number, number] = [0, 0, 0, 0];
  const out = new Uint32Array(4);
  return (flat) => {
    counter[0] = flat >>> 0;
    counter[1] = Math.floor(flat / 4294967296);
    philox(counter, key, out);
    return ((out[0] >>> 5) * 67108864 + (out[1] >>> 6)) / 9007199254740992;
  };
}
