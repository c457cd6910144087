import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  type ResponseText,
  readResponse,
  rowsOfLists,
  type TokenNames,
  type TopList,
} from '../src/distillation/top-k-jsonl.js';
import { InputError } from '../src/errors.js';
import { readDocuments } from '../src/formats/documents.js';
import { resolveModelPath } from '../src/formats/hub.js';
import { expandSources, type InputLedger } from '../src/formats/inputs.js';
import { openModelTokenizer } from '../src/models/model-tokenizer.js';
import { tokenizerDigest } from '../src/tokenizers/tokenizer-digest.js';
import { packTexts, type TokenText, type TokenWindows } from '../src/training/language/token-data.js';
import { IGNORED } from '../src/training/types.js';
import {
  type CaptureOptions,
  type CaptureSettings,
  type CaptureShared,
  type CaptureSource,
  teacherOf,
} from './distill-capture.js';
import { windowEnds } from './distill-text.js';
import { flagOf, parseInteger } from './edge-values.js';
import { DEFAULT_CONTEXT } from './model-session.js';

/** Rows that are held at once. */
const WINDOWS_AT_ONCE = 64;

const textsOf = new WeakMap<CaptureSource, readonly ResponseText[]>();

/** Classes of the model behind the responses: `--vocabulary-size`, or what the teacher's configuration says. */
function vocabularyOf(own: CaptureOptions, path: string, tokens: number): number {
  if (own.vocabularySize !== undefined) return parseInteger('--vocabulary-size', own.vocabularySize, 1);
  try {
    const size = (JSON.parse(readFileSync(join(path, 'config.json'), 'utf8')) as { vocab_size?: unknown }).vocab_size;
    if (typeof size === 'number') return size;
  } catch {
    // A folder of a tokenizer alone has no configuration.
  }
  return tokens;
}

function refuseText(options: CaptureShared, own: CaptureOptions): void {
  const stray = [
    options.data?.length ? '--data' : '',
    ...(['lossOn', 'promptField', 'answerField', 'precision'] as const).map((name) =>
      own[name] === undefined ? '' : flagOf(name),
    ),
    own.chatTemplate === true ? '--chat-template' : '',
    own.endToken === false ? '--no-end-token' : '',
    options.dataFormat === undefined ? '' : '--data-format',
    options.textField === 'text' ? '' : '--text-field',
    options.textSplit === 'file' ? '' : '--text-split',
    options.device === 'cpu' ? '' : '--device',
  ].find((flag) => flag !== '');
  if (stray !== undefined)
    throw new InputError(`${stray}: responses hold their own texts and predictions; drop it, or --responses`);
}

/** Responses of an inference server. */
export async function openResponseSource(
  options: CaptureShared,
  own: CaptureOptions,
  { k, temperature }: CaptureSettings,
  ledger: InputLedger,
): Promise<CaptureSource> {
  refuseText(options, own);
  if (temperature !== 1) {
    throw new InputError('--temperature: what a server sent is at its own temperature; ask it for temperature 1');
  }
  const spec = teacherOf(options, own);
  const { path } = resolveModelPath(spec, process.env);
  const tokenizer = openModelTokenizer(path);
  const vocabulary = vocabularyOf(own, path, tokenizer.vocabularySize);
  const names: TokenNames = { tokenizer, vocabulary, unknown: 0 };
  // Servers say themselves where a text ends; what stands before it is put there when it is cut into windows.
  const ends = windowEnds({ ...own, endToken: false }, { name: spec, tokenizer, vocabularySize: vocabulary });
  const texts: ResponseText[] = [];
  const files = await expandSources([...(own.responses ?? [])]);
  const limit = options.limit === undefined ? {} : { limit: options.limit };
  for await (const row of readDocuments(files, { ledger, format: 'jsonl', requireText: false, ...limit })) {
    texts.push(withoutPrefix(readResponse(row.record, names, `${row.source}:${row.line ?? row.index}`), ends.prefix));
  }
  const settings = { length: options.context ?? DEFAULT_CONTEXT, ...ends };
  const windows = packTexts(texts.map(textOf), settings);
  const places = placesOf(texts, windows, settings);
  const lists: (TopList | undefined)[] = texts.flatMap(({ lists: own }) => [...own]);
  const { length } = windows;
  const source: CaptureSource = {
    kind: 'responses',
    vocabulary,
    tokenizerSha256: tokenizerDigest(tokenizer),
    modelSha256: '',
    windows,
    wanted: Uint8Array.from(places, (place) => (place >= 0 ? 1 : 0)),
    windowsAtOnce: WINDOWS_AT_ONCE,
    unknownTokens: names.unknown,
    async rows(from, to) {
      const found = [...places.subarray(from * length, to * length)].flatMap((place) => lists[place] ?? []);
      return rowsOfLists(found, Math.min(k, vocabulary));
    },
    digests: async () => [],
    close: async () => {},
  };
  textsOf.set(source, texts);
  return source;
}

function withoutPrefix({ tokens, lists }: ResponseText, prefix: number | undefined): ResponseText {
  if (prefix === undefined || tokens[0] !== prefix) return { tokens, lists };
  return { tokens: tokens.slice(1), lists: lists.slice(1) };
}

/** A text of which the places with a prediction are asked for. */
function textOf({ tokens, lists }: ResponseText): TokenText {
  const spans: [number, number][] = [];
  lists.forEach((list, i) => {
    if (list === undefined) return;
    const last = spans.at(-1);
    if (last?.[1] === i) last[1] = i + 1;
    else spans.push([i, i + 1]);
  });
  return { tokens, spans };
}

/** [windows, length]: of each position the number of the token that it predicts, among all texts; -1 where none is asked. */
function placesOf(
  texts: readonly ResponseText[],
  windows: TokenWindows,
  settings: Parameters<typeof packTexts>[1],
): Int32Array {
  // The same windows over numbers of tokens in place of tokens.
  let next = 0;
  const numbered = texts.map((text) => {
    const tokens = Int32Array.from(text.tokens, () => next++);
    return { ...textOf(text), tokens };
  });
  const prefix = settings.prefix !== undefined && { prefix: -1 };
  const { labels } = packTexts(numbered, { length: settings.length, ...prefix });
  if (labels.length !== windows.labels.length)
    throw new RangeError('windows over numbers differ from those over tokens');
  return labels.map((label) => (label === IGNORED ? -1 : label));
}

/** The responses as rows of token ids, with labels where there is a prediction: what to train on. */
export function responseTextLines(source: CaptureSource): string {
  const texts = textsOf.get(source) ?? [];
  return texts
    .map(({ tokens, lists }) => {
      const labels = Array.from(tokens, (token, i) => (lists[i] === undefined ? IGNORED : token));
      return `${JSON.stringify({ input_ids: [...tokens], labels })}\n`;
    })
    .join('');
}
