import { didYouMean, InputError } from '../errors.js';

/** How a byte-pair vocabulary of a GGUF file cuts text, and what else `tokenizer.ggml.pre` decides. */
export interface GgufPreTokenizer {
  /** Applied one after the other; each isolates its matches within the pieces of the one before. */
  readonly patterns: readonly RegExp[];
  /** A word that is a token is taken whole, before any merge. */
  readonly ignoreMerges: boolean;
  /** Whether BOS is added where the file does not say. */
  readonly addBos: boolean;
  /** Whether bytes are written as GPT-2's characters; else text is UTF-8 with a mark for the space and `<0xNN>`. */
  readonly byteLevel: boolean;
  /** Whether words of nothing but line feeds are taken whole where they are tokens. */
  readonly wholeLineFeeds: boolean;
}

const CONTRACTION = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])";
const SPACES = '\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+';
const GPT2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
/** The family of cl100k and its children: they differ in how many digits stand together. */
const wordsAndDigits = (digits: string): string =>
  `${CONTRACTION}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|${SPACES}`;
const LLAMA3 = wordsAndDigits('\\p{N}{1,3}');
const QWEN2 = wordsAndDigits('\\p{N}');
/** The family of o200k, as llama.cpp reads it: all letters are both cases but those of ASCII. */
const casedWords = (letter: string, digits: string, contraction: string): string => {
  const upper = `(?:(?=[${letter}])[^a-z])`;
  const lower = `(?:(?=[${letter}])[^A-Z])`;
  const lead = '[^\\r\\n\\p{L}\\p{N}]?';
  return (
    `${lead}${upper}*${lower}+${contraction}|${lead}${upper}+${lower}*${contraction}|${digits}` +
    `| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|${SPACES}`
  );
};
const DEEPSEEK_WORDS =
  '[!"#$%&\'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+';
const DEEPSEEK3 = ['\\p{N}{1,3}', '[一-龥぀-ゟ゠-ヿ]+', `${DEEPSEEK_WORDS}[\\r\\n]*|${SPACES}`];
/** Cased Latin, Greek, Cyrillic, Armenian, Georgian, Cherokee, Coptic, Deseret, Osage and their like. */
const CASED_LETTERS =
  'A-Za-z\\u00b5\\u00c0-\\u00d6\\u00d8-\\u00f6\\u00f8-\\u01ba\\u01bc-\\u01bf\\u01c4-\\u0293\\u0295-\\u02af' +
  '\\u0370-\\u0373\\u0376\\u0377\\u037b-\\u037d\\u037f\\u0386\\u0388-\\u038a\\u038c\\u038e-\\u03a1' +
  '\\u03a3-\\u03f5\\u03f7-\\u0481\\u048a-\\u052f\\u0531-\\u0556\\u10a0-\\u10c5\\u13a0-\\u13f5\\u13f8-\\u13fd' +
  '\\u1c90-\\u1cba\\u1cbd-\\u1cbf\\u1d00-\\u1d2b\\u1d6b-\\u1d77\\u1d79-\\u1d9a\\u1e00-\\u1f15\\u1f18-\\u1f1d' +
  '\\u1f20-\\u1f45\\u1f48-\\u1f4d\\u1f50-\\u1f57\\u1f59\\u1f5b\\u1f5d\\u1f5f-\\u1f7d\\u1f80-\\u1fb4' +
  '\\u1fb6-\\u1fbc\\u1fbe\\u1fc2-\\u1fc4\\u1fc6-\\u1fcc\\u1fd0-\\u1fd3\\u1fd6-\\u1fdb\\u1fe0-\\u1fec' +
  '\\u1ff2-\\u1ff4\\u1ff6-\\u1ffc\\u2102\\u2107\\u210a-\\u2113\\u2115\\u2119-\\u211d\\u2124\\u2126\\u2128' +
  '\\u212a-\\u212d\\u212f-\\u2134\\u2139\\u213c-\\u213f\\u2145-\\u2149\\u214e\\u2183\\u2184\\u2c00-\\u2c7b' +
  '\\u2c7e-\\u2ce4\\u2ceb-\\u2cee\\u2cf2\\u2cf3\\ua640-\\ua66d\\ua680-\\ua69b\\ua722-\\ua76f\\ua771-\\ua787' +
  '\\ua78b-\\ua78e\\uab70-\\uabbf\\ufb00-\\ufb06\\ufb13-\\ufb17\\uff21-\\uff3a\\uff41-\\uff5a' +
  '\\u{10400}-\\u{1044f}\\u{104b0}-\\u{104d3}\\u{104d8}-\\u{104fb}\\u{10c80}-\\u{10cb2}\\u{10cc0}-\\u{10cf2}' +
  '\\u{118a0}-\\u{118df}\\u{1e900}-\\u{1e943}';
