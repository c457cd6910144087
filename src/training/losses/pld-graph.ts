import type { ListWeights } from '../../kernels/plackett-luce.js';
import { composeGraph, type GraphComposer } from '../../models/graph.js';
import type { LossGraphInputs } from '../types.js';

export interface PldGraphSettings {
  /** Teacher's classes in the list beside the label, with their tail; all when absent. */
  readonly listed?: number;
  readonly weights?: Exclude<ListWeights, 'position'>;
  /** Divides the teacher's logits in the weights. Default 1. */
  readonly temperature?: number;
}

/** Stands for minus infinity: exponentials of it vanish, and differences of two of them are still numbers. */
const NOWHERE = -1e30;
const INT64 = 7;
/** Operators along the classes. */
const ALONG = { attributes: { axis: { int: 1 } } };

interface Ranks {
  /** [rows, ranks]: student's logits and the teacher's log-probabilities by rank, the label first. */
  readonly scores: string;
  readonly logWeights: string;
  /** Number of ranks with a term; a tail stands behind them. */
  readonly count: number;
}

/** log(exp a + exp b). */
export const logAdd = (g: GraphComposer, a: string, b: string): string => {
  const apart = g.node('Neg', [g.node('Abs', [g.node('Sub', [a, b])])]);
  const excess = g.node('Log', [g.node('Add', [g.scalar(1), g.node('Exp', [apart])])]);
  return g.node('Add', [g.node('Max', [a, b]), excess]);
};

const slice = (g: GraphComposer, x: string, from: number, to: number): string =>
  g.node('Slice', [x, g.integers([from]), g.integers([to]), g.integers([1])]);

/** 1 in the column of each row's label; ignored rows have none. */
function labelPlaces(g: GraphComposer, labels: string, classes: number): string {
  const columns = g.integers(Array.from({ length: classes }, (_, j) => j));
  return g.node('Equal', [columns, g.node('Unsqueeze', [labels, g.integers([1])])]);
}

function weightsOf(g: GraphComposer, teacher: string, temperature: number): string {
  const softened = temperature === 1 ? teacher : g.node('Div', [teacher, g.scalar(temperature)]);
  return g.node('LogSoftmax', [softened], ALONG);
}

function rankAll(g: GraphComposer, inputs: LossGraphInputs, { temperature = 1 }: PldGraphSettings): Ranks {
  const { classes } = inputs;
  const isLabel = labelPlaces(g, inputs.labels, classes);
  const lifted = g.node('Where', [isLabel, g.scalar(-NOWHERE), inputs.teacher]);
  const order = topPlaces(g, lifted, classes);
  return {
    scores: g.node('GatherElements', [inputs.student, order], ALONG),
    logWeights: g.node('GatherElements', [weightsOf(g, inputs.teacher, temperature), order], ALONG),
    count: classes,
  };
}

/** Places of the k largest, ties by ascending place. */
function topPlaces(g: GraphComposer, values: string, k: number): string {
  const names = [`${values}_top${k}`, `${values}_order${k}`];
  g.node('TopK', [values, g.integers([k])], { ...ALONG, outputs: names });
  return names[1];
}

