import { describe, expect, test } from 'vitest';
import { createRandom } from '../../../src/random.js';
import { createLoss, LOSSES } from '../../../src/training/losses/index.js';
import { topTeacher } from '../../../src/training/losses/top-rows.js';
import { IGNORED, type Loss, type LossInput, type TeacherRows } from '../../../src/training/types.js';

const ROWS = 5;
const CLASSES = 7;
const WIDTH = 4;
const STEP = 1e-5;

function normals(count: number, seed: number, spread: number): Float64Array {
  const random = createRandom(seed);
  return Float64Array.from({ length: count }, () => spread * random.normal());
}

const student = normals(ROWS * CLASSES, 1, 2);
const teacherLogits = normals(ROWS * CLASSES, 2, 2);
const features = normals(ROWS * WIDTH, 3, 1);
const labels = Int32Array.of(3, 0, IGNORED, 6, 2);

/** The three likeliest classes of each row with their log-probabilities. */
function topThree(): TeacherRows {
  const ids = new Int32Array(ROWS * 3);
  const logProbs = new Float64Array(ROWS * 3);
  for (let row = 0; row < ROWS; row++) {
    const logits = teacherLogits.subarray(row * CLASSES, (row + 1) * CLASSES);
    const logZ = Math.log(logits.reduce((sum, value) => sum + Math.exp(value), 0));
    const order = Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a]);
    for (let i = 0; i < 3; i++) {
      ids[row * 3 + i] = order[i];
      logProbs[row * 3 + i] = logits[order[i]] - logZ;
    }
  }
  return topTeacher(ids, logProbs, 3);
}

const TEACHERS: Readonly<Record<string, TeacherRows>> = {
  dense: { kind: 'dense', logits: teacherLogits },
  'top-k': topThree(),
};

function inputOf(teacher: TeacherRows): LossInput {
  const teacherFeatures = normals(ROWS * 6, 4, 1);
  return {
    ...{ rows: ROWS, classes: CLASSES, student, teacher, labels },
    ...{ studentFeatures: features, studentWidth: WIDTH, teacherFeatures, teacherWidth: 6 },
  };
}

function numericGradient(values: Float64Array, evaluateAt: (changed: Float64Array) => number): Float64Array {
  return values.map((value, i) => {
    const changed = values.slice();
    changed[i] = value + STEP;
    const above = evaluateAt(changed);
    changed[i] = value - STEP;
    return (above - evaluateAt(changed)) / (2 * STEP);
  });
}

function expectClose(actual: Float64Array, expected: Float64Array): void {
  const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  actual.forEach((value, i) => {
    expect(Math.abs(value - expected[i])).toBeLessThan(1e-6 * Math.max(largest, 1e-2));
  });
}

function checkGradients(loss: Loss, teacher: TeacherRows): void {
  const input = inputOf(teacher);
  const logits = new Float64Array(student.length).fill(0.25);
  const featureGradient = new Float64Array(features.length);
  const { sum, validRows } = loss.evaluate(input, { logits, features: featureGradient, scale: 2 });
  expect(validRows).toBe(4);
  expect(Number.isFinite(sum)).toBe(true);
  const byLogits = numericGradient(student, (changed) => 2 * loss.evaluate({ ...input, student: changed }).sum);
  expectClose(
    logits.map((value) => value - 0.25),
    byLogits,
  );
  const byFeatures = numericGradient(
    features,
    (changed) => 2 * loss.evaluate({ ...input, studentFeatures: changed }).sum,
  );
  expectClose(featureGradient, byFeatures);
  // Rows that are left out have no gradient, and a constant added to a row of logits changes nothing.
  expect(logits.subarray(2 * CLASSES, 3 * CLASSES).every((value) => value === 0.25)).toBe(true);
  const shifted = student.map((value, i) => value + 3 * Math.floor(i / CLASSES) - 5);
  expect(loss.evaluate({ ...input, student: shifted }).sum).toBeCloseTo(sum, 9);
}

const OTHER_PARAMETERS: Readonly<Record<string, Readonly<Record<string, number | string>>[]>> = {
  'label-smoothing': [{ eps: 0 }, { eps: 1 }],
  kd: [{ T: 3 }, { T: 0.5, missing: 'zero' }, { T: 2, norm: 'sequences' }],
  dkd: [{ alpha: 0, T: 1 }],
  dist: [{ tau: 3, scale: 'tau2' }, { gamma: 0 }],
  rkd: [{ angle: 0 }, { distance: 0 }],
  jsd: [{ beta: 0 }, { beta: 0.1, T: 2 }, { beta: 1 }],
  'reverse-kl': [{ T: 2 }],
  tvd: [{ T: 2 }],
  'comp-sum': [{ tau: 0 }, { tau: 0.5 }, { tau: 1.7 }, { tau: 2 }, { tau: 3 }],
  'logistic-ranking': [{ k: 4 }],
  'hinge-ranking': [{ k: 4, margin: 0.3 }],
  uld: [{ T: 2 }],
};

// Pairs of rows have a test of their own.
const NAMES = LOSSES.map(({ name }) => name).filter((name) => name !== 'smooth-adversarial');

describe.each(NAMES)('loss %s', (name) => {
  const variants = [{}, ...(OTHER_PARAMETERS[name] ?? [])];
  test.each(variants.map((parameters) => createLoss(name, parameters)))('$label: gradient', (loss) => {
    checkGradients(loss, TEACHERS.dense);
    if (loss.reads.teacher === 'any') checkGradients(loss, TEACHERS['top-k']);
  });

  test('a batch that counts nowhere gives 0 and leaves the gradient alone', () => {
    const gradient = new Float64Array(student.length);
    const ignored = new Int32Array(ROWS).fill(IGNORED);
    const loss = createLoss(name);
    const output = loss.evaluate({ ...inputOf(TEACHERS.dense), labels: ignored }, { logits: gradient });
    expect(output.sum).toBe(0);
    expect(output.validRows).toBe(0);
    expect(gradient.every((value) => value === 0)).toBe(true);
  });

  test('NaN is refused with row and column', () => {
    const loss = createLoss(name);
    if (loss.reads.features) return;
    const broken = student.slice();
    broken[CLASSES + 4] = Number.NaN;
    const input = { ...inputOf(TEACHERS.dense), student: broken, firstRow: 10 };
    expect(() => loss.evaluate(input, { logits: new Float64Array(student.length) })).toThrow(/row 11, column 4.*NaN/);
  });
});
