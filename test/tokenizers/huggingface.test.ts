import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import * as fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { renderChat } from '../../src/tokenizers/chat-template.js';
import { checkVocabulary, openTokenizer, type Tokenizer } from '../../src/tokenizers/tokenizer.js';
import { fnv1a, lines, readFixture } from './fixtures.js';

interface Fixture {
  files: Record<string, unknown>;
  golden: { ids: number[] | string; bare: string; text: string | null; plain: string | null }[];
  chats: {
    messages: { role: string; content: string }[];
    add_generation_prompt: boolean;
    text: string;
    ids: number[];
  }[];
  length: number;
}

const directories: string[] = [];
afterAll(() => {
  for (const directory of directories) rmSync(directory, { recursive: true });
});

function directoryWith(files: Readonly<Record<string, unknown>>): string {
  const directory = mkdtempSync(path.join(tmpdir(), 'tokenizer-'));
  directories.push(directory);
  for (const [name, content] of Object.entries(files)) {
    writeFileSync(path.join(directory, name), typeof content === 'string' ? content : JSON.stringify(content));
  }
  return directory;
}

const KINDS = [
  'added-tokens',
  'byte-level',
  'byte-fallback',
  'llama-class',
  'gemma-like',
  'word-bpe',
  'bert',
  'word-level',
  'unigram',
];

describe.each(KINDS)('the tokenizer %s', (kind) => {
  const fixture = readFixture<Fixture>(`${kind}.json`);
  const tokenizer = openTokenizer(directoryWith(fixture.files));

  it('gives the ids of transformers with and without special tokens', () => {
    fixture.golden.forEach((golden, i) => {
      const ids = tokenizer.encode(lines[i]);
      if (typeof golden.ids === 'string') expect(fnv1a(ids), JSON.stringify(lines[i])).toBe(golden.ids);
      else expect(Array.from(ids), JSON.stringify(lines[i])).toEqual(golden.ids);
      const bare = tokenizer.encode(lines[i], { addSpecialTokens: false });
      expect(fnv1a(bare), JSON.stringify(lines[i])).toBe(golden.bare);
    });
  });

  it('decodes as transformers does', () => {
    fixture.golden.forEach((golden, i) => {
      const ids = tokenizer.encode(lines[i]);
      expect(tokenizer.decode(ids)).toBe(golden.text ?? lines[i]);
      expect(tokenizer.decode(ids, { skipSpecialTokens: true })).toBe(golden.plain ?? lines[i]);
    });
  });

  it('counts the vocabulary with its added tokens', () => {
    expect(tokenizer.vocabularySize).toBe(fixture.length);
  });
});

function openFixture(kind: string): Tokenizer {
  return openTokenizer(directoryWith(readFixture<Fixture>(`${kind}.json`).files));
}

function bytesOf(tokenizer: Tokenizer, ids: Int32Array): Buffer {
  return Buffer.concat(Array.from(ids, (id) => tokenizer.tokenBytes(id)));
}

describe('bytes of tokens', () => {
  it('of a byte-level tokenizer are the UTF-8 of the text', () => {
    const json = readFixture<Fixture>('byte-level.json').files['tokenizer.json'] as Record<string, unknown>;
    const tokenizer = openTokenizer({ tokenizer: { ...json, normalizer: null } });
    const check = (text: string): void => {
      const ids = tokenizer.encode(text, { addSpecialTokens: false, parseSpecialTokens: false });
      expect(bytesOf(tokenizer, ids).equals(Buffer.from(text))).toBe(true);
    };
    lines.forEach(check);
    fc.assert(fc.property(fc.string({ unit: 'binary' }), check));
  });

  it('of a byte-fallback tokenizer are the UTF-8 of the text behind the space it prepends', () => {
    const tokenizer = openFixture('byte-fallback');
    for (const line of lines.filter((text) => text !== '' && !text.includes('▁'))) {
      const ids = tokenizer.encode(line, { addSpecialTokens: false, parseSpecialTokens: false });
      expect(bytesOf(tokenizer, ids).toString()).toBe(` ${line}`);
    }
  });

  it('of special tokens are their text', () => {
    const tokenizer = openFixture('byte-level');
    expect(Buffer.from(tokenizer.tokenBytes(tokenizer.bosId as number)).toString()).toBe('<|begin_of_text|>');
    expect(() => tokenizer.tokenBytes(tokenizer.vocabularySize)).toThrow(RangeError);
  });
});

