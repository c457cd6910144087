/** A scored token worth showing. */
export interface NotableToken {
  readonly document: number;
  readonly position: number;
  readonly tokenId: number;
  readonly surprisalNats: number;
  readonly entropyNats: number;
  /** 1 + number of likelier tokens; NaN where it is not known. */
  readonly rank: number;
  /** Probability of the likeliest token. */
  readonly topProbability: number;
  readonly token: string;
  /** Text around the token, however the caller renders it. */
  readonly context: string;
}

export type NotableKey = 'surprisalNats' | 'entropyNats';

/** The `limit` tokens of the largest `key`: ordered by value, then by document and position, so parts merge in any order. */
export interface TopTokens {
  readonly key: NotableKey;
  readonly limit: number;
  readonly tokens: NotableToken[];
}

export function createTopTokens(key: NotableKey, limit: number): TopTokens {
  return { key, limit, tokens: [] };
}

function comesBefore(key: NotableKey, a: NotableToken, b: NotableToken): boolean {
  if (a[key] !== b[key]) return a[key] > b[key];
  if (a.document !== b.document) return a.document < b.document;
  return a.position < b.position;
}

/** Whether a token of this value and place would enter the list: lets the caller render text for those alone. */
export function wouldEnter(top: TopTokens, value: number, document: number, position: number): boolean {
  if (top.limit === 0) return false;
  if (top.tokens.length < top.limit) return true;
  const last = top.tokens[top.tokens.length - 1];
  if (value !== last[top.key]) return value > last[top.key];
  return document !== last.document ? document < last.document : position < last.position;
}

/** Puts a token in its place, dropping the last beyond the limit. */
export function enter(top: TopTokens, token: NotableToken): void {
  let low = 0;
  let high = top.tokens.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (comesBefore(top.key, top.tokens[middle], token)) low = middle + 1;
    else high = middle;
  }
  top.tokens.splice(low, 0, token);
  if (top.tokens.length > top.limit) top.tokens.length = top.limit;
}

export function mergeTop(top: TopTokens, other: TopTokens): void {
  for (const token of other.tokens) {
    if (wouldEnter(top, token[top.key], token.document, token.position)) enter(top, token);
  }
}
