import { type LeftoverRule, sparseRows } from '../../kernels/loss-rows.js';
import type { Loss, LossGradients, LossInput, LossOutput, TopTeacher } from '../types.js';
import { checkRows, checkTopTeacher } from './checks.js';
import { choiceOf, declareLoss, numberOf } from './declare.js';
import { evaluateRows, rowOutput } from './row-loss.js';

function evaluateTop(
  teacher: TopTeacher,
  input: LossInput,
  { temperature, rule }: { temperature: number; rule: LeftoverRule },
  gradients?: LossGradients,
): LossOutput {
  const validRows = checkRows(input, 'kd', false);
  checkTopTeacher(input, teacher);
  const { rows, classes, student, labels } = input;
  const { k, ids, logProbs, leftover } = teacher;
  const losses = new Float64Array(rows);
  const factor = temperature * temperature;
  const gradient = gradients?.logits;
  const scale = (gradients?.scale ?? 1) * factor;
  sparseRows({
    ...{ rows, classes, student, k, ids, logProbs, leftover, temperature, rule, labels, losses, gradient, scale },
  });
  for (let row = 0; row < rows; row++) losses[row] *= factor;
  return rowOutput(input, 'kd', losses, validRows);
}

/**
 * T^2 KL(p_t || p_s) of the softmaxes of logits / T (Hinton et al. 2015). A teacher of top-k rows: its log-probabilities
 * raised to 1/T, and by `missing` either renormalised on the list (`zero`) or with all other classes as one category of
 * both sides (`symmetric-uniform`), as DistillKit defines them.
 */
export const kd = declareLoss({
  name: 'kd',
  summary: "T^2 times the forward KL divergence from the teacher's softmax to the student's",
  parameters: { T: 1, missing: 'symmetric-uniform' },
  build(parameters): Omit<Loss, 'label'> {
    const temperature = numberOf('kd', parameters, 'T', { above: 0 });
    const rule = choiceOf('kd', parameters, 'missing', ['zero', 'symmetric-uniform']);
    const operation = { kind: 'forward-kl', temperature } as const;
    const dense = { name: 'kd', operation, factor: temperature * temperature, labels: false, teacher: true };
    return {
      scope: 'row',
      reads: { teacher: 'any', labels: false, features: false },
      evaluate: (input, gradients) =>
        input.teacher?.kind === 'top'
          ? evaluateTop(input.teacher, input, { temperature, rule }, gradients)
          : evaluateRows(dense, input, gradients),
    };
  },
});
