import { InputError } from '../errors.js';
import { FALLBACK_TOKENS, fallbackByte, toByteLevel } from './byte-level.js';
import type { IdBuffer } from './id-buffer.js';
import { createMerger } from './merge.js';
import { createPairTable } from './pair-table.js';
import { createSafeCutter } from './safe-cuts.js';
import { isSettings, type Settings } from './settings.js';
import { createTrie } from './trie.js';
import { segmentUnigram } from './unigram.js';

/** Encodes one word: appends its token ids. */
export type EncodeWord = (word: string, out: IdBuffer) => void;

/** A vocabulary and how it encodes a word. */
export interface WordModel {
  /** Token to id, without added tokens. */
  readonly vocabulary: ReadonlyMap<string, number>;
  readonly encodeWord: EncodeWord;
  readonly unknownToken: string | undefined;
}

const encoder = new TextEncoder();
/** Words of a language repeat: kept encodings, and how long a kept word may be. */
const CACHED_WORDS = 200_000;
const CACHED_LENGTH = 64;

/** `encode` with its results kept by word. */
export function cached(encode: (word: string) => Int32Array): EncodeWord {
  const cache = new Map<string, Int32Array>();
  return (word, out) => {
    let ids = cache.get(word);
    if (ids === undefined) {
      ids = encode(word);
      if (word.length <= CACHED_LENGTH) {
        if (cache.size >= CACHED_WORDS) cache.clear();
        cache.set(word, ids);
      }
    }
    out.append(ids);
  };
}

function vocabularyOf(config: Settings, what: string): Map<string, number> {
  const vocab = config.vocab;
  if (!isSettings(vocab)) throw new InputError(`${what} has no "vocab"; save the tokenizer again`);
  const ids = new Map<string, number>();
  for (const [token, id] of Object.entries(vocab)) {
    if (typeof id !== 'number' || !Number.isInteger(id) || id < 0) {
      throw new InputError(`${what}: the id of ${JSON.stringify(token)} is ${JSON.stringify(id)}, not a whole number`);
    }
    ids.set(token, id);
  }
  return ids;
}

function optionalText(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}

function mergePairs(config: Settings, what: string): (readonly [string, string])[] {
  const merges = config.merges;
  if (!Array.isArray(merges)) throw new InputError(`${what} has no "merges"; save the tokenizer again`);
  return merges.map((merge: unknown, i) => {
    const pair = typeof merge === 'string' ? merge.split(' ') : merge;
    if (Array.isArray(pair) && pair.length === 2 && typeof pair[0] === 'string' && typeof pair[1] === 'string') {
      return [pair[0], pair[1]] as const;
    }
    throw new InputError(`${what}.merges[${i}] is not a pair of tokens; save the tokenizer again`);
  });
}

/**
 * Byte-pair encoding (Sennrich et al. 2016) as Hugging Face `tokenizers` does it. Dropout is a matter of training and
 * is never applied.
 */
