import type { PanelValues } from '../../kernels/panel-operators.js';

/** A portfolio of the stocks that a signal puts first. */
export interface BacktestSettings {
  /** Stocks held, with equal weights. */
  readonly top: number;
  /** At most this many are replaced on one day. */
  readonly drop: number;
  /** Share of what is bought or sold that is lost. */
  readonly cost: number;
  /** Days between the signal and the trade, at the close. */
  readonly delay: number;
  /** Days of a year, for annual figures. */
  readonly daysPerYear: number;
}

/** One row a trading day. */
export interface BacktestDay {
  readonly date: string;
  /** Return of the day, costs taken off; and of all stocks with a price in equal parts, without costs. */
  readonly return: number;
  readonly marketReturn: number;
  /** Half of the sum of absolute changes of weights by trading. */
  readonly turnover: number;
  readonly cost: number;
  readonly wealth: number;
  readonly marketWealth: number;
  readonly held: number;
}

export interface Backtest {
  readonly days: readonly BacktestDay[];
  readonly finalWealth: number;
  readonly marketFinalWealth: number;
  readonly annualReturn: number;
  /** Annual, of daily returns without a riskless rate; NaN without variation. */
  readonly sharpe: number;
  readonly marketSharpe: number;
  /** Largest fall from an earlier peak, as a share of it. */
  readonly maxDrawdown: number;
  readonly meanTurnover: number;
  /** Days on which a held stock had no price: it is kept at its last one and sold when it may be. */
  readonly missingPrices: number;
}

function sharpeOf(returns: Float64Array, daysPerYear: number): number {
  const n = returns.length;
  let mean = 0;
  for (const value of returns) mean += value;
  mean /= n;
  let squares = 0;
  for (const value of returns) squares += (value - mean) ** 2;
  return (mean / Math.sqrt(squares / (n - 1))) * Math.sqrt(daysPerYear);
}

/** The stocks to hold next: of those held the worst `drop` at most make way for better ones that are not held. */
function choose(
  score: ArrayLike<number>,
  tradable: (stock: number) => boolean,
  held: readonly number[],
  { top, drop }: BacktestSettings,
): number[] {
  const better = (a: number, b: number): number => score[b] - score[a] || a - b;
  const kept = held.filter(tradable).sort(better);
  const frozen = held.filter((stock) => !tradable(stock));
  const inside = new Set(held);
  const outside: number[] = [];
  for (let s = 0; s < score.length; s++) if (!inside.has(s) && tradable(s)) outside.push(s);
  outside.sort(better);
  const free = Math.max(0, top - held.length);
  const candidates = outside.slice(0, free + drop);
  const united = [...kept, ...candidates].sort(better);
  const room = Math.max(0, top - frozen.length);
  const worst = new Set(united.slice(room));
  // At most `drop` of those held leave.
  let left = 0;
  const staying = [...kept]
    .reverse()
    .filter((stock) => !(worst.has(stock) && left++ < drop))
    .reverse();
  const bought = candidates.filter((stock) => !worst.has(stock)).slice(0, Math.max(0, room - staying.length));
  return [...frozen, ...staying, ...bought];
}

/**
 * Trades at closes: the signal of day t is followed at the close of day t + delay. Weights are made equal at every trade.
 * @param signal [days, stocks]; higher is better
 * @param close [days, stocks]; NaN where a stock has no price: it cannot be traded then
 * @param present whether the signal of (day, stock) rests on data
 */
export function backtest(
  signal: PanelValues,
  close: PanelValues,
  present: (index: number) => boolean,
  dates: readonly string[],
  stocks: number,
  settings: BacktestSettings,
): Backtest {
  const days = dates.length;
  const rows: BacktestDay[] = [];
  let held: number[] = [];
  let weights = new Float64Array(stocks);
  let wealth = 1;
  let marketWealth = 1;
  let peak = 1;
  let maxDrawdown = 0;
  let missingPrices = 0;
  let turnovers = 0;
  const returns: number[] = [];
  const marketReturns: number[] = [];
  for (let t = settings.delay; t + 1 < days; t++) {
    const from = (t - settings.delay) * stocks;
    const tradable = (s: number): boolean =>
      !Number.isNaN(close[t * stocks + s]) && close[t * stocks + s] > 0 && present(from + s);
    const score = signal.subarray(from, from + stocks);
    held = choose(score, tradable, held, settings);
    const target = new Float64Array(stocks);
    for (const stock of held) target[stock] = 1 / held.length;
    let traded = 0;
    for (let s = 0; s < stocks; s++) traded += Math.abs(target[s] - weights[s]);
    const cost = traded * settings.cost;
    let growth = 0;
    let marketSum = 0;
    let marketCount = 0;
    const grown = new Float64Array(stocks);
    for (let s = 0; s < stocks; s++) {
      const now = close[t * stocks + s];
      const next = close[(t + 1) * stocks + s];
      const known = now > 0 && !Number.isNaN(next);
      if (known) {
        marketSum += next / now - 1;
        marketCount++;
      }
      if (target[s] === 0) continue;
      if (!known) missingPrices++;
      grown[s] = target[s] * (known ? next / now : 1);
      growth += grown[s];
    }
    const gross = held.length === 0 ? 1 : growth;
    const net = gross * (1 - cost) - 1;
    const marketReturn = marketCount > 0 ? marketSum / marketCount : 0;
    for (let s = 0; s < stocks; s++) grown[s] = gross > 0 ? grown[s] / gross : 0;
    weights = grown;
    wealth *= 1 + net;
    marketWealth *= 1 + marketReturn;
    peak = Math.max(peak, wealth);
    maxDrawdown = Math.max(maxDrawdown, 1 - wealth / peak);
    turnovers += traded / 2;
    returns.push(net);
    marketReturns.push(marketReturn);
    rows.push({
      date: dates[t + 1],
      return: net,
      marketReturn,
      turnover: traded / 2,
      cost,
      wealth,
      marketWealth,
      held: held.length,
    });
  }
  const n = rows.length;
  return {
    days: rows,
    finalWealth: wealth,
    marketFinalWealth: marketWealth,
    annualReturn: n > 0 ? wealth ** (settings.daysPerYear / n) - 1 : Number.NaN,
    sharpe: sharpeOf(Float64Array.from(returns), settings.daysPerYear),
    marketSharpe: sharpeOf(Float64Array.from(marketReturns), settings.daysPerYear),
    maxDrawdown,
    meanTurnover: n > 0 ? turnovers / n : Number.NaN,
    missingPrices,
  };
}
