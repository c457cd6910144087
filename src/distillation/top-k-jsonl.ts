import { InputError } from '../errors.js';
import { type ListedToken, parseLogProbRow, type TopLogProbs } from '../formats/logprob-rows.js';
import { type ChatMessage, renderChat } from '../tokenizers/chat-template.js';
import type { Tokenizer } from '../tokenizers/tokenizer.js';

/** A server's likeliest tokens for one place, by descending log-probability. */
export interface TopList {
  readonly ids: Int32Array;
  /** Nats, over the whole vocabulary. */
  readonly logProbs: Float64Array;
}

/** A text that a server answered about. */
export interface ResponseText {
  readonly tokens: Int32Array;
  /** For each token what the server predicted in its place; undefined where it said nothing. */
  readonly lists: readonly (TopList | undefined)[];
}

/** What names tokens. */
export interface TokenNames {
  readonly tokenizer: Tokenizer | undefined;
  readonly vocabulary: number;
  /** Entries that were left out since no token has their name. */
  unknown: number;
}

type Fields = Readonly<Record<string, unknown>>;

/** Probabilities may exceed 1 by the rounding of what servers print. */
const MASS_TOLERANCE = 1e-3;

const known = new WeakMap<Tokenizer, Map<string, number>>();

/** Ids by the bytes of their tokens; where several have the same, a plain one before a special one, then the least. */
function idsByBytes(tokenizer: Tokenizer): Map<string, number> {
  const found = known.get(tokenizer);
  if (found !== undefined) return found;
  const map = new Map<string, number>();
  const plain = new Set<string>();
  for (let id = 0; id < tokenizer.vocabularySize; id++) {
    const key = Buffer.from(tokenizer.tokenBytes(id)).toString('latin1');
    const special = tokenizer.isSpecial(id);
    if (map.has(key) && (special || plain.has(key))) continue;
    map.set(key, id);
    if (!special) plain.add(key);
  }
  known.set(tokenizer, map);
  return map;
}

function idOf({ id, bytes, text }: ListedToken, { tokenizer, vocabulary }: TokenNames, where: string): number {
  if (id !== undefined) {
    if (Number.isInteger(id) && id >= 0 && id < vocabulary) return id;
    throw new InputError(`${where}: token id ${id} is outside the vocabulary of ${vocabulary}`);
  }
  if (tokenizer === undefined) throw new InputError(`${where}: names its tokens by text, and there is no tokenizer`);
  const named = bytes === undefined ? Buffer.from(text ?? '', 'utf8') : Buffer.from(bytes);
  return idsByBytes(tokenizer).get(named.toString('latin1')) ?? -1;
}

function listOf(row: TopLogProbs, target: number, names: TokenNames, where: string): TopList {
  const byId = new Map<number, number>();
  row.top.forEach((logProb, i) => {
    const id = idOf(row.topTokens[i], names, where);
    if (id < 0) names.unknown++;
    else if (logProb > Number.NEGATIVE_INFINITY) byId.set(id, logProb);
  });
  if (row.extra !== undefined && row.extra > Number.NEGATIVE_INFINITY) byId.set(target, row.extra);
  const entries = [...byId].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
  const mass = entries.reduce((sum, [, logProb]) => sum + Math.exp(logProb), 0);
  if (!(mass <= 1 + MASS_TOLERANCE)) {
    throw new InputError(
      `${where}: the probabilities add up to ${mass}; ask the server for natural logarithms before sampling`,
    );
  }
  return {
    ids: Int32Array.from(entries, ([id]) => id),
    logProbs: Float64Array.from(entries, ([, logProb]) => logProb),
  };
}

const integerList = (value: unknown): Int32Array | undefined =>
  Array.isArray(value) && value.every((id) => Number.isInteger(id)) ? Int32Array.from(value) : undefined;

/** A field of the row, or of its only completion. */
function fieldOf(row: Fields, name: string): unknown {
  if (row[name] !== undefined && row[name] !== null) return row[name];
  const results = row.choices ?? row.outputs;
  return Array.isArray(results) && results.length === 1 ? (results[0] as Fields)[name] : undefined;
}

