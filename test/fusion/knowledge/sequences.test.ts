import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { checkCommonText, cutText, modelSequences } from '../../../src/fusion/knowledge/sequences.js';
import { openModelTokenizer } from '../../../src/models/model-tokenizer.js';
import { IGNORED } from '../../../src/training/types.js';

const readers = ['llama-sotu', 'qwen2-moby'].map((name) => {
  const tokenizer = openModelTokenizer(`fixtures/models/${name}`);
  return { name, tokenizer, end: tokenizer.eosId };
});
const text = JSON.parse(readFileSync('fixtures/text/heldout_text.jsonl', 'utf8').split('\n')[0]).text.slice(0, 4000);
const count = (piece: string): number =>
  Math.max(...readers.map(({ tokenizer }) => tokenizer.encode(piece, { addSpecialTokens: false }).length + 1));

describe('sequences of several models', () => {
  it('cuts a text into pieces that fit all windows and leave little of them empty', () => {
    for (const length of [16, 64, 200]) {
      const pieces = cutText(text, readers, length);
      expect(pieces.join('')).toBe(text);
      const sizes = pieces.map(count);
      expect(Math.max(...sizes)).toBeLessThanOrEqual(length + 1);
      const filled = sizes.slice(0, -1).reduce((sum, size) => sum + size, 0) / ((sizes.length - 1) * (length + 1));
      expect(filled).toBeGreaterThan(length > 32 ? 0.75 : 0.5);
    }
  });

  it('cuts no character in two, and ends at white space where there is some', () => {
    const emoji = '\u{1F40B}'.repeat(50);
    const pieces = cutText(emoji, readers, 16);
    expect(pieces.join('')).toBe(emoji);
    for (const piece of pieces) expect(piece).toMatch(/^(\u{1F40B})+$/u);
    for (const piece of cutText(text, readers, 64).slice(1)) expect(piece).toMatch(/^\s/);
  });

  it('leaves a short text whole, and refuses windows that hold nothing', () => {
    expect(cutText('Call me Ishmael.', readers, 64)).toEqual(['Call me Ishmael.']);
    expect(() => cutText('\u{1F40B}', readers, 1)).toThrow(/--context 1 holds not even one character/);
  });

  it('puts tokens around texts and asks for the end', () => {
    const { tokens, windows } = modelSequences([{ tokens: Int32Array.of(5, 6, 7) }], { prefix: 1, end: 2 }, 8);
    expect([...tokens[0]]).toEqual([1, 5, 6, 7, 2]);
    expect([...windows.labels.subarray(0, 5)]).toEqual([5, 6, 7, 2, IGNORED]);
    expect(windows.lengths[0]).toBe(4);
  });

  it('names both texts where models read different ones', () => {
    const [a, b] = readers;
    const encode = (reader: (typeof readers)[number], of: string) =>
      reader.tokenizer.encode(of, { addSpecialTokens: false });
    expect(() => checkCommonText(a, b, [encode(a, 'the whale'), encode(b, 'the whale')], 'x.txt:1')).not.toThrow();
    expect(() => checkCommonText(a, b, [encode(a, 'the Whale'), encode(b, 'the whale')], 'x.txt:1')).toThrow(
      /x\.txt:1: llama-sotu and qwen2-moby do not read the same text: "theWhale" and "thewhale"/,
    );
  });
});
