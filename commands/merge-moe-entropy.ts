import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import type { TokenisedDocument } from '../src/entropy/tokenised-document.js';
import { runWindowJob } from '../src/entropy/window-batches.js';
import type { ScoringWindow } from '../src/entropy/windows.js';
import { InputError } from '../src/errors.js';
import { resolveModelPath } from '../src/formats/hub.js';
import type { ModelDescription } from '../src/models/description.js';
import { openModelFiles } from '../src/models/model-files.js';
import {
  bodyOfRun,
  bodyOfTotals,
  type EntropyUnit,
  EXPERT_COLUMNS,
  expertRows,
  layerColumns,
  layerRows,
  measureKey,
  PAIR_COLUMNS,
  pairRows,
  perNat,
  ROUTING_SCHEMA,
  type RoutingBody,
  type RoutingSetting,
} from '../src/moe/entropy-report.js';
import { MEASURE_ROUTING, type RoutingBatch, routerHeads, withExpertMaps } from '../src/moe/routing-job.js';
import type { RoutingTotals } from '../src/moe/routing-measures.js';
import {
  addCoActivation,
  addRoutedDocument,
  createRoutingRun,
  type RouterHead,
  type RoutingRun,
  routingRunToJson,
  routingTotals,
} from '../src/moe/routing-run.js';
import { addRoutingStatistics } from '../src/moe/routing-statistics.js';
import { readStatistics } from '../src/moe/statistics-file.js';
import { MEASURE_STORED_ROUTING, type StoredRoutingArguments, type StoredTokens } from '../src/moe/stored-routing.js';
import { tokenColumns, tokenRow } from '../src/moe/token-log.js';
import type { RoutingStatistics } from '../src/moe/types.js';
import { type Cell, tableBytes } from '../src/report/csv.js';
import type { SummaryCell } from '../src/report/summary-table.js';
import { tableFormatOf } from '../src/report/table-format.js';
import type { ReportValue } from '../src/report/values.js';
import { type AnalysisOptions, type AnalysisOutcome, type AnalysisView, runAnalysis } from './analysis-run.js';
import { flagOf, parseChoice, parseInteger } from './edge-values.js';
import { modelDigests } from './model-digests.js';
import {
  configureWindowView,
  runWindowView,
  type WindowInputs,
  type WindowOutcome,
  type WindowOwnOptions,
  type WindowView,
} from './window-view.js';

interface EntropyOptions extends WindowOwnOptions {
  stats?: string[];
  logits?: string;
  hiddenStates?: string;
  routerWeight?: string;
  mask?: string;
  countPadding?: boolean;
  topK?: string;
  score?: string;
  correctionBias?: string;
  bits?: boolean;
  experts?: string;
  coActivation?: string;
}

const COMMAND = 'merge-moe entropy';

/** Declares `surprisal merge-moe entropy`. */
export function configure(command: Command): void {
  const read = configureWindowView(command);
  command
    .option('--stats <folder...>', 'statistics of merge-moe calibrate, instead of a model and text; several are united')
    .option('--logits <file>', 'stored router logits: .npy, .npz, .safetensors [layers, tokens, experts], or .jsonl')
    .option('--hidden-states <file>', 'stored inputs of the routers [layers, tokens, hidden], with --router-weight')
    .option('--router-weight <file>', 'router matrices [layers, experts, hidden]')
    .option('--mask <file>', 'stored sources: tokens that count, [tokens]; a mask in the file itself is found')
    .option('--count-padding', 'stored sources: count masked tokens too')
    .option('--top-k <k>', "experts a token (default: the model's; stored sources must say)")
    .option('--score <function>', 'stored sources: softmax, sigmoid (default softmax)')
    .option('--correction-bias <file>', 'stored sigmoid routers: bias of the choice, [experts] or [layers, experts]')
    .option('--bits', 'entropies in bits')
    .option('--experts <file>', 'table of experts by layer: usage, mean probability, gate mass')
    .option('--co-activation <file>', 'table of pairs of experts that were chosen together')
    .action(async () => {
      const options = await read();
      process.exitCode = await run(command, options, command.opts<EntropyOptions>());
    });
}

type Shared = Awaited<ReturnType<ReturnType<typeof configureWindowView>>>;

/** Options that mean something to stored logits and hidden states alone, and to text alone. */
const STORED_ONLY = ['routerWeight', 'mask', 'countPadding', 'score', 'correctionBias'] as const;
const TEXT_ONLY = [
  'model',
  'data',
  'dataFormat',
  'textSplit',
  'textField',
  'limit',
  'context',
  'contextLen',
  'prefixToken',
  'chatTemplate',
  'idField',
  'precision',
  'device',
  'shard',
  'shards',
] as const;

