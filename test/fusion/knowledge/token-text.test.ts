import { describe, expect, it } from 'vitest';
import { cutText, PLAIN, textDifference } from '../../../src/fusion/knowledge/text-blocks.js';
import { escapedText, spaceMarker, tokenTexts } from '../../../src/fusion/knowledge/token-text.js';
import { openTokenizer, type Tokenizer } from '../../../src/tokenizers/tokenizer.js';

const LLAMA = openTokenizer('fixtures/models/llama-sotu');
const QWEN = openTokenizer('fixtures/models/qwen2-moby');

/** A tokenizer of words, as far as texts are asked of it. */
function words(vocabulary: readonly string[]): Tokenizer {
  return {
    ...LLAMA,
    vocabularySize: vocabulary.length,
    unkId: 0,
    encode: (text) => Int32Array.from(text.split(' '), (word) => Math.max(0, vocabulary.indexOf(word))),
    tokenBytes: (id) => new TextEncoder().encode(vocabulary[id]),
    tokenText: (id) => vocabulary[id],
    isSpecial: () => false,
  };
}

describe('token strings', () => {
  it('find the marker that more tokens begin with', () => {
    expect(spaceMarker(['▁a', 'Ġb', 'Ġc', 'd'])).toBe('Ġ');
    expect(spaceMarker(['▁a', 'b'])).toBe('▁');
    expect(spaceMarker(['##a', 'b'])).toBeUndefined();
  });

  it('are those of the vocabulary, or the text of the bytes', () => {
    const ids = LLAMA.encode(' the café', PLAIN);
    const vocabulary = tokenTexts(LLAMA, 'vocab', 'm');
    expect(vocabulary.marker).toBe('Ġ');
    expect(vocabulary.texts[ids[0]]).toBe('Ġthe');
    const decoded = tokenTexts(LLAMA, 'decoded', 'm');
    expect(decoded.marker).toBe(' ');
    expect(decoded.texts[ids[0]]).toBe(' the');
    // The two bytes of é are two tokens here, and look like no other bytes.
    expect(Array.from(ids, (id) => decoded.texts[id]).join('')).toBe(' the caf\udcc3\udca9');
    expect(escapedText(Uint8Array.of(0xef, 0xbf, 0xbd))).toBe('\ufffd');
    expect(escapedText(Uint8Array.of(0x61, 0xff, 0xc3, 0xa9))).toBe('a\udcffé');
  });

  it('are refused of a vocabulary without marker', () => {
    const bare = words(['<unk>', 'a', '##b']);
    expect(() => tokenTexts(bare, 'vocab', 'bert')).toThrow(
      /^bert: no token of the vocabulary begins with a space marker/,
    );
    expect(() => tokenTexts(bare, 'decoded', 'bert')).toThrow(/bert: no token/);
  });
});

describe('blocks of text', () => {
  const text = 'Call me Ishmael — “some years ago”. 😀 é\n'.repeat(40);

  it('are pieces of the text, none longer than the longer tokenizer allows', () => {
    const pieces = cutText(text, [LLAMA, QWEN], 112);
    expect(pieces.join('')).toBe(text);
    expect(pieces.length).toBeGreaterThan(5);
    for (const piece of pieces) {
      expect(Math.max(...[LLAMA, QWEN].map((tokenizer) => tokenizer.encode(piece, PLAIN).length))).toBeLessThanOrEqual(
        112,
      );
    }
    expect(cutText('short', [LLAMA, QWEN], 112)).toEqual(['short']);
  });

  it('are one text where tokens spell the same, special tokens of their own aside', () => {
    const side = (tokenizer: Tokenizer, piece: string) => ({ tokenizer, ids: tokenizer.encode(piece, PLAIN) });
    expect(textDifference(side(LLAMA, text), side(QWEN, text))).toBeUndefined();
    const ended = { tokenizer: QWEN, ids: Int32Array.of(...QWEN.encode(text, PLAIN), QWEN.eosId ?? 0) };
    expect(textDifference(side(LLAMA, text), ended)).toBeUndefined();
    expect(textDifference(side(LLAMA, 'a cat'), side(QWEN, 'a Cat'))).toEqual({ at: 1, source: 'cat', pivot: 'Cat' });
  });

  it('allow any text for an unknown token', () => {
    const known = words(['<unk>', 'to', 'sea', 'the']);
    const side = { tokenizer: known, ids: known.encode('to behold the sea') };
    const other = (piece: string) => ({ tokenizer: LLAMA, ids: LLAMA.encode(piece, PLAIN) });
    expect(textDifference(side, other('to behold the sea'))).toBeUndefined();
    expect(textDifference(side, other('to behold the seas'))).toBeDefined();
    expect(textDifference(other('to sea'), side)).toBeDefined();
  });
});
