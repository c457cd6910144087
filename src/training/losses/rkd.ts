import { InputError } from '../../errors.js';
import { multiply } from '../../kernels/gemm.js';
import { type Floats, IGNORED, type Loss, type LossGradients, type LossInput, type LossOutput } from '../types.js';
import { checkRows } from './checks.js';
import { declareLoss, numberOf } from './declare.js';

/** Floor of squared distances, as the reference implementation clamps them. */
const SQUARE_FLOOR = 1e-12;
/** Floor of the lengths that differences are divided by. */
const LENGTH_FLOOR = 1e-12;

const huber = (x: number): number => (Math.abs(x) < 1 ? 0.5 * x * x : Math.abs(x) - 0.5);
const huberSlope = (x: number): number => Math.max(-1, Math.min(1, x));

/** Points [n, width]. */
interface Cloud {
  readonly points: Float64Array;
  readonly width: number;
}

interface Distances {
  /** [n, n], zero diagonal. */
  readonly values: Float64Array;
  /** Mean of those that are positive. */
  readonly mean: number;
}

function pairwise({ points, width }: Cloud, n: number): Distances {
  const values = new Float64Array(n * n);
  let sum = 0;
  for (let i = 0; i < n; i++) {
    for (let j = i + 1; j < n; j++) {
      let square = 0;
      for (let d = 0; d < width; d++) {
        const difference = points[i * width + d] - points[j * width + d];
        square += difference * difference;
      }
      const distance = Math.sqrt(Math.max(square, SQUARE_FLOOR));
      values[i * n + j] = distance;
      values[j * n + i] = distance;
      sum += 2 * distance;
    }
  }
  return { values, mean: n > 1 ? sum / (n * (n - 1)) : 1 };
}

/** Huber mean of the differences of distances, each over its mean; adds `weight` times its gradient by the points. */
function distancePart(student: Cloud, teacher: Cloud, n: number, weight: number, gradient?: Float64Array): number {
  const own = pairwise(student, n);
  const given = pairwise(teacher, n);
  let total = 0;
  let throughMean = 0;
  const slopes = new Float64Array(n * n);
  for (let i = 0; i < n * n; i++) {
    const gap = own.values[i] / own.mean - given.values[i] / given.mean;
    total += huber(gap);
    slopes[i] = huberSlope(gap);
    throughMean += slopes[i] * own.values[i];
  }
  if (gradient === undefined || n < 2) return total / (n * n);
  const { points, width } = student;
  const meanShare = throughMean / (own.mean * own.mean * n * (n - 1));
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) {
      const distance = own.values[i * n + j];
      if (i === j || distance * distance <= SQUARE_FLOOR) continue;
      const byDistance = ((slopes[i * n + j] / own.mean - meanShare) * 2 * weight) / (n * n * distance);
      for (let d = 0; d < width; d++) {
        gradient[i * width + d] += byDistance * (points[i * width + d] - points[j * width + d]);
      }
    }
  }
  return total / (n * n);
}

/** Unit vectors from point `vertex` to all points, [n, width], and the lengths [n]. */
function directions(
  { points, width }: Cloud,
  n: number,
  vertex: number,
  unit: Float64Array,
  lengths: Float64Array,
): void {
  for (let j = 0; j < n; j++) {
    let square = 0;
    for (let d = 0; d < width; d++) {
      const difference = points[j * width + d] - points[vertex * width + d];
      unit[j * width + d] = difference;
      square += difference * difference;
    }
    const length = Math.max(Math.sqrt(square), LENGTH_FLOOR);
    lengths[j] = length;
    for (let d = 0; d < width; d++) unit[j * width + d] /= length;
  }
}

/** Adds the gradient by the points from that by the unit vectors of a vertex. */
function throughDirections(
  unit: Float64Array,
  lengths: Float64Array,
  upstream: Float64Array,
  shape: { n: number; width: number; vertex: number },
  gradient: Float64Array,
): void {
  const { n, width, vertex } = shape;
  for (let j = 0; j < n; j++) {
    let along = 0;
    for (let d = 0; d < width; d++) along += unit[j * width + d] * upstream[j * width + d];
    for (let d = 0; d < width; d++) {
      const value = (upstream[j * width + d] - along * unit[j * width + d]) / lengths[j];
      gradient[j * width + d] += value;
      gradient[vertex * width + d] -= value;
    }
  }
}

