import { createPairTable } from './pair-table.js';

/** Below this many units a text is not worth cutting. */
const SHORTEST = 32;

/**
 * Cuts text where no merge can reach across: between two code points that stand side by side in no merged symbol. What
 * is merged on one side of such a place can never depend on the other side, so the pieces encode, one by one, to the
 * same tokens as the whole. SentencePiece vocabularies, for which a document is one word, so become as fast as those
 * that cut text into words first.
 *
 * @param products the text of every symbol that a merge can make
 * @returns pieces in order, whose concatenation is the text
 */
export function createSafeCutter(products: () => Iterable<string>): (text: string) => string[] {
  let joined: ReturnType<typeof createPairTable> | undefined;
  const collect = (): NonNullable<typeof joined> => {
    const table = createPairTable(1 << 14);
    for (const product of products()) {
      let last = -1;
      for (let i = 0; i < product.length; ) {
        const code = product.codePointAt(i) as number;
        if (last >= 0 && table.find(last, code) < 0) table.set(last, code, 0, 0);
        last = code;
        i += code > 0xffff ? 2 : 1;
      }
    }
    return table;
  };
  return (text) => {
    if (text.length < SHORTEST) return [text];
    joined ??= collect();
    const pieces: string[] = [];
    let start = 0;
    let last = -1;
    for (let i = 0; i < text.length; ) {
      const code = text.codePointAt(i) as number;
      if (last >= 0 && joined.find(last, code) < 0) {
        pieces.push(text.slice(start, i));
        start = i;
      }
      last = code;
      i += code > 0xffff ? 2 : 1;
    }
    pieces.push(text.slice(start));
    return pieces;
  };
}