function bpe(config: Settings, mapsBytes: boolean, what: string): WordModel {
  const vocabulary = vocabularyOf(config, what);
  const prefix = optionalText(config.continuing_subword_prefix) ?? '';
  const suffix = optionalText(config.end_of_word_suffix) ?? '';
  const unknownToken = optionalText(config.unk_token);
  const unknownId = unknownToken === undefined ? undefined : vocabulary.get(unknownToken);
  const fusesUnknown = config.fuse_unk === true;
  const fallback = config.byte_fallback === true ? FALLBACK_TOKENS.map((token) => vocabulary.get(token)) : undefined;
  const pairs = mergePairs(config, what);
  const table = createPairTable(pairs.length);
  pairs.forEach(([left, right], rank) => {
    const merged = left + right.slice(prefix.length);
    const ids = [left, right, merged].map((token) => vocabulary.get(token));
    if (ids[0] === undefined || ids[1] === undefined || ids[2] === undefined) {
      throw new InputError(
        `${what}.merges[${rank}]: "${left}" and "${right}" and their union must be in the vocabulary`,
      );
    }
    table.set(ids[0], ids[1], rank, ids[2]);
  });
  const merger = createMerger(table);
  let symbols = new Int32Array(256);

  const encode = (raw: string): Int32Array => {
    const word = mapsBytes ? toByteLevel(raw) : raw;
    if (config.ignore_merges === true) {
      const whole = vocabulary.get(word);
      if (whole !== undefined) return Int32Array.of(whole);
    }
    // A code point becomes one symbol, or one for each of at most 4 bytes.
    if (symbols.length < word.length * 4) symbols = new Int32Array(word.length * 8);
    let count = 0;
    let pendingUnknown = false;
    for (let i = 0; i < word.length; ) {
      const width = (word.codePointAt(i) as number) > 0xffff ? 2 : 1;
      let char = word.slice(i, i + width);
      if (i > 0) char = prefix + char;
      i += width;
      if (i === word.length) char += suffix;
      const id = vocabulary.get(char);
      if (id !== undefined) {
        if (pendingUnknown) symbols[count++] = unknownId as number;
        pendingUnknown = false;
        symbols[count++] = id;
        continue;
      }
      if (fallback !== undefined) {
        const bytes = Array.from(encoder.encode(char), (byte) => fallback[byte]);
        if (bytes.every((byte) => byte !== undefined)) {
          for (const byte of bytes) symbols[count++] = byte;
          continue;
        }
      }
      if (unknownId === undefined) continue;
      if (pendingUnknown && !fusesUnknown) symbols[count++] = unknownId;
      pendingUnknown = true;
    }
    if (pendingUnknown) symbols[count++] = unknownId as number;
    return symbols.slice(0, merger.merge(symbols, count));
  };
  const encodeWord = cached(encode);
  // Where text comes as whole documents, pieces are cut off that no merge can join. Marks of the begin or end of a word,
  // merges of byte tokens, runs of unknown characters that become one token, and unknown characters that vanish and let
  // their neighbours meet reach further than characters tell.
  const wholeBytes = fallback?.every((id) => id !== undefined) === true;
  const marked =
    prefix !== '' ||
    suffix !== '' ||
    pairs.some(([left, right]) => fallbackByte(left) >= 0 || fallbackByte(right) >= 0);
  const local = !marked && (wholeBytes || (unknownId !== undefined && !fusesUnknown));
  if (mapsBytes || !local || config.ignore_merges === true) return { vocabulary, encodeWord, unknownToken };
  const cut = createSafeCutter(() => pairs.map(([left, right]) => left + right));
  return {
    vocabulary,
    encodeWord: (text, out) => {
      for (const piece of cut(text)) encodeWord(piece, out);
    },
    unknownToken,
  };
}

/** Greedy longest match (Wu et al. 2016) as Hugging Face `tokenizers` does it. */
function wordPiece(config: Settings, what: string): WordModel {
  const vocabulary = vocabularyOf(config, what);
  const prefix = typeof config.continuing_subword_prefix === 'string' ? config.continuing_subword_prefix : '##';
  const unknownToken = optionalText(config.unk_token) ?? '[UNK]';
  const unknownId = vocabulary.get(unknownToken);
  const longestWord = typeof config.max_input_chars_per_word === 'number' ? config.max_input_chars_per_word : 100;
  const unknown = (): Int32Array => {
    if (unknownId !== undefined) return Int32Array.of(unknownId);
    throw new InputError(`${what}: a word has no tokens and the vocabulary has no ${unknownToken}`);
  };
  const encode = (word: string): Int32Array => {
    const chars = Array.from(word);
    if (chars.length > longestWord) return unknown();
    const ids: number[] = [];
    for (let start = 0; start < chars.length; ) {
      let end = chars.length;
      let id: number | undefined;
      for (; end > start; end--) {
        id = vocabulary.get((start > 0 ? prefix : '') + chars.slice(start, end).join(''));
        if (id !== undefined) break;
      }
      if (id === undefined) return unknown();
      ids.push(id);
      start = end;
    }
    return Int32Array.from(ids);
  };
  return { vocabulary, encodeWord: cached(encode), unknownToken };
}

function wordLevel(config: Settings, what: string): WordModel {
  const vocabulary = vocabularyOf(config, what);
  const unknownToken = optionalText(config.unk_token) ?? '<unk>';
  const encodeWord: EncodeWord = (word, out) => {
    const id = vocabulary.get(word) ?? vocabulary.get(unknownToken);
    if (id === undefined) {
      throw new InputError(`${what}: ${JSON.stringify(word)} is no token and the vocabulary has no ${unknownToken}`);
    }
    out.push(id);
  };
  return { vocabulary, encodeWord, unknownToken };
}

/**
 * A score as the JSON reader of Hugging Face `tokenizers` takes it: digits as one integer, rounded to a double, then
 * divided by the power of ten. Up to one unit in the last place from the nearest double, which decides between
 * segmentations whose sums are otherwise equal.
 */
