import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import type { BacktestSettings } from '../src/policy/alphas/backtest.js';
import { OPERATOR_NAMES, type OperatorName } from '../src/policy/alphas/expression.js';
import { SEARCH_RULES } from '../src/policy/alphas/policy-search.js';
import type { PoolSettings } from '../src/policy/alphas/pool.js';
import type { PoolObjective } from '../src/policy/alphas/pool-weights.js';
import type { PanelRequest } from '../src/policy/alphas/read-panel.js';
import type { SearcherChoice } from '../src/policy/alphas/search-job.js';
import {
  DEFAULT_CONSTANTS,
  DEFAULT_OPERATORS,
  DEFAULT_WINDOWS,
  type SearchSpace,
} from '../src/policy/alphas/search-space.js';
import { findIntervention } from '../src/policy/interventions/registry.js';
import { completeSettings, parseMethod } from '../src/policy/interventions/settings.js';
import type { ReportValue } from '../src/report/values.js';
import { parseChoice, parseInteger, parseList, parseNumber } from './edge-values.js';

/** The command's own options as text. */
export interface AlphaOptions {
  panelFormat?: string;
  dateColumn?: string;
  symbolColumn?: string;
  features?: string;
  dtype?: string;
  price?: string;
  horizon?: string;
  target?: string;
  backtrack?: string;
  shares?: string;
  validFrom?: string;
  testFrom?: string;
  gap?: string;
  lag?: string;
  formula?: string[];
  pool?: string;
  searchers?: string;
  rule?: string[];
  seeds?: string;
  evaluations?: string;
  operators?: string;
  windows?: string;
  constants?: string;
  maxTokens?: string;
  capacity?: string;
  l1?: string;
  return?: string;
  objective?: string;
  beta?: string;
  icBound?: string;
  episodes?: string;
  epochs?: string;
  learningRate?: string;
  top?: string;
  drop?: string;
  cost?: string;
  delay?: string;
  daysPerYear?: string;
  checkpoints?: string;
  checkpointEvery?: string;
  poolOut?: string;
  history?: string;
  dailyIc?: string;
  mutualIc?: string;
  backtest?: string;
}

const SEARCHERS = ['policy', 'random', 'genetic'] as const;
const DEFAULT_RULE = 'entropy-bonus:coefficient=0.1';

export function addAlphaOptions(command: Command): Command {
  const collect = (text: string, previous: string[] = []): string[] => [...previous, text];
  return command
    .option(
      '--panel-format <name>',
      'long: date, symbol, features; relatives: a matrix of price relatives (default long)',
    )
    .option('--date-column <name>', 'column of the date (default date)')
    .option('--symbol-column <name>', 'column of the stock (default symbol)')
    .option('--features <names>', 'columns that are features, separated by commas (default: all others)')
    .option('--dtype <name>', 'float32 or float64 storage (default: float64 below 2e7 values)')
    .option('--price <name>', 'feature of the target and of the backtest (default close)')
    .option('--horizon <days>', 'days ahead of the return that is predicted (default 20)')
    .option(
      '--target <formula>',
      'what is predicted; a negative distance is a later day (default: return over the horizon)',
    )
    .option('--backtrack <days>', 'days of history before the first scored day (default 100)')
    .option('--shares <list>', 'shares of training, validation, test (default 0.6,0.2,0.2)')
    .option('--valid-from <date>', 'first day of validation')
    .option('--test-from <date>', 'first day of test')
    .option('--gap <days>', 'days left out before validation and test, at least the horizon (default: the horizon)')
    .option('--lag <days>', 'lag of the Newey-West intervals (default: the horizon)')
    .option('--formula <formula>', 'evaluate this instead of searching; repeatable', collect)
    .option('--pool <pool.json>', 'evaluate a pool of an earlier run, with its weights, on all days')
    .option('--searchers <list>', `${SEARCHERS.join(', ')} (default all)`)
    .option(
      '--rule <rule>',
      `training rule of the token policy: NAME or NAME:key=value,... of ${SEARCH_RULES.join(', ')}; repeatable (default ${DEFAULT_RULE})`,
      collect,
    )
    .option('--seeds <n>', 'runs of every searcher, with the seeds --seed, --seed + 1, ... (default 1)')
    .option('--evaluations <n>', 'distinct formulas that every search evaluates (default 2000)')
    .option('--operators <list>', 'operators of formulas (default: the published set)')
    .option('--windows <list>', `days of windows (default ${DEFAULT_WINDOWS.join(',')})`)
    .option('--constants <list>', 'constants of formulas, or none (default +-30,10,5,2,1,0.5,0.01)')
    .option('--max-tokens <n>', 'tokens of a formula, the begin token included (default 15)')
    .option('--capacity <n>', 'formulas of a pool (default 10)')
    .option('--l1 <x>', 'weight of |w|_1; 0 solves least squares (default 0.005)')
    .option('--return <iterate>', 'iterate of Adam: last (as published) or best (default last)')
    .option('--objective <name>', 'ic, icir (mean / std of the daily IC) or lcb (mean - beta std) (default ic)')
    .option('--beta <x>', 'standard deviations that lcb takes off (default 1)')
    .option('--ic-bound <x>', 'formulas with a lower single IC are refused')
    .option('--episodes <n>', 'formulas of a batch of the token policy (default 64)')
    .option('--epochs <n>', 'updates on a batch (default 4)')
    .option('--learning-rate <x>', 'of the tables of the token policy (default 1)')
    .option('--top <n>', 'backtest: stocks held (default: a fifth of them, at most 50)')
    .option('--drop <n>', 'backtest: stocks replaced a day at most (default: a tenth of --top)')
    .option('--cost <x>', 'backtest: share of what is traded that is lost (default 0.001)')
    .option('--delay <days>', 'backtest: days between signal and trade (default 1)')
    .option('--days-per-year <n>', 'backtest: days of annual figures (default 252)')
    .option('--checkpoints <folder>', 'states of the searches, from which --resume goes on')
    .option('--checkpoint-every <n>', 'evaluations between two states (default 500)')
    .option('--pool-out <file.json>', 'the chosen pool: formulas, weights, IC, rank IC, ICIR')
    .option('--history <file.csv>', 'points of every search')
    .option('--daily-ic <file.csv>', 'IC and rank IC of the chosen pool by day')
    .option('--mutual-ic <file.csv>', 'mutual ICs of the chosen pool in training')
    .option('--backtest <file.csv>', 'days of the backtest on the last part');
}

