import { InputError } from '../errors.js';
import { symmetricRankK } from '../kernels/gemm.js';
import {
  type Design,
  fitMultinomial,
  heldDesign,
  type MultinomialFit,
  multinomialLayout,
  multinomialLogits,
} from '../linalg/multinomial-newton.js';
import { ridgePath } from '../linalg/ridge.js';
import { rowSpaceOf } from '../linalg/row-space.js';
import { averagedHeads, type Head, thetaOfHead } from './cat-heads.js';
import { amountMetrics, classMetrics, nllOfLogits, softmaxRows } from './class-metrics.js';
import { designOf, type MemberRows } from './member-rows.js';
import type { GridPoint, ProbeSettings } from './settings.js';
import { headOfSgdProbe, PROBE_RECIPE, SECOND_STAGE_RECIPE, trainSgdProbe } from './sgd-probe.js';

/** Training and validation rows of the members of one set. */
export interface FitRows {
  readonly train: readonly MemberRows[];
  readonly validation: readonly MemberRows[];
}

/** A linear map of a set's features in the layout of `multinomialLogits`. */
export interface FittedSet {
  readonly theta: Float64Array;
  readonly decay: number;
  readonly path: string;
  readonly trainLoss: number;
  readonly parameters: number;
  readonly grid: readonly GridPoint[];
}

const PREDICT_ROWS = 1024;

/** Outputs `[rows, outputs]` of a linear map. */
export function outputsOf(
  members: readonly MemberRows[],
  theta: Float64Array,
  outputs: number,
  threads: number,
): Float64Array {
  const design = designOf(members);
  const result = new Float64Array(design.rows * outputs);
  for (let start = 0; start < design.rows; start += PREDICT_ROWS) {
    const count = Math.min(PREDICT_ROWS, design.rows - start);
    const block = result.subarray(start * outputs, (start + count) * outputs);
    multinomialLogits(design, theta, outputs, start, count, block, threads);
  }
  return result;
}

interface Candidate {
  readonly point: Omit<GridPoint, 'chosen'>;
  readonly theta: Float64Array;
}

/** The most accurate on the validation rows; of equals the lower loss, then the larger decay. */
function chooseByValidation(candidates: readonly Candidate[]): { best: Candidate; grid: GridPoint[] } {
  const better = (a: Omit<GridPoint, 'chosen'>, b: Omit<GridPoint, 'chosen'>): boolean => {
    if (a.validationMse !== null && b.validationMse !== null) return a.validationMse < b.validationMse;
    const [accuracyA, accuracyB] = [a.validationAccuracy ?? 0, b.validationAccuracy ?? 0];
    if (accuracyA !== accuracyB) return accuracyA > accuracyB;
    return (a.validationNllNats ?? Number.POSITIVE_INFINITY) < (b.validationNllNats ?? Number.POSITIVE_INFINITY);
  };
  let best = candidates[0];
  for (const candidate of candidates) if (better(candidate.point, best.point)) best = candidate;
  return { best, grid: candidates.map((candidate) => ({ ...candidate.point, chosen: candidate === best })) };
}

function validate(
  members: readonly MemberRows[],
  theta: Float64Array,
  labels: Int32Array,
  classes: number,
  threads: number,
): { validationAccuracy: number; validationNllNats: number; validationMse: null } {
  const logits = outputsOf(members, theta, classes, threads);
  const nll = nllOfLogits(logits, labels, classes);
  const { accuracy, nllNats } = classMetrics(softmaxRows(logits, labels.length, classes), labels, classes, nll);
  return { validationAccuracy: accuracy, validationNllNats: nllNats, validationMse: null };
}

/** A pass over the rows costs 4 n d K, the Gram matrix n d^2: it pays where it saves some thirty passes a decay. */
const PASSES_SAVED = 30;
const WIDEST_GRAM = 6000;

function gramWorth(design: Design, classes: number, settings: ProbeSettings): boolean {
  const d = design.widths.reduce((sum, width) => sum + width, 0);
  const bytes = 3 * 8 * d * d;
  return (
    d <= WIDEST_GRAM && bytes < settings.maxMemoryBytes / 4 && d < 4 * classes * PASSES_SAVED * settings.decays.length
  );
}