/** Tokens of the prompt: ids as the server gives them, else its text or its messages, tokenised. */
function promptOf(row: Fields, { tokenizer }: TokenNames, where: string): Int32Array {
  const ids = integerList(fieldOf(row, 'prompt_token_ids'));
  if (ids !== undefined) return ids;
  const text = fieldOf(row, 'prompt');
  const messages = fieldOf(row, 'messages');
  if (text === undefined && messages === undefined) return new Int32Array(0);
  if (tokenizer === undefined) throw new InputError(`${where}: a prompt of text needs a tokenizer`);
  if (typeof text === 'string') return tokenizer.encode(text, { addSpecialTokens: false, parseSpecialTokens: true });
  if (!Array.isArray(messages)) throw new InputError(`${where}: "prompt" must be text and "messages" a list`);
  const rendered = renderChat(tokenizer, messages as ChatMessage[], { addGenerationPrompt: true });
  return tokenizer.encode(rendered, { addSpecialTokens: false, parseSpecialTokens: true });
}

const isOfPrompt = (row: Fields): boolean =>
  [fieldOf(row, 'logprobs'), row.completion_probabilities, row.details].every(
    (value) => value === undefined || value === null,
  ) && Array.isArray(fieldOf(row, 'prompt_logprobs'));

function promptText(row: Fields, positions: readonly TopLogProbs[], names: TokenNames, where: string): ResponseText {
  const tokens = integerList(fieldOf(row, 'prompt_token_ids'));
  if (tokens === undefined) throw new InputError(`${where}: "prompt_logprobs" need "prompt_token_ids" beside them`);
  const lists: (TopList | undefined)[] = Array.from(tokens, () => undefined);
  for (const position of positions) {
    const here = `${where}: token ${position.position}`;
    lists[position.position] = listOf(position, tokens[position.position], names, here);
  }
  return { tokens, lists };
}

/**
 * A row of an inference server as a text with the server's predictions: of its prompt (vLLM's `prompt_logprobs`) or of what it
 * wrote after it (`parseLogProbRow` says in which forms). The prompt stands as `prompt_token_ids`, `prompt` or `messages`.
 * @throws InputError for forms that are none, tokens without a name in the vocabulary, probabilities above 1
 */
export function readResponse(row: Fields, names: TokenNames, where: string): ResponseText {
  const positions = parseLogProbRow(row, where);
  if (isOfPrompt(row)) return promptText(row, positions, names, where);
  const prompt = promptOf(row, names, where);
  const tokens = new Int32Array(prompt.length + positions.length);
  tokens.set(prompt);
  const lists: (TopList | undefined)[] = Array.from(prompt, () => undefined);
  positions.forEach((position, i) => {
    const here = `${where}: token ${position.position}`;
    if (position.position !== i) throw new InputError(`${where}: token ${i} has no log-probabilities`);
    const { token, tokenId, tokenBytes } = position;
    const id = idOf(
      { text: token, ...(tokenId !== undefined && { id: tokenId }), ...(tokenBytes && { bytes: tokenBytes }) },
      names,
      here,
    );
    if (id < 0) {
      throw new InputError(
        `${here}: no token of the tokenizer is ${JSON.stringify(token)}; ask the server for token ids`,
      );
    }
    tokens[prompt.length + i] = id;
    lists.push(listOf(position, id, names, here));
  });
  return { tokens, lists };
}

/** Lists as rows of k: cut or filled up; what a list leaves of 1 is left over. */
export function rowsOfLists(
  lists: readonly TopList[],
  k: number,
): { rows: number; ids: Int32Array; logProbs: Float32Array; leftover: Float32Array } {
  const rows = lists.length;
  const ids = new Int32Array(rows * k).fill(-1);
  const logProbs = new Float32Array(rows * k);
  const leftover = new Float32Array(rows);
  lists.forEach((list, r) => {
    const count = Math.min(k, list.ids.length);
    ids.set(list.ids.subarray(0, count), r * k);
    logProbs.set(list.logProbs.subarray(0, count), r * k);
    let rest = 1;
    for (let i = 0; i < count; i++) rest -= Math.exp(list.logProbs[i]);
    leftover[r] = Math.max(0, rest);
  });
  return { rows, ids, logProbs, leftover };
}
