import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { createAtomicFile } from '../src/formats/atomic.js';
import {
  type AlphaSetting,
  alphaBody,
  alphaWarnings,
  backtestCsv,
  dailyIcCsv,
  historyCsv,
  MINE_ALPHA_SCHEMA,
  mutualIcCsv,
  POOL_COLUMNS,
  poolJson,
  poolRows,
} from '../src/policy/alphas/alpha-report.js';
import { reachOf, refuseLookAhead } from '../src/policy/alphas/expression.js';
import { JUDGE_FORMULAS, type JudgeResult, type Part } from '../src/policy/alphas/judge-job.js';
import type { Panel } from '../src/policy/alphas/panel.js';
import { splitDays } from '../src/policy/alphas/panel.js';
import { OPEN_PANEL, sharePanel } from '../src/policy/alphas/panel-job.js';
import { parseFormula } from '../src/policy/alphas/parse-formula.js';
import {
  SEARCH_FORMULAS,
  type SearchProgress,
  type SearchRequest,
  type SearchResult,
  type SearchState,
} from '../src/policy/alphas/search-job.js';
import type { SummaryCell } from '../src/report/summary-table.js';
import type { ReportValue } from '../src/report/values.js';
import { type AnalysisContext, type AnalysisOutcome, runAnalysis } from './analysis-run.js';
import { type AlphaOptions, type AlphaPlan, addAlphaOptions, parseAlphaPlan } from './policy-mine-alpha-options.js';
import { ANALYSIS_OPTIONS, attachShared, requireOption } from './shared-options.js';

const SHARED = [...ANALYSIS_OPTIONS.filter((name) => name !== 'shard'), 'data', 'resume'] as const;

type Options = Awaited<ReturnType<ReturnType<typeof attachShared<(typeof SHARED)[number]>>>>;

const FILES = {
  poolOut: '--pool-out',
  history: '--history',
  dailyIc: '--daily-ic',
  mutualIc: '--mutual-ic',
  backtest: '--backtest',
} as const;

/** Panels below this size are searched one search a thread; above, every search has all threads. */
const SMALL_PANEL = 4e6;

/** Declares `surprisal analyze-policy mine-alpha`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  addAlphaOptions(command).action(async () => {
    process.exitCode = await run(await read(), command.opts<AlphaOptions>());
  });
}

async function run(options: Options, own: AlphaOptions): Promise<number> {
  const data = requireOption(options.data, '--data', 'a panel: date, symbol and features, or price relatives');
  const plan = parseAlphaPlan(own, options.seed);
  if (options.resume && plan.checkpoints === undefined) {
    throw new InputError('--resume needs the folder of the earlier run: name it with --checkpoints');
  }
  const files = new Map<string, string>();
  for (const [name, flag] of Object.entries(FILES)) {
    const path = own[name as keyof typeof FILES];
    if (path !== undefined) files.set(flag, path);
  }
  const view = {
    name: MINE_ALPHA_SCHEMA,
    command: 'analyze-policy mine-alpha',
    columns: POOL_COLUMNS,
    files,
    unit: 'formulas',
    inputs: [...data, ...(own.pool === undefined ? [] : [own.pool])],
    parameters: { data: [...data], seed: options.seed, ...plan.parameters } satisfies Record<string, ReportValue>,
    subtitle: `${data.join(', ')}, target ${plan.target}`,
  };
  return runAnalysis(
    view,
    { ...options, shard: undefined },
    {
      measure: (context) => measure(options, own, plan, context),
      plan: (context) => describe(options, plan, context),
    },
  );
}

/** The panel, checked against the formulas that the options name, and how its days are divided. */
async function open(options: Options, plan: AlphaPlan, context: AnalysisContext) {
  for (const path of options.data) context.ledger.note(path);
  const { panel, universe } = await context.run(OPEN_PANEL, { ...plan.panel, paths: options.data });
  const features = plan.features.length > 0 ? plan.features : panel.features;
  const target = parseFormula(plan.target, panel.features);
  const future = reachOf(target).to;
  if (future < 1) throw new InputError(`--target ${plan.target}: reads no later day, so there is nothing to predict`);
  for (const text of plan.formulas) {
    const formula = parseFormula(text, panel.features);
    refuseLookAhead(formula, `formula "${text}"`);
    const { from } = reachOf(formula);
    if (-from > plan.backtrack) {
      throw new InputError(`formula "${text}" reads ${-from} days back; raise --backtrack (${plan.backtrack})`);
    }
  }
  const gap = plan.gap ?? future;
  if (gap < future) {
    throw new InputError(
      `--gap ${gap}: targets read ${future} days ahead, so that a shorter gap lets parts see each other`,
    );
  }
  const margins = { backtrack: plan.backtrack, future };
  let parts: Part[];
  if (plan.pool !== undefined) {
    const to = panel.dates.length - future;
    if (to - plan.backtrack < 2) {
      throw new InputError(
        `${panel.dates.length} days leave none to score behind ${plan.backtrack} and before ${future}`,
      );
    }
    parts = [{ name: 'all', from: plan.backtrack, to }];
  } else {
    const split = splitDays(panel.dates, { ...margins, gap, ...plan.split });
    parts = (['train', 'valid', 'test'] as const).map((name) => ({ name, from: split[name][0], to: split[name][1] }));
  }
  const precision: AlphaSetting['precision'] = panel.values[0] instanceof Float32Array ? 'float32' : 'float64';
  const setting: AlphaSetting = {
    features: panel.features,
    precision,
    dates: panel.dates,
    universe,
    parts,
    horizon: future,
    objective: plan.poolSettings.objective.kind,
  };
  return { panel, features, margins, parts, setting };
}

