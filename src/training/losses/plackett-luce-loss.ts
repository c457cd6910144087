import { InputError } from '../../errors.js';
import { type ListTail, type ListWeights, type MissingLabel, plackettLuceRows } from '../../kernels/plackett-luce.js';
import { IGNORED, type Loss, type LossGradients, type LossInput, type LossOutput } from '../types.js';
import { composePld } from './pld-graph.js';

/** What a loss of a ranked list fixes beforehand. */
export interface ListLossSettings {
  readonly name: string;
  readonly labelFirst: boolean;
  readonly weights: ListWeights;
  readonly temperature: number;
  /** Teacher's classes in the list; Infinity for all. */
  readonly listed: number;
  readonly tail: ListTail;
  readonly missingLabel: MissingLabel;
  readonly teacher: 'dense' | 'any';
  /** The sum over ranks is divided by the number of classes. */
  readonly averagePositions?: boolean;
}

/** Below this weight of the first rank a row's label is taken to be silenced by its teacher. */
const SILENCED = 0.01;

function evaluate(settings: ListLossSettings, input: LossInput, gradients?: LossGradients): LossOutput {
  const { teacher, labels, rows, classes, student, firstRow } = input;
  if (teacher === undefined) throw new InputError(`loss ${settings.name} needs a teacher`);
  if (settings.teacher === 'dense' && teacher.kind !== 'dense') {
    throw new InputError(
      `loss ${settings.name} needs the teacher's logits of all classes; use pld-partial with stored lists`,
    );
  }
  const factor = settings.averagePositions === true ? 1 / Math.max(1, classes) : 1;
  const { validRows, figures } = plackettLuceRows({
    ...settings,
    rows,
    classes,
    student,
    teacher,
    ...(labels && { labels }),
    ...(firstRow !== undefined && { firstRow }),
    ...(gradients && { gradient: gradients.logits, scale: (gradients.scale ?? 1) * factor }),
  });
  const perRow = figures.loss;
  const diagnostics = { w1: 0, w1_silenced: 0, label_rank: 0, tail_weight: 0, student_tail: 0, weight_entropy_nats: 0 };
  let agreement = 0;
  let sum = 0;
  for (let r = 0; r < rows; r++) {
    if (labels?.[r] === IGNORED) continue;
    perRow[r] *= factor;
    sum += perRow[r];
    diagnostics.w1 += figures.firstWeight[r];
    diagnostics.w1_silenced += figures.firstWeight[r] < SILENCED ? 1 : 0;
    diagnostics.label_rank += labels === undefined ? 0 : figures.labelRank[r];
    diagnostics.tail_weight += figures.tailWeight[r];
    diagnostics.student_tail += figures.studentTail[r];
    diagnostics.weight_entropy_nats += figures.weightEntropy[r];
    agreement += figures.agreement[r];
  }
  return { sum, validRows, perRow, diagnostics: { ...diagnostics, top1_agreement: agreement } };
}

/**
 * A loss of ranked lists from its settings. Diagnostics are sums over rows of: w1, the weight of the first rank;
 * w1_silenced, whether it is below 0.01; label_rank, the classes that the teacher puts before the label; tail_weight and
 * student_tail, both models' probability outside the list; weight_entropy_nats; top1_agreement.
 */
export function listLoss(settings: ListLossSettings): Omit<Loss, 'label'> {
  const { labelFirst, weights, temperature, listed, tail } = settings;
  // The graph knows lists that the label leads, whose tail is in every denominator.
  const inGraph = labelFirst && weights !== 'position' && (tail === 'partial' || listed === Number.POSITIVE_INFINITY);
  return {
    scope: 'row',
    reads: { teacher: settings.teacher, labels: settings.labelFirst, features: false },
    evaluate: (input, gradients) => evaluate(settings, input, gradients),
    ...(inGraph && { compose: (g, inputs) => composePld(g, inputs, { listed, weights, temperature }) }),
  };
}
