import type { PanelShape, PanelValues } from '../../kernels/panel-operators.js';
import { type Normalised, normaliseByDay } from './correlation.js';
import type { Evaluator } from './evaluate.js';
import type { Expression } from './expression.js';
import { parseFormula } from './parse-formula.js';

/** The z-scores of the scored days of a formula. */
export function normalisedValues(evaluator: Evaluator, expression: Expression, threads?: number): Normalised {
  const shape = { days: evaluator.days, stocks: evaluator.stocks };
  return evaluator.evaluate(expression, (values) => normaliseByDay(values, shape, threads));
}

/** Forward return over `horizon` days as a formula: close_{t+h} / close_t - 1 (spec 10.4). */
export function forwardReturn(horizon: number, price = 'close'): Expression {
  return parseFormula(`Sub(Div(Ref($${price},-${horizon}d),$${price}),1.0)`);
}

/** Adds `weight` times z-scores to a sum, `[days, stocks]`. */
export function addWeighted(sum: PanelValues, { scores }: Normalised, weight: number): void {
  for (let i = 0; i < sum.length; i++) sum[i] += weight * scores[i];
}

/** The weighted sum of the z-scores of several formulas, one formula in memory at a time. */
export function combineFormulas(
  evaluator: Evaluator,
  formulas: readonly Expression[],
  weights: ArrayLike<number>,
  threads?: number,
): PanelValues {
  const shape: PanelShape = { days: evaluator.days, stocks: evaluator.stocks };
  const sum = new Float64Array(shape.days * shape.stocks);
  formulas.forEach((formula, i) => {
    addWeighted(sum, normalisedValues(evaluator, formula, threads), weights[i]);
  });
  return sum;
}
