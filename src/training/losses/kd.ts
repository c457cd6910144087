import { type LeftoverRule, sparseRows } from '../../kernels/loss-rows.js';
import type { Loss, LossGradients, LossInput, LossOutput, TopTeacher } from '../types.js';
import { checkRows, checkTopTeacher } from './checks.js';
import { choiceOf, declareLoss, numberOf } from './declare.js';
import { composeRows, evaluateRows, rowOutput } from './row-loss.js';

function evaluateTop(
  teacher: TopTeacher,
  input: LossInput,
  { temperature, rule, factor }: { temperature: number; rule: LeftoverRule; factor: number },
  gradients?: LossGradients,
): LossOutput {
  const validRows = checkRows(input, 'kd', false);
  checkTopTeacher(input, teacher);
  const { rows, classes, student, labels } = input;
  const { k, ids, logProbs, leftover } = teacher;
  const losses = new Float64Array(rows);
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
 *
 * By `norm` the mean of it over the rows (`rows`), or as MC-SMoE recovers merged experts (Li et al. 2024, released code): the
 * divergence without T^2, summed over the positions of a sequence, its mean over the sequences (`sequences`).
 */
export const kd = declareLoss({
  name: 'kd',
  summary: "T^2 times the forward KL divergence from the teacher's softmax to the student's",
  parameters: { T: 1, missing: 'symmetric-uniform', norm: 'rows' },
  build(parameters): Omit<Loss, 'label'> {
    const temperature = numberOf('kd', parameters, 'T', { above: 0 });
    const rule = choiceOf('kd', parameters, 'missing', ['zero', 'symmetric-uniform']);
    const norm = choiceOf('kd', parameters, 'norm', ['rows', 'sequences']);
    const operation = { kind: 'forward-kl', temperature } as const;
    // The mean over the rows follows: times the rows of a sequence it is the mean over the sequences.
    const factorOf = ({ rowsPerSequence = 1 }: LossInput): number =>
      norm === 'rows' ? temperature * temperature : rowsPerSequence;
    return {
      scope: 'row',
      reads: { teacher: 'any', labels: false, features: false },
      evaluate(input, gradients) {
        const factor = factorOf(input);
        return input.teacher?.kind === 'top'
          ? evaluateTop(input.teacher, input, { temperature, rule, factor }, gradients)
          : evaluateRows({ name: 'kd', operation, factor, labels: false, teacher: true }, input, gradients);
      },
      ...(norm === 'rows' && {
        compose: (g, inputs) => composeRows(g, { operation, factor: temperature * temperature }, inputs),
      }),
    };
  },
});
