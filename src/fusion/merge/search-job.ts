import fs from 'node:fs';
import path from 'node:path';
import { InputError } from '../../errors.js';
import { fileError } from '../../formats/files.js';
import { differingKey, hashBytes } from '../../formats/work-files.js';
import { type LanguageModel, openLanguageModel, type PositionRange } from '../../models/language-model.js';
import { type ReportValue, toJsonValue } from '../../report/values.js';
import { parseMergeDocuments } from './config-document.js';
import { formatMergeDocument } from './config-format.js';
import { type MergeDocument, referencedModels } from './document.js';
import type { MergeArguments } from './merge-arguments.js';
import { mergeModels } from './merge-job.js';
import { openMergeSubject, referenceKey } from './merge-subject.js';
import {
  candidateDocument,
  cocktailWeights,
  type SearchSettings,
  type SearchVariable,
  searchPoints,
  searchVariables,
} from './search.js';

/** A text that candidates are judged by: one window after another, every token scored once. */
export interface SearchText {
  readonly name: string;
  /** Token ids of documents. */
  readonly documents: readonly Int32Array[];
}

export interface SearchArguments {
  readonly merge: MergeArguments;
  readonly search: SearchSettings;
  readonly texts: readonly SearchText[];
  /** Stands before every document. */
  readonly prefix: number;
  /** Tokens of a window. */
  readonly context: number;
  /** Share of the windows of every text, its last ones, that the search never sees. */
  readonly holdout: number;
  /** Where candidates go, and what is remembered of them for a run that resumes. */
  readonly folder: string;
}

/** Mean -ln p of a text, and how many tokens it is over. */
export type TextScore = { readonly name: string; readonly tokens: number; readonly nll_nats: number };

/** A model judged on the texts: the mean over texts of their means over tokens. */
export type ModelScore = {
  readonly model: string;
  readonly role: 'model' | 'start' | 'merged';
  readonly search_nll_nats: number;
  readonly held_out_nll_nats: number;
  /** Standard error of it over windows. */
  readonly held_out_nll_nats_se: number;
  readonly held_out_texts: readonly TextScore[];
};

export interface SearchCandidate {
  readonly point: readonly number[];
  readonly nll_nats: number;
  readonly texts: readonly TextScore[];
}

export interface SearchResult {
  readonly variables: readonly SearchVariable[];
  /** In the order in which they were tried. */
  readonly candidates: readonly SearchCandidate[];
  readonly best: readonly number[];
  readonly converged: boolean;
  /** The configuration with the best numbers. */
  readonly configuration: string;
  /** Models of the configuration, the start, and the merge with the best numbers. */
  readonly scores: readonly ModelScore[];
}

/** Windows of a text, cut in two: what the search sees and what it does not. */
interface JudgedText {
  readonly name: string;
  readonly windows: readonly JudgedWindow[];
  readonly searched: number;
}

interface JudgedWindow {
  readonly tokens: Int32Array;
  readonly wanted: PositionRange;
  readonly targets: Int32Array;
}

/**
 * Looks for the numbers of a merge with the lowest mean loss on the first part of the texts: every candidate is merged as the
 * final model would be, opened and judged. What is reported beside is the loss on the part that no candidate was chosen by.
 * @throws InputError as the merge does, and for texts of too few windows
 */
export async function searchMerge(args: SearchArguments, progress: (value: unknown) => void): Promise<SearchResult> {
  const { merge, search } = args;
  const [document, ...others] = parseMergeDocuments(merge.configuration, merge.configurationName);
  if (others.length > 0) throw new InputError('--search works on a configuration of one document');
  const texts = args.texts.map((text) => judgedText(text, args));
  const variables = searchVariables(document, search);
  const first = candidateDocument(document, variables, starts(variables));
  const judge = createJudge(args, first, texts);
  try {
    const models = await judgeModels(args, document, texts);
    const start = await judge.candidate(first);
    const found = await findBest(args, document, variables, models, judge, progress);
    const configuration = formatMergeDocument(candidateDocument(document, variables, found.best));
    const merged = await judge.candidate(candidateDocument(document, variables, found.best));
    return {
      variables,
      candidates: found.candidates,
      best: [...found.best],
      converged: found.converged,
      configuration,
      scores: [...models, modelScore('start', 'start', start), modelScore('merged', 'merged', merged)],
    };
  } finally {
    fs.rmSync(judge.folder, { recursive: true, force: true });
  }
}

