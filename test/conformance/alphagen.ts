import { combineFormulas, forwardReturn, normalisedValues } from '../../src/policy/alphas/combination.js';
import {
  dailyCorrelations,
  dailyPearson,
  dailySpearman,
  meanOf,
  normaliseByDay,
} from '../../src/policy/alphas/correlation.js';
import { createEvaluator } from '../../src/policy/alphas/evaluate.js';
import { canonicalText, formulaText } from '../../src/policy/alphas/expression.js';
import { finishedFormula, pushToken, type Stack, type Token, tokenMask } from '../../src/policy/alphas/grammar.js';
import type { Panel } from '../../src/policy/alphas/panel.js';
import { isOperatorName, parseFormula } from '../../src/policy/alphas/parse-formula.js';
import { createPool, scoreNormalised } from '../../src/policy/alphas/pool.js';
import type { Json } from './harness.js';
import { float64, number, shapeOf, tensor } from './tensors.js';

type Inputs = { [key: string]: Json };

const FEATURES = ['open', 'close', 'high', 'low', 'volume', 'vwap'];

function texts(value: Json): string[] {
  if (!Array.isArray(value)) throw new TypeError('a list of texts is needed');
  return value.map(String);
}

/** [day, feature, stock] as one array a feature. */
function panelOf(value: Json): Panel {
  const all = float64(value, 'panel');
  const [days, features, stocks] = shapeOf(value, 'panel');
  const values = Array.from({ length: features }, (_, f) => {
    const one = new Float64Array(days * stocks);
    for (let t = 0; t < days; t++) {
      one.set(all.subarray((t * features + f) * stocks, (t * features + f + 1) * stocks), t * stocks);
    }
    return one;
  });
  const names = (n: number, letter: string) => Array.from({ length: n }, (_, i) => `${letter}${i}`);
  return { dates: names(days, 'd'), symbols: names(stocks, 's'), features: FEATURES.slice(0, features), values };
}

function open(inputs: Inputs) {
  const panel = panelOf(inputs.panel);
  const evaluator = createEvaluator(panel, {
    backtrack: number(inputs.backtrack, 'backtrack'),
    future: number(inputs.future, 'future'),
    cacheBytes: 1 << 26,
  });
  const shape = { days: evaluator.days, stocks: evaluator.stocks };
  const target = normalisedValues(evaluator, forwardReturn(number(inputs.horizon, 'horizon')));
  return { evaluator, shape, target };
}

function operators(inputs: Inputs): unknown {
  const { evaluator, shape, target } = open(inputs);
  const results: Record<string, unknown> = {};
  for (const text of texts(inputs.expressions)) {
    const formula = parseFormula(text);
    const normalised = normalisedValues(evaluator, formula);
    results[text] = {
      value: evaluator.evaluate(formula, (values) => tensor([shape.days, shape.stocks], Array.from(values))),
      ic: meanOf(dailyCorrelations(normalised, target, shape)),
      rank_ic: meanOf(dailySpearman(normalised.scores, target.scores, shape)),
    };
  }
  return { results, target: tensor([shape.days, shape.stocks], target.scores) };
}

function correlations(inputs: Inputs): unknown {
  const [days, stocks] = shapeOf(inputs.x, 'x');
  const shape = { days, stocks };
  const x = float64(inputs.x, 'x');
  const y = float64(inputs.y, 'y');
  return {
    pearson: tensor([days], dailyPearson(x, y, shape)),
    spearman: tensor([days], dailySpearman(x, y, shape)),
    normalized: tensor([days, stocks], normaliseByDay(x, shape).scores),
  };
}

function tokenOf(text: string): Token {
  if (text.startsWith('$')) return { kind: 'feature', name: text.slice(1) };
  if (isOperatorName(text)) return { kind: 'operator', operator: text };
  if (/^-?\d+d$/.test(text)) return { kind: 'window', days: Number.parseInt(text, 10) };
  return { kind: 'constant', value: Number(text) };
}

function masks(inputs: Inputs): unknown {
  if (!Array.isArray(inputs.sequences)) throw new TypeError('sequences is no list');
  const steps = inputs.sequences.map((sequence) => {
    let stack: Stack = [];
    const seen = [tokenMask(stack)];
    for (const text of texts(sequence)) {
      stack = pushToken(stack, tokenOf(text));
      seen.push(tokenMask(stack));
    }
    const formula = finishedFormula(stack);
    return {
      masks: seen.map(({ pair, window, ...mask }) => ({ ...mask, pair_rolling: pair, delta: window })),
      expr: formula === undefined ? null : formulaText(formula),
    };
  });
  return { steps };
}

function pools(inputs: Inputs): unknown {
  const { evaluator, shape, target } = open(inputs);
  const pool = createPool(
    {
      capacity: number(inputs.capacity, 'capacity'),
      l1: number(inputs.l1_alpha, 'l1_alpha'),
      iterate: 'last',
      objective: { kind: 'ic' },
      ...(typeof inputs.ic_lower_bound === 'number' && { icBound: inputs.ic_lower_bound }),
    },
    target,
    shape,
  );
  const offered = texts(inputs.expressions).map((text) => {
    const formula = parseFormula(text);
    return scoreNormalised(canonicalText(formula), text, normalisedValues(evaluator, formula), target, shape);
  });
  const trace = offered.map((formula) => {
    const { reward } = pool.offer(formula);
    return {
      expr: formula.text,
      returned: reward,
      pool: pool.members.map(({ text }) => text),
      weights: tensor([pool.weights.length], Float64Array.from(pool.weights)),
      best_obj: pool.bestObjective,
    };
  });
  const combined = combineFormulas(
    evaluator,
    pool.members.map(({ text }) => parseFormula(text)),
    pool.weights,
  );
  const n = offered.length;
  const mutual = offered.flatMap((a, i) =>
    offered.map((b, j) => (i === j ? 1 : meanOf(dailyCorrelations(a.normalised, b.normalised, shape)))),
  );
  return {
    trace,
    final_ic: meanOf(dailyPearson(combined, target.scores, shape)),
    final_rank_ic: meanOf(dailySpearman(combined, target.scores, shape)),
    single_ic: offered.map(({ ic }) => ic),
    mutual_ic: tensor([n, n], mutual),
  };
}

export function run(inputs: Inputs): unknown {
  if (inputs.sequences !== undefined) return masks(inputs);
  if (inputs.capacity !== undefined) return pools(inputs);
  return inputs.panel === undefined ? correlations(inputs) : operators(inputs);
}
