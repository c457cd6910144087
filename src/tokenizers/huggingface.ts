import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { InputError } from '../errors.js';
import { createAddedTokenSplitter } from './added-tokens.js';
import { cleanUpSpaces, compileDecoder } from './decoders.js';
import { createIdBuffer } from './id-buffer.js';
import { compileNormalizer } from './normalizers.js';
import { compilePostProcessor } from './post-processor.js';
import { compilePreTokenizer } from './pre-tokenizers.js';
import { asSettings, isSettings, type Settings } from './settings.js';
import { collectSpecialTokens, type SpecialTokens } from './special-tokens.js';
import { compileTokenBytes } from './token-bytes.js';
import type { Tokenizer } from './tokenizer.js';
import { compileModel } from './word-models.js';

/** The parsed files of a Hugging Face tokenizer. */
export interface TokenizerFiles {
  /** tokenizer.json */
  readonly tokenizer: Settings;
  /** tokenizer_config.json */
  readonly tokenizerConfig?: Settings;
  /** special_tokens_map.json */
  readonly specialTokensMap?: Settings;
  /** generation_config.json and config.json: ids of BOS and EOS that the tokenizer does not name. */
  readonly generationConfig?: Settings;
  readonly modelConfig?: Settings;
  /** chat_template.jinja */
  readonly chatTemplate?: string;
  /** What error messages call it. */
  readonly source?: string;
}

/**
 * Model types for which transformers 5 takes tokenizer.json as it stands, whatever class tokenizer_config.json names
 * (the part of its table that concerns language models whose files name LlamaTokenizer).
 */
const TAKEN_AS_IT_STANDS = new Set(
  (
    'mistral mistral3 ministral ministral3 mixtral pixtral voxtral phi3 phimoe internlm2 internlm3 granite granitemoe ' +
    'granitemoehybrid stablelm persimmon glm glm4 glm4_moe olmo2 olmo3 nemotron jamba minicpm3 minicpmv arctic ' +
    'ernie4_5 ernie4_5_moe hyperclovax kimi_linear mimo_v2_flash llava llava_next vipllava fuyu h2ovl_chat'
  ).split(' '),
);

const LLAMA_DEFAULTS = { unk_token: '<unk>', bos_token: '<s>', eos_token: '</s>' };

/** Whether transformers 5 would rebuild the pipeline of this tokenizer as its class LlamaTokenizer. */
function isLlamaClass(files: TokenizerFiles): boolean {
  const name = files.tokenizerConfig?.tokenizer_class ?? files.modelConfig?.tokenizer_class;
  if (name !== 'LlamaTokenizer' && name !== 'LlamaTokenizerFast') return false;
  const model = files.tokenizer.model;
  if (!isSettings(model) || !isSettings(model.vocab) || !Array.isArray(model.merges)) return false;
  if (TAKEN_AS_IT_STANDS.has(String(files.modelConfig?.model_type))) return false;
  return !JSON.stringify([files.tokenizer.pre_tokenizer, files.tokenizer.decoder]).includes('"ByteLevel"');
}

/** The pipeline of LlamaTokenizer in transformers 5: only vocabulary, merges and post-processor are the file's. */
function asLlamaClass(tokenizer: Settings, config: Settings): Settings {
  const addsSpace = config.add_prefix_space !== false;
  const scheme = addsSpace ? (config.legacy === true ? 'always' : 'first') : 'never';
  const model = asSettings(tokenizer.model, 'model');
  const decoders: Settings[] = [
    { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
    { type: 'ByteFallback' },
    { type: 'Fuse' },
  ];
  if (addsSpace) decoders.push({ type: 'Strip', content: ' ', start: 1, stop: 0 });
  return {
    ...tokenizer,
    added_tokens: config.added_tokens_decoder === undefined ? tokenizer.added_tokens : [],
    normalizer: null,
    pre_tokenizer: { type: 'Metaspace', replacement: '▁', prepend_scheme: scheme, split: false },
    model: { type: 'BPE', vocab: model.vocab, merges: model.merges, fuse_unk: true, byte_fallback: true },
    decoder: { type: 'Sequence', decoders },
  };
}

function readJson(file: string): Settings | undefined {
  if (!existsSync(file)) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new InputError(`${file}: not readable as JSON (${reason}); fetch or save it again`);
  }
  return asSettings(value, file);
}

