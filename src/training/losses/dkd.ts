import { logOddsAgainst, softplus } from '../../kernels/loss-rows-reference.js';
import { type Floats, IGNORED, type Loss } from '../types.js';
import { checkRows, denseTeacher } from './checks.js';
import { declareLoss, numberOf } from './declare.js';
import { rowOutput } from './row-loss.js';

interface DecoupledRow {
  readonly student: Floats;
  readonly teacher: Floats;
  readonly at: number;
  readonly classes: number;
  readonly label: number;
  readonly temperature: number;
  readonly gradient?: Floats;
  /** Factors of the two parts' gradients by s. */
  readonly targetScale: number;
  readonly otherScale: number;
}

/** A scaled copy of the row, so that all below reads logits / T. */
function scaled(values: Floats, at: number, classes: number, temperature: number): Float64Array {
  return Float64Array.from(values.subarray(at, at + classes), (value) => value / temperature);
}

/** TCKD and NCKD of one row, in nats, without the factor T^2. */
function decoupledRow(row: DecoupledRow): { target: number; other: number } {
  const { classes, label, gradient, at } = row;
  const s = scaled(row.student, at, classes, row.temperature);
  const t = scaled(row.teacher, at, classes, row.temperature);
  if (classes === 1) return { target: 0, other: 0 };
  // Log-odds against the label: p[y] = 1 / (1 + e^odds), and both logs keep their digits.
  const oddsS = logOddsAgainst(s, 0, classes, label);
  const oddsT = logOddsAgainst(t, 0, classes, label);
  const labelT = Math.exp(-softplus(oddsT));
  const restT = Math.exp(-softplus(-oddsT));
  const restS = Math.exp(-softplus(-oddsS));
  const target =
    (labelT === 0 ? 0 : labelT * (softplus(oddsS) - softplus(oddsT))) +
    (restT === 0 ? 0 : restT * (softplus(-oddsS) - softplus(-oddsT)));
  const othersS = oddsS + s[label];
  const othersT = oddsT + t[label];
  const labelGradient = restS - restT;
  let other = 0;
  for (let j = 0; j < classes; j++) {
    if (j === label) continue;
    const logS = s[j] - othersS;
    const logT = t[j] - othersT;
    const shareS = Math.exp(logS);
    const shareT = Math.exp(logT);
    if (shareT !== 0) other += shareT * (logT - logS);
    if (gradient !== undefined) {
      gradient[at + j] += row.targetScale * labelGradient * shareS + row.otherScale * (shareS - shareT);
    }
  }
  if (gradient !== undefined) gradient[at + label] -= row.targetScale * labelGradient;
  return { target, other };
}

/**
 * T^2 (alpha TCKD + beta NCKD): the divergence of the label's probability against all others, and that among the others
 * (Zhao et al. 2022). The label is left out of the second, not masked with a number.
 */
export const dkd = declareLoss({
  name: 'dkd',
  summary: 'decoupled distillation: alpha times the target part, beta times the part among the other classes, at T',
  parameters: { alpha: 1, beta: 8, T: 4 },
  build(parameters): Omit<Loss, 'label'> {
    const alpha = numberOf('dkd', parameters, 'alpha', { from: 0 });
    const beta = numberOf('dkd', parameters, 'beta', { from: 0 });
    const temperature = numberOf('dkd', parameters, 'T', { above: 0 });
    const square = temperature * temperature;
    return {
      scope: 'row',
      reads: { teacher: 'dense', labels: true, features: false },
      evaluate(input, gradients) {
        const validRows = checkRows(input, 'dkd', true);
        const teacher = denseTeacher(input, 'dkd').logits;
        const { rows, classes, student } = input;
        const perRow = new Float64Array(rows);
        const scale = (gradients?.scale ?? 1) * temperature;
        let targetSum = 0;
        let otherSum = 0;
        for (let row = 0; row < rows; row++) {
          const label = input.labels?.[row] ?? IGNORED;
          if (label === IGNORED) continue;
          const { target, other } = decoupledRow({
            ...{ student, teacher, at: row * classes, classes, label, temperature, gradient: gradients?.logits },
            targetScale: scale * alpha,
            otherScale: scale * beta,
          });
          perRow[row] = square * (alpha * target + beta * other);
          targetSum += square * target;
          otherSum += square * other;
        }
        const diagnostics = { tckd_nats: targetSum, nckd_nats: otherSum };
        return { ...rowOutput(input, 'dkd', perRow, validRows), diagnostics };
      },
    };
  },
});
