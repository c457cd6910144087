import { InputError } from '../errors.js';
import { fallbackByte, fromByteLevel } from './byte-level.js';
import { compilePattern } from './patterns.js';
import { asSettings, listOf, type Settings, stringOf, typeOf } from './settings.js';

/** Tokens to pieces of text; the pieces joined are the text. */
export type DecodeTokens = (tokens: readonly string[]) => string[];

const encoder = new TextEncoder();
const lossy = new TextDecoder('utf-8', { ignoreBOM: true });
const strict = new TextDecoder('utf-8', { ignoreBOM: true, fatal: true });

function joinBytes(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

function byteLevel(tokens: readonly string[]): string[] {
  return [lossy.decode(joinBytes(tokens.map((token) => fromByteLevel(token) ?? encoder.encode(token))))];
}

function byteFallback(tokens: readonly string[]): string[] {
  const pieces: string[] = [];
  let bytes: number[] = [];
  const flush = (): void => {
    if (bytes.length === 0) return;
    try {
      pieces.push(strict.decode(Uint8Array.from(bytes)));
    } catch {
      for (let i = 0; i < bytes.length; i++) pieces.push('\ufffd');
    }
    bytes = [];
  };
  for (const token of tokens) {
    const byte = fallbackByte(token);
    if (byte >= 0) bytes.push(byte);
    else {
      flush();
      pieces.push(token);
    }
  }
  flush();
  return pieces;
}

/** The spaces before punctuation and contractions that word tokenizers leave behind. */
export function cleanUpSpaces(text: string): string {
  return text
    .replaceAll(' .', '.')
    .replaceAll(' ?', '?')
    .replaceAll(' !', '!')
    .replaceAll(' ,', ',')
    .replaceAll(" ' ", "'")
    .replaceAll(" n't", "n't")
    .replaceAll(" 'm", "'m")
    .replaceAll(' do not', " don't")
    .replaceAll(" 's", "'s")
    .replaceAll(" 've", "'ve")
    .replaceAll(" 're", "'re");
}

function wordPiece(config: Settings): DecodeTokens {
  const prefix = typeof config.prefix === 'string' ? config.prefix : '##';
  return (tokens) =>
    tokens.map((token, i) => {
      let text = token;
      if (i > 0) text = token.startsWith(prefix) ? token.slice(prefix.length) : ` ${token}`;
      return config.cleanup === false ? text : cleanUpSpaces(text);
    });
}

function metaspace(config: Settings): DecodeTokens {
  const replacement = typeof config.replacement === 'string' ? config.replacement : '▁';
  const strips = (config.prepend_scheme ?? (config.add_prefix_space === false ? 'never' : 'always')) !== 'never';
  return (tokens) => tokens.map((token, i) => token.replaceAll(replacement, i === 0 && strips ? '' : ' '));
}

function strip(config: Settings, what: string): DecodeTokens {
  const content = stringOf(config, 'content', what);
  const start = typeof config.start === 'number' ? config.start : 0;
  const stop = typeof config.stop === 'number' ? config.stop : 0;
  return (tokens) =>
    tokens.map((token) => {
      const chars = Array.from(token);
      let from = 0;
      while (from < start && chars[from] === content) from++;
      let to = chars.length;
      while (chars.length - to < stop && to > from && chars[to - 1] === content) to--;
      return chars.slice(from, to).join('');
    });
}

/**
 * The decoder that a `decoder` of tokenizer.json describes; for null, tokens are joined by spaces. Throws InputError
 * for an unknown type.
 */
export function compileDecoder(value: unknown, what: string): DecodeTokens {
  if (value === null || value === undefined) return (tokens) => [tokens.join(' ')];
  const config = asSettings(value, what);
  const type = typeOf(config, what);
  switch (type) {
    case 'ByteLevel':
      return byteLevel;
    case 'ByteFallback':
      return byteFallback;
    case 'Fuse':
      return (tokens) => [tokens.join('')];
    case 'Metaspace':
      return metaspace(config);
    case 'WordPiece':
      return wordPiece(config);
    case 'Strip':
      return strip(config, what);
    case 'BPEDecoder': {
      const suffix = typeof config.suffix === 'string' ? config.suffix : '</w>';
      return (tokens) => tokens.map((token, i) => token.replaceAll(suffix, i === tokens.length - 1 ? '' : ' '));
    }
    case 'Replace': {
      const pattern = compilePattern(config.pattern, what);
      const content = stringOf(config, 'content', what);
      return (tokens) => tokens.map((token) => token.replace(pattern, () => content));
    }
    case 'Sequence': {
      const parts = listOf(config, 'decoders', what).map((part, i) => compileDecoder(part, `${what}[${i}]`));
      return (tokens) => parts.reduce((current, part) => part(current), [...tokens]);
    }
    default:
      throw new InputError(`${what}: the decoder ${type} is not supported`);
  }
}
