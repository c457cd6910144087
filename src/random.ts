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
/** Up to this bound, sixteen bits more than a remainder are still an exact number, and the excess is below 2^32. */
const MOST_EXACT = 2 ** 32;

/** 2^64 modulo `bound`, sixteen bits at a time. */
const excessOver = (bound: number): number => ((((4294967296 % bound) * 65536) % bound) * 65536) % bound;

/** One step of SplitMix64 (Steele, Lea & Flood 2014): the number drawn and the next state, both of 64 bits. */
export function splitmix64(state: bigint): { value: bigint; state: bigint } {
  const next = (state + 0x9e3779b97f4a7c15n) & MASK;
  let z = next;
  z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK;
  z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & MASK;
  return { value: z ^ (z >> 31n), state: next };
}

export function createRandom(seed: number | bigint): Random {
  const root = BigInt.asUintN(64, BigInt(seed));
  // The four words of the state as pairs of 32-bit halves: BigInt would be twenty times slower.
  const high = new Int32Array(4);
  const low = new Int32Array(4);
  let state = root;
  for (let i = 0; i < 4; i++) {
    const step = splitmix64(state);
    high[i] = Number(step.value >> 32n);
    low[i] = Number(step.value & 0xffffffffn);
    state = step.state;
  }
  let [h0, h1, h2, h3] = high;
  let [l0, l1, l2, l3] = low;
  // Halves of the last number drawn, unsigned.
  let top = 0;
  let bottom = 0;
  const advance = (): void => {
    // rotl(s1 * 5, 7) * 9, each product as a shift and an addition.
    let sum = (l1 >>> 0) + ((l1 << 2) >>> 0);
    let lower = sum | 0;
    let upper = (h1 + ((h1 << 2) | (l1 >>> 30)) + (sum > 0xffffffff ? 1 : 0)) | 0;
    const turnedUpper = (upper << 7) | (lower >>> 25);
    const turnedLower = (lower << 7) | (upper >>> 25);
    sum = (turnedLower >>> 0) + ((turnedLower << 3) >>> 0);
    lower = sum | 0;
    upper = (turnedUpper + ((turnedUpper << 3) | (turnedLower >>> 29)) + (sum > 0xffffffff ? 1 : 0)) | 0;
    top = upper >>> 0;
    bottom = lower >>> 0;
    const shiftedHigh = (h1 << 17) | (l1 >>> 15);
    const shiftedLow = l1 << 17;
    h2 ^= h0;
    l2 ^= l0;
    h3 ^= h1;
    l3 ^= l1;
    h1 ^= h2;
    l1 ^= l2;
    h0 ^= h3;
    l0 ^= l3;
    h2 ^= shiftedHigh;
    l2 ^= shiftedLow;
    // rotl(s3, 45): the halves change places and turn by 13.
    const heldHigh = h3;
    h3 = (l3 << 13) | (heldHigh >>> 19);
    l3 = (heldHigh << 13) | (l3 >>> 19);
  };
  let spare: number | undefined;
  const uniform = (): number => {
    advance();
    // The upper 53 bits.
    return (top * 2097152 + (bottom >>> 11)) / 9007199254740992;
  };
  const random: Random = {
    next64(): bigint {
      advance();
      return (BigInt(top) << 32n) | BigInt(bottom);
    },
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
      if (bound <= MOST_EXACT) {
        for (;;) {
          advance();
          // Numbers of the last, incomplete multiple of `bound` are drawn anew.
          if (top === 0xffffffff && bottom >= 4294967296 - excessOver(bound)) continue;
          if (bound <= 2097152) return ((top % bound) * 4294967296 + bottom) % bound;
          const upper = ((top % bound) * 65536 + (bottom >>> 16)) % bound;
          return (upper * 65536 + (bottom & 0xffff)) % bound;
        }
      }
      const b = BigInt(bound);
      const limit = MASK + 1n - ((MASK + 1n) % b);
      let x = random.next64();
      while (x >= limit) x = random.next64();
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
