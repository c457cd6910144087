import { InputError } from '../errors.js';
import { FALLBACK_TOKENS, toByteLevel } from './byte-level.js';
import { type CharsMap, parseCharsMap } from './charsmap.js';
import type { GgufPreTokenizer } from './gguf-pre-tokenizers.js';
import { type GgufVocabulary, stringsOf, TokenType } from './gguf-vocabulary.js';
import type { IdBuffer } from './id-buffer.js';
import { createMerger, type Merges } from './merge.js';
import { createPairTable } from './pair-table.js';
import { splitAt } from './patterns.js';
import { createSafeCutter } from './safe-cuts.js';
import { createTrie } from './trie.js';
import { segmentUnigram } from './unigram.js';
import { cached } from './word-models.js';

/** Encodes text that holds no special token. */
export type EncodeFragment = (text: string, out: IdBuffer) => void;

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { ignoreBOM: true });

/** Numbers for texts: tokens keep their ids, other texts are numbered after them. */
function internTexts(vocabulary: GgufVocabulary): { numberOf(text: string): number; textOf(symbol: number): string } {
  const extra = new Map<string, number>();
  const extraTexts: string[] = [];
  return {
    numberOf(text) {
      const id = vocabulary.idOf.get(text) ?? extra.get(text);
      if (id !== undefined) return id;
      const number = vocabulary.texts.length + extraTexts.length;
      extra.set(text, number);
      extraTexts.push(text);
      return number;
    },
    textOf: (symbol) => vocabulary.texts[symbol] ?? extraTexts[symbol - vocabulary.texts.length],
  };
}

/** The token of each byte: `<0xNN>`, else the byte as a character. */
function byteTokens(vocabulary: GgufVocabulary): Int32Array {
  return Int32Array.from(
    FALLBACK_TOKENS,
    (token, byte) =>
      vocabulary.idOf.get(token) ?? (byte < 0x80 ? vocabulary.idOf.get(String.fromCharCode(byte)) : -1) ?? -1,
  );
}

function codePoints(text: string): string[] {
  return Array.from(text);
}

/**
 * SentencePiece as llama.cpp reads it (`llm_tokenizer_spm`): of all adjacent pairs whose union is a token, the one with
 * the highest score is merged first, the leftmost among equals; what is no token becomes its bytes.
 */
export function spmModel(vocabulary: GgufVocabulary): EncodeFragment {
  const { numberOf, textOf } = internTexts(vocabulary);
  const known = createPairTable(1 << 16);
  const merges: Merges = {
    find(left, right) {
      let slot = known.find(left, right);
      if (slot < 0) {
        const union = vocabulary.idOf.get(textOf(left) + textOf(right));
        known.set(left, right, union === undefined ? 0 : -vocabulary.scores[union], union ?? -1);
        slot = known.find(left, right);
      }
      return known.valueAt(slot) < 0 ? -1 : slot;
    },
    rankAt: known.rankAt,
    valueAt: known.valueAt,
  };
  const merger = createMerger(merges);
  const bytes = byteTokens(vocabulary);
  const encode = (piece: string): Int32Array => {
    const symbols = Int32Array.from(codePoints(piece), numberOf);
    const count = merger.merge(symbols, symbols.length);
    const ids: number[] = [];
    for (let i = 0; i < count; i++) {
      if (symbols[i] < vocabulary.texts.length) {
        ids.push(symbols[i]);
        continue;
      }
      const symbol = textOf(symbols[i]);
      for (const byte of encoder.encode(symbol)) {
        if (bytes[byte] < 0) {
          throw new InputError(
            `${JSON.stringify(symbol)} has no token and the vocabulary no ${FALLBACK_TOKENS[byte]}; convert the model again`,
          );
        }
        ids.push(bytes[byte]);
      }
    }
    return Int32Array.from(ids);
  };
  const encodePiece = cached(encode);
  const cut = createSafeCutter(() => vocabulary.texts);
  return (text, out) => {
    for (const piece of cut(text.replaceAll(' ', '▁'))) encodePiece(piece, out);
  };
}

