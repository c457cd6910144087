import { InputError } from '../errors.js';
import { fallbackByte, fromByteLevel } from './byte-level.js';
import { bpeModel, type EncodeFragment, spmModel, ugmModel } from './gguf-models.js';
import { type GgufPreTokenizer, ggufPreTokenizer } from './gguf-pre-tokenizers.js';
import { createGgufPartition } from './gguf-special.js';
import { numberOf, readGgufVocabulary, TokenType } from './gguf-vocabulary.js';
import { createIdBuffer } from './id-buffer.js';
import type { Tokenizer } from './tokenizer.js';

/** Kinds of `tokenizer.ggml.model` that are read: SentencePiece merges, byte-pair merges, unigram. */
const KINDS = { llama: 'spm', gpt2: 'bpe', gemma4: 'bpe', t5: 'ugm' } as const;

interface Defaults {
  readonly bos?: number;
  readonly eos?: number;
  readonly unk?: number;
  readonly pad?: number;
}
const DEFAULT_IDS: Readonly<Record<keyof typeof KINDS, Defaults>> = {
  llama: { bos: 1, eos: 2, unk: 0 },
  gpt2: { bos: 11, eos: 11 },
  gemma4: {},
  t5: { eos: 1, unk: 2, pad: 0 },
};

/** Tokens of Phi-3 that leave the white space after them alone, as its tokenizer.json has it. */
const PHI3_KEEPS_SPACE = new Set(['<unk>', '<s>', '<|endoftext|>']);

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { ignoreBOM: true });

/**
 * The tokenizer of a GGUF file from its metadata (`tokenizer.ggml.*`). Its ids are llama.cpp's. With
 * `parseSpecialTokens` (default false, as in llama.cpp's perplexity) the text of control tokens becomes those tokens;
 * user-defined tokens are always found.
 *
 * Throws InputError where the file carries no tokenizer, one of an unknown kind or with an unknown pre-tokenizer.
 */
