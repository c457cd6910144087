import { InputError } from '../../errors.js';
import { type ChatMessage, renderChat } from '../../tokenizers/chat-template.js';
import type { Tokenizer } from '../../tokenizers/tokenizer.js';
import type { PromptFormat } from './types.js';

/**
 * What a prompt was: a conversation; text of which the conversation could be told, because its special tokens had been left
 * out when it was written (verl decodes so); text with its special tokens; or plain text.
 */
export type PromptKind = 'conversation' | 'restored' | 'rendered' | 'plain';

export interface PromptTokens {
  readonly tokens: Int32Array;
  readonly kind: PromptKind;
}

/** Templates that write the day into the system prompt get this one, so that scores do not change with the calendar. */
const TEMPLATE_DATE = new Date(2024, 6, 26, 12);

const ROLES: readonly (readonly string[])[] = [
  ['user'],
  ['system', 'user'],
  ['user', 'assistant', 'user'],
  ['system', 'user', 'assistant', 'user'],
];

const turnMark = (turn: number): string => `SURPRISALTURN${turn}MARK`;

const encodeRendered = (tokenizer: Tokenizer, text: string): Int32Array =>
  tokenizer.encode(text, { addSpecialTokens: false, parseSpecialTokens: true });

const render = (tokenizer: Tokenizer, messages: readonly ChatMessage[]): string =>
  renderChat(tokenizer, messages, { addGenerationPrompt: true, now: TEMPLATE_DATE });

/** What the chat template writes around the turns once special tokens are left out, by the roles of the turns. */
interface Skeleton {
  readonly roles: readonly string[];
  /** [turns + 1] literals. */
  readonly pieces: readonly string[];
}

function skeletons(tokenizer: Tokenizer): Skeleton[] {
  if (tokenizer.chatTemplate === undefined) return [];
  const found: Skeleton[] = [];
  for (const roles of ROLES) {
    const messages = roles.map((role, turn) => ({ role, content: turnMark(turn) }));
    let bare: string;
    try {
      bare = tokenizer.decode(encodeRendered(tokenizer, render(tokenizer, messages)), { skipSpecialTokens: true });
    } catch (error) {
      // A template may refuse a role; the others are still worth a try.
      if (error instanceof InputError) continue;
      throw error;
    }
    const pieces: string[] = [];
    let rest = bare;
    for (let turn = 0; turn < roles.length; turn++) {
      const at = rest.indexOf(turnMark(turn));
      if (at < 0) break;
      pieces.push(rest.slice(0, at));
      rest = rest.slice(at + turnMark(turn).length);
    }
    if (pieces.length === roles.length) found.push({ roles, pieces: [...pieces, rest] });
  }
  // Longer conversations first: a short skeleton also fits them, with turns inside a turn.
  return found.sort((a, b) => b.roles.length - a.roles.length);
}

function messagesOf(text: string, { roles, pieces }: Skeleton): ChatMessage[] | undefined {
  if (!text.startsWith(pieces[0])) return undefined;
  const messages: ChatMessage[] = [];
  let from = pieces[0].length;
  for (const [turn, role] of roles.entries()) {
    const next = pieces[turn + 1];
    const last = turn === roles.length - 1;
    const to = last ? text.length - next.length : text.indexOf(next, from);
    if (to < from || !text.startsWith(next, to) || (next === '' && !last)) return undefined;
    messages.push({ role, content: text.slice(from, to) });
    from = to + next.length;
  }
  return messages;
}

/** Turns prompts into tokens; what depends on the tokenizer alone is found out once. */
export function createPromptEncoder(
  tokenizer: Tokenizer,
  format: PromptFormat,
): (prompt: string | readonly ChatMessage[], place: string) => PromptTokens {
  let known: Skeleton[] | undefined;
  const special = Object.values(tokenizer.specialTokens).filter((text) => text.length > 2);

  const restore = (text: string): Int32Array | undefined => {
    known ??= skeletons(tokenizer);
    for (const skeleton of known) {
      const messages = messagesOf(text, skeleton);
      if (!messages) continue;
      const tokens = encodeRendered(tokenizer, render(tokenizer, messages));
      // Certain only where leaving out the special tokens gives the text of the dump again.
      if (tokenizer.decode(tokens, { skipSpecialTokens: true }) === text) return tokens;
    }
    return undefined;
  };

  return (prompt, place) => {
    if (typeof prompt !== 'string') {
      if (format === 'text') {
        throw new InputError(
          `${place}: the prompt is a list of messages; --prompt-format text is for prompts that are text`,
        );
      }
      return { tokens: encodeRendered(tokenizer, render(tokenizer, prompt)), kind: 'conversation' };
    }
    if (format === 'chat') {
      const messages = [{ role: 'user', content: prompt }];
      return { tokens: encodeRendered(tokenizer, render(tokenizer, messages)), kind: 'conversation' };
    }
    if (special.some((text) => prompt.includes(text))) {
      return { tokens: encodeRendered(tokenizer, prompt), kind: 'rendered' };
    }
    if (format === 'auto') {
      const tokens = restore(prompt);
      if (tokens) return { tokens, kind: 'restored' };
    }
    return { tokens: tokenizer.encode(prompt), kind: 'plain' };
  };
}
