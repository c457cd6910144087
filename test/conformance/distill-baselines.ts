import { lossRows, sparseRows } from '../../src/kernels/loss-rows.js';
import { createLoss } from '../../src/training/losses/index.js';
import { topTeacher } from '../../src/training/losses/top-rows.js';
import { IGNORED } from '../../src/training/types.js';
import type { Json } from './harness.js';
import { float64, int32, keysOf, shapeOf, tensor } from './tensors.js';

type Inputs = { [key: string]: Json };
type Named = readonly [name: string, parameters: Readonly<Record<string, number | string>>];

/** The loss and its parameters that a key of the golden files stands for. */
function namedLoss(key: string): Named {
  const [, alpha, beta, temperature] = /^dkd_a([\d.]+)_b([\d.]+)_T([\d.]+)$/.exec(key) ?? [];
  if (alpha !== undefined) return ['dkd', { alpha: Number(alpha), beta: Number(beta), T: Number(temperature) }];
  const part = /^(tckd|nckd)_T([\d.]+)$/.exec(key);
  if (part !== null) {
    const target = part[1] === 'tckd' ? 1 : 0;
    return ['dkd', { alpha: target, beta: 1 - target, T: Number(part[2]) }];
  }
  const kd = /^kd_T([\d.]+)$/.exec(key);
  if (kd !== null) return ['kd', { T: Number(kd[1]) }];
  const distPlain = /^dist_b([\d.]+)_g([\d.]+)_tau([\d.]+)$/.exec(key);
  if (distPlain !== null) {
    const [beta, gamma, tau] = distPlain.slice(1).map(Number);
    return ['dist', { beta, gamma, tau }];
  }
  const distScaled = /^dist_tau([\d.]+)_scaled_by_tau2$/.exec(key);
  if (distScaled !== null) return ['dist', { tau: Number(distScaled[1]), scale: 'tau2' }];
  if (key === 'dist_inter_only') return ['dist', { gamma: 0 }];
  if (key === 'dist_intra_only') return ['dist', { beta: 0 }];
  const jsd = /^gjsd_beta([\d.]+)$/.exec(key);
  if (jsd !== null) return ['jsd', { beta: Number(jsd[1]) }];
  const smoothing = /^label_smoothing_([\d.]+)$/.exec(key);
  if (smoothing !== null) return ['label-smoothing', { eps: Number(smoothing[1]) }];
  const rkd = /^rkd_d([\d.]+)_a([\d.]+)$/.exec(key);
  if (rkd !== null) return ['rkd', { distance: Number(rkd[1]), angle: Number(rkd[2]) }];
  const plain: Readonly<Record<string, Named>> = {
    cross_entropy: ['ce', {}],
    listmle_sum: ['listmle', {}],
    tvd: ['tvd', {}],
    reverse_kl: ['reverse-kl', {}],
    uld: ['uld', {}],
    rkd_distance: ['rkd', { distance: 1, angle: 0 }],
    rkd_angle: ['rkd', { distance: 0, angle: 1 }],
  };
  if (!(key in plain)) throw new TypeError(`no loss is known for ${key}`);
  return plain[key];
}

function dense(inputs: Inputs, wanted: Json): unknown {
  const [rows, classes] = shapeOf(inputs.student_logits, 'student_logits');
  const [, studentWidth] = shapeOf(inputs.student_features, 'student_features');
  const [, teacherWidth] = shapeOf(inputs.teacher_features, 'teacher_features');
  const input = {
    rows,
    classes,
    student: float64(inputs.student_logits, 'student_logits'),
    teacher: { kind: 'dense', logits: float64(inputs.teacher_logits, 'teacher_logits') } as const,
    labels: int32(inputs.labels, 'labels'),
    studentFeatures: float64(inputs.student_features, 'student_features'),
    studentWidth,
    teacherFeatures: float64(inputs.teacher_features, 'teacher_features'),
    teacherWidth,
  };
  return Object.fromEntries(
    keysOf(wanted).map((key) => {
      const loss = createLoss(...namedLoss(key));
      const logits = new Float64Array(rows * classes);
      const features = new Float64Array(rows * studentWidth);
      const scale = 1 / rows;
      const { sum, validRows } = loss.evaluate(input, { logits, features, scale });
      return [
        key,
        {
          loss: sum / validRows,
          grad: tensor([rows, classes], logits),
          grad_features: tensor([rows, studentWidth], features),
        },
      ];
    }),
  );
}

function sparse(inputs: Inputs, wanted: Json): unknown {
  const [rows, classes] = shapeOf(inputs.student_logits, 'student_logits');
  const [, k] = shapeOf(inputs.teacher_ids, 'teacher_ids');
  const student = float64(inputs.student_logits, 'student_logits');
  const teacher = float64(inputs.teacher_logits, 'teacher_logits');
  const listed = topTeacher(int32(inputs.teacher_ids, 'teacher_ids'), float64(inputs.teacher_logprobs, 'lp'), k);
  const mask = int32(inputs.mask, 'mask');
  const labels = Int32Array.from(mask, (kept) => (kept === 0 ? IGNORED : 0));
  return Object.fromEntries(
    keysOf(wanted).map((key) => {
      const match = /^(zero|symmetric_uniform|dense)_T([\d.]+)$/.exec(key);
      if (match === null) throw new TypeError(`${key} is no sparse loss`);
      const temperature = Number(match[2]);
      const evaluate = (counted?: Int32Array): Float64Array => {
        const losses = new Float64Array(rows);
        const shared = { rows, classes, student, losses, labels: counted };
        if (match[1] === 'dense') lossRows({ kind: 'forward-kl', temperature }, { ...shared, teacher });
        else {
          const rule = match[1] === 'zero' ? 'zero' : 'symmetric-uniform';
          sparseRows({ ...shared, ...listed, temperature, rule });
        }
        return losses;
      };
      const sum = evaluate(labels).reduce((total, value) => total + value, 0);
      return [key, { per_token: tensor([rows], evaluate()), sum }];
    }),
  );
}

export function run(inputs: Inputs, wanted: Json): unknown {
  return 'teacher_ids' in inputs ? sparse(inputs, wanted) : dense(inputs, wanted);
}
