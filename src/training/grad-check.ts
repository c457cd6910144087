import { InputError } from '../errors.js';
import type { ModelProto } from '../formats/onnx_pb.js';
import { createRandom, type Random } from '../random.js';
import type { Objective } from './objective.js';
import { type OnnxStudent, type OnnxStudentSettings, openOnnxStudent } from './onnx-student.js';
import type { FeatureBatch, Parameter, Precision, Student, TokenBatch } from './types.js';

export interface GradCheckSettings {
  /** Entries of each tensor whose derivative is taken, the ones of the largest gradient first; default 6. */
  readonly entries?: number;
  /** Seed of the entries and directions; default 0. */
  readonly seed?: number;
  /** Relative error up to which a tensor passes; default 1e-5 in double and 2e-2 in single precision. */
  readonly tolerance?: number;
}

/** One derivative, both ways. */
export interface CheckedEntry {
  /** Place in the tensor. */
  readonly index: readonly number[];
  readonly gradient: number;
  readonly difference: number;
}

export interface CheckedParameter {
  readonly name: string;
  readonly dims: readonly number[];
  readonly entries: number;
  /** |gradient - difference| / max of their norms, over the entries. */
  readonly relativeError: number;
  /** The same of the derivative along a random direction through the whole tensor. */
  readonly directionError: number;
  readonly worst: CheckedEntry;
  readonly passed: boolean;
}

export interface GradCheck {
  readonly precision: Precision;
  readonly tolerance: number;
  readonly loss: number;
  readonly parameters: readonly CheckedParameter[];
  /** The tensor with the largest error. */
  readonly worst: string;
  readonly passed: boolean;
}

const TOLERANCE: Readonly<Record<Precision, number>> = { f64: 1e-5, f32: 2e-2 };
/** Cube root of the precision, the best step of a central difference, relative to the size of a weight. */
const STEP: Readonly<Record<Precision, number>> = { f64: 6e-6, f32: 5e-3 };
/** Differences are taken with this second, smaller step too: a kink within the first one does not count. */
const SMALLER = { f64: 0.1, f32: 0.3 } as const;

/** The summed loss of a batch, own terms of the student included. */
async function lossOf<Batch>(student: Student<Batch>, batch: Batch, objective: Objective<Batch>): Promise<number> {
  const { visit, totals } = objective.begin(batch, { step: 1, epoch: 0 });
  await student.evaluate(batch, visit, { wholeBatch: objective.wholeBatch });
  return totals().sum;
}

/** The same with its gradient, which is left in the student. */
async function lossWithGradient<Batch>(
  student: Student<Batch>,
  batch: Batch,
  objective: Objective<Batch>,
): Promise<{ loss: number; ownTerms: number }> {
  student.parameters.gradients.fill(0);
  const { visit, totals } = objective.begin(batch, { step: 1, epoch: 0 });
  const ownTermScale = objective.validRows(batch, student.rowsOf(batch));
  const ownTerms = await student.accumulate(batch, visit, { wholeBatch: objective.wholeBatch, ownTermScale });
  const { sum } = totals();
  return { loss: ownTerms.reduce((total, { value }) => total + value * ownTermScale, sum), ownTerms: ownTerms.length };
}

/** Places of the largest gradients, then random ones. */
function chosenEntries(gradients: ArrayLike<number>, count: number, random: Random): number[] {
  const chosen = new Set<number>();
  const largest = Math.ceil(Math.min(count, gradients.length) / 2);
  while (chosen.size < largest) {
    let best = -1;
    for (let i = 0; i < gradients.length; i++) {
      if (!chosen.has(i) && (best < 0 || Math.abs(gradients[i]) > Math.abs(gradients[best]))) best = i;
    }
    chosen.add(best);
  }
  while (chosen.size < Math.min(count, gradients.length)) chosen.add(Math.floor(random.uniform() * gradients.length));
  return [...chosen];
}

function placeOf(index: number, dims: readonly number[]): number[] {
  const place: number[] = [];
  let rest = index;
  for (let axis = dims.length - 1; axis >= 0; axis--) {
    place.unshift(rest % dims[axis]);
    rest = Math.floor(rest / dims[axis]);
  }
  return place;
}

const relativeTo = (a: number, b: number, floor: number): number =>
  Math.abs(a - b) / Math.max(Math.abs(a), Math.abs(b), floor);