type Opened = Awaited<ReturnType<typeof open>>;

/** Bytes for the values of sub-formulas: an eighth of the memory a search. */
const cacheBytes = (options: Options, atOnce: number): number => Math.floor(options.maxMemory / 8 / atOnce);

async function search(
  options: Options,
  plan: AlphaPlan,
  { panel, features, margins, parts }: Opened,
  shared: Panel,
  context: AnalysisContext,
): Promise<SearchResult[]> {
  const small = panel.dates.length * panel.symbols.length * panel.features.length < SMALL_PANEL;
  const atOnce = small ? Math.min(options.threads, plan.searches.length) : 1;
  const requests = plan.searches.map(
    ({ searcher, seed }): SearchRequest => ({
      panel: shared,
      target: plan.target,
      train: [parts[0].from, parts[0].to],
      ...margins,
      space: { ...plan.space, features },
      pool: plan.poolSettings,
      searcher,
      seed,
      budget: plan.budget,
      singles: plan.poolSettings.capacity,
      cacheBytes: cacheBytes(options, atOnce),
      threads: small ? 1 : options.threads,
      checkpointEvery: plan.checkpoints === undefined ? 0 : plan.checkpointEvery,
    }),
  );
  const done = new Float64Array(requests.length);
  const results: SearchResult[] = new Array(requests.length);
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let i = next++; i < requests.length; i = next++) {
      results[i] = await oneSearch(requests[i], plan, options, context, (evaluations) => {
        done[i] = evaluations;
        context.progress.update(
          done.reduce((sum, one) => sum + one, 0),
          `of ${plan.budget * requests.length}`,
        );
      });
    }
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
  return results;
}

/** What a checkpoint file holds: a search that goes on, or its result. */
interface Checkpoint {
  readonly key: string;
  readonly state?: SearchState;
  readonly result?: SearchResult;
}

async function oneSearch(
  request: SearchRequest,
  plan: AlphaPlan,
  options: Options,
  context: AnalysisContext,
  onProgress: (evaluations: number) => void,
): Promise<SearchResult> {
  const { checkpoints } = plan;
  const name = `${request.searcher.label}-${request.seed}.json`.replaceAll(/[^\w.+-]/g, '_');
  const key = JSON.stringify({ ...plan.parameters, data: options.data, search: request.searcher, seed: request.seed });
  const save = (content: Omit<Checkpoint, 'key'>): void => {
    if (checkpoints === undefined) return;
    const file = createAtomicFile(join(checkpoints, name), { force: true });
    file.write(JSON.stringify({ key, ...content }));
    file.commit();
  };
  const earlier =
    checkpoints !== undefined && options.resume ? readCheckpoint(join(checkpoints, name), key) : undefined;
  if (earlier?.result !== undefined) {
    onProgress(earlier.result.evaluations);
    return earlier.result;
  }
  const full = earlier?.state === undefined ? request : { ...request, from: earlier.state };
  const result = await context.run(SEARCH_FORMULAS, full, (value) => {
    const { evaluations, state } = value as SearchProgress;
    onProgress(evaluations);
    if (state !== undefined) save({ state });
  });
  save({ result });
  return result;
}

function readCheckpoint(path: string, key: string): Checkpoint | undefined {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
  let found: Checkpoint;
  try {
    found = JSON.parse(text) as Checkpoint;
  } catch {
    throw new InputError(`--resume ${path}: the checkpoint is damaged; remove it, and its search begins anew`);
  }
  if (found.key !== key) {
    throw new InputError(`--resume ${path}: was made with other options; choose another folder, or leave --resume out`);
  }
  return found;
}