const starts = (variables: readonly SearchVariable[]): Float64Array =>
  Float64Array.from(variables, ({ start }) => start);

interface Found {
  readonly best: Float64Array;
  readonly candidates: readonly SearchCandidate[];
  readonly converged: boolean;
}

async function findBest(
  { search }: SearchArguments,
  document: MergeDocument,
  variables: readonly SearchVariable[],
  models: readonly ModelScore[],
  judge: Judge,
  progress: (value: unknown) => void,
): Promise<Found> {
  if (search.method === 'none') return { best: new Float64Array(0), candidates: [], converged: true };
  if (search.method === 'cocktail') return cocktail(search, document, variables, models, judge);
  return searchBox(search, document, variables, judge, progress);
}

/** The score of a candidate; infinite where its numbers have no result, as densities beyond what a method allows. */
async function scoreOf(judge: Judge, document: MergeDocument): Promise<Pick<PartScore, 'mean' | 'texts'>> {
  try {
    return (await judge.candidate(document)).search;
  } catch (error) {
    if (error instanceof InputError) return { mean: Number.POSITIVE_INFINITY, texts: [] };
    throw error;
  }
}

async function searchBox(
  search: SearchSettings,
  document: MergeDocument,
  variables: readonly SearchVariable[],
  judge: Judge,
  progress: (value: unknown) => void,
): Promise<Found> {
  const candidates: SearchCandidate[] = [];
  const points = searchPoints(variables, search);
  let next = points.next();
  while (!next.done) {
    const point = next.value;
    const { mean, texts } = await scoreOf(judge, candidateDocument(document, variables, point));
    candidates.push({ point: [...point], nll_nats: mean, texts });
    progress({ candidates: candidates.length, evaluations: search.evaluations });
    next = points.next(mean);
  }
  const [first, ...rest] = candidates;
  const best = rest.reduce((a, b) => (b.nll_nats < a.nll_nats ? b : a), first);
  return { best: Float64Array.from(best.point), candidates, converged: next.value.converged };
}

/** @throws InputError where the only variables are not one weight a model */
async function cocktail(
  search: SearchSettings,
  document: MergeDocument,
  variables: readonly SearchVariable[],
  scores: readonly ModelScore[],
  judge: Judge,
): Promise<Found> {
  if (variables.some(({ parameter, group }) => parameter !== 'weight' || group > 0))
    throw new InputError(
      '--search cocktail gives one weight a model: leave out --search-parameters and --search-groups',
    );
  const losses = variables.map(
    ({ model }) => scores.find((score) => score.model === model)?.search_nll_nats ?? Number.NaN,
  );
  const best = Float64Array.from(cocktailWeights(losses, search.temperature));
  const judged = await judge.candidate(candidateDocument(document, variables, best));
  const candidate = { point: [...best], nll_nats: judged.search.mean, texts: judged.search.texts };
  return { best, candidates: [candidate], converged: true };
}

/** Windows as lm-evaluation-harness rolls them: each predicts what follows the one before; the last one is as long as the others. */
function judgedText({ name, documents }: SearchText, { prefix, context, holdout }: SearchArguments): JudgedText {
  const windows = documents.flatMap((tokens) => rollingWindows(tokens, prefix, context));
  const searched = Math.round((1 - holdout) * windows.length);
  if (searched === 0 || searched === windows.length)
    throw new InputError(
      `--search-data ${name}: ${windows.length} windows of ${context} tokens cannot be parted into a search and a held-out ` +
        'part: give more text, a smaller --context, or another --holdout',
    );
  return { name, windows, searched };
}