function asReadFromJson(score: number): number {
  const match = /^(\d+)(?:\.(\d+))?(?:e([+-]\d+))?$/.exec(String(Math.abs(score)));
  if (match === null) return score;
  const [, whole, fraction = '', exponent = '0'] = match;
  const power = Number(exponent) - fraction.length;
  const digits = Number(whole + fraction);
  const magnitude = power < 0 ? digits / Number(`1e${-power}`) : digits * Number(`1e${power}`);
  return score < 0 ? -magnitude : magnitude;
}

/** Unigram language model (Kudo 2018) as Hugging Face `tokenizers` does it. */
function unigram(config: Settings, what: string): WordModel {
  if (!Array.isArray(config.vocab)) throw new InputError(`${what} has no "vocab"; save the tokenizer again`);
  const entries: readonly unknown[] = config.vocab;
  const vocabulary = new Map<string, number>();
  const scores = new Float64Array(entries.length);
  const trie = createTrie(entries.length * 3);
  let lowest = Infinity;
  entries.forEach((entry, id) => {
    if (!Array.isArray(entry) || typeof entry[0] !== 'string' || typeof entry[1] !== 'number') {
      throw new InputError(`${what}.vocab[${id}] is not a token and its score; save the tokenizer again`);
    }
    vocabulary.set(entry[0], id);
    scores[id] = asReadFromJson(entry[1]);
    trie.add(entry[0], id);
    lowest = Math.min(lowest, scores[id]);
  });
  const unknownId = typeof config.unk_id === 'number' ? config.unk_id : -1;
  const unknownToken = unknownId >= 0 ? (entries[unknownId] as [string, number] | undefined)?.[0] : undefined;
  const fallback = config.byte_fallback === true ? FALLBACK_TOKENS.map((token) => vocabulary.get(token)) : undefined;
  const encode = (raw: string): Int32Array => {
    const pieces = segmentUnigram(raw, trie, scores, unknownId, lowest - 10);
    const ids: number[] = [];
    let start = 0;
    for (let i = 0; i < pieces.count; i++) {
      const end = pieces.ends[i];
      if (pieces.ids[i] !== unknownId) ids.push(pieces.ids[i]);
      else {
        const text = raw.slice(start, end);
        const whole = vocabulary.get(text);
        const bytes = fallback === undefined ? [] : Array.from(encoder.encode(text), (byte) => fallback[byte]);
        if (whole !== undefined) ids.push(whole);
        else if (bytes.length > 0 && bytes.every((byte) => byte !== undefined)) ids.push(...(bytes as number[]));
        else if (unknownId >= 0) ids.push(unknownId);
        else throw new InputError(`${what}: ${JSON.stringify(text)} has no tokens and the model has no unk_id`);
      }
      start = end;
    }
    return Int32Array.from(ids);
  };
  return { vocabulary, encodeWord: cached(encode), unknownToken };
}

const MODEL_TYPES = ['BPE', 'Unigram', 'WordPiece', 'WordLevel'] as const;

/** The type of a model whose file, older than the field, does not say. */
function guessType(config: Settings): string | undefined {
  if (typeof config.type === 'string') return config.type;
  if (Array.isArray(config.vocab)) return 'Unigram';
  if (config.merges !== undefined) return 'BPE';
  return config.continuing_subword_prefix === undefined ? 'WordLevel' : 'WordPiece';
}

/**
 * The model that the `model` of tokenizer.json describes.
 *
 * @param mapsBytes whether words come as text and are to be mapped to byte-level characters
 * Throws InputError for an unknown type or a damaged vocabulary.
 */
export function compileModel(config: Settings, mapsBytes: boolean, what: string): WordModel {
  const type = guessType(config);
  const mapped = (model: WordModel): WordModel =>
    mapsBytes ? { ...model, encodeWord: (word, out) => model.encodeWord(toByteLevel(word), out) } : model;
  switch (type) {
    case 'BPE':
      return bpe(config, mapsBytes, what);
    case 'Unigram':
      return mapped(unigram(config, what));
    case 'WordPiece':
      return mapped(wordPiece(config, what));
    case 'WordLevel':
      return mapped(wordLevel(config, what));
    default:
      throw new InputError(`${what}: the model type ${JSON.stringify(type)} is none of ${MODEL_TYPES.join(', ')}`);
  }
}