async function measure(
  options: Options,
  own: AlphaOptions,
  plan: AlphaPlan,
  context: AnalysisContext,
): Promise<AnalysisOutcome> {
  if (plan.checkpoints !== undefined) mkdirSync(plan.checkpoints, { recursive: true });
  context.timings.begin('read the panel');
  if (own.pool !== undefined) context.ledger.note(own.pool);
  const opened = await open(options, plan, context);
  const shared = sharePanel(opened.panel);
  const given = plan.formulas.length > 0;
  context.timings.begin('search');
  const searches = given ? [] : await search(options, plan, opened, shared, context);
  const barren = searches.find(({ formulas }) => formulas.length === 0);
  if (barren !== undefined) {
    throw new InputError(
      `the search ${barren.label} found no formula that varies over the stocks of a day: a panel needs two stocks or more, features that change, and windows shorter than its days`,
    );
  }
  context.timings.begin('evaluate');
  const judged = await context.run(JUDGE_FORMULAS, {
    panel: shared,
    target: plan.target,
    ...opened.margins,
    parts: opened.parts,
    lag: plan.lag ?? opened.margins.future,
    candidates: given
      ? [
          {
            label: 'given',
            seed: 0,
            formulas: plan.formulas,
            singles: [],
            ...(plan.pool && { weights: plan.pool.weights }),
          },
        ]
      : searches,
    l1: plan.poolSettings.l1,
    iterate: plan.poolSettings.iterate,
    price: opened.panel.features.includes(plan.price) ? plan.price : undefined,
    backtest: plan.backtest(opened.panel.symbols.length),
    cacheBytes: cacheBytes(options, 1),
    threads: options.threads,
  });
  for (const warning of alphaWarnings(opened.setting, judged, searches)) context.warn(warning);
  if (own.backtest !== undefined && judged.backtest === null) {
    throw new InputError(`--backtest needs prices, and the panel has no feature "${plan.price}"; name it with --price`);
  }
  return outcome(plan, opened.setting, judged, searches);
}

function outcome(
  plan: AlphaPlan,
  setting: AlphaSetting,
  judged: JudgeResult,
  searches: readonly SearchResult[],
): AnalysisOutcome {
  return {
    body: alphaBody(setting, judged, searches),
    rows: () => poolRows(judged),
    figure: async (subtitle) =>
      (await import('../src/policy/alphas/alpha-plot.js')).alphaFigure(setting, judged, searches, subtitle),
    summary: summary(setting, judged),
    files: () => {
      const bytes = (text: string): Uint8Array => Buffer.from(text);
      const files = new Map<string, Uint8Array>([
        [FILES.poolOut, bytes(poolJson(judged, plan.target))],
        [FILES.history, bytes(historyCsv(searches))],
        [FILES.dailyIc, bytes(dailyIcCsv(judged))],
        [FILES.mutualIc, bytes(mutualIcCsv(judged))],
      ]);
      if (judged.backtest !== null) files.set(FILES.backtest, bytes(backtestCsv(judged.backtest)));
      return files;
    },
  };
}

function summary({ parts }: AlphaSetting, judged: JudgeResult): AnalysisOutcome['summary'] {
  const header = ['search', 'seed', ...parts.flatMap(({ name }) => [`${name} IC`, `${name} rank IC`]), 'one by one'];
  const rows = judged.candidates.map((candidate, i): SummaryCell[] => [
    `${candidate.label}${i === judged.chosen && judged.candidates.length > 1 ? ' (chosen)' : ''}`,
    candidate.seed,
    ...candidate.parts.flatMap(({ ic, rankIc }) => [ic, rankIc]),
    candidate.oneByOne?.weighted.at(-1)?.ic,
  ]);
  return { header, rows };
}

async function describe(options: Options, plan: AlphaPlan, context: AnalysisContext): Promise<SummaryCell[][]> {
  const { panel, parts, margins } = await open(options, plan, context);
  const size = panel.dates.length * panel.symbols.length * panel.values[0].BYTES_PER_ELEMENT;
  return [
    ['panel', `${panel.dates.length} days x ${panel.symbols.length} stocks x ${panel.features.length} features`],
    ['memory of the panel, MiB', Math.ceil((size * panel.features.length) / 2 ** 20)],
    ['memory of a formula of the pool, MiB', Math.ceil(size / 2 ** 20)],
    ['target', plan.target],
    ['margins', `${margins.backtrack} days before, ${margins.future} behind`],
    ...parts.map(({ name, from, to }): SummaryCell[] => [
      name,
      `${panel.dates[from]} to ${panel.dates[to - 1]}, ${to - from} days`,
    ]),
    [
      'searches',
      plan.formulas.length > 0
        ? 'none: given formulas'
        : plan.searches.map(({ searcher, seed }) => `${searcher.label} ${seed}`).join(', '),
    ],
    ['formulas evaluated by each', plan.budget],
  ];
}
