import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { copiedTokenizer } from '../../../src/fusion/merge/chat-templates.js';
import {
  type TokenizerRequest,
  type UnitedTokenizers,
  uniteTokenizers,
} from '../../../src/fusion/merge/tokenizer-union.js';
import type { TokenizerSettings, TokenSettings } from '../../../src/fusion/merge/types.js';
import { renderChat } from '../../../src/tokenizers/chat-template.js';
import { openTokenizer, type Tokenizer } from '../../../src/tokenizers/tokenizer.js';
import { lines, readFixture } from '../../tokenizers/fixtures.js';
import { memorySource, valuesOf } from './memory-source.js';

const EMBEDDING = 'model.embed_tokens.weight';

type Files = Record<string, unknown>;
interface TokenizerJson {
  added_tokens: { id: number; content: string }[];
  model: {
    continuing_subword_prefix?: string | null;
    type: string;
    vocab: Record<string, number> | [string, number][];
    merges?: (string | [string, string])[];
  };
}

const directories: string[] = [];
afterAll(() => {
  for (const directory of directories) rmSync(directory, { recursive: true });
});

function directoryWith(files: Readonly<Files>): string {
  const directory = mkdtempSync(path.join(tmpdir(), 'union-'));
  directories.push(directory);
  for (const [name, content] of Object.entries(files))
    writeFileSync(path.join(directory, name), typeof content === 'string' ? content : JSON.stringify(content));
  return directory;
}

function written(united: UnitedTokenizers): string {
  const directory = mkdtempSync(path.join(tmpdir(), 'united-'));
  directories.push(directory);
  for (const { name, bytes } of united.files) writeFileSync(path.join(directory, name), bytes);
  return directory;
}

/** Row r of the embedding of the model at place m is [1000 m + r]. */
function unite(
  models: readonly string[],
  options: Partial<Omit<TokenizerRequest, 'settings'>> & {
    settings?: Partial<TokenizerSettings>;
    rows?: readonly number[];
  } = {},
): UnitedTokenizers {
  const { rows = models.map((directory) => openTokenizer(directory).vocabularySize), settings, ...rest } = options;
  const sources = models.map((_, m) =>
    memorySource('abc'[m], {
      [EMBEDDING]: {
        dtype: 'F32',
        shape: [rows[m], 1],
        data: Float32Array.from({ length: rows[m] }, (__, r) => 1000 * m + r),
      },
    }),
  );
  return uniteTokenizers({
    references: sources.map(({ reference }) => reference),
    sources,
    directories: models,
    base: 0,
    keepPadding: false,
    vocabularyTensors: () => [EMBEDDING],
    ...rest,
    settings: { source: 'union', tokens: new Map(), ...settings },
  });
}

const fixtureFiles = (kind: string): Files => (readFixture(`${kind}.json`) as { files: Files }).files;
const tokenizerOf = (files: Files): TokenizerJson => structuredClone(files['tokenizer.json']) as TokenizerJson;
const bundled = (name: string): string => fileURLToPath(new URL(`../../../fixtures/models/${name}`, import.meta.url));

/** Tokens of a file in the order of their ids. */
function ordinaryTokens({ model, added_tokens }: TokenizerJson): string[] {
  const added = new Set(added_tokens.map(({ content }) => content));
  const all = Array.isArray(model.vocab)
    ? model.vocab.map(([token]) => token)
    : Object.entries(model.vocab)
        .sort((a, b) => a[1] - b[1])
        .map(([token]) => token);
  return all.filter((token) => !added.has(token));
}

/** The tokenizer without the last `count` tokens of its vocabulary, and without merges that need them. */
function shrunk(files: Files, count: number): Files {
  const json = tokenizerOf(files);
  const prefix = json.model.continuing_subword_prefix ?? '';
  const gone = new Set(ordinaryTokens(json).slice(-count));
  if (Array.isArray(json.model.vocab)) json.model.vocab = json.model.vocab.filter(([token]) => !gone.has(token));
  else json.model.vocab = Object.fromEntries(Object.entries(json.model.vocab).filter(([token]) => !gone.has(token)));
  if (json.model.merges !== undefined)
    json.model.merges = json.model.merges.filter((merge) => {
      const [left, right] = typeof merge === 'string' ? merge.split(' ') : merge;
      return ![left, right, left + right.slice(prefix.length)].some((token) => gone.has(token));
    });
  return { ...files, 'tokenizer.json': json };
}

