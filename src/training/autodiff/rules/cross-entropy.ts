import type { RuleContext, RuleTable, VjpRule } from '../types.js';
import { counting, elementCount, extents, floatType, INT64, range, sumOver } from './shape-arithmetic.js';

/** What a row of a class loss counts, and where its label is. */
interface LabelledRows {
  /** [N, C, ...]: true at the labels of rows that count. */
  readonly hot: string;
  /** [N, 1, ...]: factor of each row in the loss, its cotangent included; 0 where it is ignored. */
  readonly factor: string;
}

/** Reads labels [N, ...], class weights and reduction of a loss over scores [N, C, ...]. */
function labelledRows(g: RuleContext, cotangent: string): LabelledRows {
  const [scores, labels, weights = ''] = g.inputs;
  const rank = g.dims(scores).length;
  const row = g.integers([1]);
  const rows = g.emit('Unsqueeze', [g.emit('Cast', [labels], { to: INT64 }), row]);
  const spread = g.integers(range(0, rank).map((axis) => (axis === 1 ? -1 : 1)));
  const classes = g.emit('Reshape', [counting(g, extents(g, scores, [1])), spread]);
  const ignored = g.attribute('ignore_index');
  const counts = ignored && g.emit('Not', [g.emit('Equal', [rows, g.integers([Number(ignored.i)])])]);
  const matches = g.emit('Equal', [rows, classes]);
  const hot = counts ? g.emit('And', [matches, counts]) : matches;
  const number = (truth: string): string => g.emit('Cast', [truth], { to: floatType(g) });
  const weighted =
    weights !== ''
      ? sumOver(g, g.emit('Mul', [number(hot), g.emit('Reshape', [weights, spread])]), [1])
      : counts && number(counts);
  const reduction = g.stringAttribute('reduction', 'mean');
  if (reduction === 'none') {
    const own = g.emit('Unsqueeze', [cotangent, row]);
    return { hot, factor: weighted ? g.emit('Mul', [own, weighted]) : own };
  }
  if (reduction === 'sum') return { hot, factor: weighted ? g.emit('Mul', [cotangent, weighted]) : cotangent };
  // Without a row that counts, the weights and so the gradient are 0, not 0 / 0.
  const total = weighted ? g.emit('ReduceSum', [weighted], { keepdims: { int: 0 } }) : elementCount(g, labels);
  const some = g.emit('Where', [g.emit('Equal', [total, g.scalar(0)]), g.scalar(1), total]);
  const mean = g.emit('Div', [cotangent, some]);
  return { hot, factor: weighted ? g.emit('Mul', [mean, weighted]) : mean };
}

const softmaxCrossEntropyLoss: VjpRule = (g) => {
  const [loss, logProbs] = g.cotangents;
  const [scores] = g.inputs;
  const parts: string[] = [];
  const normal = g.emit('LogSoftmax', [scores], { axis: { int: 1 } });
  const probabilities = g.emit('Exp', [normal]);
  if (loss !== undefined) {
    const { hot, factor } = labelledRows(g, loss);
    const target = g.emit('Cast', [hot], { to: floatType(g) });
    parts.push(g.emit('Mul', [g.emit('Sub', [probabilities, target]), factor]));
  }
  if (logProbs !== undefined) {
    parts.push(g.emit('Sub', [logProbs, g.emit('Mul', [probabilities, sumOver(g, logProbs, [1])])]));
  }
  if (parts.length === 0) return [];
  return [parts.length === 1 ? parts[0] : g.emit('Sum', parts)];
};

const negativeLogLikelihoodLoss: VjpRule = (g) => {
  const [cotangent] = g.cotangents;
  if (cotangent === undefined) return [];
  const { hot, factor } = labelledRows(g, cotangent);
  return [g.emit('Where', [hot, g.emit('Neg', [factor]), g.scalar(0)])];
};

/** Class losses of the operator set. */
export const CROSS_ENTROPY_RULES: RuleTable = {
  SoftmaxCrossEntropyLoss: softmaxCrossEntropyLoss,
  NegativeLogLikelihoodLoss: negativeLogLikelihoodLoss,
};
