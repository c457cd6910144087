import { createRandom, splitmix64 } from '../random.js';
import { jacobsthalMatrix, primePower } from './finite-field.js';

/** How the orthogonal matrix of a width is made. */
export type RotationKind = 'sylvester' | 'paley1' | 'paley2' | 'blocks' | 'none';

/** Greatest core of a rotation: its work is core/4 additions a weight. */
export const LARGEST_CORE = 1024;

/** Stream of the permutation before block-diagonal rotations. */
const PERMUTATION_STREAM = 1;

/** What a file keeps of a rotation beside its sign bits. */
export interface RotationRecord {
  readonly kind: RotationKind;
  /** Order c of the Hadamard matrix that is no power of two; 1 where there is none. */
  readonly core: number;
  /** Decimal, for 64 bits do not fit a number of JSON. */
  readonly seed: string;
  /** Blocks on the diagonal: 1, or more where `kind` is 'blocks'. */
  readonly blocks: number;
}

/**
 * The orthogonal matrix Q of a width n = blocks · core · segment: `y = Qx = n^-1/2 (H_core ⊗ H_segment)(s ∘ x)`, where
 * coordinate `i · segment + j` of x has core index i. With more blocks than one, `y = segment^-1/2 (I ⊗ H_segment) P(s ∘ x)`
 * with `(Px)[i] = x[permutation[i]]`. Kind 'none' leaves vectors as they are. Plain data: it may be posted to threads.
 */
export interface Rotation extends RotationRecord {
  /** n. */
  readonly length: number;
  /** Order of the Sylvester factor, a power of two. */
  readonly segment: number;
  /** Sign bits, coordinate 8k + b at bit b of byte k, 1 for -1; empty for 'none'. */
  readonly signs: Uint8Array;
  /** Only of kind 'blocks'; follows from the seed. */
  readonly permutation?: Int32Array;
}

/** A Hadamard matrix of order `core` times one of a power of two. */
export interface CorePlan {
  readonly kind: 'sylvester' | 'paley1' | 'paley2';
  readonly core: number;
}

/** The largest power of two that divides n. */
function powerOfTwoIn(n: number): number {
  let power = 1;
  while (n % (2 * power) === 0) power *= 2;
  return power;
}

/** Which construction of Paley (1933) gives a Hadamard matrix of order c, if one does. */
function paleyKind(c: number): 'paley1' | 'paley2' | undefined {
  if ((c - 1) % 4 === 3 && primePower(c - 1) !== undefined) return 'paley1';
  if ((c / 2 - 1) % 4 === 1 && primePower(c / 2 - 1) !== undefined) return 'paley2';
  return undefined;
}

/**
 * The core of a width n = m 2^q, m odd: none for m = 1, else the smallest of 4m, 8m, ... that divides n and for which
 * Paley's first or second construction gives a Hadamard matrix. Undefined where none does; cores of any size are
 * found, those above `LARGEST_CORE` are not used by `planRotation`.
 * @throws RangeError when n is no positive integer
 */
export function planCore(n: number): CorePlan | undefined {
  if (!Number.isInteger(n) || n < 1) throw new RangeError(`no width has ${n} coordinates`);
  const odd = n / powerOfTwoIn(n);
  if (odd === 1) return { kind: 'sylvester', core: 1 };
  for (let core = 4 * odd; n % core === 0; core *= 2) {
    const kind = paleyKind(core);
    if (kind !== undefined) return { kind, core };
  }
  return undefined;
}

/** I + [[0, 1], [-1, Q]], of order q + 1 with q = 3 modulo 4. */
function paleyFirst(core: number): Int8Array {
  const q = core - 1;
  const jacobsthal = jacobsthalMatrix(q);
  const matrix = new Int8Array(core * core);
  for (let j = 0; j < core; j++) matrix[j] = 1;
  for (let i = 0; i < q; i++) {
    const row = (i + 1) * core;
    matrix[row] = -1;
    matrix.set(jacobsthal.subarray(i * q, (i + 1) * q), row + 1);
    matrix[row + i + 1] = 1;
  }
  return matrix;
}