describe('special tokens', () => {
  it('are text like any other where they are not parsed', () => {
    const tokenizer = openFixture('byte-level');
    const text = 'a<|im_end|>b';
    const ids = tokenizer.encode(text, { addSpecialTokens: false, parseSpecialTokens: false });
    expect(Array.from(ids).some((id) => tokenizer.isSpecial(id))).toBe(false);
    expect(tokenizer.decode(ids)).toBe(text);
    expect(Array.from(tokenizer.encode(text)).filter((id) => tokenizer.isSpecial(id))).toHaveLength(2);
  });

  it('are named by the configuration, else by the ids of the model', () => {
    const tokenizer = openFixture('byte-level');
    expect(tokenizer.addBosDefault).toBe(true);
    expect([tokenizer.bosId, tokenizer.eosId]).toEqual([0, 1]);
    const { files } = readFixture<Fixture>('byte-level.json');
    const unnamed = openTokenizer(
      directoryWith({
        'tokenizer.json': files['tokenizer.json'],
        'config.json': { bos_token_id: 2, eos_token_id: [3, 1] },
      }),
    );
    expect([unnamed.bosId, unnamed.eosId, unnamed.addBosDefault]).toEqual([2, 3, false]);
  });
});

describe('chat templates', () => {
  const fixture = readFixture<Fixture>('byte-level.json');
  const tokenizer = openFixture('byte-level');

  it.each(fixture.chats)('render and encode as in transformers (prompt $add_generation_prompt)', (chat) => {
    const text = renderChat(tokenizer, chat.messages, { addGenerationPrompt: chat.add_generation_prompt });
    expect(text).toBe(chat.text);
    const ids = tokenizer.encode(text, { addSpecialTokens: false, parseSpecialTokens: true });
    expect(Array.from(ids)).toEqual(chat.ids);
  });

  it('pass on what a template refuses', () => {
    expect(() => renderChat(tokenizer, [{ role: 'tool', content: '' }])).toThrow(/unknown role tool/);
    expect(() => renderChat({ specialTokens: {} }, [])).toThrow(/no chat template/);
  });

  it('are given the date from outside', () => {
    const dated = { chatTemplate: "{{ strftime_now('%d %b %Y|%-d %B|%A %H:%M') }}", specialTokens: {} };
    expect(renderChat(dated, [], { now: new Date(2024, 6, 4, 9, 5) })).toBe('04 Jul 2024|4 July|Thursday 09:05');
    expect(() => renderChat(dated, [])).toThrow(/date/);
  });
});

describe('models of the repository', () => {
  interface Golden {
    documents: { id: string; tokens: number; first_ids: number[] }[];
  }
  const text = readFileSync(new URL('../../fixtures/text/heldout_text.jsonl', import.meta.url), 'utf8');
  const documents = new Map<string, string>();
  for (const row of text.trim().split('\n')) {
    const document = JSON.parse(row) as { id: string; text: string };
    documents.set(document.id, document.text);
  }

  it.each(['llama-sotu', 'qwen2-moby', 'mixtral-sotu-moby'])('%s gives the ids of its golden file', (model) => {
    const directory = new URL(`../../fixtures/models/${model}/`, import.meta.url).pathname;
    const golden = JSON.parse(readFileSync(path.join(directory, 'golden.json'), 'utf8')) as Golden;
    const tokenizer = openTokenizer(directory);
    for (const document of golden.documents) {
      const ids = tokenizer.encode(documents.get(document.id) as string);
      expect(ids.length).toBe(document.tokens);
      expect(Array.from(ids.subarray(0, document.first_ids.length))).toEqual(document.first_ids);
      expect(tokenizer.decode(ids)).toBe(documents.get(document.id));
    }
  });
});

describe('what cannot be read', () => {
  it('is said with the way out', () => {
    expect(() => openTokenizer('/nonexistent-directory')).toThrow(/no such directory/);
    expect(() => openTokenizer(directoryWith({ 'tokenizer.model': '' }))).toThrow(
      /only tokenizer.model.*save_pretrained/,
    );
    expect(() => openTokenizer(directoryWith({ 'readme.md': '' }))).toThrow(/there is readme.md/);
    expect(() => openTokenizer(directoryWith({ 'tokenizer.json': '{' }))).toThrow(
      /tokenizer.json: not readable as JSON/,
    );
    expect(() => openTokenizer({ tokenizer: { model: { type: 'Neural', vocab: {} } } })).toThrow(
      /"Neural" is none of BPE/,
    );
    expect(() => openTokenizer({ tokenizer: { model: { type: 'BPE', vocab: { a: 0 }, merges: ['a b'] } } })).toThrow(
      /merges\[0\].*must be in the vocabulary/,
    );
    expect(() =>
      openTokenizer({
        tokenizer: { normalizer: { type: 'Rot13' }, model: { type: 'BPE', vocab: {}, merges: [] } },
      }),
    ).toThrow(/normalizer Rot13 is not supported/);
  });

  it('checks that the model has a row for every token', () => {
    const tokenizer = openFixture('byte-level');
    expect(() => checkVocabulary(tokenizer, tokenizer.vocabularySize)).not.toThrow();
    expect(() => checkVocabulary(tokenizer, 100)).toThrow(/has the token 100 .* only 100 embedding rows/);
  });
});
