import { InputError } from '../../errors.js';
import { type ChatMessage, renderChat } from '../../tokenizers/chat-template.js';
import type { Tokenizer } from '../../tokenizers/tokenizer.js';
import type { TokenText } from './token-data.js';

/**
 * A conversation by the tokenizer's chat template, of which the turns of the assistant are asked for: what the template
 * writes behind the generation prompt, up to the end of the turn. Boundaries are those of the tokens of the text up to
 * there, as lm-evaluation-harness cuts a context from its continuation.
 *
 * @throws InputError when no turn is the assistant's, or the template writes a turn otherwise once others follow
 */
export function answerTurns(tokenizer: Tokenizer, messages: readonly ChatMessage[], place: string): TokenText {
  const whole = renderChat(tokenizer, messages);
  const encode = (text: string): Int32Array =>
    tokenizer.encode(text, { addSpecialTokens: false, parseSpecialTokens: true });
  const tokens = encode(whole);
  const spans: [number, number][] = [];
  messages.forEach(({ role }, turn) => {
    if (role !== 'assistant') return;
    const before = renderChat(tokenizer, messages.slice(0, turn), { addGenerationPrompt: true });
    const after = renderChat(tokenizer, messages.slice(0, turn + 1));
    if (!whole.startsWith(before) || !whole.startsWith(after)) {
      throw new InputError(
        `${place}: the chat template writes message ${turn} otherwise when others follow, so that its tokens cannot be ` +
          'told; give conversations of one answer',
      );
    }
    spans.push([encode(before).length, encode(after).length]);
  });
  if (spans.length === 0) throw new InputError(`${place}: no message of the role "assistant": nothing to learn from`);
  return { tokens, spans, place };
}
