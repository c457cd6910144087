import type { GgufVocabulary } from './gguf-vocabulary.js';
import { TokenType } from './gguf-vocabulary.js';
import { createTrie } from './trie.js';

/** A part of a text: a token, or text that the model is to encode. */
export type Fragment = { readonly id: number } | { readonly text: string };

/** C's isspace in the locale "C". */
const isSpace = (code: number): boolean => code === 0x20 || (code >= 0x09 && code <= 0x0d);

const encoder = new TextEncoder();

/**
 * Cuts text at its user-defined tokens and, where special tokens are parsed, at control tokens, as llama.cpp does
 * (`tokenizer_st_partition`): token by token, the longest in bytes first, each over all text that is left.
 *
 * @param rstrip whether a token takes the white space after it
 */
export function createGgufPartition(
  vocabulary: GgufVocabulary,
  rstrip: (text: string) => boolean,
): (text: string, parseSpecial: boolean) => Fragment[] {
  const ids: number[] = [];
  vocabulary.types.forEach((type, id) => {
    if (type === TokenType.userDefined || vocabulary.parsedSpecial[id] === 1) ids.push(id);
  });
  const byteLengths = new Map(ids.map((id) => [id, encoder.encode(vocabulary.texts[id]).length]));
  ids.sort((a, b) => (byteLengths.get(b) as number) - (byteLengths.get(a) as number));
  const trie = createTrie(ids.length * 8);
  ids.forEach((id, order) => {
    trie.add(vocabulary.texts[id], order);
  });

  /** Orders of the tokens that occur at all: of thousands of tokens a text has few. */
  function present(text: string): number[] {
    const orders = new Set<number>();
    for (let i = 0; i < text.length; i++) {
      let node = 0;
      for (let j = i; j < text.length; j++) {
        node = trie.step(node, text.charCodeAt(j));
        if (node < 0) break;
        const order = trie.valueAt(node);
        if (order >= 0) orders.add(order);
      }
    }
    return [...orders].sort((a, b) => a - b);
  }

  return (text, parseSpecial) => {
    let fragments: Fragment[] = text === '' ? [] : [{ text }];
    if (trie.size === 0) return fragments;
    for (const order of present(text)) {
      const id = ids[order];
      if (!parseSpecial && vocabulary.parsedSpecial[id] === 1) continue;
      const content = vocabulary.texts[id];
      const strips = rstrip(content);
      const next: Fragment[] = [];
      for (const fragment of fragments) {
        if ('id' in fragment) {
          next.push(fragment);
          continue;
        }
        let start = 0;
        for (;;) {
          const match = fragment.text.indexOf(content, start);
          if (match < 0) break;
          if (match > start) next.push({ text: fragment.text.slice(start, match) });
          next.push({ id });
          start = match + content.length;
          if (strips) while (start < fragment.text.length && isSpace(fragment.text.charCodeAt(start))) start++;
        }
        if (start < fragment.text.length) next.push({ text: fragment.text.slice(start) });
      }
      fragments = next;
    }
    return fragments;
  };
}
