import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { InputError } from '../../errors.js';
import type { GgufEntry } from '../../formats/ggml-types.js';
import { readJson } from '../../models/model-files.js';
import { tokenizerFromGguf } from '../../tokenizers/gguf-tokenizer.js';
import { TokenType } from '../../tokenizers/gguf-vocabulary.js';
import { openTokenizer, type Tokenizer } from '../../tokenizers/tokenizer.js';

type Pairs = Map<string, GgufEntry>;

/** What `tokenizer.json` holds of a byte-pair model. */
interface BytePairModel {
  readonly tokens: ReadonlyMap<number, string>;
  readonly merges: readonly (readonly [string, string])[];
  /** Added tokens and whether they are special, by id. */
  readonly added: ReadonlyMap<number, boolean>;
}

/**
 * Names of `tokenizer.ggml.pre` that are tried, the usual ones first. What decides is that the vocabulary, read as a
 * GGUF file is, gives the tokenizer's own ids on {@link PROBES}.
 */
const PRE_TOKENIZERS = [
  'llama-bpe',
  'qwen2',
  'gpt-2',
  'smollm',
  'smaug-bpe',
  'tekken',
  'gpt-4o',
  'deepseek-v3',
  'deepseek-llm',
  'deepseek-coder',
  'qwen35',
  'falcon',
  'bloom',
  'viking',
  'default',
];

/** Texts in which pre-tokenizers differ: contractions, digits, white space, line ends, case, scripts, marks, signs. */
const PROBES: readonly string[] = [
  "Hello world, it's a test. I'LL see; we'Ve DON'T They'd ME'RE",
  'In 1999 and 20250131 there were 3.14159 or 1,234,567 of 12th x86_64 a1b22c333d4444',
  '  leading spaces\n\n\nand   many\t\ttabs \n  lines\r\n\r\nend   ',
  'def f(x):\n    return x**2 + y[0] != "a\\n" && (b || c) -> {d: 1}; // http://a.b/c?d=e#f',
  'naïve café Ångström ÀÉÎ straße ŒUVRE İstanbul ﬁne x\u0301y\u0327',
  'Привет мир! Ελληνικά γράμματα. שלום עולם مرحبا بالعالم हिन्दी में ไทย',
  '你好，世界。こんにちは カタカナ 한국어 조선말 漢字1234',
  '🙂👩‍👩‍👧 🏳️‍🌈 ∑∫√ ≠ ½ ² Ⅷ ٣٤ \u00a0\u2003\u200b…—“q”',
  'CamelCaseWordsAndUPPERCASE mixedCASE iPhone McDonald HTTPServer',
  '<|endoftext|></s><s>[INST]<|im_start|>user\n',
  '!!! ??? ... --- ___ *** ### $$$ %%% @@@ ~~~ ``` \'"\'" (( [[ {{ <<',
];

/**
 * The key-value pairs of a tokenizer for a GGUF file, from the `tokenizer.json` of a Hugging Face directory: byte-level
 * byte-pair vocabularies and those with byte fallback. The pairs are read back, and accepted only where they give the
 * same ids as the directory's own tokenizer on texts in which pre-tokenizers differ.
 * @param vocabularySize rows of the embedding; ids without a token are filled up
 * @throws InputError when the directory has no tokenizer, one of another kind, or one that no GGUF vocabulary equals
 */
export function ggufVocabulary(directory: string, vocabularySize: number): Pairs {
  const path = join(directory, 'tokenizer.json');
  const tokenizer = openTokenizer(directory);
  const model = readBytePairs(path);
  const common = commonPairs(directory, tokenizer, model, vocabularySize);
  let closest: { readonly pre: string; readonly text: string } | undefined;
  for (const [name, pairs] of candidates(tokenizer, model, common)) {
    const text = differing(tokenizer, pairs);
    if (text === undefined) return pairs;
    closest ??= { pre: name, text };
  }
  const example = closest ? ` (as ${closest.pre} it cuts ${JSON.stringify(closest.text)} differently)` : '';
  throw new InputError(
    `${path}: no pre-tokenizer of llama.cpp gives this tokenizer's ids${example}; the vocabulary cannot be written to ` +
      'GGUF; convert the source with llama.cpp and quantise that file',
  );
}

function readBytePairs(path: string): BytePairModel {
  const file = readJson(path);
  const model = file.model as Record<string, unknown> | undefined;
  const vocabulary = model?.vocab;
  const merges = model?.merges;
  if (model?.type !== 'BPE' || typeof vocabulary !== 'object' || vocabulary === null || !Array.isArray(merges)) {
    throw new InputError(
      `${path}: its model is ${String(model?.type)}; only byte-pair vocabularies are written to GGUF; convert the ` +
        'source with llama.cpp and quantise that file',
    );
  }
  const tokens = new Map(Object.entries(vocabulary as Record<string, number>).map(([text, id]) => [id, text] as const));
  const added = new Map<number, boolean>();
  for (const token of (file.added_tokens ?? []) as { id: number; content: string; special: boolean }[]) {
    tokens.set(token.id, token.content);
    added.set(token.id, token.special);
  }
  const pairs = merges.map((merge: unknown): readonly [string, string] => {
    if (Array.isArray(merge)) return [String(merge[0]), String(merge[1])];
    const text = String(merge);
    const space = text.indexOf(' ', 1);
    return [text.slice(0, space), text.slice(space + 1)];
  });
  return { tokens, merges: pairs, added };
}