function rollingWindows(tokens: Int32Array, prefix: number, context: number): JudgedWindow[] {
  const sequence = Int32Array.of(prefix, ...tokens);
  const windows: JudgedWindow[] = [];
  for (let at = 0; at < tokens.length; at += context) {
    const end = Math.min(tokens.length, at + context);
    const from = Math.max(0, end - context);
    windows.push({
      tokens: sequence.slice(from, end),
      wanted: [at - from, end - from],
      targets: sequence.slice(at + 1, end + 1),
    });
  }
  return windows;
}

interface PartScore {
  readonly mean: number;
  readonly standardError: number;
  readonly texts: readonly TextScore[];
}

interface Judged {
  readonly search: PartScore;
  readonly heldOut: PartScore;
}

function modelScore(model: string, role: ModelScore['role'], { search, heldOut }: Judged): ModelScore {
  return {
    model,
    role,
    search_nll_nats: search.mean,
    held_out_nll_nats: heldOut.mean,
    held_out_nll_nats_se: heldOut.standardError,
    held_out_texts: heldOut.texts,
  };
}

interface Judge {
  readonly folder: string;
  candidate(document: MergeDocument): Promise<Judged>;
}

/** Merges candidates into a folder of their own; what was scored before is remembered by its configuration. */
function createJudge(args: SearchArguments, document: MergeDocument, texts: readonly JudgedText[]): Judge {
  const { merge } = args;
  const folder = path.join(args.folder, 'candidate');
  const memory = path.join(args.folder, 'candidates.jsonl');
  const known = takeUpMemory(memory, args, document);
  return {
    folder,
    async candidate(candidate): Promise<Judged> {
      const configuration = formatMergeDocument(candidate);
      const before = known.get(configuration);
      if (before !== undefined) return before;
      await mergeModels(
        {
          ...merge,
          configuration,
          out: folder,
          settings: { ...merge.settings, diagnostics: 'none', modelCard: false },
          write: { force: true },
          hashed: false,
        },
        () => undefined,
      );
      const judged = await judgeModel(folder, merge, texts);
      known.set(configuration, judged);
      appendLine(memory, { configuration, judged });
      return judged;
    },
  };
}

/**
 * Candidates that an interrupted run has scored.
 * @throws InputError when it judged by other texts, or merged other models
 */
function takeUpMemory(memory: string, args: SearchArguments, document: MergeDocument): Map<string, Judged> {
  const wanted = toJsonValue(searchIdentity(args, document));
  const [first, ...others] = readLines(memory);
  if (first === undefined) {
    appendLine(memory, wanted);
    return new Map();
  }
  const differing = differingKey(first, wanted);
  if (differing !== undefined)
    throw new InputError(
      `${args.merge.out}: the interrupted search had another "${differing}": repeat its options, or leave out --resume`,
    );
  const scored = others as { readonly configuration: string; readonly judged: Judged }[];
  return new Map(scored.map(({ configuration, judged }) => [configuration, judged]));
}

/** What decides the losses of a candidate beside its configuration. */
function searchIdentity(
  { merge, texts, prefix, context, holdout }: SearchArguments,
  document: MergeDocument,
): Record<string, ReportValue> {
  const { diagnostics, modelCard, maxShardBytes, ...settings } = merge.settings;
  const subject = openMergeSubject(document, { ...settings, directories: merge.directories, hashed: false });
  subject.close();
  const bytesOf = (tokens: Int32Array): Uint8Array =>
    new Uint8Array(tokens.buffer, tokens.byteOffset, tokens.byteLength);
  const search_data = texts.map(({ name, documents }) => ({
    name,
    documents: documents.map((tokens) => hashBytes(bytesOf(tokens))),
  }));
  return { ...settings, inputs: subject.identity, search_data, prefix, search_context_tokens: context, holdout };
}

function appendLine(file: string, value: unknown): void {
  try {
    fs.appendFileSync(file, `${JSON.stringify(value)}\n`);
  } catch (error) {
    throw fileError(error, file, 'write');
  }
}