/** Huber mean of the differences of all cosines of angles at all vertices; one vertex at a time, O(n^2) memory. */
function anglePart(student: Cloud, teacher: Cloud, n: number, weight: number, gradient?: Float64Array): number {
  const own = new Float64Array(n * student.width);
  const given = new Float64Array(n * teacher.width);
  const lengths = new Float64Array(n);
  const givenLengths = new Float64Array(n);
  const cosines = new Float64Array(n * n);
  const givenCosines = new Float64Array(n * n);
  const upstream = new Float64Array(n * student.width);
  let total = 0;
  for (let vertex = 0; vertex < n; vertex++) {
    directions(student, n, vertex, own, lengths);
    directions(teacher, n, vertex, given, givenLengths);
    multiply(own, own, cosines, { m: n, n, k: student.width }, { transposeB: true });
    multiply(given, given, givenCosines, { m: n, n, k: teacher.width }, { transposeB: true });
    for (let i = 0; i < n * n; i++) {
      const gap = cosines[i] - givenCosines[i];
      total += huber(gap);
      cosines[i] = huberSlope(gap);
    }
    if (gradient === undefined) continue;
    // The matrix of slopes is symmetric, so both factors of a cosine get the same.
    multiply(cosines, own, upstream, { m: n, n: student.width, k: n }, { alpha: (2 * weight) / (n * n * n) });
    throughDirections(own, lengths, upstream, { n, width: student.width, vertex }, gradient);
  }
  return total / (n * n * n);
}

function cloudOf(values: Floats | undefined, width: number | undefined, rows: readonly number[], whose: string): Cloud {
  if (values === undefined || width === undefined) {
    throw new InputError(`loss rkd needs the ${whose}'s features, and none are given`);
  }
  const points = new Float64Array(rows.length * width);
  rows.forEach((row, i) => {
    for (let d = 0; d < width; d++) {
      const value = values[row * width + d];
      if (!Number.isFinite(value)) throw new InputError(`${whose} features, row ${row}, column ${d}: ${value}`);
      points[i * width + d] = value;
    }
  });
  return { points, width };
}

function evaluateRkd(
  weights: { distance: number; angle: number },
  input: LossInput,
  gradients?: LossGradients,
): LossOutput {
  const validRows = checkRows(input, 'rkd', false);
  const rows: number[] = [];
  for (let row = 0; row < input.rows; row++) if (input.labels?.[row] !== IGNORED) rows.push(row);
  const student = cloudOf(input.studentFeatures, input.studentWidth, rows, 'student');
  const teacher = cloudOf(input.teacherFeatures, input.teacherWidth, rows, 'teacher');
  const n = rows.length;
  if (n === 0) return { sum: 0, validRows };
  const target = gradients?.features;
  const gradient = target === undefined ? undefined : new Float64Array(student.points.length);
  const distance = weights.distance === 0 ? 0 : distancePart(student, teacher, n, weights.distance, gradient);
  const angle = weights.angle === 0 ? 0 : anglePart(student, teacher, n, weights.angle, gradient);
  if (target !== undefined && gradient !== undefined) {
    const scale = (gradients?.scale ?? 1) * n;
    rows.forEach((row, i) => {
      for (let d = 0; d < student.width; d++) {
        target[row * student.width + d] += scale * gradient[i * student.width + d];
      }
    });
  }
  const value = weights.distance * distance + weights.angle * angle;
  return { sum: value * n, validRows, diagnostics: { rkd_distance: distance * n, rkd_angle: angle * n } };
}

/**
 * Relational distillation of features (Park et al. 2019): Huber means over all pairs of distances, each side divided by
 * its mean, and over all triples of cosines of angles. Student and teacher may differ in width.
 */
export const rkd = declareLoss({
  name: 'rkd',
  summary: "distances and angles among a batch's features, against the teacher's",
  parameters: { distance: 25, angle: 50 },
  build(parameters): Omit<Loss, 'label'> {
    const weights = {
      distance: numberOf('rkd', parameters, 'distance', { from: 0 }),
      angle: numberOf('rkd', parameters, 'angle', { from: 0 }),
    };
    return {
      scope: 'batch',
      reads: { teacher: 'none', labels: false, features: true },
      evaluate: (input, gradients) => evaluateRkd(weights, input, gradients),
    };
  },
});
