import { InputError } from '../../errors.js';
import { fitGaussianProcess, type GaussianProcessSettings } from '../../linalg/gaussian-process.js';
import { localRegression } from '../../linalg/local-regression.js';
import { curveMaximum, surfaceMaximum } from './box-maximum.js';
import { fitQuadratic, MOST_FACE_REWARDS, type QuadraticSurface, quadraticMaximumOnBox } from './quadratic-surface.js';
import type { DataBox, Smoother, Surface } from './types.js';

/** How a surface is fitted. */
export interface SurfaceOptions {
  readonly smoother: Smoother;
  /** Share of the rows in a neighbourhood of loess. */
  readonly span: number;
  readonly threads?: number;
}

/** A surface with what tells how good it is. */
export interface FittedSurface {
  readonly surface: Surface;
  readonly quadratic?: QuadraticSurface;
  readonly process?: { readonly settings: GaussianProcessSettings; readonly logLikelihood: number };
  /** [rows]: the score of every row as a fit without it has it; a Gaussian process keeps its settings. */
  readonly leftOut: Float64Array;
}

/** A covariance [rows, rows] is held several times. */
export const MOST_PROCESS_ROWS = 3000;

const DEPENDENT =
  'the rows do not determine a quadratic in these rewards: they are linearly dependent, or one has two values';

/** Rows but one. */
const rowsWithout = (rows: number, left: number): Int32Array => {
  const rest = new Int32Array(rows - 1);
  for (let r = 0, at = 0; r < rows; r++) if (r !== left) rest[at++] = r;
  return rest;
};

/**
 * A surface of score over rewards `x` [rows, n].
 * @throws InputError where the rows do not determine it, or are too many for a Gaussian process
 */
export function fitSurface(
  x: Float64Array,
  score: Float64Array,
  box: DataBox,
  { smoother, span, threads }: SurfaceOptions,
): FittedSurface {
  const n = box.low.length;
  if (smoother === 'gp') {
    if (score.length > MOST_PROCESS_ROWS) {
      throw new InputError(
        `--smoother gp holds a covariance of all pairs of rows, for up to ${MOST_PROCESS_ROWS}; ${score.length} given: use loess, quadratic or --limit`,
      );
    }
    const process = fitGaussianProcess(x, score, n, threads === undefined ? {} : { threads });
    const { settings, logLikelihood } = process;
    return { surface: { predict: process.mean }, process: { settings, logLikelihood }, leftOut: process.leftOut() };
  }
  if (smoother === 'loess') {
    const local = localRegression(x, score, n, span);
    const leftOut = score.map((_, r) => local.at(x.subarray(r * n, (r + 1) * n), r));
    return { surface: { predict: (at) => local.at(at) }, leftOut };
  }
  const quadratic = fitQuadratic(x, score, n, box);
  if (quadratic === undefined) throw new InputError(DEPENDENT);
  const leftOut = score.map((_, r) => {
    const without = fitQuadratic(x, score, n, box, rowsWithout(score.length, r));
    return without?.predict(x.subarray(r * n, (r + 1) * n)) ?? Number.NaN;
  });
  return { surface: quadratic, quadratic, leftOut };
}

/**
 * The surface of a resample; a Gaussian process keeps the settings of all rows. Undefined where the rows do not determine it.
 */
export function refitSurface(
  fitted: FittedSurface,
  x: Float64Array,
  score: Float64Array,
  box: DataBox,
  rows: Int32Array,
  { smoother, span, threads }: SurfaceOptions,
): FittedSurface | undefined {
  const n = box.low.length;
  const nothing = new Float64Array(0);
  if (smoother === 'quadratic') {
    const quadratic = fitQuadratic(x, score, n, box, rows);
    return quadratic && { surface: quadratic, quadratic, leftOut: nothing };
  }
  if (smoother === 'loess') {
    const local = localRegression(x, score, n, span, rows);
    return { surface: { predict: (at) => local.at(at) }, leftOut: nothing };
  }
  const drawn = new Float64Array(rows.length * n);
  rows.forEach((row, r) => {
    for (let i = 0; i < n; i++) drawn[r * n + i] = x[row * n + i];
  });
  const target = Float64Array.from(rows, (row) => score[row]);
  const settings = fitted.process?.settings;
  const options = { ...(settings && { settings }), ...(threads !== undefined && { threads }) };
  return { surface: { predict: fitGaussianProcess(drawn, target, n, options).mean }, leftOut: nothing };
}

/**
 * The highest point of a surface on the box of the data. `starts` are for surfaces without a closed form, `tolerance` too, in
 * sides of the box.
 */
export function boxMaximum(
  { surface, quadratic }: FittedSurface,
  box: DataBox,
  starts: readonly Float64Array[],
  tolerance = 1e-6,
): Float64Array {
  const n = box.low.length;
  if (quadratic && n <= MOST_FACE_REWARDS) return quadraticMaximumOnBox(quadratic, box);
  return n === 1
    ? Float64Array.of(curveMaximum(surface, box.low[0], box.high[0]))
    : surfaceMaximum(surface, box, starts, tolerance);
}