/** Values of the lines of a file, without one that a kill has cut; whatever follows begins a line. */
function readLines(file: string): unknown[] {
  if (!fs.existsSync(file)) return [];
  const text = fs.readFileSync(file, 'utf8');
  const whole = text.slice(0, text.lastIndexOf('\n') + 1);
  if (whole.length < text.length) fs.truncateSync(file, Buffer.byteLength(whole));
  return whole.split('\n').flatMap((line): unknown[] => (line === '' ? [] : [JSON.parse(line)]));
}

/** The models of the configuration themselves; adapters are judged with their base. */
async function judgeModels(
  { merge }: SearchArguments,
  document: MergeDocument,
  texts: readonly JudgedText[],
): Promise<ModelScore[]> {
  const scores: ModelScore[] = [];
  for (const { text, model, revision, lora } of referencedModels(document)) {
    const directory = merge.directories.get(referenceKey(model, revision));
    if (directory === undefined || lora !== undefined) continue;
    scores.push(modelScore(text, 'model', await judgeModel(directory, merge, texts)));
  }
  return scores;
}

async function judgeModel(directory: string, merge: MergeArguments, texts: readonly JudgedText[]): Promise<Judged> {
  const model = await openLanguageModel(directory, {
    threads: merge.threads,
    maxMemoryBytes: merge.memoryBytes,
    device: 'cpu',
    precision: 'f32',
    context: Math.max(...texts.flatMap(({ windows }) => windows.map(({ tokens }) => tokens.length))),
    reserveBytes: 0,
  });
  try {
    const sums = new Map<JudgedText, readonly WindowSum[]>();
    for (const text of texts) sums.set(text, await windowSums(model, text.windows));
    const part = (of: (text: JudgedText) => readonly WindowSum[]): PartScore =>
      partScore(texts.map((text) => ({ name: text.name, windows: of(text) })));
    return {
      search: part((text) => (sums.get(text) ?? []).slice(0, text.searched)),
      heldOut: part((text) => (sums.get(text) ?? []).slice(text.searched)),
    };
  } finally {
    await model.close();
  }
}

interface WindowSum {
  readonly nats: number;
  readonly tokens: number;
}

/** Windows whose rows are asked for at a time. */
const BATCH = 16;

async function windowSums(model: LanguageModel, windows: readonly JudgedWindow[]): Promise<WindowSum[]> {
  const sums: WindowSum[] = [];
  for (let at = 0; at < windows.length; at += BATCH) {
    const batch = windows.slice(at, at + BATCH);
    const targets = Int32Array.from(batch.flatMap((window) => [...window.targets]));
    const { surprisalNats } = await model.statistics(
      batch.map(({ tokens }) => tokens),
      batch.map(({ wanted }) => wanted),
      targets,
      { topK: 0, renyiOrders: [] },
    );
    let row = 0;
    for (const window of batch) {
      let nats = 0;
      for (let i = 0; i < window.targets.length; i++) nats += surprisalNats[row++];
      sums.push({ nats, tokens: window.targets.length });
    }
  }
  return sums;
}

/** Mean over texts of means over tokens, with the standard error over windows. */
function partScore(texts: readonly { readonly name: string; readonly windows: readonly WindowSum[] }[]): PartScore {
  let mean = 0;
  let variance = 0;
  const scores: TextScore[] = [];
  for (const { name, windows } of texts) {
    const tokens = windows.reduce((sum, window) => sum + window.tokens, 0);
    const nll = windows.reduce((sum, window) => sum + window.nats, 0) / tokens;
    let squares = 0;
    for (const window of windows) squares += (window.nats - nll * window.tokens) ** 2;
    const count = windows.length;
    variance += count > 1 ? ((squares / tokens ** 2) * count) / (count - 1) : Number.NaN;
    mean += nll;
    scores.push({ name, tokens, nll_nats: nll });
  }
  return { mean: mean / texts.length, standardError: Math.sqrt(variance) / texts.length, texts: scores };
}