const texts = (tokenizer: Tokenizer, text: string): string[] =>
  Array.from(tokenizer.encode(text), (id) => tokenizer.tokenText(id));

describe('a union of tokenizers', () => {
  // A vocabulary that lost its last tokens gets them back from the whole one, and cuts every text as the whole one does:
  // merges are learned in the order of the ids, scores and pieces travel with the tokens.
  it.each([
    'byte-level',
    'byte-fallback',
    'llama-class',
    'unigram',
    'bert',
    'word-level',
    'word-bpe',
    'added-tokens',
    'gemma-like',
  ])('of %s restores what one lacks', (kind) => {
    const whole = fixtureFiles(kind);
    const part = directoryWith(shrunk(whole, 40));
    const full = directoryWith(whole);
    const united = unite([part, full]);
    const [base, other, output] = [part, full, written(united)].map((directory) => openTokenizer(directory));
    for (let id = 0; id < base.vocabularySize; id++) expect(output.tokenText(id)).toBe(base.tokenText(id));
    expect(output.vocabularySize).toBeLessThanOrEqual(united.vocabularySize);
    expect(output.vocabularySize).toBeGreaterThan(base.vocabularySize);
    for (const line of lines) {
      expect(texts(output, line)).toEqual(texts(other, line));
      expect(output.decode(output.encode(line))).toBe(other.decode(other.encode(line)));
    }
  });

  it('keeps the base’s ids, then new tokens in the order of the models, then added ones', async () => {
    const united = unite([bundled('llama-sotu'), bundled('qwen2-moby')]);
    const [base, other] = ['llama-sotu', 'qwen2-moby'].map((name) => openTokenizer(bundled(name)));
    const output = openTokenizer(written(united));
    const baseTokens = new Set(Array.from({ length: 1024 }, (_, id) => base.tokenText(id)));
    const unseen = Array.from({ length: 768 }, (_, id) => id).filter((id) => !baseTokens.has(other.tokenText(id)));
    const ordinary = unseen.filter((id) => other.tokenText(id) !== '<s>');
    const expected = [...ordinary.map((id) => other.tokenText(id)), '<s>'];
    expect(united.vocabularySize).toBe(1024 + expected.length);
    expect(expected.map((_, i) => output.tokenText(1024 + i))).toEqual(expected);
    expect(output.isSpecial(1024 + ordinary.length)).toBe(true);
    const [first, second] = await Promise.all(united.sources.map((source) => valuesOf(source, EMBEDDING)));
    for (const [i, id] of ordinary.entries())
      expect([first[1024 + i], second[1024 + i]]).toEqual([1000 + id, 1000 + id]);
    const the = base.encode(' the')[0];
    expect(second[the]).toBe(1000 + other.encode(' the')[0]);
    expect(united.origins.filter(({ model }) => model === 'a')).toHaveLength(expected.length);
    expect(united.origins.every(({ origin }) => origin === 'copied')).toBe(true);
    expect(united.notes.join('\n')).toMatch(/eos_token is "<s>" in b; the output has "<\|endoftext\|>" of a/);
    // Text is cut as the base cuts it and then only joined further.
    for (const text of ['the women of science and the whale', ...lines.slice(0, 20)]) {
      expect(output.decode(output.encode(text))).toBe(base.decode(base.encode(text)));
      const pieces = texts(base, text);
      for (const token of texts(output, text)) {
        let joined = '';
        while (joined.length < token.length) joined += pieces.shift() ?? '?'.repeat(99);
        expect(joined).toBe(token);
      }
    }
    expect(texts(output, ' science').length).toBeLessThanOrEqual(texts(base, ' science').length);
  });

  it('makes new tokens added ones under --variant mergekit', () => {
    const united = unite([bundled('llama-sotu'), bundled('qwen2-moby')], { variant: 'mergekit' });
    const output = openTokenizer(written(united));
    const plain = openTokenizer(bundled('llama-sotu'));
    expect(texts(plain, 'women')).not.toContain('men');
    expect(texts(output, 'women')).toContain('men');
  });

  it('adds the added tokens of all, and those that only the configuration names', () => {
    const file = tokenizerOf(fixtureFiles('byte-level'));
    const extra = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
    const next =
      Math.max(...Object.values(file.model.vocab as Record<string, number>), ...file.added_tokens.map(({ id }) => id)) +
      1;
    const [one, two] = ['<|turn|>', '<|stop|>'];
    const withAdded = { ...file, added_tokens: [...file.added_tokens, { id: next, content: one, ...extra }] };
    const a = directoryWith(fixtureFiles('byte-level'));
    const b = directoryWith({ ...fixtureFiles('byte-level'), 'tokenizer.json': withAdded });
    const tokens = new Map<string, TokenSettings>([[two, { source: { kind: 'zero' }, force: false }]]);
    const united = unite([a, b], { settings: { tokens, padToMultipleOf: 64 } });
    const output = openTokenizer(written(united));
    expect(texts(output, `${one}user${two}`)).toEqual([...texts(output, one), ...texts(output, 'user').slice(1), two]);
    expect([output.tokenText(next), output.tokenText(next + 1)]).toEqual([one, two]);
    expect(united.vocabularySize).toBe(Math.ceil((next + 2) / 64) * 64);
    expect(united.origins.map(({ model, token, origin }) => `${model} ${token} ${origin}`)).toEqual([
      `a ${one} copied`,
      `a ${two} zero`,
      `b ${two} zero`,
    ]);
  });

  it('leaves out tokens without an embedding row, and says so', () => {
    const united = unite([bundled('llama-sotu'), bundled('qwen2-moby')], { rows: [1000, 768] });
    expect(united.notes.join('\n')).toMatch(/a: 24 token\(s\) have no embedding row \(1000 rows\) and are ignored: "/);
    const output = openTokenizer(written(united));
    const base = openTokenizer(bundled('llama-sotu'));
    for (let id = 0; id < 1000; id++) expect(output.tokenText(id)).toBe(base.tokenText(id));
    expect(output.encode('government of the people').every((id) => id < united.vocabularySize)).toBe(true);
  });

  it.each([
    ['byte-level', 'unigram', /Unigram, not BPE/],
    ['byte-level', 'byte-fallback', /tokens of characters, not byte-level tokens; spaces written as "▁"/],
    ['bert', 'word-level', /WordLevel, not WordPiece/],
  ])('of %s and %s is refused', (one, other, reason) => {
    const models = [one, other].map((kind) => directoryWith(fixtureFiles(kind)));
    expect(() => unite(models)).toThrow(reason);
    expect(() => unite(models)).toThrow(/cannot be united.*tokenizer source: base.*fuse knowledge/);
    expect(unite(models, { settings: { source: 'base' } }).notes.join()).toMatch(/writes its tokens otherwise/);
  });

  it('refuses another normalisation of letters', () => {
    const files = fixtureFiles('bert');
    const cased = tokenizerOf(files) as TokenizerJson & { normalizer: object };
    cased.normalizer = { type: 'BertNormalizer', lowercase: false, strip_accents: false };
    const models = [directoryWith(files), directoryWith({ ...files, 'tokenizer.json': cased })];
    expect(() => unite(models)).toThrow(/case kept, not lower case/);
  });

  it('asks for tokenizer.json where there is only tokenizer.model, and takes the base’s where there is nothing', () => {
    const base = bundled('llama-sotu');
    expect(() => unite([base, directoryWith({ 'tokenizer.model': 'x' })], { rows: [1024, 10] })).toThrow(
      /no tokenizer.json: there is only tokenizer.model; write it with transformers/,
    );
    const united = unite([base, directoryWith({})], { rows: [1024, 1024] });
    expect(united.notes).toEqual(['b has no tokenizer: it is taken to have that of a']);
    expect(united.sources[1].tensors.get(EMBEDDING)?.shape).toEqual([1024, 1]);
  });
});

describe('the tokenizer of one model', () => {
  it('is copied as it stands, and padding is kept on demand', () => {
    const models = [bundled('llama-sotu'), bundled('llama-sotu-ft-moby')];
    const cut = unite(models, { rows: [1088, 1088], settings: { source: 'base' } });
    expect(cut.vocabularySize).toBe(1024);
    expect(cut.notes.join('\n')).toMatch(/a: 64 of 1088 embedding rows have no token and are cut.*--keep-padding/);
    const copied = cut.files.find(({ name }) => name === 'tokenizer.json');
    expect(Buffer.from(copied?.bytes ?? []).equals(readFileSync(path.join(models[0], 'tokenizer.json')))).toBe(true);
    const kept = unite(models, { rows: [1088, 1088], settings: { source: 'base' }, keepPadding: true });
    expect([kept.vocabularySize, kept.origins, kept.notes]).toEqual([1088, [], []]);
  });

  it('of another model drops the base’s own tokens, each of them reported', () => {
    const united = unite([bundled('llama-sotu'), bundled('qwen2-moby')], {
      settings: { source: { text: 'b', model: 'b' } },
    });
    expect(united.vocabularySize).toBe(768);
    expect(openTokenizer(written(united)).specialTokens.eos_token).toBe('<s>');
    const dropped = united.origins.filter(({ origin }) => origin === 'dropped');
    expect(dropped.every(({ model }) => model === 'a')).toBe(true);
    expect(dropped.length + 768 - united.origins.filter(({ origin }) => origin === 'copied').length).toBe(1024);
    expect(() => unite([bundled('llama-sotu')], { settings: { source: { text: 'q', model: 'q' } } })).toThrow(
      /tokenizer source q is none of the models: a/,
    );
  });
});

describe('the chat template', () => {
  const messages = [
    { role: 'user', content: 'Hi' },
    { role: 'assistant', content: 'Yes' },
    { role: 'user', content: 'So' },
  ];
  const templated = (template: string | undefined, chatTemplate: string | undefined): string | undefined => {
    const { 'chat_template.jinja': _, ...files } = fixtureFiles('byte-level');
    const config = {
      ...(files['tokenizer_config.json'] as object),
      ...(template !== undefined && { chat_template: template }),
    };
    const model = directoryWith({ ...files, 'tokenizer_config.json': config });
    const united = unite([model, model], chatTemplate === undefined ? {} : { chatTemplate });
    return openTokenizer(written(united)).chatTemplate;
  };

  it('is the base’s, the commonest, a named format or a text', () => {
    expect(templated('{{ messages }}', undefined)).toBe('{{ messages }}');
    expect(templated(' {{ messages }} ', 'auto')).toBe('{{ messages }}');
    expect(templated('{{ messages }}', '{% for m in messages %}{{ m.content }}{% endfor %}')).toContain('m.content');
    expect(() => templated(undefined, 'chatlm')).toThrow(/neither auto, nor a format.*did you mean "chatml"/);
  });

  it('goes into files that are copied', () => {
    const { 'chat_template.jinja': _, ...files } = fixtureFiles('byte-level');
    const config = files['tokenizer_config.json'] as object;
    const [bare, one, two] = [undefined, '{{ one }}', '{{ two }}'].map((text) =>
      directoryWith({
        ...files,
        'tokenizer_config.json': { ...config, ...(text !== undefined && { chat_template: text }) },
      }),
    );
    const templateOf = (list: readonly { name: string; bytes: Uint8Array }[]): string | undefined => {
      const directory = directoryWith(
        Object.fromEntries(list.map(({ name, bytes }) => [name, Buffer.from(bytes).toString()])),
      );
      return openTokenizer(directory).chatTemplate;
    };
    expect(templateOf(copiedTokenizer(bare, 'auto', [bare, one, two, two]))).toBe('{{ two }}');
    expect(templateOf(copiedTokenizer(one, '{{ other }}', [one]))).toBe('{{ other }}');
    expect(templateOf(copiedTokenizer(bare, 'auto', [bare]))).toBeUndefined();
  });

  it.each([
    [
      'chatml',
      '<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n<|im_start|>user\nSo<|im_end|>\n<|im_start|>assistant\n',
    ],
    [
      'llama3',
      '<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nYes<|eot_id|>' +
        '<|start_header_id|>user<|end_header_id|>\n\nSo<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n',
    ],
    ['alpaca', '### Instruction:\nHi\n\n### Response:\nYes\n\n### Instruction:\nSo\n\n### Response:\n'],
    ['mistral', '<s> [INST] Hi [/INST] Yes</s> [INST] So [/INST]'],
    ['exaone', '[|system|][|endofturn|]\n[|user|]Hi\n[|assistant|]Yes[|endofturn|]\n[|user|]So\n[|assistant|]'],
  ])('%s renders', (name, expected) => {
    const files = fixtureFiles('byte-level');
    const config = { ...(files['tokenizer_config.json'] as object), bos_token: '<s>', eos_token: '</s>' };
    const model = directoryWith({ ...files, 'tokenizer_config.json': config });
    const tokenizer = openTokenizer(written(unite([model, model], { chatTemplate: name })));
    expect(renderChat(tokenizer, messages, { addGenerationPrompt: true })).toBe(expected);
  });
});