/** C ⊗ [[1, 1], [1, -1]] + I ⊗ [[1, -1], [-1, -1]] with C = [[0, 1], [1, Q]], of order 2(q + 1) with q = 1 modulo 4. */
function paleySecond(core: number): Int8Array {
  const order = core / 2;
  const q = order - 1;
  const jacobsthal = jacobsthalMatrix(q);
  const matrix = new Int8Array(core * core);
  for (let i = 0; i < order; i++) {
    for (let j = 0; j < order; j++) {
      const c = i === 0 || j === 0 ? 1 : jacobsthal[(i - 1) * q + j - 1];
      const at = 2 * i * core + 2 * j;
      matrix[at] = i === j ? 1 : c;
      matrix[at + 1] = i === j ? -1 : c;
      matrix[at + core] = i === j ? -1 : c;
      matrix[at + core + 1] = i === j ? -1 : -c;
    }
  }
  return matrix;
}

function countOnes(word: number): number {
  let w = word - ((word >>> 1) & 0x55555555);
  w = (w & 0x33333333) + ((w >>> 2) & 0x33333333);
  return Math.imul((w + (w >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

/** Whether H Hᵀ = c I for entries of 1 and -1: rows as bits differ in exactly half of their places. */
export function isHadamard(matrix: Int8Array, order: number): boolean {
  if (matrix.length !== order * order || !matrix.every((entry) => entry === 1 || entry === -1)) return false;
  const words = Math.ceil(order / 32);
  const bits = new Int32Array(order * words);
  for (let i = 0; i < order; i++) {
    for (let j = 0; j < order; j++) {
      if (matrix[i * order + j] < 0) bits[i * words + (j >> 5)] |= 1 << (j & 31);
    }
  }
  for (let i = 0; i < order; i++) {
    for (let k = 0; k < i; k++) {
      let differing = 0;
      for (let w = 0; w < words; w++) differing += countOnes(bits[i * words + w] ^ bits[k * words + w]);
      if (2 * differing !== order) return false;
    }
  }
  return true;
}

const cores = new Map<number, Int8Array>();

/**
 * The Hadamard matrix [core, core] of a plan, entries 1 and -1 (Paley 1933). Made and checked once for each order.
 * @throws RangeError when the construction does not exist at this order
 */
export function hadamardCore(plan: CorePlan): Int8Array {
  const { kind, core } = plan;
  if (kind === 'sylvester' ? core !== 1 : paleyKind(core) !== kind) {
    throw new RangeError(`there is no ${kind} core of order ${core}`);
  }
  const known = cores.get(core);
  if (known !== undefined) return known;
  const matrix = kind === 'sylvester' ? Int8Array.of(1) : kind === 'paley1' ? paleyFirst(core) : paleySecond(core);
  if (!isHadamard(matrix, core)) throw new RangeError(`the ${kind} core of order ${core} is no Hadamard matrix`);
  cores.set(core, matrix);
  return matrix;
}

/**
 * Sign bits of n coordinates: bit b of word w of SplitMix64 (Steele, Lea & Flood 2014) from `seed` is that of
 * coordinate 64w + b, 1 for -1. Words are stored little-endian, ceil(n / 8) bytes; bits beyond n are zero.
 */
export function signBits(n: number, seed: bigint): Uint8Array {
  const words = new BigUint64Array(Math.ceil(n / 64));
  let state = BigInt.asUintN(64, seed);
  for (let w = 0; w < words.length; w++) {
    const step = splitmix64(state);
    words[w] = step.value;
    state = step.state;
  }
  const bytes = new Uint8Array(Math.ceil(n / 8));
  for (let k = 0; k < bytes.length; k++) bytes[k] = Number((words[k >> 3] >> BigInt(8 * (k & 7))) & 0xffn);
  if (n % 8 !== 0) bytes[bytes.length - 1] &= (1 << (n % 8)) - 1;
  return bytes;
}

/** Signs 1 and -1 of n coordinates from their bits. */
export function signsFromBits(bits: Uint8Array, n: number): Int8Array {
  const signs = new Int8Array(n);
  for (let i = 0; i < n; i++) signs[i] = (bits[i >> 3] >> (i & 7)) & 1 ? -1 : 1;
  return signs;
}

const FNV_OFFSET = 0xcbf29ce484222325n;
const FNV_PRIME = 0x100000001b3n;

/** FNV-1a of 64 bits over the bytes of a name in UTF-8. */
function nameHash(name: string): bigint {
  let hash = FNV_OFFSET;
  for (const byte of new TextEncoder().encode(name)) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * FNV_PRIME);
  return hash;
}

/** The seed of one tensor's rotation: SplitMix64 of the global seed xor FNV-1a-64 of the tensor's name. */
export function tensorSeed(globalSeed: bigint, name: string): bigint {
  return splitmix64(BigInt.asUintN(64, globalSeed) ^ nameHash(name)).value;
}

/** Everything of a rotation but its signs. */
type Frame = Pick<Rotation, 'kind' | 'core' | 'segment' | 'blocks'>;

function planFrame(n: number): Frame {
  const plan = planCore(n);
  if (plan !== undefined && plan.core <= LARGEST_CORE) return { ...plan, segment: n / plan.core, blocks: 1 };
  const segment = powerOfTwoIn(n);
  if (segment === 1) return { kind: 'none', core: 1, segment: 1, blocks: 1 };
  return { kind: 'blocks', core: 1, segment, blocks: n / segment };
}

function completeRotation(n: number, frame: Frame, seed: bigint, signs: Uint8Array): Rotation {
  const rotation: Rotation = { ...frame, length: n, seed: BigInt.asUintN(64, seed).toString(), signs };
  if (frame.kind !== 'blocks') return rotation;
  return { ...rotation, permutation: createRandom(seed).fork(PERMUTATION_STREAM).permutation(n) };
}

/**
 * The rotation of a width n: a randomised Hadamard matrix where `planCore` finds a core of at most `LARGEST_CORE`;
 * block-diagonal Sylvester matrices of the largest power of two in n, after a permutation that the seed gives, where it
 * does not; none for odd n above 1. The same seed gives the same rotation everywhere.
 * @throws RangeError when n is no positive integer
 */
export function planRotation(n: number, seed: bigint): Rotation {
  const frame = planFrame(n);
  return completeRotation(n, frame, seed, frame.kind === 'none' ? new Uint8Array(0) : signBits(n, seed));
}

/** What a file keeps of a rotation; `restoreRotation` with the sign bits is its inverse. */
export function rotationRecord(rotation: Rotation): RotationRecord {
  const { kind, core, seed, blocks } = rotation;
  return { kind, core, seed, blocks };
}

/** Whether `record` can be a rotation of n coordinates. */
function frameOf(n: number, record: RotationRecord): Frame | undefined {
  const { kind, core, blocks } = record;
  if (kind === 'none') return core === 1 && blocks === 1 ? { kind, core, blocks, segment: 1 } : undefined;
  const segment = n / (core * blocks);
  if (!(Number.isInteger(segment) && segment >= 1 && powerOfTwoIn(segment) === segment)) return undefined;
  if (kind === 'blocks') return core === 1 && blocks > 1 ? { kind, core, blocks, segment } : undefined;
  if (blocks !== 1 || core > LARGEST_CORE) return undefined;
  const exists = kind === 'sylvester' ? core === 1 : paleyKind(core) === kind;
  return exists ? { kind, core, blocks, segment } : undefined;
}

/**
 * A rotation of n coordinates from its record and its stored sign bits (ceil(n / 8) bytes; none for kind 'none').
 * @throws RangeError when the record cannot be one of this width, or the bits are too few or too many
 */
export function restoreRotation(n: number, record: RotationRecord, signs: Uint8Array): Rotation {
  const frame = frameOf(n, record);
  if (frame === undefined || !/^\d{1,20}$/.test(record.seed)) {
    const { kind, core, blocks, seed } = record;
    throw new RangeError(`no rotation of width ${n} is ${kind} with core ${core}, ${blocks} blocks and seed ${seed}`);
  }
  const wanted = frame.kind === 'none' ? 0 : Math.ceil(n / 8);
  if (signs.length !== wanted) throw new RangeError(`${signs.length} bytes of signs where width ${n} has ${wanted}`);
  return completeRotation(n, frame, BigInt(record.seed), signs);
}
