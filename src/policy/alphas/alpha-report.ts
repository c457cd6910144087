import type { Backtest } from './backtest.js';
import type { JudgeResult, PartFigures } from './judge-job.js';
import type { Universe } from './panel.js';
import type { SearchResult } from './search-job.js';

/** Name of the report's schema. */
export const MINE_ALPHA_SCHEMA = 'mine-alpha';

/** Columns of `--out`: one row a formula of the chosen pool and part. */
export const POOL_COLUMNS = [
  'formula',
  'weight',
  'part',
  'days',
  'ic',
  'ic_standard_error',
  'icir',
  'rank_ic',
  'rank_ic_standard_error',
  'rank_icir',
  'infinite_share',
  'missing_share',
] as const;

/** 97.5 % point of the standard normal distribution. */
const NORMAL_POINT = 1.959963984540054;
/** What the report warns of. */
const MANY_INFINITE = 0.001;
const MANY_FLAT = 0.05;

/** What is known beside the results. */
export interface AlphaSetting {
  readonly features: readonly string[];
  readonly precision: 'float32' | 'float64';
  readonly dates: readonly string[];
  readonly universe: Universe;
  readonly parts: readonly { readonly name: string; readonly from: number; readonly to: number }[];
  readonly horizon: number;
  readonly objective: string;
}

function partBody(figures: PartFigures): object {
  const interval = (mean: number, error: number): number[] => [
    mean - NORMAL_POINT * error,
    mean + NORMAL_POINT * error,
  ];
  return {
    part: figures.part,
    days: figures.days,
    effective_days: figures.effectiveDays,
    ic: figures.ic,
    ic_standard_error: figures.icStandardError,
    ic_interval: interval(figures.ic, figures.icStandardError),
    icir: figures.icir,
    rank_ic: figures.rankIc,
    rank_ic_standard_error: figures.rankIcStandardError,
    rank_ic_interval: interval(figures.rankIc, figures.rankIcStandardError),
    rank_icir: figures.rankIcir,
  };
}

function backtestBody(result: Backtest): object {
  return {
    days: result.days.length,
    final_wealth: result.finalWealth,
    market_final_wealth: result.marketFinalWealth,
    annual_return: result.annualReturn,
    sharpe: result.sharpe,
    market_sharpe: result.marketSharpe,
    max_drawdown: result.maxDrawdown,
    mean_turnover: result.meanTurnover,
    missing_prices: result.missingPrices,
  };
}

/** What to be careful about, in words. */
export function alphaWarnings(setting: AlphaSetting, judged: JudgeResult, searches: readonly SearchResult[]): string[] {
  const { universe, horizon, parts } = setting;
  const warnings: string[] = [];
  if (universe.entering === 0 && universe.leaving === 0) {
    warnings.push(
      `survivorship: none of the ${universe.stocks} stocks enters or leaves between the first and the last day; a universe ` +
        'chosen at its end flatters every strategy',
    );
  }
  if (horizon > 1) {
    warnings.push(
      `overlap: targets of ${horizon} days overlap; daily ICs are not independent, and only Newey-West intervals (lag ` +
        `${horizon}) say how certain their means are`,
    );
  }
  if (universe.thinDays > 0) warnings.push(`${universe.thinDays} days have fewer than 2 stocks and so no correlation`);
  for (const { formula, infiniteShare, flatDayShare } of judged.members) {
    if (infiniteShare > MANY_INFINITE) {
      warnings.push(
        `${formula}: ${(100 * infiniteShare).toFixed(2)} % of its values are infinite (division by zero or its like); a day with ` +
          'one of them counts as a day without a signal',
      );
    }
    if (flatDayShare > MANY_FLAT) {
      warnings.push(`${formula}: no variation between stocks on ${(100 * flatDayShare).toFixed(1)} % of the days`);
    }
  }
  const first = judged.candidates[judged.chosen].parts;
  const last = first[first.length - 1];
  if (first.length > 1 && last.ic - NORMAL_POINT * last.icStandardError <= 0) {
    warnings.push(`the interval of the ${parts[parts.length - 1].name} IC of the chosen pool reaches 0`);
  }
  for (const { label, seed, evaluations, offers } of searches) {
    if (offers >= 20 * evaluations) {
      warnings.push(
        `${label}, seed ${seed}: wrote ${offers} formulas of which ${evaluations} were distinct: its token policy has collapsed`,
      );
    }
  }
  return warnings;
}