/** `Z^T Z / rows`, lower triangle, of parts that are joined for a block of rows only. */
export function gramOfDesign(design: Design, threads: number): Float64Array {
  const { rows, widths } = design;
  const d = widths.reduce((sum, width) => sum + width, 0);
  const gram = new Float64Array(d * d);
  const joined = new Float64Array(Math.min(rows, PREDICT_ROWS) * d);
  for (let start = 0; start < rows; start += PREDICT_ROWS) {
    const count = Math.min(PREDICT_ROWS, rows - start);
    let column = 0;
    widths.forEach((width, m) => {
      const part = design.part(m, start, count);
      for (let r = 0; r < count; r++) joined.set(part.subarray(r * width, (r + 1) * width), r * d + column);
      column += width;
    });
    symmetricRankK(joined, gram, { n: d, k: count }, { transpose: true, alpha: 1 / rows, beta: 1, threads });
  }
  return gram;
}

/** Row-space coordinates need the products of all rows with one another. */
const MOST_DUAL_ROWS = 12_000;

/**
 * The deterministic probe: standardised features, `mean cross-entropy + (decay/2) |W|^2`, for every decay from the largest
 * down, each from the solution before. With fewer rows than features each is solved in the space of the rows and then
 * held against its gradient over all features.
 */
export function fitNewtonSet(
  { train, validation }: FitRows,
  labels: { readonly train: Int32Array; readonly validation: Int32Array },
  classes: number,
  settings: ProbeSettings,
  onPass: () => void,
): FittedSet {
  const { threads } = settings;
  const design = designOf(train);
  const { rows, widths } = design;
  const features = widths.reduce((sum, width) => sum + width, 0);
  const layout = multinomialLayout(widths, classes);
  const dual = rows < features && rows <= MOST_DUAL_ROWS && 3 * 8 * rows * rows < settings.maxMemoryBytes;
  const space = dual ? rowSpaceOf(design, { threads }) : undefined;
  const gram = !dual && gramWorth(design, classes, settings) ? gramOfDesign(design, threads) : undefined;
  const decays = [...settings.decays].sort((a, b) => b - a);
  const candidates: Candidate[] = [];
  let start: Float64Array | undefined;
  let inSpace: Float64Array | undefined;
  let shared: Float64Array | undefined;
  for (const decay of decays) {
    let earlier = { iterations: 0, passes: 0 };
    if (space) {
      const coordinates = heldDesign(space.coordinates, rows, space.rank);
      shared ??=
        features > 2 * rows || gramWorth(coordinates, classes, settings)
          ? gramOfDesign(coordinates, threads)
          : undefined;
      const found: MultinomialFit = fitMultinomial(coordinates, labels.train, classes, decay, {
        threads,
        onPass,
        ...(inSpace && { start: inSpace }),
        ...(shared && { gram: shared }),
      });
      inSpace = found.theta;
      earlier = found;
      start = new Float64Array(layout.length);
      const weights = space.lift(found.theta.slice(0, classes * space.rank), classes);
      for (const [m, part] of weights.entries()) start.set(part, layout.starts[m]);
      start.set(found.theta.subarray(classes * space.rank), layout.biasStart);
    }
    const fit = fitMultinomial(design, labels.train, classes, decay, {
      threads,
      onPass,
      ...(start && { start }),
      ...(gram && { gram }),
    });
    start = fit.theta;
    candidates.push({
      theta: fit.theta,
      point: {
        decay,
        ...validate(validation, fit.theta, labels.validation, classes, threads),
        trainLoss: fit.loss,
        objective: fit.objective,
        gradientNorm: fit.gradientNorm,
        iterations: earlier.iterations + fit.iterations,
        passes: earlier.passes + fit.passes,
        converged: fit.converged,
      },
    });
  }
  const { best, grid } = chooseByValidation(candidates);
  return {
    theta: best.theta,
    decay: best.point.decay,
    path: dual ? 'dual' : 'primal',
    trainLoss: best.point.trainLoss,
    parameters: layout.length,
    grid,
  };
}

/** Members from which a concatenation is normalised in the second stage of fine-tuning. */
const NORMALISED_FROM = 4;

