import { describe, expect, it } from 'vitest';
import { GGUF_PRE_TOKENIZERS, ggufPreTokenizer } from '../../src/tokenizers/gguf-pre-tokenizers.js';
import { tokenizerFromGguf } from '../../src/tokenizers/gguf-tokenizer.js';
import { fnv1a, lines, readFixture } from './fixtures.js';

interface Fixture {
  kv: Record<string, unknown>;
  golden: Record<string, [string, string][]>;
}

const fixture = (kind: string): Fixture => readFixture<Fixture>(`gguf-${kind}.json`);
const mapOf = (kv: Record<string, unknown>): Map<string, unknown> => new Map(Object.entries(kv));

function expectGolden(kv: Record<string, unknown>, golden: readonly (readonly [string, string])[]): void {
  const tokenizer = tokenizerFromGguf(mapOf(kv));
  golden.forEach((hashes, i) => {
    const rows = [false, true].map((parseSpecialTokens) => fnv1a(tokenizer.encode(lines[i], { parseSpecialTokens })));
    expect(rows, JSON.stringify(lines[i])).toEqual(hashes);
  });
}

describe('tokenizerFromGguf', () => {
  it.each(['spm', 'spm-bare', 't5'])('gives the ids of llama.cpp for %s', (kind) => {
    const { kv, golden } = fixture(kind);
    expectGolden(kv, golden['']);
  });

  const bpe = fixture('bpe');
  it.each(Object.keys(bpe.golden))('gives the ids of llama.cpp for the pre-tokenizer %s', (pre) => {
    expectGolden({ ...bpe.kv, 'tokenizer.ggml.pre': pre }, bpe.golden[pre]);
  });

  it('takes numbers in typed arrays, as a reader of the file gives them', () => {
    const { kv, golden } = fixture('spm');
    const typed = {
      ...kv,
      'tokenizer.ggml.scores': Float32Array.from(kv['tokenizer.ggml.scores'] as number[]),
      'tokenizer.ggml.token_type': Int32Array.from(kv['tokenizer.ggml.token_type'] as number[]),
    };
    expectGolden(typed, golden['']);
  });

  it('gives back text and bytes', () => {
    for (const kind of ['spm', 'spm-bare', 'bpe']) {
      const tokenizer = tokenizerFromGguf(mapOf(fixture(kind).kv));
      const prefix = kind === 'spm' ? ' ' : '';
      for (const line of lines.filter((text) => text !== '' && !text.includes('▁'))) {
        const ids = tokenizer.encode(line, { addSpecialTokens: false });
        expect(tokenizer.decode(ids)).toBe(line);
        // A user-defined token at the beginning takes no space before it.
        const bytes = Buffer.concat(Array.from(ids, (id) => tokenizer.tokenBytes(id))).toString();
        if (!/<\/?b>|<h1>/.test(line)) expect(bytes).toBe(prefix + line);
      }
    }
  });

  it('parses control tokens only when asked, user-defined ones always', () => {
    const { kv } = fixture('spm');
    const tokenizer = tokenizerFromGguf(mapOf(kv));
    const user = (kv['tokenizer.ggml.tokens'] as string[]).indexOf('<|user|>');
    const bold = (kv['tokenizer.ggml.tokens'] as string[]).indexOf('<b>');
    expect(Array.from(tokenizer.encode('a<|user|><b>'))).not.toContain(user);
    expect(Array.from(tokenizer.encode('a<|user|><b>'))).toContain(bold);
    expect(Array.from(tokenizer.encode('a<|user|><b>', { parseSpecialTokens: true }))).toContain(user);
    expect([tokenizer.isSpecial(user), tokenizer.isSpecial(bold)]).toEqual([true, false]);
  });

  it('knows the special tokens and the chat template', () => {
    const { kv } = fixture('spm');
    const tokenizer = tokenizerFromGguf(mapOf({ ...kv, 'tokenizer.chat_template': '{{ bos_token }}' }));
    expect([tokenizer.bosId, tokenizer.eosId, tokenizer.unkId, tokenizer.addBosDefault]).toEqual([0, 1, 2, true]);
    expect(tokenizer.specialTokens).toEqual({ bos_token: '<s>', eos_token: '</s>', unk_token: '<unk>' });
    expect(tokenizer.chatTemplate).toBe('{{ bos_token }}');
    expect(tokenizer.vocabularySize).toBe((kv['tokenizer.ggml.tokens'] as string[]).length);
  });

  it('falls back to the default pre-tokenizer with a warning, and refuses an unknown one', () => {
    expect(tokenizerFromGguf(mapOf(bpe.kv)).warnings.join()).toMatch(/no pre-tokenizer/);
    expect(() => tokenizerFromGguf(mapOf({ ...bpe.kv, 'tokenizer.ggml.pre': 'qwen3' }))).toThrow(
      /did you mean "qwen2"/,
    );
    for (const name of GGUF_PRE_TOKENIZERS) expect(ggufPreTokenizer(name).patterns.length).toBeGreaterThan(0);
  });

  it('says what a file lacks', () => {
    const { kv } = fixture('spm');
    expect(() => tokenizerFromGguf(new Map())).toThrow(/no tokenizer.ggml.model/);
    expect(() => tokenizerFromGguf(mapOf({ ...kv, 'tokenizer.ggml.model': 'bert' }))).toThrow(/"bert"; known kinds/);
    expect(() => tokenizerFromGguf(mapOf({ ...kv, 'tokenizer.ggml.scores': [1] }))).toThrow(/scores.*must hold/);
    expect(() => tokenizerFromGguf(mapOf({ 'tokenizer.ggml.model': 'llama' }))).toThrow(/tokenizer.ggml.tokens/);
  });
});