const text = (value: string): GgufEntry => ({ type: 'STRING', value });
const flag = (value: boolean): GgufEntry => ({ type: 'BOOL', value });
const count = (value: number): GgufEntry => ({ type: 'UINT32', value });
const texts = (value: readonly string[]): GgufEntry => ({ type: { array: 'STRING' }, value });

/** Tokens, special ids and the template, whatever the kind. */
function commonPairs(
  directory: string,
  tokenizer: Tokenizer,
  model: BytePairModel,
  vocabularySize: number,
): { readonly tokens: GgufEntry; readonly rest: Pairs } {
  for (const id of model.tokens.keys()) {
    if (id < vocabularySize) continue;
    throw new InputError(`${directory}: tokenizer.json has a token ${id}, the embedding ${vocabularySize} rows`);
  }
  const tokens = Array.from({ length: vocabularySize }, (_, id) => model.tokens.get(id) ?? `[PAD${id}]`);
  const rest: Pairs = new Map();
  const ids = { bos: tokenizer.bosId, eos: tokenizer.eosId, unknown: tokenizer.unkId, padding: tokenizer.padId };
  for (const [name, id] of Object.entries(ids)) {
    if (id !== undefined) rest.set(`tokenizer.ggml.${name}_token_id`, count(id));
  }
  rest.set('tokenizer.ggml.add_bos_token', flag(tokenizer.addBosDefault));
  const ended = tokenizer.encode('a');
  rest.set(
    'tokenizer.ggml.add_eos_token',
    flag(tokenizer.eosId !== undefined && ended.length > 1 && ended[ended.length - 1] === tokenizer.eosId),
  );
  if (tokenizer.chatTemplate !== undefined) rest.set('tokenizer.chat_template', text(tokenizer.chatTemplate));
  return { tokens: texts(tokens), rest };
}

/** Vocabularies to try: byte-level ones under each pre-tokenizer, else one with byte fallback. */
function* candidates(
  tokenizer: Tokenizer,
  model: BytePairModel,
  { tokens, rest }: { readonly tokens: GgufEntry; readonly rest: Pairs },
): Generator<[name: string, pairs: Pairs]> {
  const list = tokens.value as readonly string[];
  const fallback = list.includes('<0x0A>');
  const types = Int32Array.from(list, (token, id) => tokenType(tokenizer, model, token, id, fallback));
  const shared: [string, GgufEntry][] = [
    ['tokenizer.ggml.tokens', tokens],
    ['tokenizer.ggml.token_type', { type: { array: 'INT32' }, value: types }],
  ];
  if (fallback) {
    const scores: [string, GgufEntry] = [
      'tokenizer.ggml.scores',
      { type: { array: 'FLOAT32' }, value: mergeScores(list, model.merges) },
    ];
    for (const prefix of [true, false]) {
      const head: [string, GgufEntry][] = [
        ['tokenizer.ggml.model', text('llama')],
        ['tokenizer.ggml.pre', text('default')],
      ];
      const space: [string, GgufEntry] = ['tokenizer.ggml.add_space_prefix', flag(prefix)];
      yield ['llama', new Map([...head, ...shared, scores, ...rest, space])];
    }
    return;
  }
  const merges: [string, GgufEntry] = [
    'tokenizer.ggml.merges',
    texts(model.merges.map(([left, right]) => `${left} ${right}`)),
  ];
  for (const pre of PRE_TOKENIZERS) {
    const head: [string, GgufEntry][] = [
      ['tokenizer.ggml.model', text('gpt2')],
      ['tokenizer.ggml.pre', text(pre)],
    ];
    yield [pre, new Map([...head, ...shared, merges, ...rest])];
  }
}

function tokenType(tokenizer: Tokenizer, model: BytePairModel, token: string, id: number, fallback: boolean): number {
  if (!model.tokens.has(id)) return TokenType.unused;
  if (id === tokenizer.unkId && fallback) return TokenType.unknown;
  const special = model.added.get(id);
  if (special !== undefined) return special ? TokenType.control : TokenType.userDefined;
  return fallback && /^<0x[0-9A-F]{2}>$/.test(token) ? TokenType.byte : TokenType.normal;
}

/** SentencePiece merges by score: the earlier the merge that makes a token, the higher its score. */
function mergeScores(tokens: readonly string[], merges: BytePairModel['merges']): Float32Array {
  const rank = new Map<string, number>();
  merges.forEach(([left, right], i) => {
    if (!rank.has(left + right)) rank.set(left + right, i);
  });
  return Float32Array.from(tokens, (token) => -(rank.get(token) ?? merges.length));
}

/** The first probe that the pairs, read as a GGUF file is, encode otherwise than the tokenizer. */
function differing(tokenizer: Tokenizer, pairs: Pairs): string | undefined {
  const read = tokenizerFromGguf(new Map([...pairs].map(([key, { value }]) => [key, value])));
  return PROBES.find((probe) => {
    const options = { addSpecialTokens: true, parseSpecialTokens: true };
    const expected = tokenizer.encode(probe, options);
    const actual = read.encode(probe, options);
    return actual.length !== expected.length || actual.some((id, i) => id !== expected[i]);
  });
}

/** Whether a directory has a tokenizer to write at all. */
export function hasTokenizer(directory: string): boolean {
  return existsSync(join(directory, 'tokenizer.json'));
}
