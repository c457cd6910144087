import { InputError } from '../errors.js';

/** A token as a server names it. */
export interface ListedToken {
  readonly id?: number;
  readonly text?: string;
  readonly bytes?: readonly number[];
}

/** What an inference server returned for one position: some of the largest log-probabilities, and the target's. */
export interface TopLogProbs {
  /** Place in the sequence. */
  readonly position: number;
  readonly token: string;
  readonly tokenId?: number;
  /** UTF-8 of the token, where the server gives it: its text may stand for part of a character. */
  readonly tokenBytes?: readonly number[];
  /** Log-probability of the target; undefined when it was not returned. */
  readonly targetLogProb?: number;
  /** The k largest log-probabilities, the target among them only when it is one of them. */
  readonly top: Float64Array;
  /** The tokens of `top`. */
  readonly topTokens: readonly ListedToken[];
  /** The target's when it was returned beside the k largest. */
  readonly extra?: number;
}

type Fields = Record<string, unknown>;

const isObject = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function logProbOf(value: unknown, where: string): number {
  if (typeof value === 'number') return value;
  if (value === '-inf' || value === '-Infinity') return Number.NEGATIVE_INFINITY;
  throw new InputError(`${where}: expected a log-probability, got ${JSON.stringify(value)}`);
}

/** `logprob` of an entry, or the logarithm of llama.cpp's `prob` after sampling. */
function entryLogProb(entry: Fields, where: string): number {
  if ('logprob' in entry) return logProbOf(entry.logprob, where);
  if (typeof entry.prob === 'number' && entry.prob >= 0) return Math.log(entry.prob);
  throw new InputError(`${where}: neither "logprob" nor "prob"`);
}

/** The same token by id where both have one, else by text. */
function sameToken(a: Fields, b: Fields): boolean {
  if (typeof a.id === 'number' && typeof b.id === 'number') return a.id === b.id;
  if (Array.isArray(a.bytes) && Array.isArray(b.bytes)) return JSON.stringify(a.bytes) === JSON.stringify(b.bytes);
  return typeof a.token === 'string' && a.token === b.token;
}

const bytesOf = (value: unknown): readonly number[] | undefined =>
  Array.isArray(value) && value.every((byte) => typeof byte === 'number') ? value : undefined;

/** Servers may name a token by its id: vLLM writes `token_id:17` where it is asked to. */
function namedToken(text: string): ListedToken {
  const id = /^token_id:(\d+)$/.exec(text)?.[1];
  return id === undefined ? { text } : { id: Number(id) };
}

function listedToken(entry: Fields): ListedToken {
  const bytes = bytesOf(entry.bytes);
  const text = [entry.token, entry.tok_str, entry.text].find((value) => typeof value === 'string');
  return {
    ...(typeof text === 'string' && namedToken(text)),
    ...(typeof entry.id === 'number' && { id: entry.id }),
    ...(bytes && { bytes }),
  };
}

/** One position of OpenAI's chat format or of llama.cpp's server: a token and a list of the likeliest. */
function listedPosition(entry: Fields, position: number, where: string): TopLogProbs {
  const listed = entry.top_logprobs ?? entry.top_probs ?? entry.probs;
  if (!Array.isArray(listed)) throw new InputError(`${where}: no list "top_logprobs" or "top_probs"`);
  const tops = listed.map((item, i) => {
    if (!isObject(item)) throw new InputError(`${where}: entry ${i} of the top log-probabilities is not an object`);
    return item;
  });
  const top = Float64Array.from(tops, (item, i) => entryLogProb(item, `${where}: entry ${i}`));
  const own = listedToken(entry);
  const common = {
    position,
    token: typeof entry.token === 'string' ? entry.token : typeof entry.content === 'string' ? entry.content : '',
    ...(own.id !== undefined && { tokenId: own.id }),
    ...(own.bytes && { tokenBytes: own.bytes }),
    top,
    topTokens: tops.map(listedToken),
  };
  // llama.cpp's older server gives no probability of the token itself: it stands in the list, or not.
  const inList = tops.findIndex((item) => sameToken(item, entry) || item.tok_str === common.token);
  if (!('logprob' in entry) && typeof entry.prob !== 'number') {
    return inList < 0 ? common : { ...common, targetLogProb: top[inList] };
  }
  const targetLogProb = entryLogProb(entry, where);
  return inList >= 0 ? { ...common, targetLogProb } : { ...common, targetLogProb, extra: targetLogProb };
}

