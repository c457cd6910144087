import type { PanelValues } from '../../kernels/panel-operators.js';
import { dependentMean } from '../../linalg/newey-west.js';
import { type Backtest, type BacktestSettings, backtest } from './backtest.js';
import { addWeighted, combineFormulas, normalisedValues } from './combination.js';
import {
  dailyCorrelations,
  dailyPearson,
  dailySpearman,
  informationRatio,
  meanOf,
  type Normalised,
} from './correlation.js';
import { createEvaluator, type Evaluator } from './evaluate.js';
import type { Expression } from './expression.js';
import type { Panel } from './panel.js';
import { parseFormula } from './parse-formula.js';
import { type Iterate, minimiseSquares, solveLeastSquares } from './pool-weights.js';

/** Days of the panel, `[from, to)`. */
export interface Part {
  readonly name: string;
  readonly from: number;
  readonly to: number;
}

/** A weighted set of formulas. */
export interface Candidate {
  readonly label: string;
  readonly seed: number;
  readonly formulas: readonly string[];
  /** Found on the first part when absent. */
  readonly weights?: readonly number[];
  /** The formulas of the highest single |IC|, to compare with; none: no comparison. */
  readonly singles: readonly { readonly text: string; readonly ic: number }[];
}

export interface JudgeRequest {
  readonly panel: Panel;
  readonly target: string;
  readonly backtrack: number;
  readonly future: number;
  readonly parts: readonly Part[];
  /** Lag of the Newey-West intervals: the horizon of the target. */
  readonly lag: number;
  readonly candidates: readonly Candidate[];
  readonly l1: number;
  readonly iterate: Iterate;
  readonly price: string | undefined;
  readonly backtest: BacktestSettings;
  readonly cacheBytes: number;
  readonly threads: number;
}

/** Correlations with the target in one part. */
export interface PartFigures {
  readonly part: string;
  readonly days: number;
  readonly ic: number;
  readonly icStandardError: number;
  readonly icir: number;
  /** Days that are worth as much as independent ones. */
  readonly effectiveDays: number;
  readonly rankIc: number;
  readonly rankIcStandardError: number;
  readonly rankIcir: number;
}

export interface JudgedCandidate {
  readonly label: string;
  readonly seed: number;
  readonly formulas: readonly string[];
  readonly weights: readonly number[];
  readonly parts: readonly PartFigures[];
  /** As many formulas chosen one by one: equal weights by sign, and weights as the pool's are found. */
  readonly oneByOne: { readonly equal: readonly PartFigures[]; readonly weighted: readonly PartFigures[] } | null;
}

export interface JudgedFormula {
  readonly formula: string;
  readonly weight: number;
  readonly parts: readonly PartFigures[];
  /** Shares of the (day, stock) values of all parts that are infinite, missing; of days without variation. */
  readonly infiniteShare: number;
  readonly missingShare: number;
  readonly flatDayShare: number;
}

export interface JudgeResult {
  readonly candidates: readonly JudgedCandidate[];
  /** The candidate of the highest IC in validation (the second part, or the only one). */
  readonly chosen: number;
  readonly members: readonly JudgedFormula[];
  /** [members, members], over the days of the first part. */
  readonly mutualIc: Float64Array;
  readonly daily: readonly {
    readonly date: string;
    readonly part: string;
    readonly ic: number;
    readonly rankIc: number;
  }[];
  readonly backtest: Backtest | null;
  /** Share of the targets that are missing. */
  readonly missingTargets: number;
}

/** Weights of a pool of given formulas, from the days of one part. */
function findWeights(
  members: readonly Normalised[],
  target: Normalised,
  evaluator: Evaluator,
  days: readonly [number, number],
  { l1, iterate, threads }: JudgeRequest,
): Float64Array {
  const shape = { days: evaluator.days, stocks: evaluator.stocks };
  const within = (a: Normalised, b: Normalised): number =>
    meanOf(dailyCorrelations(a, b, shape, threads).subarray(days[0], days[1]));
  const n = members.length;
  const single = Float64Array.from(members, (member) => within(member, target));
  if (n === 1) return Float64Array.of(Math.max(single[0], 0.01));
  const mutual = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    mutual[i * n + i] = 1;
    for (let j = 0; j < i; j++) {
      mutual[i * n + j] = within(members[i], members[j]);
      mutual[j * n + i] = mutual[i * n + j];
    }
  }
  return l1 === 0
    ? solveLeastSquares(mutual, single)
    : minimiseSquares(mutual, single, solveLeastSquares(mutual, single), l1, iterate);
}