function refuse(command: Command, names: readonly string[], source: string): void {
  const given = names.find((name) => command.getOptionValueSource(name) !== undefined);
  if (given === undefined) return;
  const flag = flagOf(given);
  throw new InputError(`${flag} has no meaning with ${source}; leave it out`);
}

function run(command: Command, options: Shared, own: EntropyOptions): Promise<number> {
  const sources = [
    own.stats !== undefined && '--stats',
    own.logits !== undefined && '--logits',
    own.hiddenStates !== undefined && '--hidden-states',
  ].filter((source) => source !== false);
  if (sources.length > 1) throw new InputError(`${sources.join(' and ')}: name one source`);
  for (const path of ownFiles(own).values()) tableFormatOf(path);
  if (sources.length === 0) {
    refuse(command, STORED_ONLY, 'a model and text');
    return runWindowView(modelView(own), options, own);
  }
  refuse(command, TEXT_ONLY, sources[0]);
  if (own.stats === undefined) return runStored(options, own);
  refuse(command, [...STORED_ONLY, 'topK', 'table'], '--stats');
  return runStatistics(options, own, own.stats);
}

const unitOf = (own: EntropyOptions): EntropyUnit => (own.bits === true ? 'bits' : 'nats');

/** Own output files by option. */
function ownFiles(own: EntropyOptions): Map<string, string> {
  const files = new Map<string, string>();
  if (own.experts !== undefined) files.set('--experts', own.experts);
  if (own.coActivation !== undefined) files.set('--co-activation', own.coActivation);
  return files;
}

function fileBytes(own: EntropyOptions, body: RoutingBody, totals: readonly RoutingTotals[]): Map<string, Uint8Array> {
  const files = new Map<string, Uint8Array>();
  const { experts, coActivation } = own;
  if (experts !== undefined) files.set('--experts', tableBytes(experts, EXPERT_COLUMNS, expertRows(body)));
  if (coActivation !== undefined) {
    files.set('--co-activation', tableBytes(coActivation, PAIR_COLUMNS, pairRows(totals)));
  }
  return files;
}

const topKOf = (own: EntropyOptions): number | undefined =>
  own.topK === undefined ? undefined : parseInteger('--top-k', own.topK, 1);

function modelView(own: EntropyOptions): WindowView<EntropyOptions> {
  const unit = unitOf(own);
  const topK = topKOf(own);
  return {
    name: ROUTING_SCHEMA,
    command: COMMAND,
    columns: layerColumns(unit),
    tableColumns: tokenColumns(unit),
    parameters: () => ({ top_k: topK ?? null, unit }),
    files: () => ({ read: [], written: ownFiles(own) }),
    reserveBytes(description, context) {
      const heads = routerHeads(description, '--model', topK);
      const cells = heads.reduce((sum, { experts }) => sum + experts * (experts + context), 0);
      return 2 * 8 * cells;
    },
    plan(description) {
      const heads = routerHeads(description, '--model', topK);
      return [
        ['layers with experts', heads.length],
        ['experts, top-k', headText(heads)],
        ['passes', '1 through the layers, none through the head'],
      ];
    },
    run: (inputs, _own, options) => measureModel(inputs, own, options),
  };
}

/** `8, top-2`, or the range where layers differ. */
function headText(heads: readonly RouterHead[]): string {
  const counts = [...new Set(heads.map(({ experts }) => experts))].sort((a, b) => a - b);
  const shown = counts.length === 1 ? String(counts[0]) : `${counts[0]} to ${counts[counts.length - 1]}`;
  return `${shown}, top-${heads[0].topK}`;
}

/** Adds the windows of a run document by document, in order. */
function foldDocuments(run: RoutingRun): {
  add(document: TokenisedDocument, statistics: readonly RoutingStatistics[]): void;
  finish(): void;
} {
  let open: { readonly index: number; statistics: readonly RoutingStatistics[] } | undefined;
  const finish = (): void => {
    if (open) addRoutedDocument(run, open.index, open.statistics);
    open = undefined;
  };
  return {
    add({ index }, statistics) {
      if (open?.index === index) {
        open.statistics = open.statistics.map((layer, place) => addRoutingStatistics(layer, statistics[place]));
        return;
      }
      finish();
      open = { index, statistics };
    },
    finish,
  };
}

function writeTokens(
  { writeTableRow }: WindowInputs,
  heads: readonly RouterHead[],
  document: TokenisedDocument,
  window: ScoringWindow,
  layers: NonNullable<RoutingBatch['tokens']>[number],
  unit: EntropyUnit,
): void {
  window.targets.forEach((_, i) => {
    // The input at which token t is predicted is token t - 1; the prefix stands at -1.
    const position = window.targetStart + i - 1;
    const tokenId = window.inputs[window.scoreFrom + i];
    heads.forEach(({ layer }, place) => {
      const at = { document: document.index, documentId: document.id, position, tokenId, layer };
      writeTableRow?.(tokenRow(at, layers[place], i, perNat(unit)));
    });
  });
}

