import { InputError } from '../../errors.js';
import { logSumExpRow, softplus } from '../../kernels/loss-rows-reference.js';
import { type Floats, IGNORED, type Loss, type LossGradients, type LossInput, type LossOutput } from '../types.js';
import { checkRows, checkTopTeacher, denseTeacher } from './checks.js';
import { declareLoss, numberOf, type Parameters } from './declare.js';
import { rowOutput } from './row-loss.js';
import { listedInRow, type RankedRow, rankRow } from './top-rows.js';

/** Teacher probabilities that differ by less are tied, and smaller ones are none. */
const TIE = 1e-9;

/** The teacher's likeliest classes of a row, at most `k`. */
function rankedRow(input: LossInput, loss: string, row: number, k: number): RankedRow {
  const { teacher, classes } = input;
  if (teacher?.kind === 'top') {
    const count = Math.min(k, listedInRow(teacher, row));
    const from = row * teacher.k;
    const ids = teacher.ids.subarray(from, from + count);
    return { count, ids, probabilities: Float64Array.from(teacher.logProbs.subarray(from, from + count), Math.exp) };
  }
  const { logits } = denseTeacher(input, loss);
  const logZ = logSumExpRow(logits, row * classes, classes);
  return Number.isNaN(logZ)
    ? { count: 0, ids: new Int32Array(0), probabilities: new Float64Array([Number.NaN]) }
    : rankRow(logits, row * classes, classes, k, logZ);
}

/** Loss of one pair from the difference of its scores, preferred first, and the margin of the teacher's probabilities. */
interface PairLoss {
  value(difference: number, margin: number): number;
  /** By the difference. */
  slope(difference: number, margin: number): number;
}

/** Mean loss over the pairs that the teacher orders; gradients by the listed scores. */
function pairMean(ranked: RankedRow, scores: Float64Array, pair: PairLoss, slopes: Float64Array): number {
  const { count, probabilities } = ranked;
  let pairs = 0;
  let total = 0;
  slopes.fill(0);
  for (let i = 0; i < count; i++) {
    for (let j = i + 1; j < count; j++) {
      const margin = probabilities[i] - probabilities[j];
      if (!(margin > TIE) || !(probabilities[j] > TIE)) continue;
      pairs++;
      total += pair.value(scores[i] - scores[j], margin);
      const slope = pair.slope(scores[i] - scores[j], margin);
      slopes[i] += slope;
      slopes[j] -= slope;
    }
  }
  if (pairs === 0) return 0;
  for (let i = 0; i < count; i++) slopes[i] /= pairs;
  return total / pairs;
}

interface RowTask {
  readonly student: Floats;
  readonly at: number;
  readonly classes: number;
  readonly gradient?: Floats;
  readonly scale: number;
}

function logisticRow(task: RowTask, ranked: RankedRow): number {
  const { student, at, gradient, scale } = task;
  const scores = Float64Array.from(ranked.ids, (id) => student[at + id]);
  const slopes = new Float64Array(ranked.count);
  const pair: PairLoss = {
    value: (difference) => softplus(-difference),
    slope: (difference) => -Math.exp(-softplus(difference)),
  };
  const loss = pairMean(ranked, scores, pair, slopes);
  if (gradient !== undefined) for (let i = 0; i < ranked.count; i++) gradient[at + ranked.ids[i]] += scale * slopes[i];
  return loss;
}

function hingeRow(task: RowTask, ranked: RankedRow, fixedMargin: number | undefined): number {
  const { student, at, classes, gradient, scale } = task;
  const logZ = logSumExpRow(student, at, classes);
  const scores = Float64Array.from(ranked.ids, (id) => Math.exp(student[at + id] - logZ));
  const slopes = new Float64Array(ranked.count);
  const pair: PairLoss = {
    value: (difference, margin) => Math.max(0, (fixedMargin ?? margin) - difference),
    slope: (difference, margin) => (difference < (fixedMargin ?? margin) ? -1 : 0),
  };
  const loss = pairMean(ranked, scores, pair, slopes);
  if (gradient !== undefined) {
    let mean = 0;
    for (let i = 0; i < ranked.count; i++) {
      mean += slopes[i] * scores[i];
      gradient[at + ranked.ids[i]] += scale * slopes[i] * scores[i];
    }
    if (mean !== 0)
      for (let j = 0; j < classes; j++) gradient[at + j] -= scale * mean * Math.exp(student[at + j] - logZ);
  }
  return loss + 0 * logZ;
}

function evaluatePairs(
  { name, k }: { name: string; k: number },
  input: LossInput,
  gradients: LossGradients | undefined,
  rowLoss: (task: RowTask, ranked: RankedRow) => number,
): LossOutput {
  const validRows = checkRows(input, name, false);
  if (input.teacher?.kind === 'top') checkTopTeacher(input, input.teacher);
  const { rows, classes, student } = input;
  const perRow = new Float64Array(rows);
  const scale = gradients?.scale ?? 1;
  for (let row = 0; row < rows; row++) {
    if (input.labels?.[row] === IGNORED) continue;
    const ranked = rankedRow(input, name, row, k);
    const task = { student, at: row * classes, classes, gradient: gradients?.logits, scale };
    perRow[row] = Number.isNaN(ranked.probabilities[0]) ? Number.NaN : rowLoss(task, ranked);
  }
  return rowOutput(input, name, perRow, validRows);
}

const listLength = (name: string, parameters: Parameters): number => {
  const k = numberOf(name, parameters, 'k', { from: 2 });
  if (!Number.isInteger(k)) throw new InputError(`loss ${name}: k must be a whole number; it is ${k}`);
  return k;
};

const reads = { teacher: 'any', labels: false, features: false } as const;

/** Mean over the pairs of the teacher's k likeliest classes that it orders strictly of softplus(-(s_i - s_j)). */
export const logisticRanking = declareLoss({
  name: 'logistic-ranking',
  summary: "logistic loss of every pair that the teacher's top k orders",
  parameters: { k: 64 },
  build(parameters): Omit<Loss, 'label'> {
    const plan = { name: 'logistic-ranking', k: listLength('logistic-ranking', parameters) };
    return {
      ...{ scope: 'row', reads },
      evaluate: (input, gradients) => evaluatePairs(plan, input, gradients, logisticRow),
    };
  },
});

/**
 * Mean over the same pairs of max(0, margin - (p_i - p_j)), p the student's probabilities; the margin is the teacher's
 * own difference, or a number.
 */
export const hingeRanking = declareLoss({
  name: 'hinge-ranking',
  summary: "hinge loss on the probabilities of every pair that the teacher's top k orders",
  parameters: { k: 64, margin: 'teacher' },
  build(parameters): Omit<Loss, 'label'> {
    const plan = { name: 'hinge-ranking', k: listLength('hinge-ranking', parameters) };
    const margin =
      parameters.margin === 'teacher' ? undefined : numberOf('hinge-ranking', parameters, 'margin', { from: 0 });
    return {
      ...{ scope: 'row', reads },
      evaluate: (input, gradients) =>
        evaluatePairs(plan, input, gradients, (task, ranked) => hingeRow(task, ranked, margin)),
    };
  },
});
