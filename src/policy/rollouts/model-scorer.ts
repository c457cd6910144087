import { InputError } from '../../errors.js';
import { type LanguageModel, openLanguageModel } from '../../models/language-model.js';
import { openModelFiles } from '../../models/model-files.js';
import { openModelTokenizer } from '../../models/model-tokenizer.js';
import type { Tokenizer } from '../../tokenizers/tokenizer.js';
import { firstDifference } from '../../tokenizers/tokenizer-digest.js';
import { createPromptEncoder, type PromptKind } from './prompt-tokens.js';
import { type ForcedScores, type PromptedResponse, scoreResponses } from './teacher-forcing.js';
import type { ChatMessages, ScoredColumn, ScoredRecord, TextRecord, TextScorer } from './text-records.js';
import type { PromptFormat, Rescored } from './types.js';

export interface ModelScorerOptions {
  /** The policy that is updated. */
  readonly model: string;
  /** The policy that sampled, where it is another one. */
  readonly oldModel?: string;
  /** Where models lie, by name; a name is a path when absent. */
  readonly locations?: Readonly<Record<string, string>>;
  readonly temperature: number;
  readonly promptFormat: PromptFormat;
  /** Longest sequence in tokens; the model's own limit where that is less. */
  readonly context: number;
  readonly threads: number;
  readonly maxMemory: number;
  /** Called with the number of tokens that went through a model. */
  onRows?(rows: number): void;
}

interface Prepared extends PromptedResponse {
  readonly place: string;
}

/** What is told of a model that scored. */
interface Tally {
  readonly columns: Set<string>;
  readonly kinds: Set<PromptKind>;
  cutRecords: number;
  cutTokens: number;
}

/** The words of a response: text, or one turn of the assistant. */
function responseText(response: string | ChatMessages, place: string): string {
  if (typeof response === 'string') return response;
  const [turn] = response;
  const parts = Array.isArray(turn.content) ? turn.content : [{ type: 'text', text: turn.content }];
  const texts = parts.map((part: unknown) =>
    typeof part === 'object' && part !== null && 'text' in part ? (part as { text: unknown }).text : undefined,
  );
  if (response.length > 1 || !texts.every((text): text is string => typeof text === 'string')) {
    throw new InputError(
      `${place}: the response is a conversation of ${response.length} messages or holds more than text; ` +
        'only one message of text can be scored again: give token ids and log-probabilities instead',
    );
  }
  return texts.join('');
}

function beginning(tokenizer: Tokenizer, place: string): Int32Array {
  const id = tokenizer.bosId ?? tokenizer.eosId;
  if (id === undefined) {
    throw new InputError(
      `${place}: an empty prompt, and the tokenizer has no token that begins a text; name the prompt's column with --map prompt=COLUMN`,
    );
  }
  return Int32Array.of(id);
}

function checkSameTokens(tokenizer: Tokenizer, old: Tokenizer, oldModel: string, model: string): void {
  const id = firstDifference(tokenizer, old);
  if (id !== undefined) {
    throw new InputError(
      `${oldModel}: token ${id} is ${JSON.stringify(old.tokenText(id))}, in ${model} it is ` +
        `${JSON.stringify(tokenizer.tokenText(id))}; --old-model must be a checkpoint of the same model`,
    );
  }
}

type Sizes = Pick<LanguageModel['info'], 'vocabularySize' | 'maxPositions'>;

/** Rows of the vocabulary and positions of a model, from its headers where it has some. */
async function sizesOf(path: string, open: () => Promise<LanguageModel>): Promise<Sizes> {
  if (path.toLowerCase().endsWith('.onnx')) return (await open()).info;
  const { description, store } = openModelFiles(path, 1);
  store.close();
  return { vocabularySize: description.vocabularySize, maxPositions: description.maxPositions };
}

const KIND_TEXT: Readonly<Record<PromptKind, string>> = {
  conversation: 'the chat template was applied to messages',
  restored: 'special tokens that the dump had left out were put back by the chat template',
  rendered: 'prompts hold their special tokens',
  plain: 'prompts were taken as plain text, without the chat template',
};

/**
 * Scores texts of a dump by teacher forcing: tokens of the response, their log-probabilities under `model` and under `oldModel`, and
 * the entropies of the policy that sampled (`oldModel` where it is given: what STEER and PEAR ask for).
 * @throws InputError for models whose tokens differ
 */