/** Routers of the model, with the maps of a merged one. */
function headsOf(model: string, description: ModelDescription, topK: number | undefined): RouterHead[] {
  const files = openModelFiles(resolveModelPath(model, process.env).path);
  try {
    return withExpertMaps(routerHeads(description, model, topK), files);
  } finally {
    files.store.close();
  }
}

async function measureModel(inputs: WindowInputs, own: EntropyOptions, options: Shared): Promise<WindowOutcome> {
  const { host, description, windows, documents } = inputs;
  const unit = unitOf(own);
  const topK = topKOf(own);
  const heads = headsOf(options.model ?? '', description, topK);
  const routed = createRoutingRun(heads);
  const folder = foldDocuments(routed);
  const tokens = inputs.writeTableRow !== undefined;
  const batches = runWindowJob(documents, host, MEASURE_ROUTING, {
    windows,
    rowsPerBatch: host.info.rowsPerBatch,
    argumentsOf: (head) => ({ ...head, ...(topK !== undefined && { topK }), tokens }),
  });
  let positions = 0;
  for await (const batch of batches) {
    routed.documentsRead += batch.documents.length;
    const { result } = batch;
    if (result) {
      addCoActivation(routed, result.coActivation);
      batch.windows.forEach(({ document, window }, w) => {
        folder.add(document, result.statistics[w]);
        positions += window.targets.length;
        if (result.tokens) writeTokens(inputs, heads, document, window, result.tokens[w], unit);
      });
    }
    inputs.onRows(batch.rows);
  }
  folder.finish();
  const setting: RoutingSetting = {
    source: 'model',
    unit,
    seed: options.seed,
    convention: inputs.convention,
    modelType: description.modelType,
    maskedTokens: 0,
  };
  const body = bodyOfRun(routed, setting, true);
  return {
    ...sharedOutcome(body),
    partial: () => routingRunToJson(routed),
    files: () => fileBytes(own, body, routingTotals(routed)),
    measured: positions,
  };
}

function sharedOutcome(body: RoutingBody): Pick<AnalysisOutcome, 'body' | 'rows' | 'summary'> & {
  figure: NonNullable<AnalysisOutcome['figure']>;
} {
  return {
    body,
    rows: () => layerRows(body),
    figure: async (subtitle) => (await import('../src/moe/routing-plot.js')).drawRouting(body, subtitle),
    summary: summary(body),
  };
}

function summary(body: RoutingBody): { header: string[]; rows: SummaryCell[][] } {
  const { unit } = body;
  const shown = [
    ['token entropy', measureKey('mean_token_entropy', unit)],
    ['of ln E', 'mean_token_entropy_normalized'],
    ['usage entropy', measureKey('usage_entropy', unit)],
    ['effective experts', 'effective_experts_usage'],
    ['mutual information', measureKey('token_expert_mutual_information', unit)],
    ['max/mean load', 'max_over_mean_load'],
    ['balance loss', 'switch_balance_loss'],
  ] as const;
  return {
    header: ['layer', 'experts', ...shown.map(([title]) => title), 'never chosen', 'tied'],
    rows: body.by_layer.map(({ layer, experts, measures, dead_experts, tied_tokens }) => [
      layer,
      experts,
      ...shown.map(([, key]) => measures[key]),
      dead_experts.length,
      tied_tokens,
    ]),
  };
}

/** A view without a model. */
function storedView(
  own: EntropyOptions,
  inputs: readonly string[],
  more: Pick<AnalysisView, 'parameters' | 'subtitle'> & Pick<Partial<AnalysisView>, 'tableColumns'>,
): AnalysisView {
  return {
    name: ROUTING_SCHEMA,
    command: COMMAND,
    columns: layerColumns(unitOf(own)),
    files: ownFiles(own),
    unit: 'tokens',
    inputs,
    ...more,
  };
}