/** One position of a mapping from token to log-probability, the target being one of its keys or not known. */
function mappedPosition(
  entries: readonly (readonly [string, number])[],
  target: { readonly key?: string; readonly token: string; readonly tokenId?: number; readonly logProb?: number },
  position: number,
  nameOf: (key: string) => ListedToken = namedToken,
): TopLogProbs {
  const common = {
    position,
    token: target.token,
    ...(target.tokenId === undefined ? {} : { tokenId: target.tokenId }),
  };
  const listed = (kept: typeof entries) => ({
    top: Float64Array.from(kept, ([, logProb]) => logProb),
    topTokens: kept.map(([key]) => nameOf(key)),
  });
  const own = entries.find(([key]) => key === target.key)?.[1];
  const targetLogProb = target.logProb ?? own;
  if (targetLogProb === undefined) return { ...common, ...listed(entries) };
  // Servers put the target beside the k likeliest when it is not one of them. Only a target below all others can be such
  // an addition, and taking it for one loosens the lower bound but never breaks it.
  const others = entries.filter(([key]) => key !== target.key);
  const appended = others.length > 0 && others.every(([, logProb]) => logProb > targetLogProb);
  if (own === undefined || appended) return { ...common, targetLogProb, ...listed(others), extra: targetLogProb };
  return { ...common, targetLogProb, ...listed(entries) };
}

/** OpenAI's legacy completions: parallel lists of tokens, their log-probabilities and mappings of the likeliest. */
function legacyPositions(logprobs: Fields, where: string): TopLogProbs[] {
  const { tokens, token_logprobs: own, top_logprobs: tops } = logprobs;
  if (!Array.isArray(tokens) || !Array.isArray(own) || !Array.isArray(tops)) {
    throw new InputError(`${where}: "tokens", "token_logprobs" and "top_logprobs" must be lists`);
  }
  if (own.length !== tokens.length || tops.length !== tokens.length) {
    throw new InputError(
      `${where}: ${tokens.length} tokens, ${own.length} log-probabilities and ${tops.length} top lists`,
    );
  }
  const positions: TopLogProbs[] = [];
  tokens.forEach((token, i) => {
    const top: unknown = tops[i];
    if (top === null || own[i] === null) return;
    const here = `${where}: token ${i}`;
    if (!isObject(top)) throw new InputError(`${here}: its top log-probabilities are not an object`);
    const entries = Object.entries(top).map(([key, value]) => [key, logProbOf(value, here)] as const);
    const text = String(token);
    const { id } = namedToken(text);
    const target = {
      key: text,
      token: text,
      ...(id !== undefined && { tokenId: id }),
      logProb: logProbOf(own[i], here),
    };
    positions.push(mappedPosition(entries, target, i));
  });
  return positions;
}

/** vLLM: a list of mappings from token id to {logprob, rank, decoded_token}; null where nothing was predicted. */
function vllmPositions(list: readonly unknown[], ids: unknown, where: string): TopLogProbs[] {
  const positions: TopLogProbs[] = [];
  if (ids !== undefined && (!Array.isArray(ids) || ids.length !== list.length)) {
    throw new InputError(`${where}: token ids and log-probabilities have different lengths`);
  }
  list.forEach((item, i) => {
    if (item === null) return;
    const here = `${where}: token ${i}`;
    if (!isObject(item)) throw new InputError(`${here}: not an object from token id to log-probability`);
    const entries = Object.entries(item).map(([key, value]) => {
      if (!isObject(value)) throw new InputError(`${here}: token ${key} has no {logprob}`);
      return [key, entryLogProb(value, `${here}: token ${key}`)] as const;
    });
    // Without ids the target shows only by a rank beyond the number of others, where it was appended.
    const appended = Object.entries(item).find(
      ([, value]) => isObject(value) && typeof value.rank === 'number' && value.rank > entries.length,
    )?.[0];
    const key = Array.isArray(ids) ? String(ids[i]) : appended;
    const chosen = key === undefined ? undefined : item[key];
    const token = isObject(chosen) && typeof chosen.decoded_token === 'string' ? chosen.decoded_token : '';
    const tokenId = key !== undefined && /^\d+$/.test(key) ? { tokenId: Number(key) } : {};
    positions.push(
      mappedPosition(entries, { token, ...tokenId, ...(key === undefined ? {} : { key }) }, i, (id) => ({
        id: Number(id),
      })),
    );
  });
  return positions;
}

