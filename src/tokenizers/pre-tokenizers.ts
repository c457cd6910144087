import { InputError } from '../errors.js';
import { toByteLevel } from './byte-level.js';
import { compilePattern, splitAt, splitBehavior } from './patterns.js';
import { asSettings, listOf, type Settings, typeOf } from './settings.js';

/** Cuts pieces into smaller ones. `atStart`: whether the first piece stands at the very start of the text. */
type Split = (pieces: readonly string[], atStart: boolean) => string[];

/** How text is cut into the words that the model encodes one by one. */
export interface PreTokenizer {
  /** `text` is what lies between added tokens; `atStart`: nothing stands before it. */
  split(text: string, atStart: boolean): string[];
  /**
   * Whether the words still have to be mapped to byte-level characters. Left to the model, so that it is done once for
   * each different word.
   */
  readonly mapsBytes: boolean;
}

const GPT2 =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;
const WORD = '\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}';
const PUNCTUATION = /[\p{P}!-/:-@[-`{-~]/gu;

function each(split: (piece: string, pieces: string[]) => void): Split {
  return (pieces) => {
    const result: string[] = [];
    for (const piece of pieces) split(piece, result);
    return result;
  };
}

function metaspace(config: Settings, what: string): Split {
  const replacement = typeof config.replacement === 'string' ? config.replacement : '▁';
  // Before 0.14 of the format there was only a flag.
  const scheme = config.prepend_scheme ?? (config.add_prefix_space === false ? 'never' : 'always');
  if (scheme !== 'always' && scheme !== 'first' && scheme !== 'never') {
    throw new InputError(`${what}: unknown prepend_scheme ${JSON.stringify(scheme)}`);
  }
  const cuts = config.split !== false;
  const pattern = compilePattern(replacement, what);
  return (pieces, atStart) => {
    const result: string[] = [];
    pieces.forEach((piece, i) => {
      let text = piece.replaceAll(' ', replacement);
      const prepends = scheme === 'always' || (scheme === 'first' && atStart && i === 0);
      if (prepends && !text.startsWith(replacement)) text = replacement + text;
      if (cuts) splitAt(text, pattern, 'MergedWithNext', false, result);
      else if (text !== '') result.push(text);
    });
    return result;
  };
}

function byteLevelWords(config: Settings): Split {
  const addsSpace = config.add_prefix_space !== false;
  const cuts = config.use_regex !== false;
  return each((piece, pieces) => {
    const text = addsSpace && !piece.startsWith(' ') ? ` ${piece}` : piece;
    if (cuts) splitAt(text, GPT2, 'Isolated', false, pieces);
    else pieces.push(text);
  });
}

function fixedLength(config: Settings, what: string): Split {
  const length = config.length;
  if (typeof length !== 'number' || !(length >= 1)) throw new InputError(`${what}: length must be at least 1`);
  return each((piece, pieces) => {
    const chars = Array.from(piece);
    for (let i = 0; i < chars.length; i += length) pieces.push(chars.slice(i, i + length).join(''));
  });
}

function compileOne(config: Settings, what: string): Split {
  const type = typeOf(config, what);
  switch (type) {
    case 'Split': {
      const pattern = compilePattern(config.pattern, what);
      const behavior = splitBehavior(config.behavior, what);
      const invert = config.invert === true;
      return each((piece, pieces) => splitAt(piece, pattern, behavior, invert, pieces));
    }
    case 'Metaspace':
      return metaspace(config, what);
    case 'Whitespace': {
      const pattern = new RegExp(`[${WORD}]+|[^${WORD}\\p{White_Space}]+`, 'gu');
      return each((piece, pieces) => splitAt(piece, pattern, 'Removed', true, pieces));
    }
    case 'WhitespaceSplit':
      return each((piece, pieces) => splitAt(piece, /\p{White_Space}/gu, 'Removed', false, pieces));
    case 'BertPreTokenizer':
      return (pieces) => {
        const words: string[] = [];
        for (const piece of pieces) splitAt(piece, /\p{White_Space}/gu, 'Removed', false, words);
        const result: string[] = [];
        for (const word of words) splitAt(word, PUNCTUATION, 'Isolated', false, result);
        return result;
      };
    case 'Punctuation': {
      const behavior = splitBehavior(config.behavior ?? 'Isolated', what);
      return each((piece, pieces) => splitAt(piece, PUNCTUATION, behavior, false, pieces));
    }
    case 'Digits': {
      const behavior = config.individual_digits === true ? 'Isolated' : 'Contiguous';
      return each((piece, pieces) => splitAt(piece, /\p{N}/gu, behavior, false, pieces));
    }
    case 'CharDelimiterSplit': {
      const pattern = compilePattern(config.delimiter, what);
      return each((piece, pieces) => splitAt(piece, pattern, 'Removed', false, pieces));
    }
    case 'FixedLength':
      return fixedLength(config, what);
    default:
      throw new InputError(`${what}: the pre-tokenizer ${type} is not supported`);
  }
}

function compileSteps(config: Settings, what: string, steps: { split: Split; mapsBytes: boolean }[]): void {
  const type = typeOf(config, what);
  if (type === 'Sequence') {
    listOf(config, 'pretokenizers', what).forEach((part, i) => {
      compileSteps(part, `${what}[${i}]`, steps);
    });
  } else if (type === 'ByteLevel') steps.push({ split: byteLevelWords(config), mapsBytes: true });
  else steps.push({ split: compileOne(config, what), mapsBytes: false });
}

/**
 * The pre-tokenizer that a `pre_tokenizer` of tokenizer.json describes; one word for null. Throws InputError for an
 * unknown type.
 */
export function compilePreTokenizer(value: unknown, what: string): PreTokenizer {
  const steps: { split: Split; mapsBytes: boolean }[] = [];
  if (value !== null && value !== undefined) compileSteps(asSettings(value, what), what, steps);
  const mapsBytes = steps.length > 0 && steps[steps.length - 1].mapsBytes;
  return {
    split(text, atStart) {
      let pieces = [text];
      for (let i = 0; i < steps.length; i++) {
        pieces = steps[i].split(pieces, atStart);
        if (steps[i].mapsBytes && i + 1 < steps.length) pieces = pieces.map(toByteLevel);
      }
      return pieces;
    },
    mapsBytes,
  };
}
