/** Key of a random mask: two words of Philox's key and the upper half of its counter. */
export type MaskKey = readonly [seedLow: number, seedHigh: number, streamLow: number, streamHigh: number];

const MULTIPLIER_0 = 0xd2511f53;
const MULTIPLIER_1 = 0xcd9e8d57;
const WEYL_0 = 0x9e3779b9;
const WEYL_1 = 0xbb67ae85;
const ROUNDS = 10;
/** Elements whose words come from sixteen counters beside each other. */
const GROUP = 64;

/** Upper 32 bits of the product of two unsigned 32-bit numbers. */
function highProduct(a: number, b: number): number {
  const aHigh = a >>> 16;
  const aLow = a & 0xffff;
  const bHigh = b >>> 16;
  const bLow = b & 0xffff;
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  return (aHigh * bHigh + Math.floor(middle / 65536) + (((middle % 65536) + aLow * bHigh) >>> 16)) >>> 0;
}

/** Philox4x32-10 (Salmon et al. 2011) of one counter, into four entries of `out` that lie `stride` apart. */
export function philox(
  counter: readonly [number, number, number, number],
  key: readonly [number, number],
  out: Uint32Array,
  at = 0,
  stride = 1,
): void {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < ROUNDS; round++) {
    const high0 = highProduct(MULTIPLIER_0, c0);
    const low0 = Math.imul(MULTIPLIER_0, c0) >>> 0;
    const high1 = highProduct(MULTIPLIER_1, c2);
    const low1 = Math.imul(MULTIPLIER_1, c2) >>> 0;
    c0 = (high1 ^ c1 ^ k0) >>> 0;
    c1 = low1;
    c2 = (high0 ^ c3 ^ k1) >>> 0;
    c3 = low0;
    k0 = (k0 + WEYL_0) >>> 0;
    k1 = (k1 + WEYL_1) >>> 0;
  }
  out[at] = c0;
  out[at + stride] = c1;
  out[at + 2 * stride] = c2;
  out[at + 3 * stride] = c3;
}

/**
 * Random words of elements [first, first + count): element i is word (i >> 4) & 3 of counter 16 (i >> 6) + (i & 15), so
 * that a vector of counters gives neighbouring elements. A function of key and index alone.
 */
export function elementWordsReference(key: MaskKey, first: number, count: number, words: Uint32Array): void {
  const group = new Uint32Array(GROUP);
  for (let begin = first - (first % GROUP); begin < first + count; begin += GROUP) {
    const counter = begin / 4;
    for (let lane = 0; lane < 16; lane++) {
      const low = (counter % 4294967296) + lane;
      philox([low >>> 0, Math.floor(counter / 4294967296), key[2], key[3]], [key[0], key[1]], group, lane, 16);
    }
    const from = Math.max(begin, first);
    const to = Math.min(begin + GROUP, first + count);
    for (let i = from; i < to; i++) words[i - first] = group[i - begin];
  }
}

const STRETCH = 4096;

/** Bit i (of byte i >> 3, lowest first) is set when u < density, u = word * 2^-32 of element first + i. */
export function bernoulliMaskReference(
  key: MaskKey,
  first: number,
  count: number,
  density: number,
  mask: Uint8Array,
): void {
  const words = new Uint32Array(STRETCH);
  const limit = density * 4294967296;
  mask.fill(0);
  for (let begin = 0; begin < count; begin += STRETCH) {
    const length = Math.min(STRETCH, count - begin);
    elementWordsReference(key, first + begin, length, words);
    for (let i = 0; i < length; i++) {
      if (words[i] < limit) mask[(begin + i) >> 3] |= 1 << (i & 7);
    }
  }
}

/** Rows of magnitudes whose smaller entries are less likely to be kept. */
export interface RankedRows {
  readonly columns: number;
  /** Entries of the last axis' order: `low` for the smallest magnitude of a row, `step` more for every next one. */
  readonly low: number;
  readonly step: number;
}

/**
 * MagPrune's mask of one row (DELLA, Deep et al. 2024): the entry of rank r by rising magnitude, ties by rising index, is
 * kept when its uniform number is below low + step r. `uniforms` and `probabilities` are of the row.
 */
export function rankedRowReference(
  magnitudes: Float64Array,
  rows: RankedRows,
  uniforms: ArrayLike<number>,
  mask: Uint8Array,
  firstBit: number,
  probabilities: Float32Array | Float64Array | undefined,
): void {
  const order = Uint32Array.from(magnitudes, (_, i) => i);
  order.sort((a, b) => magnitudes[a] - magnitudes[b] || a - b);
  for (let rank = 0; rank < order.length; rank++) {
    const i = order[rank];
    const probability = rows.low + rows.step * rank;
    if (probabilities !== undefined) probabilities[i] = probability;
    if (uniforms[i] < probability) mask[(firstBit + i) >> 3] |= 1 << ((firstBit + i) & 7);
  }
}