/** What a directory without tokenizer.json has instead, and what to do. */
function explainMissing(directory: string): string {
  const convert = `write it with transformers: AutoTokenizer.from_pretrained('${directory}').save_pretrained('${directory}')`;
  const others = ['tokenizer.model', 'spiece.model', 'vocab.json', 'vocab.txt', 'tekken.json', 'tiktoken.model'];
  const found = others.filter((name) => existsSync(path.join(directory, name)));
  if (found.length > 0) return `there is only ${found.join(', ')}; ${convert}`;
  const names = readdirSync(directory).sort();
  const listing = names.length === 0 ? 'the directory is empty' : `there is ${names.slice(0, 8).join(', ')}`;
  return `${listing}${names.length > 8 ? ', ...' : ''}; copy the files of the model's tokenizer there, or ${convert}`;
}

/** The files of the tokenizer in a Hugging Face directory. Throws InputError where there is no tokenizer.json. */
export function readTokenizerFiles(directory: string): TokenizerFiles {
  if (!existsSync(directory) || !statSync(directory).isDirectory()) {
    throw new InputError(`${directory}: no such directory; give one that holds tokenizer.json`);
  }
  const tokenizerPath = path.join(directory, 'tokenizer.json');
  const tokenizer = readJson(tokenizerPath);
  if (tokenizer === undefined) throw new InputError(`${directory}: no tokenizer.json: ${explainMissing(directory)}`);
  const templatePath = path.join(directory, 'chat_template.jinja');
  return {
    tokenizer,
    tokenizerConfig: readJson(path.join(directory, 'tokenizer_config.json')),
    specialTokensMap: readJson(path.join(directory, 'special_tokens_map.json')),
    generationConfig: readJson(path.join(directory, 'generation_config.json')),
    modelConfig: readJson(path.join(directory, 'config.json')),
    chatTemplate: existsSync(templatePath) ? readFileSync(templatePath, 'utf8') : undefined,
    source: tokenizerPath,
  };
}

/** The default of one or several named chat templates. */
export function chatTemplateOf(files: TokenizerFiles): string | undefined {
  if (files.chatTemplate !== undefined) return files.chatTemplate;
  const value = files.tokenizerConfig?.chat_template;
  if (typeof value === 'string') return value;
  if (!Array.isArray(value)) return undefined;
  const named = (value as unknown[]).filter(isSettings);
  const chosen = named.find((entry) => entry.name === 'default') ?? (named.length === 1 ? named[0] : undefined);
  return typeof chosen?.template === 'string' ? chosen.template : undefined;
}

function firstId(value: unknown): number | undefined {
  const first: unknown = Array.isArray(value) ? value[0] : value;
  return typeof first === 'number' ? first : undefined;
}

/** The pipeline that transformers 5 runs: tokenizer.json as it stands, or that of a class with one of its own. */
export function effectivePipeline(files: TokenizerFiles): Settings {
  return isLlamaClass(files) ? asLlamaClass(files.tokenizer, files.tokenizerConfig ?? {}) : files.tokenizer;
}

/** Added and named tokens beside the model's `vocabulary` (token to id), as transformers 5 sees them. */
export function specialTokensOf(files: TokenizerFiles, vocabulary: ReadonlyMap<string, number>): SpecialTokens {
  const defaults = isLlamaClass(files) ? LLAMA_DEFAULTS : {};
  const { tokenizerConfig = {}, specialTokensMap = {} } = files;
  return collectSpecialTokens(effectivePipeline(files), tokenizerConfig, specialTokensMap, vocabulary, defaults);
}

/**
 * A tokenizer from a Hugging Face directory or its parsed files. Its ids are those of `AutoTokenizer` in transformers 5:
 * special tokens around a text are what the post-processor of tokenizer.json says (`add_bos_token` and `add_eos_token`
 * of tokenizer_config.json count only where there is no tokenizer.json), named special tokens become added tokens, and
 * the class LlamaTokenizer brings its own pipeline. For every other class the pipeline is what tokenizer.json says.
 * Throws InputError where a file is missing,
 * damaged or of an unknown kind.
 */
