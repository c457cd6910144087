/**
 * Seeded pseudo-random generator: xoshiro256** (Blackman & Vigna 2018) seeded by splitmix64. The same seed gives the
 * same numbers on every machine; `fork(key)` gives an independent stream, so that results do not depend on the order
 * in which documents, rows or threads are served.
 */
export interface Random {
  /** A 64-bit unsigned integer. */
  next64(): bigint;
  /** Uniform on [0, 1) with 53 bits. */
  uniform(): number;
  /** Standard normal (Box-Muller, both values used). */
  normal(): number;
  /** Uniform integer on 0..bound-1, without modulo bias. */
  integer(bound: number): number;
  /** Fisher-Yates permutation of 0..n-1. */
  permutation(n: number): Int32Array;
  /** An independent generator for the stream `key`. */
  fork(key: number): Random;
}

const MASK = (1n << 64n) - 1n;
const rotateLeft = (x: bigint, k: bigint): bigint => ((x << k) | (x >> (64n - k))) & MASK;

function splitmix64(state: bigint): { value: bigint; state: bigint } {
  const next = (state + 0x9e3779b97f4a7c15n) & MASK;
  let z = next;
  z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK;
  z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & MASK;
  return { value: z ^ (z >> 31n), state: next };
}

export function createRandom(seed: number | bigint): Random {
  const root = BigInt.asUintN(64, BigInt(seed));
  const s: bigint[] = [];
  let state = root;
  for (let i = 0; i < 4; i++) {
    const step = splitmix64(state);
    s.push(step.value);
    state = step.state;
  }
  let spare: number | undefined;
  const next64 = (): bigint => {
    const result = (rotateLeft((s[1] * 5n) & MASK, 7n) * 9n) & MASK;
    const t = (s[1] << 17n) & MASK;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotateLeft(s[3], 45n);
    return result;
  };
  const uniform = (): number => Number(next64() >> 11n) / 9007199254740992;
  const random: Random = {
    next64,
    uniform,
    normal(): number {
      if (spare !== undefined) {
        const value = spare;
        spare = undefined;
        return value;
      }
      const radius = Math.sqrt(-2 * Math.log(1 - uniform()));
      const angle = 2 * Math.PI * uniform();
      spare = radius * Math.sin(angle);
      return radius * Math.cos(angle);
    },
    integer(bound: number): number {
      const b = BigInt(bound);
      const limit = MASK + 1n - ((MASK + 1n) % b);
      let x = next64();
      while (x >= limit) x = next64();
      return Number(x % b);
    },
    permutation(n: number): Int32Array {
      const order = Int32Array.from({ length: n }, (_, i) => i);
      for (let i = n - 1; i > 0; i--) {
        const j = random.integer(i + 1);
        const held = order[i];
        order[i] = order[j];
        order[j] = held;
      }
      return order;
    },
    fork(key: number): Random {
      return createRandom(splitmix64((root ^ (BigInt(key) * 0xd1342543de82ef95n)) & MASK).value);
    },
  };
  return random;
}
