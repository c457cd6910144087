import { describe, expect, it } from 'vitest';
import { createRandom } from '../src/random.js';

const MASK = (1n << 64n) - 1n;
const rotate = (x: bigint, k: bigint): bigint => ((x << k) | (x >> (64n - k))) & MASK;

/** xoshiro256** seeded by splitmix64, as its authors state it. */
function reference(seed: bigint): () => bigint {
  let state = BigInt.asUintN(64, seed);
  const s = Array.from({ length: 4 }, () => {
    state = (state + 0x9e3779b97f4a7c15n) & MASK;
    let z = state;
    z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK;
    z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & MASK;
    return z ^ (z >> 31n);
  });
  return () => {
    const result = (rotate((s[1] * 5n) & MASK, 7n) * 9n) & MASK;
    const t = (s[1] << 17n) & MASK;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate(s[3], 45n);
    return result;
  };
}

describe('createRandom', () => {
  it('gives the 64-bit numbers of xoshiro256**', () => {
    for (const seed of [0n, 1n, 123456789n, MASK, -5n]) {
      const next = reference(seed);
      const random = createRandom(seed);
      for (let i = 0; i < 500; i++) expect(random.next64()).toBe(next());
    }
  });

  it('takes the upper 53 bits for uniform numbers', () => {
    const next = reference(7n);
    const random = createRandom(7);
    for (let i = 0; i < 500; i++) expect(random.uniform()).toBe(Number(next() >> 11n) / 2 ** 53);
  });

  it.each([1, 2, 3, 10, 65_536, 1_000_003, 2 ** 21, 2 ** 21 + 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 40 + 1])(
    'draws integers below %d as remainders without bias',
    (bound) => {
      const next = reference(11n);
      const random = createRandom(11);
      const b = BigInt(bound);
      const limit = MASK + 1n - ((MASK + 1n) % b);
      for (let i = 0; i < 500; i++) {
        let x = next();
        while (x >= limit) x = next();
        expect(random.integer(bound)).toBe(Number(x % b));
      }
    },
  );
});
