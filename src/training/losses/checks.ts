import { InputError } from '../../errors.js';
import { type DenseTeacher, type Floats, IGNORED, type LossInput, type TopTeacher } from '../types.js';

const placeOf = (input: LossInput, row: number): number => (input.firstRow ?? 0) + row;

/**
 * Rows that count: all, or those whose label is not IGNORED.
 *
 * @throws InputError with the row when a label is outside the classes
 */
export function checkRows(input: LossInput, loss: string, needsLabels: boolean): number {
  const { rows, classes, student, labels } = input;
  if (student.length < rows * classes) {
    throw new InputError(`loss ${loss}: ${rows} rows of ${classes} classes need more than ${student.length} logits`);
  }
  if (labels === undefined) {
    if (needsLabels) throw new InputError(`loss ${loss} needs labels`);
    return rows;
  }
  if (labels.length < rows) throw new InputError(`loss ${loss}: ${rows} rows of logits, but ${labels.length} labels`);
  let valid = 0;
  for (let row = 0; row < rows; row++) {
    const label = labels[row];
    if (label === IGNORED) continue;
    if (label < 0 || label >= classes) {
      throw new InputError(
        `row ${placeOf(input, row)}: label ${label} is outside the ${classes} classes (0 to ${classes - 1}; ${IGNORED} for a row that does not count)`,
      );
    }
    valid++;
  }
  return valid;
}

/** @throws InputError when there is no teacher with full logits of these rows and classes */
export function denseTeacher(input: LossInput, loss: string): DenseTeacher {
  const { teacher, rows, classes } = input;
  if (teacher === undefined) throw new InputError(`loss ${loss} needs a teacher`);
  if (teacher.kind !== 'dense') {
    throw new InputError(`loss ${loss} needs the teacher's full logits; this teacher holds its top ${teacher.k} alone`);
  }
  checkTeacherSize(teacher.logits.length, rows, classes, loss);
  return teacher;
}

function checkTeacherSize(length: number, rows: number, classes: number, loss: string): void {
  if (length === rows * classes) return;
  const has = rows > 0 && length % rows === 0 ? `${length / rows} classes` : `${length} logits for ${rows} rows`;
  throw new InputError(`loss ${loss}: the student has ${classes} classes and the teacher ${has}`);
}

/** @throws InputError with row and entry when ids are outside the classes or log-probabilities are not such */
export function checkTopTeacher(input: LossInput, teacher: TopTeacher): void {
  const { rows, classes } = input;
  const { k, ids, logProbs, leftover } = teacher;
  if (ids.length < rows * k || logProbs.length < rows * k || leftover.length < rows) {
    throw new InputError(`the teacher's top-${k} rows are fewer than the ${rows} rows of the student`);
  }
  for (let row = 0; row < rows; row++) {
    if (input.labels?.[row] === IGNORED) continue;
    const place = placeOf(input, row);
    for (let i = 0; i < k && ids[row * k + i] >= 0; i++) {
      const id = ids[row * k + i];
      if (id >= classes) {
        throw new InputError(`row ${place}: the teacher names class ${id}, and the student has ${classes}`);
      }
      const logProb = logProbs[row * k + i];
      // Half-precision files round a probability near 1 a little above it.
      if (!(logProb < 1e-3))
        throw new InputError(`row ${place}: the teacher's log-probability of class ${id} is ${logProb}`);
    }
    if (!(leftover[row] >= 0)) throw new InputError(`row ${place}: the teacher's leftover mass is ${leftover[row]}`);
  }
}

function blame(values: Floats, from: number, classes: number, whose: string, place: number): void {
  let masked = 0;
  for (let j = 0; j < classes; j++) {
    const value = values[from + j];
    if (Number.isNaN(value) || value === Number.POSITIVE_INFINITY) {
      throw new InputError(`${whose} logits, row ${place}, column ${j}: ${value}`);
    }
    if (value === Number.NEGATIVE_INFINITY) masked++;
  }
  if (masked === classes) throw new InputError(`${whose} logits, row ${place}: every class is -Infinity`);
}

/** Why a row's loss is no number. @throws InputError naming tensor, row and column */
export function refuseRow(input: LossInput, row: number, loss: string, value: number): never {
  const { classes, student, teacher, labels } = input;
  const place = placeOf(input, row);
  blame(student, row * classes, classes, 'student', place);
  if (teacher?.kind === 'dense') blame(teacher.logits, row * classes, classes, 'teacher', place);
  const label = labels?.[row] ?? IGNORED;
  if (label >= 0 && student[row * classes + label] === Number.NEGATIVE_INFINITY) {
    throw new InputError(`row ${place}: the label is class ${label}, whose student logit is -Infinity`);
  }
  for (let j = 0; j < classes; j++) {
    if (student[row * classes + j] !== Number.NEGATIVE_INFINITY) continue;
    const given = teacher?.kind === 'dense' ? teacher.logits[row * classes + j] : Number.NEGATIVE_INFINITY;
    if (given === Number.NEGATIVE_INFINITY) continue;
    throw new InputError(`row ${place}: the teacher gives class ${j} a logit of ${given}, and the student -Infinity`);
  }
  throw new InputError(`row ${place}: loss ${loss} is ${value}`);
}
