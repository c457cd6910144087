import { basename } from 'node:path';
import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { readDocuments } from '../src/formats/documents.js';
import { expandSources, type InputLedger } from '../src/formats/inputs.js';
import { type MergeDocument, referencedModels } from '../src/fusion/merge/document.js';
import type { MergeArguments } from '../src/fusion/merge/merge-arguments.js';
import { referenceKey } from '../src/fusion/merge/merge-subject.js';
import {
  SEARCH_METHODS,
  type SearchMethod,
  type SearchSettings,
  type SearchVariable,
} from '../src/fusion/merge/search.js';
import {
  type SearchArguments,
  type SearchResult,
  type SearchText,
  searchMerge,
} from '../src/fusion/merge/search-job.js';
import { openModelTokenizer } from '../src/models/model-tokenizer.js';
import type { Progress } from '../src/report/progress.js';
import { type SummaryCell, summaryTable } from '../src/report/summary-table.js';
import type { ReportValue } from '../src/report/values.js';
import { flagOf, parseChoice, parseInteger, parseNumber } from './edge-values.js';
import { prefixToken } from './model-session.js';
import { runInThread } from './run-in-thread.js';

/** Options of a search, as commander gives them. */
export interface SearchOptions {
  search?: string;
  searchData?: string[];
  searchParameters?: string[];
  searchGroups?: string;
  searchEvaluations?: string;
  searchTemperature?: string;
  searchContext?: string;
  holdout?: string;
  allowNegativeWeights?: boolean;
  searchTable?: string;
}

/** The start and one round of the cross-entropy method, or a simplex with a step. */
const LEAST_EVALUATIONS = { cem: 5, 'nelder-mead': 2, cocktail: 1, none: 1 } as const;

const DEFAULTS = { groups: 1, evaluations: 60, temperature: 0.1, context: 256, holdout: 0.5 };

export function addSearchOptions(command: Command): Command {
  return command
    .option('--search <method>', `choose numbers by the loss on --search-data: ${SEARCH_METHODS.join(', ')}`)
    .option('--search-data <file...>', 'texts to judge by; the mean over files of their mean losses counts')
    .option('--search-parameters <name...>', 'what is searched (default: the numbers that the method requires)')
    .option('--search-groups <n>', `nodes of a gradient over the layers (default ${DEFAULTS.groups})`)
    .option('--search-evaluations <n>', `candidates at most (default ${DEFAULTS.evaluations})`)
    .option('--search-temperature <nats>', `cocktail: of the softmax over losses (default ${DEFAULTS.temperature})`)
    .option('--search-context <tokens>', `tokens of a window (default ${DEFAULTS.context})`)
    .option('--holdout <share>', `share of the windows that no candidate is chosen by (default ${DEFAULTS.holdout})`)
    .option('--allow-negative-weights', 'search weights from -1 on')
    .option('--search-table <file.csv>', 'every candidate with its numbers and losses');
}

/** Options that only some methods of search read. */
const READ_BY: readonly (readonly [keyof SearchOptions, readonly SearchMethod[]])[] = [
  ['searchParameters', ['cem', 'nelder-mead', 'cocktail']],
  ['searchGroups', ['cem', 'nelder-mead']],
  ['searchEvaluations', ['cem', 'nelder-mead']],
  ['allowNegativeWeights', ['cem', 'nelder-mead']],
  ['searchTemperature', ['cocktail']],
];

/** A search that is asked for, checked. */
export interface SearchRequest {
  readonly settings: SearchSettings;
  readonly data: readonly string[];
  readonly context: number;
  readonly holdout: number;
}

/** @throws InputError for options of a search without one, and the other way round */
export async function parseSearch(own: SearchOptions, seed: number): Promise<SearchRequest | undefined> {
  if (own.search === undefined) {
    const stray = Object.keys(own).find((key) => /^(search|holdout|allowNegative)/.test(key));
    if (stray !== undefined) throw new InputError(`${flagOf(stray)} needs --search`);
    return undefined;
  }
  if (own.searchData === undefined) throw new InputError('--search needs --search-data: texts to judge candidates by');
  const integer = (flag: string, text: string | undefined, usual: number, least: number): number =>
    text === undefined ? usual : parseInteger(flag, text, least);
  const temperature = own.searchTemperature;
  const method = parseChoice('--search', own.search, SEARCH_METHODS);
  for (const [option, readers] of READ_BY)
    if (own[option] !== undefined && !readers.includes(method))
      throw new InputError(`${flagOf(option)} is for --search ${readers.join(', ')}; ${method} does not read it`);
  return {
    settings: {
      method,
      parameters: own.searchParameters ?? [],
      groups: integer('--search-groups', own.searchGroups, DEFAULTS.groups, 1),
      evaluations: integer(
        '--search-evaluations',
        own.searchEvaluations,
        DEFAULTS.evaluations,
        LEAST_EVALUATIONS[method],
      ),
      negativeWeights: own.allowNegativeWeights ?? false,
      temperature:
        temperature === undefined
          ? DEFAULTS.temperature
          : parseNumber('--search-temperature', temperature, Number.MIN_VALUE),
      seed,
    },
    data: await expandSources(own.searchData),
    context: integer('--search-context', own.searchContext, DEFAULTS.context, 2),
    holdout: own.holdout === undefined ? DEFAULTS.holdout : parseNumber('--holdout', own.holdout, 0.05, 0.95),
  };
}