export function openTokenizer(directoryOrFiles: string | TokenizerFiles): Tokenizer {
  const files = typeof directoryOrFiles === 'string' ? readTokenizerFiles(directoryOrFiles) : directoryOrFiles;
  const source = files.source ?? 'tokenizer.json';
  const config = files.tokenizerConfig ?? {};
  const json = effectivePipeline(files);

  const normalize = compileNormalizer(json.normalizer, `${source}: normalizer`);
  const preTokenizer = compilePreTokenizer(json.pre_tokenizer, `${source}: pre_tokenizer`);
  const modelSettings = asSettings(json.model, `${source}: model`);
  const model = compileModel(modelSettings, preTokenizer.mapsBytes, `${source}: model`);
  const special = specialTokensOf(files, model.vocabulary);
  const splitAdded = createAddedTokenSplitter(special.added, normalize);

  const texts: string[] = [];
  for (const [token, id] of model.vocabulary) texts[id] = token;
  const specialIds = new Set<number>();
  const addedIds = new Set<number>();
  for (const token of special.added) {
    texts[token.id] = token.content;
    addedIds.add(token.id);
    if (token.special) specialIds.add(token.id);
  }
  const addedByContent = new Map(special.added.map((token) => [token.content, token.id]));
  const idOf = (token: string | undefined): number | undefined =>
    token === undefined ? undefined : (addedByContent.get(token) ?? model.vocabulary.get(token));

  const bosToken = idOf(special.named.bos_token);
  const eosToken = idOf(special.named.eos_token);
  const frame = compilePostProcessor(json.post_processor, `${source}: post_processor`);
  const configured = (key: string): number | undefined =>
    firstId(files.generationConfig?.[key]) ?? firstId(files.modelConfig?.[key]);
  const bosId = bosToken ?? configured('bos_token_id');
  const decodeTokens = compileDecoder(json.decoder, `${source}: decoder`);
  const bytesOf = compileTokenBytes(json);
  const encoder = new TextEncoder();
  const cleansUp = config.clean_up_tokenization_spaces === true && modelSettings.type !== 'BPE';
  const checkId = (id: number): void => {
    if (!(id >= 0 && id < texts.length)) throw new RangeError(`token id ${id} is not in 0 .. ${texts.length - 1}`);
  };

  return {
    vocabularySize: texts.length,
    encode(text, options = {}) {
      const out = createIdBuffer(text.length >> 1);
      const frames = options.addSpecialTokens !== false;
      if (frames) for (const id of frame.before) out.push(id);
      const parseSpecial = options.parseSpecialTokens ?? config.split_special_tokens !== true;
      splitAdded(text, parseSpecial, {
        text(part, atStart) {
          for (const word of preTokenizer.split(part, atStart)) model.encodeWord(word, out);
        },
        token: (id) => out.push(id),
      });
      if (frames) for (const id of frame.after) out.push(id);
      return out.toIds();
    },
    tokenBytes(id) {
      checkId(id);
      const token = texts[id] ?? '';
      return addedIds.has(id) ? encoder.encode(token) : bytesOf(token);
    },
    tokenText(id) {
      checkId(id);
      return texts[id] ?? '';
    },
    decode(ids, options = {}) {
      const tokens: string[] = [];
      for (let i = 0; i < ids.length; i++) {
        const token = texts[ids[i]];
        if (token === undefined || (options.skipSpecialTokens === true && specialIds.has(ids[i]))) continue;
        tokens.push(token);
      }
      const text = decodeTokens(tokens).join('');
      return cleansUp ? cleanUpSpaces(text) : text;
    },
    bosId,
    eosId: eosToken ?? configured('eos_token_id'),
    unkId: idOf(special.named.unk_token ?? model.unknownToken),
    padId: idOf(special.named.pad_token),
    addBosDefault: bosId !== undefined && frame.before[0] === bosId,
    isSpecial: (id) => specialIds.has(id),
    chatTemplate: chatTemplateOf(files),
    specialTokens: special.named,
    warnings: [],
  };
}
