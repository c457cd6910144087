import { type PlackettLuceRequest, plackettLuceRows } from '../../src/kernels/plackett-luce.js';
import { rankedList } from '../../src/kernels/plackett-luce-reference.js';
import { symmetricEigen } from '../../src/linalg/symmetric-eigen.js';
import { createLoss } from '../../src/training/losses/index.js';
import { plackettLuceHessian, plackettLuceHessianVector } from '../../src/training/losses/pld-curvature.js';
import type { LossOutput } from '../../src/training/types.js';
import type { Json } from './harness.js';
import { float64, int32, keysOf, number, shapeOf, tensor } from './tensors.js';

interface Case {
  readonly shape: readonly number[];
  readonly rows: number;
  readonly classes: number;
  readonly student: Float64Array;
  readonly teacher: Float64Array;
  readonly labels: Int32Array;
  readonly temperature: number;
}

function lossOf(
  given: Case,
  name: string,
  parameters: Record<string, number | string>,
  changes: Partial<Case> = {},
): LossOutput & { gradient: Float64Array } {
  const { rows, classes, student, teacher, labels } = { ...given, ...changes };
  const gradient = new Float64Array(student.length);
  const output = createLoss(name, parameters).evaluate(
    { rows, classes, student, teacher: { kind: 'dense', logits: teacher }, labels },
    { logits: gradient },
  );
  return { ...output, gradient };
}

function requestOf({ rows, classes, student, teacher, labels, temperature }: Case): PlackettLuceRequest {
  return {
    rows,
    classes,
    student,
    teacher: { logits: teacher },
    labels,
    labelFirst: true,
    weights: 'teacher',
    temperature,
    listed: classes,
    tail: 'partial',
    missingLabel: 'error',
  };
}

/** The teacher with each label's logit above all others. */
function labelledTeacher({ rows, classes, teacher, labels }: Case): Float64Array {
  const lifted = Float64Array.from(teacher);
  for (let r = 0; r < rows; r++) {
    lifted[r * classes + labels[r]] = Math.max(...teacher.subarray(r * classes, (r + 1) * classes)) + 1;
  }
  return lifted;
}

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const dims = shapeOf(inputs.student_logits, 'student_logits');
  const classes = dims[dims.length - 1];
  const shape = dims.slice(0, -1);
  const student = float64(inputs.student_logits, 'student_logits');
  const rows = student.length / classes;
  const ignore = inputs.ignore_index === undefined ? -100 : number(inputs.ignore_index, 'ignore_index');
  const labels = int32(inputs.labels, 'labels').map((label) => (label === ignore ? -100 : label));
  const temperature = inputs.tau_teacher === undefined ? 1 : number(inputs.tau_teacher, 'tau_teacher');
  const teacher = float64(inputs.teacher_logits, 'teacher_logits');
  const given: Case = { shape, rows, classes, student, teacher, labels, temperature };
  const tau = { tau: temperature };
  const topK = inputs.top_k === undefined ? undefined : number(inputs.top_k, 'top_k');
  const partial = (form: string) => lossOf(given, 'pld-partial', { ...tau, K: topK ?? classes, form });
  const perRow = ({ perRow: values }: LossOutput): unknown => tensor(shape, values ?? []);
  const mean = ({ sum, validRows }: LossOutput): number => (validRows === 0 ? 0 : sum / validRows);
  const lists = () => Array.from({ length: rows }, (_, r) => rankedList(requestOf(given), r));
  const figures = (listed: number) => plackettLuceRows({ ...requestOf(given), listed }).figures;
  const vector = () => float64(inputs.hvp_vector, 'hvp_vector');
  const hessian = (row: number, t: number) => plackettLuceHessian({ ...requestOf(given), temperature: t }, row);
  const named: Record<string, () => unknown> = {
    order: () => tensor(dims, Int32Array.from(lists().flatMap(({ ids }) => [...ids])), 'int64'),
    weights: () =>
      tensor(
        dims,
        lists().flatMap(({ weights }) => [...weights]),
      ),
    per_row: () => perRow(lossOf(given, 'pld', tau)),
    mean: () => mean(lossOf(given, 'pld', tau)),
    first_term_weight: () => tensor(shape, figures(classes).firstWeight),
    grad_student: () => {
      if (topK === undefined) return tensor(dims, lossOf(given, 'pld', tau).gradient);
      const { gradient, validRows } = partial('partial');
      return tensor(
        dims,
        gradient.map((g) => g / Math.max(1, validRows)),
      );
    },
    valid_tokens: () => partial('partial').validRows,
    per_token_partial: () => perRow(partial('partial')),
    loss_partial: () => mean(partial('partial')),
    tail_weight: () => tensor(shape, figures(topK ?? classes).tailWeight),
    per_token_truncated_renormalised: () => perRow(partial('truncated')),
    per_token_full: () => perRow(partial('exact')),
    loss_full: () => mean(partial('exact')),
    cross_entropy: () => perRow(lossOf(given, 'ce', {})),
    pld_weights_1_0: () => perRow(lossOf(given, 'pld', { weights: 'label' })),
    listmle_label_first: () => perRow(lossOf(given, 'pld', { weights: 'uniform' })),
    listmle_teacher_order: () => perRow(lossOf(given, 'listmle', {})),
    one_hot_teacher_limit: () => perRow(lossOf(given, 'pld', { tau: 1e-3 }, { teacher: labelledTeacher(given) })),
  };
  const patterns: readonly (readonly [RegExp, (...groups: number[]) => unknown])[] = [
    [/^pld_tau([\d.]+)$/, (t) => perRow(lossOf(given, 'pld', { tau: t }))],
    [
      /^pld_tau([\d.]+)_after_shifting_student_by_(-?[\d.]+)_and_teacher_by_(-?[\d.]+)$/,
      (t, ofStudent, ofTeacher) => {
        const shifted = { student: student.map((x) => x + ofStudent), teacher: teacher.map((x) => x + ofTeacher) };
        return perRow(lossOf(given, 'pld', { tau: t }, shifted));
      },
    ],
    [/^hessian_row(\d+)_tau([\d.]+)$/, (row, t) => tensor([classes, classes], hessian(row, t))],
    [/^hessian_row(\d+)$/, (row) => tensor([classes, classes], hessian(row, temperature))],
    [
      /^hvp_row(\d+)_tau([\d.]+)$/,
      (row, t) => tensor([classes], plackettLuceHessianVector({ ...requestOf(given), temperature: t }, row, vector())),
    ],
    [
      /^hessian_eigenvalues_row(\d+)$/,
      (row) => tensor([classes], symmetricEigen(hessian(row, temperature), classes).values),
    ],
  ];
  const result: Record<string, unknown> = {};
  for (const key of keysOf(wanted)) {
    if (key in named) result[key] = named[key]();
    for (const [pattern, figure] of patterns) {
      const match = pattern.exec(key);
      if (match !== null) result[key] = figure(...match.slice(1).map(Number));
    }
  }
  return result;
}