/** The body of the report. */
export function alphaBody(setting: AlphaSetting, judged: JudgeResult, searches: readonly SearchResult[]): object {
  const { dates, parts } = setting;
  const best = judged.candidates[judged.chosen];
  return {
    panel: {
      days: dates.length,
      first_date: dates[0],
      last_date: dates[dates.length - 1],
      stocks: setting.universe.stocks,
      features: setting.features,
      precision: setting.precision,
      missing_share: setting.universe.missingShare,
      always_present: setting.universe.alwaysPresent,
      entering: setting.universe.entering,
      leaving: setting.universe.leaving,
      thin_days: setting.universe.thinDays,
      missing_target_share: judged.missingTargets,
    },
    parts: parts.map(({ name, from, to }) => ({
      part: name,
      first_date: dates[from],
      last_date: dates[to - 1],
      days: to - from,
    })),
    searches: searches.map((search, i) => ({
      search: search.label,
      seed: search.seed,
      evaluations: search.evaluations,
      offers: search.offers,
      out_of_range: search.outOfRange,
      flat: search.flat,
      objective: search.objective,
      formulas: search.formulas,
      weights: search.weights,
      first_entropy_nats: search.history[0]?.entropyNats ?? null,
      last_entropy_nats: search.history.at(-1)?.entropyNats ?? null,
      pool: judged.candidates[i].parts.map(partBody),
      one_by_one_equal: (judged.candidates[i].oneByOne?.equal ?? []).map(partBody),
      one_by_one_weighted: (judged.candidates[i].oneByOne?.weighted ?? []).map(partBody),
    })),
    chosen: {
      search: best.label,
      seed: best.seed,
      pool: best.parts.map(partBody),
      members: judged.members.map((member) => ({
        formula: member.formula,
        weight: member.weight,
        infinite_share: member.infiniteShare,
        missing_share: member.missingShare,
        flat_day_share: member.flatDayShare,
        parts: member.parts.map(partBody),
      })),
    },
    backtest: judged.backtest === null ? null : backtestBody(judged.backtest),
    warnings: alphaWarnings(setting, judged, searches),
  };
}

/** Rows of `--out`. */
export function* poolRows(judged: JudgeResult): Generator<readonly (string | number)[]> {
  for (const { formula, weight, parts, infiniteShare, missingShare } of judged.members) {
    for (const one of parts) {
      yield [
        ...[formula, weight, one.part, one.days, one.ic, one.icStandardError, one.icir],
        ...[one.rankIc, one.rankIcStandardError, one.rankIcir, infiniteShare, missingShare],
      ];
    }
  }
}

const csv = (rows: Iterable<readonly (string | number)[]>): string =>
  `${Array.from(rows, (row) => row.map(cell).join(',')).join('\n')}\n`;

const cell = (value: string | number): string =>
  typeof value === 'string' && /[",\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : String(value);

/** The chosen pool as `--pool` reads it. */
export function poolJson(judged: JudgeResult, target: string): string {
  const best = judged.candidates[judged.chosen];
  const members = judged.members.map(({ formula, weight, parts }) => ({
    formula,
    weight,
    parts: parts.map(({ part, ic, rankIc, icir }) => ({ part, ic, rank_ic: rankIc, icir })),
  }));
  return `${JSON.stringify({ search: best.label, seed: best.seed, target, members }, undefined, 2)}\n`;
}

/** Points of every search. */
export function historyCsv(searches: readonly SearchResult[]): string {
  const rows: (string | number)[][] = [
    ['search', 'seed', 'evaluations', 'offers', 'pool_size', 'objective', 'train_ic', 'token_entropy_nats'],
  ];
  for (const { label, seed, history } of searches) {
    for (const point of history) {
      rows.push([
        ...[label, seed, point.evaluations, point.offers, point.poolSize, point.objective, point.ic],
        point.entropyNats ?? '',
      ]);
    }
  }
  return csv(rows);
}

export function dailyIcCsv({ daily }: JudgeResult): string {
  return csv([
    ['date', 'part', 'ic', 'rank_ic'],
    ...daily.map(({ date, part, ic, rankIc }) => [date, part, ic, rankIc]),
  ]);
}

export function mutualIcCsv({ members, mutualIc }: JudgeResult): string {
  const n = members.length;
  return csv([
    ['formula', ...members.map(({ formula }) => formula)],
    ...members.map(({ formula }, i) => [formula, ...mutualIc.subarray(i * n, (i + 1) * n)]),
  ]);
}

export function backtestCsv(result: Backtest): string {
  return csv([
    ['date', 'return', 'market_return', 'turnover', 'cost', 'wealth', 'market_wealth', 'held'],
    ...result.days.map((day) => [
      ...[day.date, day.return, day.marketReturn, day.turnover, day.cost, day.wealth, day.marketWealth, day.held],
    ]),
  ]);
}