/** Digits in threes from the right; the first of them stay with what stands before, as llama.cpp has it. */
const DIGITS_FROM_RIGHT = '\\P{N}*\\p{N}{1,3}(?=(?:\\p{N}{3})*(?!\\p{N}))|\\P{N}+';
const BLOOM = ' ?[^(\\s|.,!?…。，、।۔،)]+';

interface Entry {
  readonly names: string;
  readonly patterns: readonly string[];
  readonly ignoreMerges?: boolean;
  readonly addBos?: boolean;
  readonly byteLevel?: boolean;
  readonly wholeLineFeeds?: boolean;
}

/** The names of `tokenizer.ggml.pre` and what they mean to llama.cpp (`llm_tokenizer_bpe`, as of 2026). */
const ENTRIES: readonly Entry[] = [
  {
    names: 'default',
    patterns: ['[\\p{P}\\$\\+<=>\\^~\\|]+', GPT2, '\\p{N}+', '[0-9][0-9][0-9]'],
  },
  {
    names: 'llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano',
    patterns: [LLAMA3],
    ignoreMerges: true,
    addBos: true,
  },
  { names: 'dbrx smaug-bpe chatglm-bpe', patterns: [LLAMA3] },
  { names: 'glm4 glm5', patterns: [LLAMA3], ignoreMerges: true },
  { names: 'minicpm5', patterns: ['\\p{N}{1,3}', wordsAndDigits('\\p{N}+')], ignoreMerges: true },
  {
    names:
      'gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert jina-v1-en jina-v2-code roberta-bpe mpt olmo jais trillion granite-docling exaone4',
    patterns: [GPT2],
  },
  {
    names: 'starcoder refact command-r smollm codeshell exaone minerva-7b mellum2',
    patterns: ['\\p{N}', GPT2],
  },
  { names: 'falcon', patterns: ['[\\p{P}\\$\\+<=>\\^~\\|`]+', GPT2, '[0-9][0-9][0-9]'] },
  {
    names: 'qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2',
    patterns: [QWEN2],
  },
  {
    names: 'qwen35',
    patterns: [
      `${CONTRACTION}|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|${SPACES}`,
    ],
  },
  {
    names: 'ufakzeka',
    patterns: [`[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|${SPACES}`],
  },
  { names: 'laguna', patterns: ['[^\\n]+|[\\n]+', QWEN2] },
  {
    names: 'seed-coder',
    patterns: [`${CONTRACTION}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|${SPACES}`],
  },
  {
    names: 'bailingmoe bailingmoe2 llada-moe',
    patterns: [
      "'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+",
    ],
  },
  {
    names: 'exaone-moe',
    patterns: [
      `${CONTRACTION}|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+`,
    ],
  },
  {
    names: 'jais-2',
    patterns: [
      `${CONTRACTION}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+` +
        [512, 256, 128, 64, 32, 16, 8, 4].map((n) => `|\\s{${n}}(?!\\S)`).join('') +
        '|\\s{1,2}(?!\\S)|\\s{1}',
    ],
  },
  { names: 'tekken', patterns: [casedWords('\\p{L}', '\\p{N}', '')], ignoreMerges: true, addBos: true },
  {
    names: 'gpt-4o llama4 kanana2 talkie minimax-m2',
    patterns: [casedWords('\\p{L}', '\\p{N}{1,3}', `${CONTRACTION}?`)],
  },
  {
    names: 'granite-embed-multi-97m',
    patterns: [casedWords('\\p{L}\\p{M}', '\\p{N}{1,3}', `${CONTRACTION}?`)],
    ignoreMerges: true,
  },
  {
    names: 'deepseek-llm',
    patterns: [
      '[\\r\\n]',
      `\\s?[${CASED_LETTERS}]+`,
      '\\s?[!-/:-~！-／：-～‘-‟、-。]+',
      '\\s+$',
      '(?:(?!\\s)[一-龥ࠀ-一가-퟿])+',
      '\\p{N}+',
    ],
  },
  {
    names: 'deepseek-coder',
    patterns: ['[\\r\\n]', '\\s?\\p{L}+', '\\s?\\p{P}+', '(?:(?!\\s)[一-龥ࠀ-一가-퟿])+', '\\p{N}'],
  },
  { names: 'deepseek-v3 hunyuan-dense joyai-llm hy_v4', patterns: DEEPSEEK3 },
  {
    names: 'spark2_5',
    patterns: ['\\p{N}{1,3}', '[一-龥぀-ゟ゠-ヿ]+', `${DEEPSEEK_WORDS}|[\\r\\n]|\\s+(?!\\S)|\\s+`, '\\p{N}'],
  },
  {
    names: 'afmoe',
    patterns: [
      DIGITS_FROM_RIGHT,
      '[一-鿿㐀-䶿豈-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-힯ᄀ-ᇿ]+',
      `${DEEPSEEK_WORDS}[\\r\\n]*|${SPACES}`,
    ],
  },
  { names: 'poro-chat bloom gpt3-finnish', patterns: [BLOOM] },
  {
    names: 'youtu',
    patterns: [
      '[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+',
      `[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+${CONTRACTION}?|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|${SPACES}`,
    ],
    ignoreMerges: true,
  },
  {
    names: 'tiny_aya cohere2moe',
    patterns: [
      DIGITS_FROM_RIGHT,
      `[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+${CONTRACTION}?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|${SPACES}`,
    ],
  },
  { names: 'superbpe', patterns: ['\\p{N}+', '(?=(?:\\d{3})+(?!\\d))'] },
  { names: 'viking', patterns: [BLOOM, '\\p{N}'] },
  {
    names: 'chameleon',
    patterns: [
      '<sentinel:[0-9]+>',
      '(?:IMGIMG)(?:(?:A|B|C|D|E|F|G|H|I){1,4})Z',
      '(?:[\\t\\n]|    |  )',
      '\\p{N}',
      '[\\p{P}!-/:-@\\[-`{-~]',
      GPT2,
    ],
    addBos: true,
  },
  {
    names: 'gemma4 granite-embed-multi-311m',
    patterns: ['[^\\n]+|[\\n]+'],
    addBos: true,
    byteLevel: false,
    wholeLineFeeds: true,
  },
  { names: 'sarvam-moe', patterns: ['[^\\n]+|[\\n]+'], byteLevel: false },
];

