import { InputError } from '../../errors.js';
import { logSumExpRow } from '../../kernels/loss-rows-reference.js';
import { type Floats, IGNORED, type Loss, type LossInput } from '../types.js';
import { checkRows } from './checks.js';
import { declareLoss, numberOf } from './declare.js';
import { rowOutput } from './row-loss.js';

/** Softmax at `temperature` of one row; NaN throughout where the row is no distribution. */
function softmaxRow(logits: Floats, at: number, classes: number, temperature: number): Float64Array {
  const logZ = logSumExpRow(logits, at, classes, 1 / temperature);
  return Float64Array.from(logits.subarray(at, at + classes), (value) => Math.exp(value / temperature - logZ));
}

/** Teacher logits whose number of classes may differ from the student's. */
function teacherOf({ teacher, rows }: LossInput): { logits: Floats; classes: number } {
  if (teacher?.kind !== 'dense') throw new InputError("loss uld needs the teacher's full logits");
  if (rows > 0 && teacher.logits.length % rows !== 0) {
    throw new InputError(`loss uld: ${teacher.logits.length} teacher logits are no ${rows} rows`);
  }
  return { logits: teacher.logits, classes: rows === 0 ? 0 : teacher.logits.length / rows };
}

/**
 * Sum of |difference| of the two probability vectors, each sorted and the shorter one padded with zeros (ULD, Boizard et
 * al. 2024): compares vocabularies that have no common ids. Ties by ascending class.
 */
export const uld = declareLoss({
  name: 'uld',
  summary: 'L1 distance of sorted probability vectors, for vocabularies that differ',
  parameters: { T: 1 },
  build(parameters): Omit<Loss, 'label'> {
    const temperature = numberOf('uld', parameters, 'T', { above: 0 });
    return {
      scope: 'row',
      reads: { teacher: 'dense', labels: false, features: false },
      evaluate(input, gradients) {
        const validRows = checkRows(input, 'uld', false);
        const teacher = teacherOf(input);
        const { rows, classes, student } = input;
        const perRow = new Float64Array(rows);
        const scale = (gradients?.scale ?? 1) / temperature;
        for (let row = 0; row < rows; row++) {
          if (input.labels?.[row] === IGNORED) continue;
          const own = softmaxRow(student, row * classes, classes, temperature);
          const given = softmaxRow(teacher.logits, row * teacher.classes, teacher.classes, temperature);
          given.sort().reverse();
          const order = Int32Array.from(own, (_, j) => j).sort((a, b) => own[b] - own[a] || a - b);
          const signs = new Float64Array(classes);
          let mean = 0;
          order.forEach((id, rank) => {
            const difference = own[id] - (given[rank] ?? 0);
            perRow[row] += Math.abs(difference);
            signs[id] = Math.sign(difference);
            mean += own[id] * signs[id];
          });
          for (let rank = classes; rank < given.length; rank++) perRow[row] += given[rank];
          if (gradients === undefined) continue;
          for (let j = 0; j < classes; j++) gradients.logits[row * classes + j] += scale * own[j] * (signs[j] - mean);
        }
        return rowOutput(input, 'uld', perRow, validRows);
      },
    };
  },
});