/** Everything of the run that does not depend on the panel. */
export interface AlphaPlan {
  readonly panel: Omit<PanelRequest, 'paths'>;
  readonly features: readonly string[];
  readonly price: string;
  readonly target: string;
  readonly backtrack: number;
  readonly gap?: number;
  readonly lag?: number;
  readonly split: {
    readonly shares: readonly [number, number, number];
    readonly validFrom?: string;
    readonly testFrom?: string;
  };
  readonly formulas: readonly string[];
  readonly pool?: { readonly weights: readonly number[] };
  readonly searches: readonly { readonly searcher: SearcherChoice; readonly seed: number }[];
  readonly budget: number;
  readonly space: Omit<SearchSpace, 'features'>;
  readonly poolSettings: PoolSettings;
  readonly backtest: (stocks: number) => BacktestSettings;
  readonly checkpoints?: string;
  readonly checkpointEvery: number;
  readonly parameters: Readonly<Record<string, ReportValue>>;
}

/**
 * A pool that `--pool-out` wrote.
 * @throws InputError where the file is none
 */
export function readPoolFile(path: string): { formulas: string[]; weights: number[] } {
  let parsed: unknown;
  try {
    parsed = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new InputError(`--pool ${path}: ${error instanceof Error ? error.message : String(error)}`);
  }
  const members = (parsed as { members?: unknown } | null)?.members;
  if (!Array.isArray(members) || members.length === 0) {
    throw new InputError(`--pool ${path}: has no "members"; a file of --pool-out is needed`);
  }
  const formulas: string[] = [];
  const weights: number[] = [];
  members.forEach((member: { formula?: unknown; weight?: unknown } | null, i) => {
    if (typeof member?.formula !== 'string' || typeof member.weight !== 'number' || !Number.isFinite(member.weight)) {
      throw new InputError(`--pool ${path}: member ${i + 1} has no formula or no weight`);
    }
    formulas.push(member.formula);
    weights.push(member.weight);
  });
  return { formulas, weights };
}

function parseShares(text: string): [number, number, number] {
  const shares = parseList(text).map((one) => parseNumber('--shares', one, 0));
  if (shares.length !== 3 || shares.some((one) => one === 0)) {
    throw new InputError(`--shares ${text}: three positive numbers are needed, such as 0.6,0.2,0.2`);
  }
  return [shares[0], shares[1], shares[2]];
}

