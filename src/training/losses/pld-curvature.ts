import type { PlackettLuceRequest } from '../../kernels/plackett-luce.js';
import { rankedList, suffixLogSums } from '../../kernels/plackett-luce-reference.js';

const NEGATIVE = Number.NEGATIVE_INFINITY;

interface RankedRow {
  readonly ids: Int32Array;
  readonly weights: Float64Array;
  /** Student's logits by rank. */
  readonly scores: Float64Array;
  /** A_k by rank. */
  readonly sums: Float64Array;
}

function rankedRow(request: PlackettLuceRequest, r: number): RankedRow {
  if (request.listed < request.classes) throw new RangeError('curvature is that of a list of all classes');
  const { ids, weights } = rankedList(request, r);
  const scores = Float64Array.from(ids, (id) => request.student[r * request.classes + id]);
  return { ids, weights, scores, sums: suffixLogSums(scores, NEGATIVE) };
}

function productWith({ ids, weights, scores, sums }: RankedRow, vector: Float64Array): Float64Array {
  const classes = ids.length;
  // p^k: the student's softmax over the ranks from k on. Its mean of v, from the last rank upwards.
  const means = new Float64Array(classes + 1);
  for (let k = classes - 1; k >= 0; k--) {
    if (sums[k] === NEGATIVE) continue;
    means[k] = Math.exp(scores[k] - sums[k]) * vector[ids[k]] + Math.exp(sums[k + 1] - sums[k]) * means[k + 1];
  }
  // Sums over k <= m of w_k and of w_k mean_k, both times exp(A_m - A_k), which is at most 1.
  const product = new Float64Array(classes);
  let plain = 0;
  let averaged = 0;
  for (let m = 0; m < classes && sums[m] > NEGATIVE; m++) {
    const drop = m === 0 ? 0 : Math.exp(sums[m] - sums[m - 1]);
    plain = plain * drop + weights[m];
    averaged = averaged * drop + weights[m] * means[m];
    product[ids[m]] = Math.exp(scores[m] - sums[m]) * (vector[ids[m]] * plain - averaged);
  }
  return product;
}

/**
 * H v of one row, H = sum_k w_k (diag(p^k) - p^k p^kT), p^k the student's softmax over the ranks from k on: the second
 * derivative of the list loss in the student's logits. O(C log C). H is positive semidefinite and H 1 = 0.
 * @param vector [classes], in the order of classes
 * @returns [classes]
 */
export function plackettLuceHessianVector(
  request: PlackettLuceRequest,
  row: number,
  vector: Float64Array,
): Float64Array {
  return productWith(rankedRow(request, row), vector);
}

/** H of one row, [classes, classes]. */
export function plackettLuceHessian(request: PlackettLuceRequest, row: number): Float64Array {
  const { classes } = request;
  const ranked = rankedRow(request, row);
  const hessian = new Float64Array(classes * classes);
  for (let j = 0; j < classes; j++) {
    const unit = new Float64Array(classes);
    unit[j] = 1;
    hessian.set(productWith(ranked, unit), j * classes);
  }
  return hessian;
}
