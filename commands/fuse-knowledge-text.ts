import { basename } from 'node:path';
import { InputError } from '../src/errors.js';
import { type Document, readDocuments } from '../src/formats/documents.js';
import type { InputLedger } from '../src/formats/inputs.js';
import type { SequenceReader } from '../src/fusion/knowledge/sequences.js';
import { checkCommonText, cutText, type ModelSequences, modelSequences } from '../src/fusion/knowledge/sequences.js';
import type { HeldOutDomain } from '../src/fusion/knowledge/train-fused.js';
import type { Tokenizer } from '../src/tokenizers/tokenizer.js';
import { packTexts, separateTexts, type TokenText } from '../src/training/language/token-data.js';
import { type LearningTextOptions, readText, windowEnds } from './distill-text.js';
import { parseChoice } from './edge-values.js';
import type { SharedOptions } from './shared-options.js';

export interface FusionTextOptions extends LearningTextOptions {
  readonly domainField?: string;
}

type SharedText = Pick<SharedOptions, 'dataFormat' | 'textSplit' | 'textField' | 'limit'>;

/** A model that reads the texts, the pivot first. */
export interface ReadingModel {
  readonly name: string;
  readonly tokenizer: Tokenizer;
  readonly vocabularySize: number;
}

/** The same sequences as all models read them. */
export interface FusionTexts {
  readonly models: readonly ModelSequences[];
  /** [sequences] */
  readonly domainOf: readonly string[];
  readonly texts: number;
  /** Texts that a model's window does not hold. */
  readonly droppedLong: number;
}

const LOSS_ON = ['all', 'answers'] as const;

/** Name of a document's domain: a field, or the name of its file. */
function domainOf(document: Document, field: string | undefined): string {
  if (field === undefined) return basename(document.source).replace(/(\.[a-z]+)+$/i, '');
  const value = document.record[field];
  if (typeof value === 'string' && value !== '') return value;
  throw new InputError(
    `${document.source}:${document.line ?? document.index}: there is no text in the field "${field}" of --domain-field`,
  );
}

function documentsOf(
  data: readonly string[],
  options: SharedText,
  own: FusionTextOptions,
  ledger: InputLedger,
): AsyncIterable<Document> {
  return readDocuments(data, {
    ledger,
    textField: options.textField,
    textSplit: options.textSplit,
    requireText: own.chatTemplate !== true && own.lossOn !== 'answers',
    ...(options.dataFormat && { format: options.dataFormat }),
    ...(options.limit !== undefined && { limit: options.limit }),
  });
}

/** How every model reads: with the tokens it puts around texts, and by the pivot's chat template. */
export function sequenceReaders(models: readonly ReadingModel[], own: FusionTextOptions): SequenceReader[] {
  const [pivot] = models;
  return models.map((model, m) => {
    const ends = windowEnds(m === 0 ? own : { ...own, prefixToken: undefined }, model);
    const { chatTemplate, specialTokens } = pivot.tokenizer;
    const tokenizer = own.chatTemplate ? { ...model.tokenizer, chatTemplate, specialTokens } : model.tokenizer;
    return { name: model.name, tokenizer, ...ends };
  });
}

/**
 * Reads the texts once and cuts them so that a sequence fits the windows of all models. Questions with answers and
 * conversations are not cut: those that do not fit are left out.
 * @param length positions of a window
 * @throws InputError for texts that the models do not read as the same, and where nothing is left
 */
export async function readFusionTexts(
  data: readonly string[],
  options: SharedText,
  own: FusionTextOptions,
  models: readonly ReadingModel[],
  length: number,
  ledger: InputLedger,
): Promise<FusionTexts> {
  const answers = parseChoice('--loss-on', own.lossOn ?? 'all', LOSS_ON) === 'answers';
  const readers = sequenceReaders(models, own);
  const whole = answers || own.chatTemplate === true;
  const read: TokenText[][] = models.map(() => []);
  const domains: string[] = [];
  let texts = 0;
  let droppedLong = 0;
  for await (const document of documentsOf(data, options, own, ledger)) {
    texts++;
    const place = `${document.source}:${document.line ?? document.index}`;
    const domain = domainOf(document, own.domainField);
    if (!whole && document.text === undefined) {
      throw new InputError(`${place}: there is no text: models with other tokenizers cannot read token ids`);
    }
    const pieces: TokenText[][] = whole
      ? [
          models.map((model, m) =>
            readText(document, options, own, { ...model, tokenizer: readers[m].tokenizer }, answers),
          ),
        ]
      : cutText(document.text ?? '', readers, length).map((piece) =>
          readers.map(({ tokenizer }) => ({ tokens: tokenizer.encode(piece, { addSpecialTokens: false }), place })),
        );
    for (const piece of pieces) {
      if (piece.some(({ tokens }) => tokens.length === 0)) continue;
      const fits = piece.every(({ tokens }, m) => tokens.length + endsOf(readers[m]) <= length + 1);
      if (!fits) {
        droppedLong++;
        continue;
      }
      for (let m = 1; m < models.length; m++) {
        checkCommonText(readers[0], readers[m], [piece[0].tokens, piece[m].tokens], place);
      }
      piece.forEach((text, m) => {
        read[m].push(text);
      });
      domains.push(domain);
    }
  }
  if (domains.length === 0) {
    throw new InputError(
      droppedLong > 0
        ? `none of the ${texts} texts fits the ${length} positions of all models: raise --context or shorten the texts`
        : 'the data hold no text',
    );
  }
  return {
    models: models.map((_, m) => modelSequences(read[m], readers[m], length)),
    domainOf: domains,
    texts,
    droppedLong,
  };
}

const endsOf = ({ prefix, end }: SequenceReader): number =>
  (prefix === undefined ? 0 : 1) + (end === undefined ? 0 : 1);

/** Held-out text by domain, packed into windows of the pivot. */
export async function readHeldOut(
  data: readonly string[],
  options: SharedText,
  own: FusionTextOptions,
  pivot: ReadingModel,
  length: number,
  ledger: InputLedger,
): Promise<HeldOutDomain[]> {
  if (data.length === 0) return [];
  const answers = own.lossOn === 'answers';
  const domains = new Map<string, TokenText[]>();
  for await (const document of documentsOf(data, options, own, ledger)) {
    const text = readText(document, options, own, pivot, answers);
    const domain = domainOf(document, own.domainField);
    const known = domains.get(domain);
    if (known) known.push(text);
    else domains.set(domain, [text]);
  }
  const settings = { length, ...windowEnds(own, pivot) };
  return [...domains].map(([name, texts]) => ({
    name,
    windows: answers ? separateTexts(texts, settings) : packTexts(texts, settings),
  }));
}