/** Evaluates sets of formulas on every part, and the best of them in detail. */
export function judgeFormulas(request: JudgeRequest, progress: (value: unknown) => void): JudgeResult {
  const { panel, backtrack, future, parts, lag, threads } = request;
  const evaluator = createEvaluator(panel, { backtrack, future, cacheBytes: request.cacheBytes, threads });
  const { days, stocks } = evaluator;
  const shape = { days, stocks };
  const target = normalisedValues(evaluator, parseFormula(request.target), threads);
  const place = (part: Part): [number, number] => [part.from - backtrack, part.to - backtrack];
  const dailyOf = (values: PanelValues): { ic: Float64Array; rankIc: Float64Array } => ({
    ic: dailyPearson(values, target.scores, shape, threads),
    rankIc: dailySpearman(values, target.scores, shape, threads),
  });
  const figures = ({ ic, rankIc }: { ic: Float64Array; rankIc: Float64Array }): PartFigures[] =>
    parts.map((part) => {
      const [from, to] = place(part);
      const one = ic.subarray(from, to);
      const ranked = rankIc.subarray(from, to);
      const mean = dependentMean(one, lag);
      const rankMean = dependentMean(ranked, lag);
      return {
        part: part.name,
        days: to - from,
        ic: mean.mean,
        icStandardError: mean.standardError,
        icir: informationRatio(one),
        effectiveDays: mean.effectiveSample,
        rankIc: rankMean.mean,
        rankIcStandardError: rankMean.standardError,
        rankIcir: informationRatio(ranked),
      };
    });
  const combine = (formulas: readonly Expression[], weights: ArrayLike<number>): PanelValues =>
    combineFormulas(evaluator, formulas, weights, threads);
  const weigh = (formulas: readonly Expression[]): Float64Array =>
    findWeights(
      formulas.map((formula) => normalisedValues(evaluator, formula, threads)),
      target,
      evaluator,
      place(parts[0]),
      request,
    );
  const judged = request.candidates.map((candidate, i): JudgedCandidate => {
    const formulas = candidate.formulas.map((text) => parseFormula(text));
    const weights = candidate.weights ?? Array.from(weigh(formulas));
    const result = figures(dailyOf(combine(formulas, weights)));
    let oneByOne: JudgedCandidate['oneByOne'] = null;
    if (candidate.singles.length > 0) {
      const singles = candidate.singles.slice(0, formulas.length);
      const expressions = singles.map(({ text }) => parseFormula(text));
      oneByOne = {
        equal: figures(
          dailyOf(
            combine(
              expressions,
              singles.map(({ ic }) => Math.sign(ic)),
            ),
          ),
        ),
        weighted: figures(dailyOf(combine(expressions, weigh(expressions)))),
      };
    }
    progress({ judged: i + 1 });
    return {
      label: candidate.label,
      seed: candidate.seed,
      formulas: candidate.formulas,
      weights,
      parts: result,
      oneByOne,
    };
  });
  const decisive = Math.min(1, parts.length - 1);
  let chosen = 0;
  judged.forEach(({ parts: own }, i) => {
    if (own[decisive].ic > judged[chosen].parts[decisive].ic) chosen = i;
  });
  const best = judged[chosen];
  const expressions = best.formulas.map((text) => parseFormula(text));
  const normalised: Normalised[] = [];
  const members = expressions.map((expression, i): JudgedFormula => {
    let infinite = 0;
    let missing = 0;
    evaluator.evaluate(expression, (values) => {
      for (const value of values) {
        if (Number.isNaN(value)) missing++;
        else if (value === Infinity || value === -Infinity) infinite++;
      }
    });
    const one = normalisedValues(evaluator, expression, threads);
    normalised.push(one);
    let flat = 0;
    for (const deviation of one.deviations) if (deviation === 0) flat++;
    return {
      formula: best.formulas[i],
      weight: best.weights[i],
      parts: figures(dailyOf(one.scores)),
      infiniteShare: infinite / (days * stocks),
      missingShare: missing / (days * stocks),
      flatDayShare: flat / days,
    };
  });
  const n = members.length;
  const mutualIc = new Float64Array(n * n);
  const [from, to] = place(parts[0]);
  for (let i = 0; i < n; i++) {
    mutualIc[i * n + i] = 1;
    for (let j = 0; j < i; j++) {
      const mean = meanOf(dailyCorrelations(normalised[i], normalised[j], shape, threads).subarray(from, to));
      mutualIc[i * n + j] = mean;
      mutualIc[j * n + i] = mean;
    }
  }
  const signal = new Float64Array(days * stocks);
  normalised.forEach((one, i) => {
    addWeighted(signal, one, best.weights[i]);
  });
  const { ic, rankIc } = dailyOf(signal);
  const daily = parts.flatMap((part) => {
    const [start, end] = place(part);
    return Array.from({ length: end - start }, (_, k) => ({
      date: panel.dates[part.from + k],
      part: part.name,
      ic: ic[start + k],
      rankIc: rankIc[start + k],
    }));
  });
  let missingTargets = 0;
  evaluator.evaluate(parseFormula(request.target), (values) => {
    for (const value of values) if (Number.isNaN(value)) missingTargets++;
  });
  const price = request.price === undefined ? -1 : panel.features.indexOf(request.price);
  const last = parts[parts.length - 1];
  return {
    candidates: judged,
    chosen,
    members,
    mutualIc,
    daily,
    backtest: price < 0 ? null : tradePart(request, panel.values[price], signal, last, stocks),
    missingTargets: missingTargets / (days * stocks),
  };
}

/** The backtest of the signal on the days of a part. */
function tradePart(
  request: JudgeRequest,
  prices: PanelValues,
  signal: PanelValues,
  part: Part,
  stocks: number,
): Backtest {
  const close = prices.subarray(part.from * stocks, part.to * stocks);
  return backtest(
    signal.subarray((part.from - request.backtrack) * stocks, (part.to - request.backtrack) * stocks),
    close,
    (index) => !Number.isNaN(close[index]),
    request.panel.dates.slice(part.from, part.to),
    stocks,
    request.backtest,
  );
}

/** The reference of {@link judgeFormulas} for a thread of its own. */
export const JUDGE_FORMULAS = { module: import.meta.url, job: judgeFormulas };
