import type { DenseTeacher, Floats, Loss, LossGradients, LossInput, LossOutput } from '../types.js';

/** Columns from*classes..(from+1)*classes-1 of rows [rows, heads * classes]. */
function columns(source: Floats, rows: number, heads: number, classes: number, head: number): Floats {
  const part = source instanceof Float32Array ? new Float32Array(rows * classes) : new Float64Array(rows * classes);
  for (let r = 0; r < rows; r++) {
    const from = (r * heads + head) * classes;
    part.set(source.subarray(from, from + classes), r * classes);
  }
  return part;
}

/**
 * A loss for a student with several heads over shared features, each with a teacher of its own: the sum of `inner` over the
 * heads. Logits of student and teachers lie side by side, [rows, heads * classes]; labels are the same for all heads. With
 * `kd` it is the loss by which a concatenation of representations is distilled (Zhang & Bottou 2023).
 * @throws RangeError when a batch's columns are no multiple of the heads
 */
export function headsLoss(inner: Loss, heads: number): Loss {
  return {
    label: `${inner.label} by head`,
    scope: inner.scope,
    reads: { ...inner.reads, teacher: inner.reads.teacher === 'none' ? 'none' : 'dense', features: false },
    evaluate(input: LossInput, gradients?: LossGradients): LossOutput {
      const { rows, student, teacher } = input;
      const classes = input.classes / heads;
      if (!Number.isInteger(classes)) throw new RangeError(`${input.classes} columns are no ${heads} heads`);
      let sum = 0;
      let validRows = 0;
      const perRow = new Float64Array(rows);
      const diagnostics: Record<string, number> = {};
      for (let head = 0; head < heads; head++) {
        const own: LossInput = {
          rows,
          classes,
          student: columns(student, rows, heads, classes, head),
          ...(input.labels && { labels: input.labels }),
          ...(input.firstRow !== undefined && { firstRow: input.firstRow }),
          ...(teacher?.kind === 'dense' && {
            teacher: {
              kind: 'dense',
              logits: columns(teacher.logits, rows, heads, classes, head),
            } satisfies DenseTeacher,
          }),
        };
        const slope =
          gradients &&
          (student instanceof Float32Array ? new Float32Array(rows * classes) : new Float64Array(rows * classes));
        const found = inner.evaluate(
          own,
          slope && { logits: slope, ...(gradients?.scale !== undefined && { scale: gradients.scale }) },
        );
        sum += found.sum;
        validRows = found.validRows;
        diagnostics[`head${head}`] = found.sum;
        found.perRow?.forEach((value, r) => {
          perRow[r] += value;
        });
        if (!slope || !gradients) continue;
        for (let r = 0; r < rows; r++) {
          const into = (r * heads + head) * classes;
          for (let c = 0; c < classes; c++) gradients.logits[into + c] += slope[r * classes + c];
        }
      }
      return { sum, validRows, perRow, diagnostics };
    },
  };
}
