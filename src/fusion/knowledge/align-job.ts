import { existsSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { InputError } from '../../errors.js';
import { type ComputeReference, startCompute } from '../../kernels/compute-thread.js';
import { openModelTokenizer } from '../../models/model-tokenizer.js';
import type { Tokenizer } from '../../tokenizers/tokenizer.js';
import { type CoOccurrence, countCoOccurrence, refineByCoOccurrence } from './co-occurrence.js';
import {
  countCoordinates,
  countMatches,
  type MatchCounts,
  type StatisticsRule,
  statisticsMap,
} from './mapping-statistics.js';
import { editIndex, type NearestTexts, nearestTexts } from './minimum-edit.js';
import { alignSequences, tokenCosts } from './sequence-alignment.js';
import { cutText, PLAIN, refuseDifference, textDifference } from './text-blocks.js';
import { type CostRule, type TokenPair, tokenPair } from './token-pair.js';
import { type TokenTextMode, tokenTexts } from './token-text.js';
import type { SequenceAlignment, TokenMap, TokenMapKind, TokenTexts } from './types.js';
import { exactMap, minimumEditMap, withoutEqual } from './vocabulary-map.js';

/** A tokenizer: a directory with tokenizer.json, a GGUF file, or tokenizer.json itself. */
export interface TokenizerPlace {
  /** As the user wrote it. */
  readonly name: string;
  readonly path: string;
}

export interface AlignText {
  /** How messages call it. */
  readonly place: string;
  readonly text?: string;
  /** What both made of it already, instead of the text. */
  readonly ids?: { readonly source: Int32Array; readonly pivot: Int32Array };
}

export interface AlignSettings {
  readonly rule: CostRule;
  readonly tokenText: TokenTextMode;
  readonly map: TokenMapKind;
  readonly msRule: StatisticsRule['rule'];
  /** Positions to either side that count as neighbours, of maps by co-occurrence. */
  readonly window: number;
  /** Tokens of a block of text at most. */
  readonly blockSize: number;
  /** Whether texts that the two tokenizers spell differently are left out; else they are an error. */
  readonly dropDifferent: boolean;
}

export interface AlignArguments extends AlignSettings {
  readonly pivot: TokenizerPlace;
  readonly source: TokenizerPlace;
  readonly texts: readonly AlignText[];
  readonly threads: number;
}

/** A piece of a text in both tokenizers. */
export interface AlignedBlock {
  /** Index of its text. */
  readonly text: number;
  readonly source: Int32Array;
  readonly pivot: Int32Array;
  readonly alignment: SequenceAlignment;
}

/** Texts aligned token by token, and the map of the vocabularies. Structured-cloneable. */
export interface AlignedCorpus {
  readonly source: TokenTexts;
  readonly pivot: TokenTexts;
  /** Tokens of the source whose bytes are those of a pivot token, whatever the vocabularies write. */
  readonly equalBytes: number;
  readonly map: TokenMap;
  readonly blocks: readonly AlignedBlock[];
  /** Indices of texts that were left out: spelled differently, or without a token. */
  readonly dropped: readonly number[];
  /** `[pivot id, source id, count]` of matched positions. */
  readonly matches: readonly (readonly [number, number, number])[];
  readonly warnings: readonly string[];
}

/** Opens a tokenizer by its place. @throws InputError where there is none */
export function openPlace({ path }: TokenizerPlace): Tokenizer {
  return openModelTokenizer(basename(path) === 'tokenizer.json' && existsSync(path) ? dirname(path) : path);
}

/** Queries times texts above which a search is worth threads. */
const WORTH_THREADS = 2 ** 27;

interface SearchArguments {
  readonly texts: readonly string[];
  readonly queries: readonly string[];
}

export function searchNearest({ texts, queries }: SearchArguments): NearestTexts {
  return nearestTexts(editIndex(texts), queries);
}

const SEARCH: ComputeReference<SearchArguments, NearestTexts> = { module: import.meta.url, job: searchNearest };

/** {@link nearestTexts} with every n-th query in a thread of its own: the result does not depend on their number. */
export async function searchInThreads(
  texts: readonly string[],
  queries: readonly string[],
  threads: number,
): Promise<NearestTexts> {
  if (threads === 1 || texts.length * queries.length < WORTH_THREADS) return searchNearest({ texts, queries });
  const parts = await Promise.all(
    Array.from({ length: threads }, (_, t) => {
      const own = queries.filter((__, q) => q % threads === t);
      return startCompute(SEARCH, { texts, queries: own }).result;
    }),
  );
  const place = (of: (part: NearestTexts) => Int32Array): Int32Array =>
    Int32Array.from(queries, (_, q) => of(parts[q % threads])[Math.floor(q / threads)]);
  return { nearest: place((part) => part.nearest), distances: place((part) => part.distances) };
}

async function minedMap(pair: TokenPair, threads: number): Promise<TokenMap> {
  const found = await searchInThreads(pair.pivot.texts, [...withoutEqual(pair).keys()], threads);
  return minimumEditMap(pair, () => found);
}

async function mapOf(
  pair: TokenPair,
  args: AlignArguments,
  blocks: readonly AlignedBlock[],
  counts: MatchCounts,
): Promise<TokenMap> {
  if (args.map === 'exact') return exactMap(pair);
  if (args.map === 'ms') return statisticsMap(pair, counts, { rule: args.msRule });
  const mined = await minedMap(pair, args.threads);
  if (args.map === 'mined') return mined;
  const source: CoOccurrence = new Map();
  const pivot: CoOccurrence = new Map();
  for (const block of blocks) {
    countCoOccurrence(source, block.source, args.window);
    countCoOccurrence(pivot, block.pivot, args.window);
  }
  return refineByCoOccurrence(pair, mined, source, pivot);
}

function equalBytes(source: Tokenizer, pivot: Tokenizer): number {
  const keys = (tokenizer: Tokenizer): string[] =>
    Array.from({ length: tokenizer.vocabularySize }, (_, id) =>
      Buffer.from(tokenizer.tokenBytes(id)).toString('latin1'),
    );
  const known = new Set(keys(pivot));
  return keys(source).filter((key) => key !== '' && known.has(key)).length;
}

/** Ids of the pieces of a text in both tokenizers. */
function encodedPieces(
  { text = '', ids }: AlignText,
  source: Tokenizer,
  pivot: Tokenizer,
  blockSize: number,
): (readonly [Int32Array, Int32Array])[] {
  if (ids) return [[ids.source, ids.pivot]];
  const pieces = cutText(text, [source, pivot], blockSize);
  return pieces.map((piece) => [source.encode(piece, PLAIN), pivot.encode(piece, PLAIN)]);
}

/** Aligns every text in two tokenizers and maps the source's vocabulary to the pivot's. */
export async function alignTexts(args: AlignArguments, progress: (done: number) => void): Promise<AlignedCorpus> {
  const source = openPlace(args.source);
  const pivot = openPlace(args.pivot);
  const pair = tokenPair(
    tokenTexts(source, args.tokenText, args.source.name),
    tokenTexts(pivot, args.tokenText, args.pivot.name),
  );
  const costs = tokenCosts(pair, args.rule);
  const blocks: AlignedBlock[] = [];
  const dropped: number[] = [];
  const counts: MatchCounts = new Map();
  args.texts.forEach((given, index) => {
    const { place } = given;
    const own: AlignedBlock[] = [];
    let different = false;
    for (const [from, to] of encodedPieces(given, source, pivot, args.blockSize)) {
      const found = textDifference({ tokenizer: source, ids: from }, { tokenizer: pivot, ids: to });
      if (found && !args.dropDifferent) refuseDifference(place, found, args.source.name, args.pivot.name);
      different ||= found !== undefined;
      if (different || from.length === 0 || to.length === 0) continue;
      own.push({ text: index, source: from, pivot: to, alignment: alignSequences(from, to, costs) });
    }
    progress(index + 1);
    if (different || own.length === 0) {
      dropped.push(index);
      return;
    }
    for (const block of own) countMatches(counts, block.source, block.pivot, block.alignment);
    blocks.push(...own);
  });
  if (blocks.length === 0) throw new InputError('no text is left to align: all are empty or spelled differently');
  const map = await mapOf(pair, args, blocks, counts);
  return {
    source: pair.source,
    pivot: pair.pivot,
    equalBytes: equalBytes(source, pivot),
    map,
    blocks,
    dropped,
    matches: countCoordinates(counts),
    warnings: [...source.warnings, ...pivot.warnings],
  };
}

export const ALIGN_TEXTS: ComputeReference<AlignArguments, AlignedCorpus> = {
  module: import.meta.url,
  job: alignTexts as ComputeReference<AlignArguments, AlignedCorpus>['job'],
};