/** The label and the teacher's K likeliest; where the label is one of these, the last place is empty. */
function rankListed(g: GraphComposer, inputs: LossGraphInputs, settings: PldGraphSettings, listed: number): Ranks {
  const { classes } = inputs;
  const { temperature = 1 } = settings;
  const isLabel = labelPlaces(g, inputs.labels, classes);
  const lifted = g.node('Where', [isLabel, g.scalar(-NOWHERE), inputs.teacher]);
  const order = topPlaces(g, lifted, listed + 1);
  const safe = g.node('Max', [inputs.labels, g.integers([0], true)]);
  const plain = topPlaces(g, inputs.teacher, listed);
  const same = g.node('Equal', [plain, g.node('Unsqueeze', [safe, g.integers([1])])]);
  const hits = g.node('ReduceSum', [g.node('Cast', [same], { attributes: { to: { int: INT64 } } }), g.integers([1])]);
  const isLast = g.node('Equal', [
    g.integers(Array.from({ length: listed + 1 }, (_, k) => k)),
    g.integers([listed], true),
  ]);
  const empty = g.node('And', [isLast, g.node('Greater', [hits, g.integers([0], true)])]);
  const gathered = g.node('GatherElements', [inputs.student, order], ALONG);
  const gone = g.node('Where', [empty, gathered, g.scalar(NOWHERE)]);
  const outside = g.node('ScatterElements', [inputs.student, order, gone], ALONG);
  const tail = g.node('ReduceLogSumExp', [outside, g.integers([1])]);
  const shares = g.node('GatherElements', [weightsOf(g, inputs.teacher, temperature), order], ALONG);
  const scores = g.node('Where', [empty, g.scalar(NOWHERE), gathered]);
  return {
    scores: g.node('Concat', [scores, tail], ALONG),
    logWeights: g.node('Where', [empty, g.scalar(NOWHERE), shares]),
    count: listed + 1,
  };
}

/** A_k of all ranks: after the step of size s, A_k covers 2 s ranks; ceil(log2) steps in all. */
function suffixes(g: GraphComposer, scores: string, length: number): string {
  let sums = scores;
  for (let step = 1; step < length; step *= 2) {
    const shifted = g.node('Pad', [slice(g, sums, step, length), g.integers([0, 0, 0, step]), g.scalar(NOWHERE)]);
    sums = logAdd(g, sums, shifted);
  }
  return sums;
}

/**
 * Adds Plackett-Luce distillation to a graph: the loss of every row, [rows], 0 where the label is -100. Standard operators
 * that all have a gradient: the suffix log-sum-exp is a doubling scan of log-add-exp, stable for any logits. The same as
 * `pld`, or with `listed` as `pld-partial`; logits must be finite.
 */
export function composePld(g: GraphComposer, inputs: LossGraphInputs, settings: PldGraphSettings): string {
  const { classes } = inputs;
  const { listed = classes, weights = 'teacher' } = settings;
  const { scores, logWeights, count } =
    listed < classes ? rankListed(g, inputs, settings, listed) : rankAll(g, inputs, settings);
  const sums = suffixes(g, scores, listed < classes ? count + 1 : count);
  const excess = g.node('Sub', [slice(g, sums, 0, count), slice(g, scores, 0, count)]);
  const first = weights === 'label' ? slice(g, excess, 0, 1) : excess;
  const filled = g.node('Greater', [logWeights, g.scalar(NOWHERE / 2)]);
  const weighed =
    weights === 'teacher'
      ? g.node('Mul', [g.node('Exp', [logWeights]), excess])
      : weights === 'uniform'
        ? g.node('Where', [filled, excess, g.scalar(0)])
        : first;
  const sum = g.node('ReduceSum', [weighed, g.integers([1])], { attributes: { keepdims: { int: 0 } } });
  const counts = g.node('GreaterOrEqual', [inputs.labels, g.integers([0], true)]);
  return g.node('Where', [counts, sum, g.scalar(0)]);
}

/**
 * The loss as a graph of its own: inputs `logits`, `teacher` [rows, classes] and `labels` [rows], output `loss` [rows].
 * @returns serialised ModelProto
 */
export function pldGraph(classes: number, settings: PldGraphSettings, precision: 'f32' | 'f64' = 'f32'): Uint8Array {
  const g = composeGraph('pld', precision);
  const inputs: LossGraphInputs = {
    student: g.input('logits', precision, ['rows', classes]),
    teacher: g.input('teacher', precision, ['rows', classes]),
    labels: g.input('labels', 'i64', ['rows']),
    classes,
  };
  g.publish(composePld(g, inputs, settings), 'loss', ['rows']);
  return g.encode();
}