/** What a report says of a search that is asked for. */
export function searchParameters(request: SearchRequest | undefined): Record<string, ReportValue> {
  if (request === undefined) return { search: null };
  const { settings, data, context, holdout } = request;
  return {
    search: settings.method,
    search_data: [...data],
    search_parameters: [...settings.parameters],
    search_groups: settings.groups,
    search_evaluations: settings.evaluations,
    search_temperature_nats: settings.temperature,
    search_context_tokens: context,
    holdout,
    allow_negative_weights: settings.negativeWeights,
  };
}

export interface SearchRun {
  readonly document: MergeDocument;
  readonly merge: MergeArguments;
  readonly ledger: InputLedger;
  readonly progress: Progress;
  /** Where candidates go, and what is remembered of them for a run that resumes. */
  readonly folder: string;
}

/** Runs the search. @throws InputError as `searchMerge` */
export async function runSearch(request: SearchRequest, run: SearchRun): Promise<SearchResult> {
  const { document, merge } = run;
  const [first] = referencedModels(document);
  const directory = merge.directories.get(referenceKey(first.model, first.revision));
  if (directory === undefined) throw new RangeError(`no directory of ${first.text}`);
  const tokenizer = openModelTokenizer(directory);
  const prefix = prefixToken(undefined, tokenizer);
  if (prefix === undefined)
    throw new InputError(`${first.text}: its tokenizer has neither BOS nor EOS to begin a text`);
  const texts: SearchText[] = [];
  for (const file of request.data) {
    const documents: Int32Array[] = [];
    for await (const { text } of readDocuments([file], {
      ledger: run.ledger,
      textField: 'text',
      textSplit: 'file',
      requireText: true,
    }))
      documents.push(tokenizer.encode(text ?? ''));
    texts.push({ name: file, documents });
  }
  const { context, holdout, settings: search } = request;
  const args: SearchArguments = { merge, search, texts, prefix, context, holdout, folder: run.folder };
  const onProgress = (value: unknown): void => {
    const { candidates, evaluations } = value as { candidates: number; evaluations: number };
    run.progress.setTotal(evaluations);
    run.progress.update(candidates, 'candidates');
  };
  const module = new URL('../src/fusion/merge/search-job.js', import.meta.url).href;
  return await runInThread({ module, job: searchMerge }, args, onProgress, merge.threads);
}

const variableName = ({ parameter, model, group }: SearchVariable, groups: number): string =>
  [parameter, ...(model === undefined ? [] : [model]), ...(groups > 1 ? [`node ${group}`] : [])].join(' ');

/** Columns and rows of `--search-table`. */
export function searchTable(
  result: SearchResult,
  groups: number,
): { readonly columns: string[]; readonly rows: (number | null)[][] } {
  const texts = result.candidates[0]?.texts ?? [];
  const names = result.variables.map((variable) => variableName(variable, groups));
  return {
    columns: ['candidate', 'mean_nll_nats', ...names, ...texts.map(({ name }) => `nll_nats ${name}`)],
    rows: result.candidates.map(({ point, nll_nats: mean, texts: scores }, i) => [
      i,
      mean,
      ...point,
      ...texts.map((_, t) => scores[t]?.nll_nats ?? null),
    ]),
  };
}

/** The body of a report. */
export function searchRecord(result: SearchResult, request: SearchRequest): ReportValue {
  return {
    method: request.settings.method,
    candidates: result.candidates.length,
    converged: result.converged,
    variables: result.variables.map(({ parameter, model, group, low, high, start }, i) => ({
      parameter,
      model: model ?? null,
      group,
      low,
      high,
      start,
      best: result.best[i],
    })),
    scores: result.scores.map((score) => ({ ...score, held_out_perplexity: Math.exp(score.held_out_nll_nats) })),
  };
}

export function searchSummary({ scores }: SearchResult): string {
  const texts = scores[0]?.held_out_texts ?? [];
  const rows = scores.map((score): SummaryCell[] => [
    score.model,
    score.search_nll_nats,
    score.held_out_nll_nats,
    score.held_out_nll_nats_se,
    ...score.held_out_texts.map(({ nll_nats: nats }) => Math.exp(nats)),
  ]);
  const header = [
    'model',
    'search nats',
    'held-out nats',
    'se',
    ...texts.map(({ name }) => `perplexity ${basename(name)}`),
  ];
  return summaryTable(header, rows);
}
