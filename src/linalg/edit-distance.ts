/** A sequence of codes, and for each distinct one its places, a bit each. */
export interface EditPattern {
  readonly codes: Int32Array;
  /** Bit i of word b of `masks[code]` is set where `codes[32 b + i]` is that code. */
  readonly masks: Map<number, Int32Array>;
  /** Words of 32 codes. */
  readonly blocks: number;
}

/** Prepares a sequence for distances to many others. */
export function editPattern(codes: Int32Array): EditPattern {
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
 * Levenshtein distance of two sequences by bit vectors (Myers 1999; blocks as in Hyyrö 2003): a column of the table of
 * differences is a word of 32 rows, so that a cell costs a fraction of an operation. `up` and `down` are scratch of
 * `pattern.blocks` words: where the distance grows or falls by one from a row to the next.
 */
export function editDistance(
  pattern: EditPattern,
  text: Int32Array,
  up = new Int32Array(pattern.blocks),
  down = new Int32Array(pattern.blocks),
): number {
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