const BY_NAME = new Map(ENTRIES.flatMap((entry) => entry.names.split(' ').map((name) => [name, entry] as const)));

/** Names of `tokenizer.ggml.pre` that are understood. */
export const GGUF_PRE_TOKENIZERS: readonly string[] = [...BY_NAME.keys()];

/**
 * The pre-tokenizer of a name of `tokenizer.ggml.pre`. Throws InputError for an unknown name, as llama.cpp refuses it:
 * another pre-tokenizer would give other ids.
 */
export function ggufPreTokenizer(name: string): GgufPreTokenizer {
  const entry = BY_NAME.get(name);
  if (entry === undefined) {
    throw new InputError(
      `tokenizer.ggml.pre is "${name}", which is not supported${didYouMean(name, GGUF_PRE_TOKENIZERS)} ` +
        `Known: ${GGUF_PRE_TOKENIZERS.join(', ')}`,
    );
  }
  return {
    // \s of JavaScript has U+FEFF and lacks U+0085.
    patterns: entry.patterns.map(
      (source) => new RegExp(source.replaceAll('\\s', '\\p{White_Space}').replaceAll('\\S', '\\P{White_Space}'), 'gu'),
    ),
    ignoreMerges: entry.ignoreMerges === true,
    addBos: entry.addBos === true,
    byteLevel: entry.byteLevel !== false,
    wholeLineFeeds: entry.wholeLineFeeds === true,
  };
}