/** The stochastic probe on raw features, and the second stage of fine-tuning, which starts from the averaged heads. */
export function fitSgdSet(
  { train, validation }: FitRows,
  labels: { readonly train: Int32Array; readonly validation: Int32Array },
  classes: number,
  settings: ProbeSettings,
  heads: readonly Head[] | undefined,
  onPass: () => void,
): FittedSet {
  const widths = train.map(({ columns }) => columns);
  const recipe = heads ? SECOND_STAGE_RECIPE : PROBE_RECIPE;
  const byDefault = heads ? train.length >= NORMALISED_FROM : true;
  const batchNorm = settings.batchNorm === 'auto' ? byDefault : settings.batchNorm === 'on';
  const start = heads && averagedHeads(heads);
  const candidates = settings.decays.map((decay): Candidate => {
    const probe = trainSgdProbe(
      train,
      labels.train,
      classes,
      {
        ...recipe,
        epochs: settings.epochs ?? recipe.epochs,
        learningRate: settings.learningRate ?? recipe.learningRate,
        batch: settings.batch,
        decay,
        batchNorm,
        seed: settings.seed,
      },
      start,
      onPass,
    );
    const theta = thetaOfHead(headOfSgdProbe(probe), widths);
    const logits = outputsOf(train, theta, classes, settings.threads);
    const nll = nllOfLogits(logits, labels.train, classes);
    return {
      theta,
      point: {
        decay,
        ...validate(validation, theta, labels.validation, classes, settings.threads),
        trainLoss: nll.reduce((sum, value) => sum + value, 0) / nll.length,
        objective: null,
        gradientNorm: null,
        iterations: settings.epochs ?? recipe.epochs,
        passes: settings.epochs ?? recipe.epochs,
        converged: true,
      },
    };
  });
  const { best, grid } = chooseByValidation(candidates);
  const features = widths.reduce((sum, width) => sum + width, 0);
  return {
    theta: best.theta,
    decay: best.point.decay,
    path: batchNorm ? 'sgd+bn' : 'sgd',
    trainLoss: best.point.trainLoss,
    parameters: classes * (features + 1) + (batchNorm ? 2 * features : 0),
    grid,
  };
}

/**
 * Ridge regression on standardised features in closed form: `(1/2n) |y - Z w - b|^2 + (decay/2) |w|^2`. With fewer rows
 * than features in the space of the rows.
 */
export function fitRidgeSet(
  { train, validation }: FitRows,
  targets: { readonly train: Float64Array; readonly validation: Float64Array },
  settings: ProbeSettings,
): FittedSet {
  const { threads, decays } = settings;
  const whole = designOf(train);
  const { rows, widths } = whole;
  const features = widths.reduce((sum, width) => sum + width, 0);
  const space = rows < features ? rowSpaceOf(whole, { threads }) : undefined;
  const design = space ? heldDesign(space.coordinates, rows, space.rank) : whole;
  const d = space?.rank ?? features;
  const mean = targets.train.reduce((sum, value) => sum + value, 0) / rows;
  const cross = new Float64Array(d);
  for (let start = 0; start < rows; start += PREDICT_ROWS) {
    const count = Math.min(PREDICT_ROWS, rows - start);
    let column = 0;
    design.widths.forEach((width, m) => {
      const part = design.part(m, start, count);
      for (let r = 0; r < count; r++) {
        const y = (targets.train[start + r] - mean) / rows;
        for (let j = 0; j < width; j++) cross[column + j] += y * part[r * width + j];
      }
      column += width;
    });
  }
  const path = ridgePath(gramOfDesign(design, threads), cross, d, 1, decays, { threads });
  const candidates = path.weights.flatMap((weights, i): Candidate[] => {
    if (weights === undefined) return [];
    const theta = new Float64Array(features + 1);
    if (space) {
      let column = 0;
      for (const part of space.lift(weights, 1)) {
        theta.set(part, column);
        column += part.length;
      }
    } else {
      theta.set(weights);
    }
    theta[features] = mean;
    const { mse } = amountMetrics(outputsOf(train, theta, 1, threads), targets.train);
    const squares = weights.reduce((sum, w) => sum + w * w, 0);
    return [
      {
        theta,
        point: {
          decay: decays[i],
          validationAccuracy: null,
          validationNllNats: null,
          validationMse: amountMetrics(outputsOf(validation, theta, 1, threads), targets.validation).mse,
          trainLoss: mse / 2,
          objective: mse / 2 + 0.5 * decays[i] * squares,
          gradientNorm: null,
          iterations: 0,
          passes: 1,
          converged: true,
        },
      },
    ];
  });
  if (candidates.length === 0) {
    throw new InputError(
      `ridge: no decay of ${decays.join(', ')} makes ${features} dependent features regular; add a larger one with --decays`,
    );
  }
  const { best, grid } = chooseByValidation(candidates);
  return {
    theta: best.theta,
    decay: best.point.decay,
    path: space ? `dual, ${path.method}` : path.method,
    trainLoss: best.point.trainLoss,
    parameters: features + 1,
    grid,
  };
}
