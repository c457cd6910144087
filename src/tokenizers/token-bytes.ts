import { fallbackByte, fromByteLevel } from './byte-level.js';
import { flatten, isSettings, type Settings } from './settings.js';

const encoder = new TextEncoder();

/**
 * How the tokens of a tokenizer.json stand for bytes: byte-level characters, byte-fallback tokens `<0xNN>`, a mark for
 * the space, a suffix that ends a word, a prefix that continues one. Special tokens stand for their own text and must
 * not be passed here.
 */
export function compileTokenBytes(tokenizer: Settings): (token: string) => Uint8Array {
  const decoders = flatten(tokenizer.decoder, 'decoders');
  const preTokenizers = flatten(tokenizer.pre_tokenizer, 'pretokenizers');
  const normalizers = flatten(tokenizer.normalizer, 'normalizers');
  const model = isSettings(tokenizer.model) ? tokenizer.model : {};
  const parts = [...decoders, ...preTokenizers, ...normalizers];
  if (parts.some((part) => part.type === 'ByteLevel')) {
    return (token) => fromByteLevel(token) ?? encoder.encode(token);
  }
  const metaspace = parts.find((part) => part.type === 'Metaspace');
  let space = typeof metaspace?.replacement === 'string' ? metaspace.replacement : undefined;
  for (const part of normalizers) {
    const marksSpace = part.type === 'Replace' && isSettings(part.pattern) && part.pattern.String === ' ';
    if (marksSpace && typeof part.content === 'string') space ??= part.content;
  }
  if (metaspace !== undefined) space ??= '▁';
  const hasFallback = model.byte_fallback === true || decoders.some((part) => part.type === 'ByteFallback');
  const suffix = typeof model.end_of_word_suffix === 'string' ? model.end_of_word_suffix : '';
  const prefix = typeof model.continuing_subword_prefix === 'string' ? model.continuing_subword_prefix : '';
  return (token) => {
    const byte = hasFallback ? fallbackByte(token) : -1;
    if (byte >= 0) return Uint8Array.of(byte);
    let text = token;
    if (prefix !== '' && text.startsWith(prefix)) text = text.slice(prefix.length);
    if (suffix !== '' && text.endsWith(suffix)) text = `${text.slice(0, -suffix.length)} `;
    if (space !== undefined && space !== '') text = text.replaceAll(space, ' ');
    return encoder.encode(text);
  };
}
