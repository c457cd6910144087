import { InputError } from '../errors.js';
import { toByteLevel } from './byte-level.js';
import { graphemeMapper, parseCharsMap } from './charsmap.js';
import { compilePattern } from './patterns.js';
import { asSettings, listOf, type Settings, stringOf, typeOf } from './settings.js';

/** Text to text, before it is cut into pieces. */
export type Normalize = (text: string) => string;

const LEADING_SPACE = /^\p{White_Space}+/u;
const TRAILING_SPACE = /\p{White_Space}+$/u;
const CJK =
  /[\u4e00-\u9fff\u3400-\u4dbf\u{20000}-\u{2a6df}\u{2a700}-\u{2b73f}\u{2b740}-\u{2b81f}\u{2b920}-\u{2ceaf}\uf900-\ufaff\u{2f800}-\u{2fa1f}]/gu;

/** Lower case of each code point by itself: Rust's mapping knows no final sigma. */
function lowerCase(text: string): string {
  return text.replaceAll('Σ', 'σ').toLowerCase();
}

function bertNormalizer(config: Settings): Normalize {
  const lower = config.lowercase !== false;
  const strip = config.strip_accents === true || (config.strip_accents !== false && lower);
  return (input) => {
    let text = input;
    if (config.clean_text !== false) {
      text = text.replace(/(?![\t\n\r])[\ufffd\p{Cc}\p{Cf}\p{Co}\p{Cs}]/gu, '').replace(/\p{White_Space}/gu, ' ');
    }
    if (config.handle_chinese_chars !== false) text = text.replace(CJK, ' $& ');
    if (strip) text = text.normalize('NFD').replace(/\p{Mn}/gu, '');
    return lower ? lowerCase(text) : text;
  };
}

/** Code points that SentencePiece's nmt_nfkc removes before NFKC: control characters but tab, line feed and the like. */
function nmtRemoves(code: number): boolean {
  if (code < 0x20) return code !== 0 && code !== 0x09 && code !== 0x0a && code !== 0x0c && code !== 0x0d;
  return code === 0x7f || code === 0x8f || code === 0x9f;
}

/** The rules of SentencePiece's nmt_nfkc that come before NFKC. */
function nmt(text: string): string {
  let result = '';
  for (let i = 0; i < text.length; i++) if (!nmtRemoves(text.charCodeAt(i))) result += text[i];
  return result.replace(/[\t\n\f\r\u1680\u200b-\u200f\u2028\u2029\u2581\ufeff\ufffd]/g, ' ');
}

/**
 * The normaliser that a `normalizer` of tokenizer.json describes; the identity for null. Throws InputError for an
 * unknown type.
 */
export function compileNormalizer(value: unknown, what: string): Normalize {
  if (value === null || value === undefined) return (text) => text;
  const config = asSettings(value, what);
  const type = typeOf(config, what);
  switch (type) {
    case 'Sequence': {
      const parts = listOf(config, 'normalizers', what).map((part, i) => compileNormalizer(part, `${what}[${i}]`));
      return (text) => parts.reduce((current, part) => part(current), text);
    }
    case 'NFC':
    case 'NFD':
    case 'NFKC':
    case 'NFKD':
      return (text) => text.normalize(type);
    case 'Lowercase':
      return lowerCase;
    case 'StripAccents':
      return (text) => text.replace(/\p{M}/gu, '');
    case 'Strip':
      return (input) => {
        let text = input;
        if (config.strip_left !== false) text = text.replace(LEADING_SPACE, '');
        if (config.strip_right !== false) text = text.replace(TRAILING_SPACE, '');
        return text;
      };
    case 'Prepend': {
      const prefix = stringOf(config, 'prepend', what);
      return (text) => (text === '' ? text : prefix + text);
    }
    case 'Replace': {
      const pattern = compilePattern(config.pattern, what);
      const content = stringOf(config, 'content', what);
      return (text) => text.replace(pattern, () => content);
    }
    case 'ByteLevel':
      return toByteLevel;
    case 'Nmt':
      return nmt;
    case 'BertNormalizer':
      return bertNormalizer(config);
    case 'Precompiled': {
      const encoded = config.precompiled_charsmap;
      if (typeof encoded !== 'string' || encoded === '') return (text) => text;
      return graphemeMapper(parseCharsMap(Buffer.from(encoded, 'base64'), what));
    }
    default:
      throw new InputError(`${what}: the normalizer ${type} is not supported`);
  }
}