export async function createModelScorer(options: ModelScorerOptions): Promise<TextScorer & { close(): Promise<void> }> {
  const { model: path, oldModel: oldPath, temperature } = options;
  const locate = (name: string): string => options.locations?.[name] ?? name;
  const tokenizer = openModelTokenizer(locate(path));
  if (oldPath !== undefined) checkSameTokens(tokenizer, openModelTokenizer(locate(oldPath)), oldPath, path);
  const share = oldPath === undefined ? 1 : 2;
  const open = (file: string): Promise<LanguageModel> =>
    openLanguageModel(locate(file), {
      threads: options.threads,
      maxMemoryBytes: options.maxMemory / share,
      device: 'cpu',
      precision: 'f32',
      context: options.context,
    });
  const opened = new Map<string, Promise<LanguageModel>>();
  /** A dump that has all columns needs the tokenizer alone: a model is opened for the first record that it scores. */
  const modelOf = (file: string): Promise<LanguageModel> => {
    const found = opened.get(file) ?? open(file);
    opened.set(file, found);
    return found;
  };
  const { vocabularySize, maxPositions } = await sizesOf(locate(path), () => modelOf(path));
  const encodePrompt = createPromptEncoder(tokenizer, options.promptFormat);
  const context = Math.min(options.context, maxPositions ?? options.context);
  const tallies = new Map<string, Tally>();
  const tallyOf = (file: string): Tally => {
    const found = tallies.get(file) ?? { columns: new Set(), kinds: new Set(), cutRecords: 0, cutTokens: 0 };
    tallies.set(file, found);
    return found;
  };

  const prepare = ({ prompt, response, tokens, place }: TextRecord): Prepared => {
    if (response === undefined && tokens === undefined) {
      throw new InputError(
        `${place}: neither text nor token ids of a response; name the column with --map response=COLUMN`,
      );
    }
    const ids =
      tokens ??
      tokenizer.encode(responseText(response as string | ChatMessages, place), {
        addSpecialTokens: false,
        parseSpecialTokens: true,
      });
    if (ids.length === 0) throw new InputError(`${place}: the response has no tokens; leave the record out`);
    const stray = ids.find((id) => id < 0 || id >= vocabularySize);
    if (stray !== undefined) {
      throw new InputError(
        `${place}: token ${stray} is not of ${path} (${vocabularySize} tokens); give the model that wrote the dump`,
      );
    }
    const given = prompt === undefined || prompt.length === 0 ? undefined : encodePrompt(asMessages(prompt), place);
    if (given) tallyOf(path).kinds.add(given.kind);
    const before = given && given.tokens.length > 0 ? given.tokens : beginning(tokenizer, place);
    if (before.length > context) {
      throw new InputError(
        `${place}: the prompt has ${before.length} tokens, the context is ${context}; raise --context, or leave the record out`,
      );
    }
    return { prompt: before, response: ids, place };
  };

  const force = async (file: string, prepared: readonly Prepared[]): Promise<ForcedScores[]> =>
    scoreResponses(await modelOf(file), prepared, {
      temperature,
      context,
      ...(options.onRows && { onRows: options.onRows }),
    });

  return {
    gives: new Set<ScoredColumn>(oldPath !== undefined ? ['logProb', 'oldLogProb', 'entropy'] : ['logProb', 'entropy']),
    vocabularySize,
    textOf: (token) => (token < tokenizer.vocabularySize ? tokenizer.decode([token]) : ''),
    async score(records, wanted) {
      const prepared = records.map(prepare);
      const needsNew = wanted.has('logProb') || (oldPath === undefined && wanted.has('entropy'));
      const needsOld = wanted.has('oldLogProb') || wanted.has('entropy');
      const now = needsNew ? await force(path, prepared) : undefined;
      const before = oldPath !== undefined && needsOld ? await force(oldPath, prepared) : undefined;
      const entropies = before ?? now;
      const note = (file: string, column: ScoredColumn): boolean =>
        wanted.has(column) && Boolean(tallyOf(file).columns.add(column));
      return prepared.map(({ response }, r): ScoredRecord => {
        const scored = (now ?? before)?.[r].scored ?? response.length;
        if (scored < response.length) {
          const tally = tallyOf(path);
          tally.cutRecords++;
          tally.cutTokens += response.length - scored;
        }
        return {
          tokens: response.subarray(0, scored),
          ...(now && note(path, 'logProb') && { logProb: now[r].logProb }),
          ...(before && oldPath !== undefined && note(oldPath, 'oldLogProb') && { oldLogProb: before[r].logProb }),
          ...(entropies &&
            note(before && oldPath !== undefined ? oldPath : path, 'entropy') && { entropy: entropies[r].entropy }),
        };
      });
    },
    rescored: () =>
      [...tallies].map(
        ([file, tally]): Rescored => ({
          columns: [...tally.columns].sort(),
          model: file,
          temperature,
          chatTemplate: ['conversation', 'restored'].some((kind) => tallyOf(path).kinds.has(kind as PromptKind)),
          cutRecords: tallyOf(path).cutRecords,
          cutTokens: tallyOf(path).cutTokens,
        }),
      ),
    warnings() {
      const { kinds, cutRecords, cutTokens } = tallyOf(path);
      const lines = [
        `tokens are those of the text as ${path} writes it, which need not be those that were sampled; the token that ended a response is not scored`,
        ...[...kinds].sort().map((kind) => KIND_TEXT[kind]),
      ];
      if (cutRecords > 0)
        lines.push(
          `${cutRecords} responses were cut to the context of ${context} tokens: ${cutTokens} tokens have no score`,
        );
      if (kinds.has('plain') && tokenizer.chatTemplate !== undefined) {
        lines.push('the model has a chat template that prompts do not follow: give messages, or --prompt-format chat');
      }
      return lines;
    },
    async close() {
      for (const one of opened.values()) await (await one).close();
      opened.clear();
    },
  };
}

const asMessages = (prompt: string | ChatMessages): string | { role: string; content: unknown }[] =>
  typeof prompt === 'string'
    ? prompt
    : prompt.map((message) => ({ ...message, role: String(message.role ?? 'user'), content: message.content }));
