/** Loss of one student head against its teacher, and what a trainer needs. */
export interface HeadDistillation {
  /** Mean over samples of `tau^2 KL(softmax(t / tau) || softmax(s / tau))`, in nats. */
  readonly lossNats: number;
  /** Derivative of that loss with respect to the student's logits, `[samples, classes]`. */
  readonly gradient: Float64Array;
}

/** Logs of softmax(logits / tau) of one row, into `target`. */
function logSoftmax(logits: ArrayLike<number>, at: number, classes: number, tau: number, target: Float64Array): void {
  let max = Number.NEGATIVE_INFINITY;
  for (let k = 0; k < classes; k++) max = Math.max(max, logits[at + k] / tau);
  let total = 0;
  for (let k = 0; k < classes; k++) total += Math.exp(logits[at + k] / tau - max);
  const shift = max + Math.log(total);
  for (let k = 0; k < classes; k++) target[k] = logits[at + k] / tau - shift;
}

/**
 * Distillation of one teacher into one head of a student: `tau^2 KL(softmax(t/tau) || softmax(s/tau))` averaged over
 * samples. The factor tau^2 keeps the gradient, `tau (softmax(s/tau) - softmax(t/tau)) / samples`, of one size for all
 * temperatures (Hinton et al. 2015).
 * @param teacher, @param student logits `[samples, classes]`
 */
export function distilHead(
  teacher: ArrayLike<number>,
  student: ArrayLike<number>,
  samples: number,
  classes: number,
  tau = 1,
): HeadDistillation {
  const gradient = new Float64Array(samples * classes);
  const logP = new Float64Array(classes);
  const logQ = new Float64Array(classes);
  let loss = 0;
  for (let r = 0; r < samples; r++) {
    logSoftmax(teacher, r * classes, classes, tau, logP);
    logSoftmax(student, r * classes, classes, tau, logQ);
    for (let k = 0; k < classes; k++) {
      const p = Math.exp(logP[k]);
      if (p > 0) loss += p * (logP[k] - logQ[k]);
      gradient[r * classes + k] = (tau * (Math.exp(logQ[k]) - p)) / samples;
    }
  }
  return { lossNats: (tau * tau * loss) / samples, gradient };
}

/** The losses of all heads. */
export interface MultiHeadDistillation {
  readonly heads: readonly HeadDistillation[];
  /** `L = sum_i`, as it is trained. Gradients of the heads are those of this sum. */
  readonly totalNats: number;
  readonly meanNats: number;
}

/**
 * Loss by which a concatenation of M teachers is distilled into one network: the student has M linear heads, one a
 * teacher, over shared features; the heads are dropped after training and the features are probed. Pure: a trainer feeds
 * `gradient` of each head back through its graph.
 * @param teachers, @param students for every head logits `[samples, classes]`
 */
export function distilHeads(
  teachers: readonly ArrayLike<number>[],
  students: readonly ArrayLike<number>[],
  samples: number,
  classes: number,
  tau = 1,
): MultiHeadDistillation {
  if (teachers.length !== students.length) {
    throw new RangeError(`${students.length} student heads for ${teachers.length} teachers`);
  }
  const heads = teachers.map((teacher, i) => distilHead(teacher, students[i], samples, classes, tau));
  const totalNats = heads.reduce((sum, { lossNats }) => sum + lossNats, 0);
  return { heads, totalNats, meanNats: totalNats / heads.length };
}