function parseSpace(own: AlphaOptions): Omit<SearchSpace, 'features'> {
  const operators = own.operators
    ? parseList(own.operators).map((name) => parseChoice<OperatorName>('--operators', name, OPERATOR_NAMES))
    : DEFAULT_OPERATORS;
  const constants =
    own.constants === 'none'
      ? []
      : own.constants
        ? parseList(own.constants).map((one) => parseNumber('--constants', one))
        : DEFAULT_CONSTANTS;
  return {
    operators: [...new Set(operators)],
    windows: own.windows
      ? [...new Set(parseList(own.windows).map((one) => parseInteger('--windows', one, 1)))]
      : DEFAULT_WINDOWS,
    constants,
    maxTokens: parseInteger('--max-tokens', own.maxTokens ?? '15', 3, 100),
  };
}

function parseSearchers(own: AlphaOptions): SearcherChoice[] {
  const names = own.searchers
    ? [...new Set(parseList(own.searchers).map((name) => parseChoice('--searchers', name, SEARCHERS)))]
    : SEARCHERS;
  if (names.length === 0) throw new InputError(`--searchers names none; choose from ${SEARCHERS.join(', ')}`);
  if (own.rule !== undefined && !names.includes('policy')) throw new InputError('--rule is for the searcher policy');
  const rules = (own.rule ?? [DEFAULT_RULE]).map((text) => {
    const { name, settings } = parseMethod(text);
    parseChoice('--rule', name, SEARCH_RULES);
    completeSettings(findIntervention(name), settings);
    return { text, name, settings };
  });
  return names.flatMap((name): SearcherChoice[] => {
    if (name !== 'policy') return [{ kind: name, label: name }];
    return rules.map((rule) => ({
      kind: 'policy',
      label: rules.length > 1 || own.rule !== undefined ? `policy, ${rule.text}` : 'policy',
      settings: {
        episodes: parseInteger('--episodes', own.episodes ?? '64', 2),
        epochs: parseInteger('--epochs', own.epochs ?? '4', 1),
        learningRate: parseNumber('--learning-rate', own.learningRate ?? '1', 0),
        rule: rule.name,
        settings: rule.settings,
      },
    }));
  });
}

function parseObjective(own: AlphaOptions): PoolObjective {
  const kind = parseChoice('--objective', own.objective ?? 'ic', ['ic', 'icir', 'lcb'] as const);
  if (own.beta !== undefined && kind !== 'lcb') throw new InputError('--beta is for --objective lcb');
  return kind === 'lcb' ? { kind, beta: parseNumber('--beta', own.beta ?? '1', 0) } : { kind };
}

/** Options that only a search reads. */
const SEARCH_ONLY = [
  'searchers',
  'rule',
  'seeds',
  'evaluations',
  'operators',
  'windows',
  'constants',
  'maxTokens',
  'capacity',
  'icBound',
  'episodes',
  'epochs',
  'learningRate',
  'checkpoints',
  'checkpointEvery',
  'history',
  'objective',
  'beta',
] as const satisfies readonly (keyof AlphaOptions)[];

