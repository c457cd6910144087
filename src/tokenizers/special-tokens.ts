import type { AddedToken } from './added-tokens.js';
import { isSettings, type Settings } from './settings.js';

/** The special tokens that transformers knows by name. */
const NAMED = ['bos_token', 'eos_token', 'unk_token', 'sep_token', 'pad_token', 'cls_token', 'mask_token'] as const;

/** An added token before it has an id. */
type TokenFlags = Omit<AddedToken, 'id'>;

/** The tokens of a Hugging Face tokenizer beside its model's vocabulary. */
export interface SpecialTokens {
  readonly added: readonly AddedToken[];
  /** Named tokens by their text. */
  readonly named: Readonly<Record<string, string>>;
}

function flagsOf(value: unknown, special: boolean): TokenFlags | undefined {
  if (typeof value === 'string') {
    return { content: value, singleWord: false, lstrip: false, rstrip: false, normalized: !special, special };
  }
  if (!isSettings(value) || typeof value.content !== 'string') return undefined;
  const isSpecial = value.special === undefined ? special : value.special === true;
  return {
    content: value.content,
    singleWord: value.single_word === true,
    lstrip: value.lstrip === true,
    rstrip: value.rstrip === true,
    normalized: value.normalized === undefined ? !isSpecial : value.normalized === true,
    special: isSpecial,
  };
}

/** Special tokens with names of the model's own (`image_token`), then those that are only listed. */
function extras(config: Settings): unknown[] {
  const named: unknown[] = [];
  const listed: unknown[] = [];
  for (const key of ['additional_special_tokens', 'extra_special_tokens']) {
    const value = config[key];
    if (Array.isArray(value)) listed.push(...(value as unknown[]));
    else if (isSettings(value)) named.push(...Object.values(value));
  }
  for (const [key, value] of Object.entries(config)) {
    const isStandard = NAMED.some((name) => name === key);
    const isToken = typeof value === 'string' || (isSettings(value) && typeof value.content === 'string');
    if (!isStandard && isToken && key.endsWith('_token')) named.push(value);
  }
  return [...named, ...listed];
}

/**
 * The added and the named special tokens as transformers 5 puts them together: those of tokenizer.json; those of
 * `added_tokens_decoder` in tokenizer_config.json; then every named or extra special token, which becomes an added
 * token even where the vocabulary had it as an ordinary one. special_tokens_map.json counts only beside a
 * tokenizer_config.json without `added_tokens_decoder`.
 *
 * @param vocabulary the model's tokens
 * @param defaults named tokens of the tokenizer's class
 */
export function collectSpecialTokens(
  tokenizer: Settings,
  config: Settings,
  specialTokensMap: Settings,
  vocabulary: ReadonlyMap<string, number>,
  defaults: Readonly<Record<string, string>>,
): SpecialTokens {
  const byContent = new Map<string, AddedToken>();
  let nextId = 0;
  for (const id of vocabulary.values()) nextId = Math.max(nextId, id + 1);
  const add = (flags: TokenFlags): void => {
    const known = byContent.get(flags.content)?.id ?? vocabulary.get(flags.content);
    byContent.set(flags.content, { ...flags, id: known ?? nextId++ });
  };
  for (const value of Array.isArray(tokenizer.added_tokens) ? (tokenizer.added_tokens as unknown[]) : []) {
    const flags = flagsOf(value, false);
    if (flags === undefined || !isSettings(value) || typeof value.id !== 'number') continue;
    byContent.set(flags.content, { ...flags, id: value.id });
    nextId = Math.max(nextId, value.id + 1);
  }
  const decoder = config.added_tokens_decoder;
  // Flags by content, for named tokens that are given as bare text.
  const known = new Map<string, TokenFlags>();
  if (isSettings(decoder)) {
    const entries = Object.entries(decoder).sort(([a], [b]) => Number(a) - Number(b));
    for (const [, value] of entries) {
      const flags = flagsOf(value, false);
      if (flags === undefined) continue;
      known.set(flags.content, flags);
      add(flags);
    }
  } else for (const token of byContent.values()) known.set(token.content, token);

  const settings: Settings = isSettings(decoder) ? config : { ...config, ...specialTokensMap };
  const named: Record<string, string> = {};
  const special: unknown[] = [];
  for (const name of NAMED) {
    const value = settings[name] === undefined ? defaults[name] : settings[name];
    const flags = flagsOf(value, true);
    if (flags === undefined) continue;
    named[name] = flags.content;
    special.push(value);
  }
  special.push(...extras(settings));
  for (const value of special) {
    const flags = flagsOf(value, true);
    if (flags === undefined || flags.content === '') continue;
    add({ ...(known.get(flags.content) ?? flags), special: true });
  }
  return { added: [...byContent.values()], named };
}