export function tokenizerFromGguf(kv: ReadonlyMap<string, unknown>): Tokenizer {
  const name = kv.get('tokenizer.ggml.model');
  if (name !== 'llama' && name !== 'gpt2' && name !== 'gemma4' && name !== 't5') {
    const what = typeof name === 'string' ? `tokenizer.ggml.model is "${name}"` : 'there is no tokenizer.ggml.model';
    throw new InputError(
      `${what}; known kinds are ${Object.keys(KINDS).join(', ')}; use the model as a Hugging Face directory`,
    );
  }
  const kind = KINDS[name];
  const vocabulary = readGgufVocabulary(kv);
  const size = vocabulary.texts.length;
  const warnings: string[] = [];

  const idOf = (key: string, fallback: number | undefined): number | undefined => {
    const given = numberOf(kv, `tokenizer.ggml.${key}_token_id`);
    if (given !== undefined && given >= 0 && given < size) return given;
    if (given !== undefined)
      warnings.push(`tokenizer.ggml.${key}_token_id is ${given}, outside the vocabulary; ignored`);
    return fallback !== undefined && fallback < size ? fallback : undefined;
  };
  let pre: GgufPreTokenizer | undefined;
  if (kind === 'bpe') {
    const preName = name === 'gemma4' ? 'gemma4' : kv.get('tokenizer.ggml.pre');
    if (typeof preName !== 'string' || preName === '') {
      warnings.push('the GGUF file names no pre-tokenizer (tokenizer.ggml.pre); "default" is used, ids may differ');
    }
    pre = ggufPreTokenizer(typeof preName === 'string' && preName !== '' ? preName : 'default');
  }
  const defaults = DEFAULT_IDS[name];
  const withoutBos = /^(chatglm-bpe|glm4|glm5)$/.test(String(kv.get('tokenizer.ggml.pre')));
  const bosId = idOf('bos', withoutBos ? undefined : defaults.bos);
  const eosId = idOf('eos', defaults.eos);
  const unkId = idOf('unknown', defaults.unk);
  const padId = idOf('padding', defaults.pad);

  const flag = (key: string, fallback: boolean): boolean => {
    const value = kv.get(`tokenizer.ggml.${key}`);
    return typeof value === 'boolean' ? value : fallback;
  };
  const addBos = flag('add_bos_token', kind === 'spm' || pre?.addBos === true) || pre?.wholeLineFeeds === true;
  const addEos = flag('add_eos_token', kind === 'ugm');
  const addSpacePrefix = flag('add_space_prefix', kind === 'spm');

  let encodeFragment: EncodeFragment;
  if (pre !== undefined) encodeFragment = bpeModel(kv, vocabulary, pre);
  else if (kind === 'ugm') {
    if (unkId === undefined)
      throw new InputError('tokenizer.ggml.unknown_token_id is missing; convert the model again');
    encodeFragment = ugmModel(kv, vocabulary, unkId);
  } else encodeFragment = spmModel(vocabulary);

  const isPhi3 = /phi-?3/i.test(String(kv.get('general.name')));
  const partition = createGgufPartition(vocabulary, (text) => isPhi3 && !PHI3_KEEPS_SPACE.has(text));
  const isText = (id: number): boolean =>
    vocabulary.types[id] === TokenType.normal ||
    vocabulary.types[id] === TokenType.unused ||
    vocabulary.types[id] === TokenType.byte;
  const marksSpace = pre?.byteLevel !== true;
  const tokenBytes = (id: number): Uint8Array => {
    if (!(id >= 0 && id < size)) throw new RangeError(`token id ${id} is not in 0 .. ${size - 1}`);
    const text = vocabulary.texts[id];
    if (!isText(id)) return encoder.encode(text);
    if (!marksSpace) return fromByteLevel(text) ?? encoder.encode(text);
    const byte = fallbackByte(text);
    return byte >= 0 ? Uint8Array.of(byte) : encoder.encode(text.replaceAll('▁', ' '));
  };
  const isSpecial = (id: number): boolean =>
    vocabulary.types[id] === TokenType.control || vocabulary.types[id] === TokenType.unknown;
  const specialTokens: Record<string, string> = {};
  const named = { bos_token: bosId, eos_token: eosId, unk_token: unkId, pad_token: padId };
  for (const [key, id] of Object.entries(named)) if (id !== undefined) specialTokens[key] = vocabulary.texts[id];
  const chatTemplate = kv.get('tokenizer.chat_template');

  return {
    vocabularySize: size,
    encode(text, options = {}) {
      const out = createIdBuffer(text.length >> 1);
      const addSpecial = options.addSpecialTokens !== false;
      if (addSpecial && addBos && bosId !== undefined) out.push(bosId);
      let afterSpecial = true;
      for (const fragment of partition(text, options.parseSpecialTokens === true)) {
        if ('id' in fragment) {
          out.push(fragment.id);
          afterSpecial = true;
          continue;
        }
        const prefix = kind === 'spm' && addSpacePrefix && afterSpecial ? ' ' : '';
        encodeFragment(prefix + fragment.text, out);
        afterSpecial = false;
      }
      if (addSpecial && addEos && eosId !== undefined) out.push(eosId);
      return out.toIds();
    },
    tokenBytes,
    tokenText(id) {
      if (!(id >= 0 && id < size)) throw new RangeError(`token id ${id} is not in 0 .. ${size - 1}`);
      return vocabulary.texts[id];
    },
    decode(ids, options = {}) {
      const parts: Uint8Array[] = [];
      let total = 0;
      let afterSpecial = true;
      for (let i = 0; i < ids.length; i++) {
        const special = !isText(ids[i]);
        if (special && options.skipSpecialTokens === true && isSpecial(ids[i])) continue;
        let bytes = tokenBytes(ids[i]);
        // The space that `encode` puts before a text is no part of it.
        if (kind === 'spm' && addSpacePrefix && afterSpecial && !special && bytes[0] === 0x20)
          bytes = bytes.subarray(1);
        afterSpecial = special;
        parts.push(bytes);
        total += bytes.length;
      }
      const joined = new Uint8Array(total);
      let at = 0;
      for (const part of parts) {
        joined.set(part, at);
        at += part.length;
      }
      return decoder.decode(joined);
    },
    bosId,
    eosId,
    unkId,
    padId,
    addBosDefault: addBos && bosId !== undefined,
    isSpecial,
    chatTemplate: typeof chatTemplate === 'string' ? chatTemplate : undefined,
    specialTokens,
    warnings,
  };
}
