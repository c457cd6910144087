import { describe, expect, it } from 'vitest';
import { createPromptEncoder } from '../../../src/policy/rollouts/prompt-tokens.js';
import type { Tokenizer } from '../../../src/tokenizers/tokenizer.js';

const SPECIAL = ['<|begin|>', '<|end|>'];
const TEMPLATE =
  "{% if messages[0].role != 'system' %}<|begin|>system\nBe kind<|end|>\n{% endif %}" +
  '{% for m in messages %}<|begin|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}' +
  '{% if add_generation_prompt %}<|begin|>assistant\n{% endif %}';

/** One token a character; the special tokens first. */
function characterTokenizer(chatTemplate?: string): Tokenizer {
  const decode = (ids: ArrayLike<number>, options: { skipSpecialTokens?: boolean } = {}): string =>
    Array.from(ids, (id) =>
      id < SPECIAL.length ? (options.skipSpecialTokens ? '' : SPECIAL[id]) : String.fromCharCode(id),
    ).join('');
  return {
    vocabularySize: 256,
    encode(text, { parseSpecialTokens = true } = {}) {
      const pieces = parseSpecialTokens ? text.split(/(<\|begin\|>|<\|end\|>)/) : [text];
      return Int32Array.from(
        pieces.flatMap((piece) =>
          SPECIAL.includes(piece) ? [SPECIAL.indexOf(piece)] : [...piece].map((c) => c.charCodeAt(0)),
        ),
      );
    },
    decode,
    tokenBytes: (id) => Buffer.from(decode([id])),
    tokenText: (id) => decode([id]),
    addBosDefault: false,
    isSpecial: (id) => id < SPECIAL.length,
    ...(chatTemplate !== undefined && { chatTemplate }),
    specialTokens: { bos_token: SPECIAL[0], eos_token: SPECIAL[1] },
    warnings: [],
  };
}

describe('prompts of a dump as tokens', () => {
  const tokenizer = characterTokenizer(TEMPLATE);
  const encode = createPromptEncoder(tokenizer, 'auto');
  const bare = (ids: Int32Array): string => tokenizer.decode(ids, { skipSpecialTokens: true });

  it('renders messages by the chat template', () => {
    const { tokens, kind } = encode([{ role: 'user', content: 'hi' }], 'row');
    expect(kind).toBe('conversation');
    expect(tokenizer.decode(tokens)).toBe(
      '<|begin|>system\nBe kind<|end|>\n<|begin|>user\nhi<|end|>\n<|begin|>assistant\n',
    );
  });

  it.each([
    { name: 'one turn', messages: [{ role: 'user', content: 'What is 2+2?\nuser\nreally' }] },
    {
      name: 'a system prompt of its own',
      messages: [
        { role: 'system', content: 'Answer briefly' },
        { role: 'user', content: 'a\n\nb' },
      ],
    },
    {
      name: 'three turns',
      messages: [
        { role: 'user', content: 'one' },
        { role: 'assistant', content: 'two' },
        { role: 'user', content: 'three' },
      ],
    },
  ])('puts back the special tokens of $name', ({ messages }) => {
    const { tokens } = encode(messages, 'row');
    const restored = encode(bare(tokens), 'row');
    expect(restored.kind).toBe('restored');
    expect(tokenizer.decode(restored.tokens)).toBe(tokenizer.decode(tokens));
  });

  it('takes text that no template wrote as it is', () => {
    const { tokens, kind } = encode('user says hi', 'row');
    expect(kind).toBe('plain');
    expect(tokenizer.decode(tokens)).toBe('user says hi');
  });

  it('reads the special tokens of rendered text', () => {
    const text = '<|begin|>user\nhi<|end|>\n';
    const { tokens, kind } = encode(text, 'row');
    expect(kind).toBe('rendered');
    expect([...tokens].filter((id) => id < SPECIAL.length)).toHaveLength(2);
  });

  it('makes a turn of plain text where that is asked for, and restores nothing for text', () => {
    expect(tokenizer.decode(createPromptEncoder(tokenizer, 'chat')('hi', 'row').tokens)).toContain(
      '<|begin|>user\nhi<|end|>',
    );
    const text = createPromptEncoder(tokenizer, 'text');
    expect(text(bare(encode([{ role: 'user', content: 'hi' }], 'row').tokens), 'row').kind).toBe('plain');
    expect(() => text([{ role: 'user', content: 'hi' }], 'dump.jsonl:3')).toThrow(
      /dump\.jsonl:3: the prompt is a list of messages/,
    );
  });

  it('names a model without a template', () => {
    const without = createPromptEncoder(characterTokenizer(), 'auto');
    expect(() => without([{ role: 'user', content: 'hi' }], 'row')).toThrow(/chat template/);
    expect(without('system\nBe kind\nuser\nhi\nassistant\n', 'row').kind).toBe('plain');
  });
});