function listedPositions(list: readonly unknown[], where: string): TopLogProbs[] {
  return list.map((item, i) => {
    if (!isObject(item)) throw new InputError(`${where}: token ${i} is not an object`);
    return listedPosition(item, i, `${where}: token ${i}`);
  });
}

/** Log-probabilities in one `logprobs` field, whatever server wrote it. */
function fromLogprobs(value: unknown, owner: Fields, where: string): TopLogProbs[] | undefined {
  if (isObject(value)) {
    if (Array.isArray(value.content)) return listedPositions(value.content, where);
    if ('token_logprobs' in value) return legacyPositions(value, where);
    return undefined;
  }
  if (!Array.isArray(value)) return undefined;
  const sample = value.find((item) => item !== null);
  if (isObject(sample) && ('top_logprobs' in sample || 'top_probs' in sample)) return listedPositions(value, where);
  return vllmPositions(value, owner.token_ids, where);
}

/** Text-generation-inference: tokens {id, text, logprob} beside lists of the likeliest in the same form. */
function generationPositions(details: Fields, where: string): TopLogProbs[] | undefined {
  const { tokens, top_tokens: tops } = details;
  if (!Array.isArray(tokens) || !Array.isArray(tops)) return undefined;
  if (tokens.length !== tops.length) {
    throw new InputError(`${where}: ${tokens.length} tokens and ${tops.length} lists "top_tokens"`);
  }
  return tokens.map((token, i) => {
    if (!isObject(token)) throw new InputError(`${where}: token ${i} is not an object`);
    return listedPosition({ ...token, token: token.text, top_logprobs: tops[i] }, i, `${where}: token ${i}`);
  });
}

function positionsOf(row: Fields, where: string): TopLogProbs[] | undefined {
  if (isObject(row.details)) return generationPositions(row.details, where);
  if (Array.isArray(row.completion_probabilities)) return listedPositions(row.completion_probabilities, where);
  if (Array.isArray(row.choices) || Array.isArray(row.outputs)) {
    const results = (row.choices ?? row.outputs) as unknown[];
    if (results.length !== 1) {
      throw new InputError(`${where}: ${results.length} completions in one row; write one a row`);
    }
    return isObject(results[0]) ? positionsOf(results[0], where) : undefined;
  }
  if (row.logprobs !== undefined && row.logprobs !== null) return fromLogprobs(row.logprobs, row, where);
  if (Array.isArray(row.prompt_logprobs)) return vllmPositions(row.prompt_logprobs, row.prompt_token_ids, where);
  if (Array.isArray(row.top_logprobs) || Array.isArray(row.top_probs)) return [listedPosition(row, 0, where)];
  if (isObject(row.top_logprobs)) {
    const entries = Object.entries(row.top_logprobs).map(([key, value]) => [key, logProbOf(value, where)] as const);
    const token = typeof row.token === 'string' ? row.token : '';
    const known = row.logprob === undefined ? {} : { logProb: logProbOf(row.logprob, where) };
    return [mappedPosition(entries, { token, key: token, ...known }, 0)];
  }
  return undefined;
}

/**
 * The positions of one JSONL row as an inference server returns it: OpenAI chat (`logprobs.content[].top_logprobs`),
 * legacy completions (`logprobs.token_logprobs`, `top_logprobs`), vLLM (`logprobs` or `prompt_logprobs`: token id to
 * {logprob, rank, decoded_token}), llama.cpp's server (`completion_probabilities` with `top_logprobs` or `top_probs`),
 * text-generation-inference (`details.tokens` and `details.top_tokens`), a whole response with one choice, or one position a
 * row. Natural logarithms. Positions without log-probabilities are left out.
 *
 * @param where file and line, for errors
 * @throws InputError when the row has none of these forms
 */
export function parseLogProbRow(row: unknown, where: string): TopLogProbs[] {
  const positions = isObject(row) ? positionsOf(row, where) : undefined;
  if (positions === undefined) {
    throw new InputError(
      `${where}: no log-probabilities found; expected OpenAI's "logprobs", vLLM's "logprobs" or "prompt_logprobs", ` +
        'llama.cpp\'s "completion_probabilities", or "details" with "top_tokens"',
    );
  }
  return positions;
}