/** Byte-pair encoding as llama.cpp does it (`llm_tokenizer_bpe`). */
export function bpeModel(
  kv: ReadonlyMap<string, unknown>,
  vocabulary: GgufVocabulary,
  pre: GgufPreTokenizer,
): EncodeFragment {
  const { numberOf, textOf } = internTexts(vocabulary);
  const lines = stringsOf(kv, 'tokenizer.ggml.merges');
  const table = createPairTable(lines.length);
  lines.forEach((line, rank) => {
    const space = line.indexOf(' ', 1);
    if (space < 0) return;
    const left = line.slice(0, space);
    const right = line.slice(space + 1);
    const [l, r] = [numberOf(left), numberOf(right)];
    if (table.find(l, r) < 0) table.set(l, r, rank, numberOf(left + right));
  });
  const merger = createMerger(table);
  const bytes = byteTokens(vocabulary);
  const encode = (piece: string): Int32Array => {
    const word = pre.byteLevel ? toByteLevel(piece) : piece;
    const whole = vocabulary.idOf.get(word);
    if (whole !== undefined && (pre.ignoreMerges || (pre.wholeLineFeeds && /^\n*$/.test(word)))) {
      return Int32Array.of(whole);
    }
    const symbols = Int32Array.from(codePoints(word), numberOf);
    const count = merger.merge(symbols, symbols.length);
    const ids: number[] = [];
    for (let i = 0; i < count; i++) {
      if (symbols[i] < vocabulary.texts.length) {
        ids.push(symbols[i]);
        continue;
      }
      // What has no token is dropped, but for its ASCII characters or, where the vocabulary has them, its bytes.
      const text = textOf(symbols[i]);
      if (pre.byteLevel) {
        for (const char of text) {
          const id = char < '\x80' ? vocabulary.idOf.get(char) : undefined;
          if (id !== undefined) ids.push(id);
        }
      } else for (const byte of encoder.encode(text)) if (bytes[byte] >= 0) ids.push(bytes[byte]);
    }
    return Int32Array.from(ids);
  };
  const encodeWord = cached(encode);
  // Whole words count where they are tokens, so such words are not cut.
  const cuts = !pre.byteLevel && !pre.ignoreMerges;
  const cut = createSafeCutter(() =>
    lines.map((line) => line.slice(0, line.indexOf(' ', 1)) + line.slice(line.indexOf(' ', 1) + 1)),
  );
  return (text, out) => {
    let pieces = [pre.byteLevel ? text : text.replaceAll(' ', '▁')];
    for (const pattern of pre.patterns) {
      const finer: string[] = [];
      for (const piece of pieces) splitAt(piece, pattern, 'Isolated', false, finer);
      pieces = finer;
    }
    for (const piece of pieces) {
      if (!cuts || piece.startsWith('\n')) encodeWord(piece, out);
      else for (const part of cut(piece)) encodeWord(part, out);
    }
  };
}

/** SentencePiece's normalisation of T5 vocabularies. */
interface UgmNormalizer {
  readonly map: CharsMap | undefined;
  readonly addSpacePrefix: boolean;
  readonly mergeSpaces: boolean;
  /** The longest user-defined token at a place: such tokens are left as they are. */
  userDefinedAt(text: string, start: number): number;
}

function normalizeUgm(text: string, normalizer: UgmNormalizer): string {
  let result = '';
  let prepended = false;
  let inWord = false;
  const take = (piece: string): void => {
    for (const char of piece) {
      if (char === ' ') {
        inWord = false;
        if (!normalizer.mergeSpaces) result += '▁';
        continue;
      }
      if (!inWord) {
        inWord = true;
        if ((normalizer.addSpacePrefix && !prepended) || normalizer.mergeSpaces) {
          result += '▁';
          prepended = true;
        }
      }
      result += char;
    }
  };
  // A code point maps together with those after it, of which no replacement takes more than these.
  const window = 64;
  for (let i = 0; i < text.length; ) {
    const userDefined = normalizer.userDefinedAt(text, i);
    if (userDefined > 0) {
      take(text.slice(i, i + userDefined));
      i += userDefined;
      continue;
    }
    const bytes = normalizer.map === undefined ? undefined : encoder.encode(text.slice(i, i + window));
    const consumed = bytes === undefined ? 0 : (normalizer.map as CharsMap).longest(bytes, 0);
    if (bytes !== undefined && consumed > 0) {
      take(decoder.decode((normalizer.map as CharsMap).lastReplacement));
      i += decoder.decode(bytes.subarray(0, consumed)).length;
      continue;
    }
    const width = (text.codePointAt(i) as number) > 0xffff ? 2 : 1;
    take(text.slice(i, i + width));
    i += width;
  }
  return result;
}

/** A unigram vocabulary (T5) as llama.cpp reads it (`llm_tokenizer_ugm`). */
export function ugmModel(
  kv: ReadonlyMap<string, unknown>,
  vocabulary: GgufVocabulary,
  unknownId: number,
): EncodeFragment {
  const trie = createTrie(vocabulary.texts.length * 3);
  const userDefined = createTrie(64);
  const scores = Float64Array.from(vocabulary.scores);
  let lowest = Number.MAX_VALUE;
  vocabulary.types.forEach((type, id) => {
    if (type === TokenType.normal) lowest = Math.min(lowest, scores[id]);
    if (type === TokenType.userDefined) {
      userDefined.add(vocabulary.texts[id], id);
      scores[id] = 0;
    }
    if (type === TokenType.normal || type === TokenType.userDefined || type === TokenType.unused) {
      trie.add(vocabulary.texts[id], id);
    }
  });
  const blob = kv.get('tokenizer.ggml.precompiled_charsmap');
  const bytes = ArrayBuffer.isView(blob)
    ? new Uint8Array(blob.buffer, blob.byteOffset, blob.byteLength)
    : Array.isArray(blob)
      ? Uint8Array.from(blob as number[])
      : undefined;
  const normalizer: UgmNormalizer = {
    map:
      bytes === undefined || bytes.length === 0
        ? undefined
        : parseCharsMap(bytes, 'tokenizer.ggml.precompiled_charsmap'),
    addSpacePrefix: kv.get('tokenizer.ggml.add_space_prefix') === true,
    mergeSpaces: kv.get('tokenizer.ggml.remove_extra_whitespaces') === true,
    userDefinedAt: userDefined.longestAt,
  };
  return (text, out) => {
    const pieces = segmentUnigram(normalizeUgm(text, normalizer), trie, scores, unknownId, lowest - 10);
    for (let i = 0; i < pieces.count; i++) out.push(pieces.ids[i]);
  };
}