function runStatistics(options: AnalysisOptions, own: EntropyOptions, folders: readonly string[]): Promise<number> {
  for (const folder of folders) {
    if (statSync(folder, { throwIfNoEntry: false })?.isDirectory() && existsSync(join(folder, 'manifest.json')))
      continue;
    throw new InputError(`--stats ${folder}: no folder of merge-moe calibrate (it has no manifest.json)`);
  }
  const unit = unitOf(own);
  const parameters = { stats: [...folders], seed: options.seed, unit };
  const view = storedView(own, [], { parameters, subtitle: folders.join(', ') });
  return runAnalysis(view, options, {
    async measure() {
      const { header, layers } = readStatistics(folders);
      const totals = layers.map(({ routing }) => routing);
      const setting: RoutingSetting = {
        source: 'statistics',
        unit,
        seed: options.seed,
        convention: null,
        modelType: header.modelType,
        maskedTokens: 0,
      };
      const body = bodyOfTotals(totals, setting);
      return {
        ...sharedOutcome(body),
        files: () => fileBytes(own, body, totals),
        digests: async () =>
          (await Promise.all(folders.map((folder) => modelDigests(folder, folder)))).flatMap((own) => own.digests),
      };
    },
    async plan() {
      const { header, layers } = readStatistics(folders);
      return [
        ['statistics', folders.join(', ')],
        ['model', header.modelType],
        ['tokens', header.tokens],
        ['layers with experts', layers.length],
      ];
    },
  });
}

const SCORES = ['softmax', 'sigmoid'] as const;

function storedArguments(own: EntropyOptions, options: AnalysisOptions): StoredRoutingArguments {
  if (own.topK === undefined)
    throw new InputError('--top-k is missing; stored logits do not say how many experts a token has');
  const score = parseChoice('--score', own.score ?? 'softmax', SCORES);
  if (own.correctionBias !== undefined && score !== 'sigmoid') {
    throw new InputError('--correction-bias belongs to sigmoid routers; add --score sigmoid, or leave it out');
  }
  if ((own.hiddenStates !== undefined) !== (own.routerWeight !== undefined)) {
    throw new InputError('--hidden-states and --router-weight belong together');
  }
  if (own.mask !== undefined && own.countPadding === true) {
    throw new InputError('--mask and --count-padding contradict each other; give one');
  }
  return {
    ...(own.logits !== undefined && { logits: own.logits }),
    ...(own.hiddenStates !== undefined && { hiddenStates: own.hiddenStates }),
    ...(own.routerWeight !== undefined && { routerWeight: own.routerWeight }),
    ...(own.mask !== undefined && { mask: own.mask }),
    ...(own.correctionBias !== undefined && { correctionBias: own.correctionBias }),
    countPadding: own.countPadding === true,
    topK: parseInteger('--top-k', own.topK, 1),
    score,
    tokens: options.table !== undefined,
    threads: options.threads,
  };
}

function runStored(options: AnalysisOptions, own: EntropyOptions): Promise<number> {
  const args = storedArguments(own, options);
  const unit = unitOf(own);
  const { logits, hiddenStates, routerWeight, mask, correctionBias } = args;
  const inputs = [logits, hiddenStates, routerWeight, mask, correctionBias].filter((path) => path !== undefined);
  for (const path of inputs) if (!existsSync(path)) throw new InputError(`${path}: no such file`);
  const parameters: Record<string, ReportValue> = {
    logits: logits ?? null,
    hidden_states: hiddenStates ?? null,
    router_weight: routerWeight ?? null,
    mask: mask ?? null,
    count_padding: args.countPadding,
    correction_bias: correctionBias ?? null,
    top_k: args.topK,
    score: args.score,
    seed: options.seed,
    unit,
  };
  const view = storedView(own, inputs, { parameters, subtitle: inputs.join(', '), tableColumns: tokenColumns(unit) });
  return runAnalysis(view, options, {
    async measure({ ledger, progress, run, timings, writeTableRow }) {
      for (const path of inputs) ledger.note(path);
      const found = await run(MEASURE_STORED_ROUTING, args, (value) => {
        const { done, shown } = value as { readonly done: number; readonly shown?: StoredTokens };
        progress.update(done);
        if (shown && writeTableRow) writeShown(shown, unit, writeTableRow);
      });
      const setting: RoutingSetting = {
        source: logits === undefined ? 'hidden states' : 'logits',
        unit,
        seed: options.seed,
        convention: null,
        modelType: null,
        maskedTokens: found.maskedTokens,
      };
      const body = bodyOfRun(found.run, setting, found.documentsKnown);
      timings.count('tokens', body.tokens);
      return { ...sharedOutcome(body), files: () => fileBytes(own, body, routingTotals(found.run)) };
    },
    async plan() {
      return inputs.map((path) => [path, `${statSync(path).size} bytes`]);
    },
  });
}

function writeShown(shown: StoredTokens, unit: EntropyUnit, write: (cells: readonly Cell[]) => void): void {
  const { tokens, layer, document, documentId } = shown;
  for (let i = 0; i < tokens.count; i++) {
    const place = { document, documentId, position: tokens.positions[i], layer };
    write(tokenRow(place, tokens, i, perNat(unit)));
  }
}