const flagOf = (name: string): string => `--${name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;

export function parseAlphaPlan(own: AlphaOptions, seed: number): AlphaPlan {
  if (own.formula !== undefined && own.pool !== undefined) throw new InputError('give --formula or --pool, not both');
  if (own.formula !== undefined || own.pool !== undefined) {
    const given = own.formula === undefined ? '--pool' : '--formula';
    for (const name of SEARCH_ONLY) {
      if (own[name] !== undefined)
        throw new InputError(`${flagOf(name)} is for searches; ${given} evaluates what is given`);
    }
  }
  if (own.target !== undefined && own.horizon !== undefined)
    throw new InputError('give --target or --horizon, not both');
  if (own.pool !== undefined) {
    for (const name of ['shares', 'validFrom', 'testFrom', 'gap', 'l1', 'return'] as const) {
      if (own[name] !== undefined) throw new InputError(`${flagOf(name)} has no use with --pool, which fits nothing`);
    }
  }
  const price = (own.price ?? 'close').toLowerCase();
  const horizon = parseInteger('--horizon', own.horizon ?? '20', 1);
  const target = own.target ?? `Sub(Div(Ref($${price},-${horizon}d),$${price}),1.0)`;
  const pool = own.pool === undefined ? undefined : readPoolFile(own.pool);
  const features = own.features === undefined ? [] : parseList(own.features);
  const space = parseSpace(own);
  const searchers = parseSearchers(own);
  const seeds = parseInteger('--seeds', own.seeds ?? '1', 1);
  const icBound = own.icBound === undefined ? undefined : parseNumber('--ic-bound', own.icBound, -1, 1);
  const poolSettings: PoolSettings = {
    capacity: parseInteger('--capacity', own.capacity ?? '10', 1),
    l1: parseNumber('--l1', own.l1 ?? '0.005', 0),
    iterate: parseChoice('--return', own.return ?? 'last', ['last', 'best'] as const),
    objective: parseObjective(own),
    ...(icBound !== undefined && { icBound }),
  };
  const count = (flag: string, text: string | undefined, least: number): number | undefined =>
    text === undefined ? undefined : parseInteger(flag, text, least);
  const top = count('--top', own.top, 1);
  const drop = count('--drop', own.drop, 1);
  const cost = parseNumber('--cost', own.cost ?? '0.001', 0, 1);
  const delay = parseInteger('--delay', own.delay ?? '1', 0);
  const daysPerYear = parseNumber('--days-per-year', own.daysPerYear ?? '252', 1);
  const budget = parseInteger('--evaluations', own.evaluations ?? '2000', 1);
  const gap = count('--gap', own.gap, 1);
  const lag = count('--lag', own.lag, 0);
  const backtrack = parseInteger('--backtrack', own.backtrack ?? '100', 0);
  const shares = parseShares(own.shares ?? '0.6,0.2,0.2');
  const format = parseChoice('--panel-format', own.panelFormat ?? 'long', ['long', 'relatives'] as const);
  const precision =
    own.dtype === undefined ? undefined : parseChoice('--dtype', own.dtype, ['float32', 'float64'] as const);
  if (format === 'relatives') {
    for (const name of ['dateColumn', 'symbolColumn', 'features'] as const) {
      if (own[name] !== undefined) throw new InputError(`${flagOf(name)} is for --panel-format long`);
    }
  }
  return {
    panel: {
      format,
      dateColumn: own.dateColumn ?? 'date',
      symbolColumn: own.symbolColumn ?? 'symbol',
      ...(features.length > 0 && { features }),
      ...(precision && { precision }),
    },
    features: features.map((name) => name.toLowerCase()),
    price,
    target,
    backtrack,
    ...(gap !== undefined && { gap }),
    ...(lag !== undefined && { lag }),
    split: {
      shares,
      ...(own.validFrom !== undefined && { validFrom: own.validFrom }),
      ...(own.testFrom !== undefined && { testFrom: own.testFrom }),
    },
    formulas: pool?.formulas ?? own.formula ?? [],
    ...(pool && { pool: { weights: pool.weights } }),
    searches: searchers.flatMap((searcher) => Array.from({ length: seeds }, (_, i) => ({ searcher, seed: seed + i }))),
    budget,
    space,
    poolSettings,
    backtest: (stocks) => {
      const held = Math.min(stocks, top ?? Math.max(1, Math.min(50, Math.floor(stocks / 5))));
      return { top: held, drop: drop ?? Math.max(1, Math.floor(held / 10)), cost, delay, daysPerYear };
    },
    ...(own.checkpoints !== undefined && { checkpoints: own.checkpoints }),
    checkpointEvery: parseInteger('--checkpoint-every', own.checkpointEvery ?? '500', 1),
    parameters: {
      panel_format: format,
      features: features.length > 0 ? features : null,
      dtype: precision ?? null,
      target,
      backtrack,
      gap: gap ?? null,
      lag: lag ?? null,
      shares,
      valid_from: own.validFrom ?? null,
      test_from: own.testFrom ?? null,
      formulas: own.formula ?? null,
      pool: own.pool ?? null,
      searchers: searchers.map(({ label }) => label),
      episodes: own.episodes ?? null,
      epochs: own.epochs ?? null,
      learning_rate: own.learningRate ?? null,
      seeds,
      evaluations: budget,
      operators: [...space.operators],
      windows: [...space.windows],
      constants: [...space.constants],
      max_tokens: space.maxTokens,
      capacity: poolSettings.capacity,
      l1: poolSettings.l1,
      return: poolSettings.iterate,
      objective: poolSettings.objective.kind,
      beta: poolSettings.objective.kind === 'lcb' ? poolSettings.objective.beta : null,
      ic_bound: icBound ?? null,
      top: top ?? null,
      drop: drop ?? null,
      cost,
      delay,
      days_per_year: daysPerYear,
    },
  };
}