function innerProduct(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

const rootMeanSquare = (values: ArrayLike<number>): number =>
  Math.sqrt(innerProduct(values, values) / Math.max(1, values.length));

/**
 * Compares the gradients of a student with central differences of its loss on one batch: for each tensor some entries, and
 * the derivative along a random direction, which every entry has a part in. The student's gradients are zero behind it.
 */
export async function gradCheck<Batch>(
  student: Student<Batch>,
  batch: Batch,
  objective: Objective<Batch>,
  settings: GradCheckSettings = {},
): Promise<GradCheck> {
  const { precision, parameters, values, gradients } = student.parameters;
  const { entries = 6, seed = 0, tolerance = TOLERANCE[precision] } = settings;
  const { loss, ownTerms } = await lossWithGradient(student, batch, objective);
  const analytic = gradients.slice();
  const measure = async (): Promise<number> =>
    ownTerms > 0 ? (await lossWithGradient(student, batch, objective)).loss : lossOf(student, batch, objective);
  // What rounding of the loss leaves of a difference; smaller derivatives cannot be told from zero.
  const noise = (precision === 'f64' ? 1e-13 : 1e-5) * Math.max(1, Math.abs(loss));
  const random = createRandom(seed);

  /** Derivative along `direction` within a tensor: the one of two steps that is nearer to the gradient. */
  const difference = async (
    { offset, length }: Parameter,
    direction: (i: number) => number,
    scale: number,
    expected: number,
  ): Promise<number> => {
    const kept = values.slice(offset, offset + length);
    let nearest = Number.NaN;
    for (const factor of [1, SMALLER[precision]]) {
      const step = STEP[precision] * scale * factor;
      const sides: number[] = [];
      for (const sign of [1, -1]) {
        for (let i = 0; i < length; i++) values[offset + i] = kept[i] + sign * step * direction(i);
        sides.push(await measure());
      }
      const found = (sides[0] - sides[1]) / (2 * step);
      if (!(Math.abs(found - expected) >= Math.abs(nearest - expected))) nearest = found;
    }
    values.set(kept, offset);
    return nearest;
  };

  const checked: CheckedParameter[] = [];
  for (const [at, parameter] of parameters.entries()) {
    const { name, dims, offset, length } = parameter;
    const own = analytic.subarray(offset, offset + length);
    const scale = Math.max(rootMeanSquare(values.subarray(offset, offset + length)), 1e-2);
    const floor = noise / (STEP[precision] * scale);
    let [error, gradientNorm, differenceNorm] = [0, 0, 0];
    let worst: CheckedEntry | undefined;
    const places = chosenEntries(own, entries, random.fork(at));
    for (const place of places) {
      const found = await difference(parameter, (i) => (i === place ? 1 : 0), scale, own[place]);
      error += (own[place] - found) ** 2;
      gradientNorm += own[place] ** 2;
      differenceNorm += found ** 2;
      if (!worst || Math.abs(own[place] - found) > Math.abs(worst.gradient - worst.difference)) {
        worst = { index: placeOf(place, dims), gradient: own[place], difference: found };
      }
    }
    const signs = Float64Array.from({ length }, () => (random.uniform() < 0.5 ? -1 : 1) / Math.sqrt(length));
    const slope = innerProduct(own, signs);
    const along = await difference(parameter, (i) => signs[i], scale * Math.sqrt(length), slope);
    const norm = Math.sqrt(innerProduct(own, own));
    const relativeError = Math.sqrt(error) / Math.max(Math.sqrt(gradientNorm), Math.sqrt(differenceNorm), floor);
    // Terms of a direction may cancel: its error counts against the size of the whole gradient.
    const directionError = relativeTo(slope, along, Math.max(floor, norm * 0.1));
    const passed = relativeError <= tolerance && directionError <= tolerance;
    if (worst) checked.push({ name, dims, entries: places.length, relativeError, directionError, worst, passed });
  }
  gradients.fill(0);
  const errorOf = (parameter: CheckedParameter): number => Math.max(parameter.relativeError, parameter.directionError);
  const ranked = [...checked].sort((a, b) => errorOf(b) - errorOf(a));
  const passed = checked.every((parameter) => parameter.passed);
  return { precision, tolerance, loss, parameters: checked, worst: ranked[0]?.name ?? '', passed };
}

/** The operator that an error of the runtime says it cannot compute in double precision; undefined for other errors. */
export function missingDoubleKernel(error: unknown): string | undefined {
  const message = error instanceof InputError ? error.message : '';
  return (
    /Could not find an implementation for (\w+)\(/.exec(message)?.[1] ??
    /Type 'tensor\(double\)' of input parameter \(\w+\) of operator \((\w+)\)/.exec(message)?.[1]
  );
}

/**
 * Opens an ONNX student for a check: in double precision, or in single where the runtime cannot compute one of its
 * operators in double, which is then named. Dropout is left out, as differences of a random function say nothing.
 */
export async function openForGradCheck<Batch extends FeatureBatch | TokenBatch>(
  source: ModelProto | string,
  settings: Omit<OnnxStudentSettings, 'precision'>,
): Promise<{ readonly student: OnnxStudent<Batch>; readonly missing: string | undefined }> {
  const own = { ...settings, dropout: false };
  try {
    return { student: await openOnnxStudent<Batch>(source, { ...own, precision: 'f64' }), missing: undefined };
  } catch (error) {
    const missing = missingDoubleKernel(error);
    if (missing === undefined) throw error;
    return { student: await openOnnxStudent<Batch>(source, { ...own, precision: 'f32' }), missing };
  }
}
