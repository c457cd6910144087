/** A merge of byte-pair encoding. */
export type Merge = readonly [left: string, right: string];

/** How the symbols of a word are written. */
export interface SubwordMarks {
  /** Before every symbol but the first of a word. */
  readonly prefix: string;
  /** Behind the last symbol of a word. */
  readonly suffix: string;
}

/** Merges that make new tokens reachable, and tokens that no merge of two known tokens gives. */
export interface ReachedTokens {
  readonly merges: readonly Merge[];
  readonly unreachable: readonly string[];
}

const separator = '\u0000';

/**
 * One merge for each new token of a byte-pair vocabulary, behind those that there are: it joins the two tokens into which
 * the new token's own text falls so far. Merges of before keep their rank, so that a text is first cut as it was and then
 * only joined further. A text that falls into three or more tokens cannot be joined by one merge; its token stays
 * unreachable.
 * @param merges ranked, as (left, right)
 * @param tokens the whole vocabulary, new tokens included
 * @param added new tokens in the order of their ids
 */
export function reachTokens(
  merges: readonly Merge[],
  tokens: ReadonlySet<string>,
  added: readonly string[],
  marks: SubwordMarks,
): ReachedTokens {
  const ranks = new Map<string, number>();
  for (const [rank, [left, right]] of merges.entries()) ranks.set(left + separator + right, rank);
  const reached: Merge[] = [];
  const unreachable: string[] = [];
  for (const token of added) {
    const pieces = segment(token, ranks, marks);
    if (pieces.length === 1) {
      if (!tokens.has(pieces[0])) unreachable.push(token);
      continue;
    }
    if (pieces.length !== 2 || !pieces.every((piece) => tokens.has(piece))) {
      unreachable.push(token);
      continue;
    }
    const [left, right] = pieces;
    ranks.set(left + separator + right, ranks.size);
    reached.push([left, right]);
  }
  return { merges: reached, unreachable };
}

/** The symbols that a token's own text falls into. */
function segment(token: string, ranks: ReadonlyMap<string, number>, { prefix, suffix }: SubwordMarks): string[] {
  const inside = prefix !== '' && token.startsWith(prefix) && token.length > prefix.length;
  const ends = suffix !== '' && token.endsWith(suffix) && token.length > suffix.length;
  const bare = token.slice(inside ? prefix.length : 0, ends ? token.length - suffix.length : undefined);
  const symbols = Array.from(bare, (char, i) => (i > 0 || inside ? prefix : '') + char);
  if (ends) symbols[symbols.length - 1] += suffix;
  for (;;) {
    let best = Number.POSITIVE_INFINITY;
    let at = -1;
    for (let i = 0; i + 1 < symbols.length; i++) {
      const rank = ranks.get(symbols[i] + separator + symbols[i + 1]);
      if (rank !== undefined && rank < best) [best, at] = [rank, i];
    }
    if (at < 0) return symbols;
    symbols.splice(at, 2, symbols[at] + symbols[at + 1].slice(prefix.length));
  }
}
