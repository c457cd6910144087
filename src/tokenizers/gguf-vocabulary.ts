import { InputError } from '../errors.js';

/** `tokenizer.ggml.token_type`. */
export const TokenType = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

/** The vocabulary of a GGUF file. */
export interface GgufVocabulary {
  readonly texts: readonly string[];
  /** Token to id; the last of equal tokens. */
  readonly idOf: ReadonlyMap<string, number>;
  /** Scores by id, zero where the file has none. */
  readonly scores: Float64Array;
  readonly types: Uint8Array;
  /** Tokens that are found in text only where special tokens are parsed. */
  readonly parsedSpecial: Uint8Array;
}

/**
 * Tokens that llama.cpp holds for control tokens whatever type the file gives them: ends of turns and of texts, the
 * marks of fill-in-the-middle (`llama_vocab::impl::load`).
 */
const CONTROL_LOOKING = new Set(
  (
    '<|eot_id|> <|im_end|> <|end|> <|return|> <|call|> <|flush|> <|calls|> <end_of_turn> <|endoftext|> </s> ' +
    '<|eom_id|> <EOT> _<EOT> [EOT] [EOS] <|end_of_text|> <end_of_utterance> <eos> <turn|> <|tool_response> ' +
    '<｜end▁of▁sentence｜> [e~[ ' +
    '<|fim_prefix|> <fim-prefix> <fim_prefix> <｜fim▁begin｜> <PRE> ▁<PRE> <|code_prefix|> <|prefix|> ' +
    '<|fim_suffix|> <fim-suffix> <fim_suffix> <｜fim▁hole｜> <SUF> ▁<SUF> <|code_suffix|> <|suffix|> ' +
    '<|fim_middle|> <fim-middle> <fim_middle> <｜fim▁end｜> <MID> ▁<MID> <|code_middle|> <|middle|> ' +
    '<|fim_pad|> <fim-pad> <fim_pad> <PAD> [PAD] ' +
    '<|fim_repo|> <|repo_name|> <fim-repo> <REPO> <reponame> <|file_sep|>'
  ).split(' '),
);
/** Control tokens that chat templates of gpt-oss write: never hidden. */
const ALWAYS_VISIBLE = new Set(['<|channel|>', '<|message|>', '<|start|>', '<|constrain|>']);

/** A number of the metadata; undefined where the key is missing or no number. */
export function numberOf(kv: ReadonlyMap<string, unknown>, key: string): number | undefined {
  const value = kv.get(key);
  if (typeof value === 'bigint') return Number(value);
  return typeof value === 'number' ? value : undefined;
}

/** The strings under `key`; throws InputError where they are missing. */
export function stringsOf(kv: ReadonlyMap<string, unknown>, key: string): readonly string[] {
  const value = kv.get(key);
  if (!Array.isArray(value) || !value.every((item) => typeof item === 'string')) {
    throw new InputError(`the GGUF file has no list of texts ${key}; it carries no tokenizer; convert the model again`);
  }
  return value;
}

/** The numbers under `key`, at least `count` of them, or undefined where the key is missing. */
function numbersOf(kv: ReadonlyMap<string, unknown>, key: string, count: number): ArrayLike<number> | undefined {
  const value = kv.get(key);
  if (value === undefined) return undefined;
  const isNumeric = ArrayBuffer.isView(value) || (Array.isArray(value) && value.every((x) => typeof x === 'number'));
  const list = value as ArrayLike<number>;
  if (!isNumeric || list.length < count) {
    throw new InputError(`${key} of the GGUF file must hold ${count} numbers; convert the model again`);
  }
  return list;
}

/** Reads tokens, scores and types. Throws InputError where they are missing or of different lengths. */
export function readGgufVocabulary(kv: ReadonlyMap<string, unknown>): GgufVocabulary {
  const texts = stringsOf(kv, 'tokenizer.ggml.tokens').map((text, id) => (text === '' ? `[EMPTY_${id}]` : text));
  const scores = numbersOf(kv, 'tokenizer.ggml.scores', texts.length);
  const types = numbersOf(kv, 'tokenizer.ggml.token_type', texts.length);
  const idOf = new Map<string, number>();
  texts.forEach((text, id) => {
    idOf.set(text, id);
  });
  const typeOf = new Uint8Array(texts.length).fill(TokenType.normal);
  const parsedSpecial = new Uint8Array(texts.length);
  const scoreOf = new Float64Array(texts.length);
  for (let id = 0; id < texts.length; id++) {
    if (scores !== undefined) scoreOf[id] = scores[id];
    let type = types === undefined ? TokenType.normal : types[id];
    let special = type === TokenType.control || type === TokenType.unknown;
    if (CONTROL_LOOKING.has(texts[id])) special = true;
    if (special && type !== TokenType.unknown && type !== TokenType.control) type = TokenType.control;
    if (ALWAYS_VISIBLE.has(texts[id])) {
      type = TokenType.userDefined;
      special = false;
    }
    typeOf[id] = type;
    parsedSpecial[id] = special ? 1 : 0;
  }
  endOfTurnExceptions(texts, idOf, typeOf, parsedSpecial);
  return { texts, idOf, scores: scoreOf, types: typeOf, parsedSpecial };
}

/** In vocabularies that end a turn by other tokens, `<|end|>` is visible text and `</s>` an ordinary token. */
function endOfTurnExceptions(
  texts: readonly string[],
  idOf: ReadonlyMap<string, number>,
  types: Uint8Array,
  parsedSpecial: Uint8Array,
): void {
  const has = (text: string): boolean => idOf.has(text);
  const calls = has('<|call|>') || has('<|calls|>');
  const end = idOf.get('<|end|>');
  if (end !== undefined && calls && (has('<|return|>') || has('<|flush|>'))) {
    types[end] = TokenType.userDefined;
    parsedSpecial[end] = 0;
  }
  const closing = idOf.get('</s>');
  if (closing !== undefined && texts[closing] === '</s>' && (has('<|tool_response>') || has('<|plamo:eos|>'))) {
    types[closing] = TokenType.normal;
    parsedSpecial[closing] = 0;
  }
}
