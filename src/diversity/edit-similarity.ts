/** A text as code points, and for each distinct one its place among the masks. */
interface Pattern {
  readonly codes: Int32Array;
  /** Bit i of block b of `masks[code]` is set where `codes[32 b + i]` is that code. */
  readonly masks: Map<number, Int32Array>;
  readonly blocks: number;
}

function codePoints(text: string): Int32Array {
  return Int32Array.from(Array.from(text), (character) => character.codePointAt(0) as number);
}

function patternOf(codes: Int32Array): Pattern {
  const blocks = Math.max(1, Math.ceil(codes.length / 32));
  const masks = new Map<number, Int32Array>();
  codes.forEach((code, i) => {
    let mask = masks.get(code);
    if (!mask) {
      mask = new Int32Array(blocks);
      masks.set(code, mask);
    }
    mask[i >>> 5] |= 1 << (i & 31);
  });
  return { codes, masks, blocks };
}

/**
 * Levenshtein distance by bit vectors (Myers 1999; blocks as in Hyyrö 2003): a column of the table of differences is a
 * word of 32 rows, so that a cell costs a fraction of an operation. `up` and `down` are scratch of `blocks` words: where
 * the distance grows or falls by one from a row to the next.
 */
function distance(pattern: Pattern, text: Int32Array, up: Int32Array, down: Int32Array): number {
  const { codes, masks, blocks } = pattern;
  if (codes.length === 0) return text.length;
  up.fill(-1, 0, blocks);
  down.fill(0, 0, blocks);
  let score = codes.length;
  const lastBit = (codes.length - 1) & 31;
  for (let j = 0; j < text.length; j++) {
    const mask = masks.get(text[j]);
    // The first row of the table grows by one from a column to the next.
    let carryUp = 1;
    let carryDown = 0;
    for (let b = 0; b < blocks; b++) {
      const plus = up[b];
      const minus = down[b];
      const equal = mask === undefined ? 0 : mask[b];
      const vertical = equal | minus;
      const matched = equal | carryDown;
      const horizontal = (((matched & plus) + plus) ^ plus) | matched;
      let risen = minus | ~(horizontal | plus);
      let fallen = plus & horizontal;
      const top = b === blocks - 1 ? lastBit : 31;
      const outUp = (risen >>> top) & 1;
      const outDown = (fallen >>> top) & 1;
      risen = (risen << 1) | carryUp;
      fallen = (fallen << 1) | carryDown;
      up[b] = fallen | ~(vertical | risen);
      down[b] = risen & vertical;
      carryUp = outUp;
      carryDown = outDown;
    }
    score += carryUp - carryDown;
  }
  return score;
}

/** Levenshtein distance in code points. */
export function levenshtein(a: string, b: string): number {
  const pattern = patternOf(codePoints(a));
  return distance(pattern, codePoints(b), new Int32Array(pattern.blocks), new Int32Array(pattern.blocks));
}

/**
 * `K_ij = 1 - distance(i, j) / max(length i, length j)` `[n, n]` with Levenshtein distances in code points; two empty
 * texts have similarity 1. Not positive semidefinite in general.
 * @param progress told the number of rows done
 */
export function editSimilarity(texts: readonly string[], progress?: (rows: number) => void): Float64Array {
  const n = texts.length;
  const codes = texts.map(codePoints);
  const longest = codes.reduce((most, { length }) => Math.max(most, length), 0);
  const up = new Int32Array(Math.ceil(longest / 32) + 1);
  const down = new Int32Array(up.length);
  const k = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    const pattern = patternOf(codes[i]);
    k[i * n + i] = 1;
    for (let j = 0; j < i; j++) {
      const length = Math.max(codes[i].length, codes[j].length);
      const similarity = length === 0 ? 1 : (length - distance(pattern, codes[j], up, down)) / length;
      k[i * n + j] = similarity;
      k[j * n + i] = similarity;
    }
    progress?.(i + 1);
  }
  return k;
}
