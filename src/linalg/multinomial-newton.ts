import { multiply } from '../kernels/gemm.js';
import { choleskyInPlace, invertLower, solveRows } from './blocked-cholesky.js';

/**
 * The features of a fit, in parts that stand side by side (the members of a concatenation). They are read by blocks of
 * rows and need never be held together.
 */
export interface Design {
  readonly rows: number;
  /** Columns of every part. */
  readonly widths: readonly number[];
  /** Rows start..start+count-1 of a part, `[count, width]`; valid until the next call for this part. */
  part(index: number, start: number, count: number): Float64Array;
}

/** One part that is held, `[rows, columns]`. */
export function heldDesign(data: Float64Array, rows: number, columns: number): Design {
  return {
    rows,
    widths: [columns],
    part: (_, start, count) => data.subarray(start * columns, (start + count) * columns),
  };
}

/** Rows that are multiplied at a time: their logits and features stay in the cache. */
const BLOCK_ROWS = 1024;

export interface MultinomialOptions {
  /** Norm of the gradient at which the fit ends; default 1e-8. */
  readonly tolerance?: number;
  /** Newton steps; default 200. */
  readonly maxIterations?: number;
  /** Where to start, in the layout of `theta`; default zero. */
  readonly start?: Float64Array;
  /** `Z^T Z / rows` `[d, d]`, lower triangle, which makes the conjugate gradients faster. */
  readonly gram?: Float64Array;
  readonly threads?: number;
  readonly onPass?: () => void;
}

/** A minimum of `mean cross-entropy + (decay/2) |W|^2`. */
export interface MultinomialFit {
  /** For every part its weights `[classes, width]`, then the biases `[classes]`. */
  readonly theta: Float64Array;
  readonly objective: number;
  /** Mean cross-entropy alone. */
  readonly loss: number;
  readonly gradientNorm: number;
  readonly iterations: number;
  /** Times that all rows were read. */
  readonly passes: number;
  readonly converged: boolean;
}

interface Layout {
  readonly classes: number;
  /** Where the weights of every part begin. */
  readonly starts: readonly number[];
  readonly biasStart: number;
  readonly length: number;
}

export function multinomialLayout(widths: readonly number[], classes: number): Layout {
  const starts: number[] = [];
  let at = 0;
  for (const width of widths) {
    starts.push(at);
    at += classes * width;
  }
  return { classes, starts, biasStart: at, length: at + classes };
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

/** Logits `[count, classes]` of rows start..start+count-1. */
export function multinomialLogits(
  design: Design,
  theta: Float64Array,
  classes: number,
  start: number,
  count: number,
  logits: Float64Array,
  threads?: number,
): void {
  const layout = multinomialLayout(design.widths, classes);
  const parts = design.widths.map((_, m) => design.part(m, start, count));
  logitsOfParts(parts, design.widths, layout, theta, count, logits, threads);
}

function logitsOfParts(
  parts: readonly Float64Array[],
  widths: readonly number[],
  layout: Layout,
  theta: Float64Array,
  count: number,
  logits: Float64Array,
  threads?: number,
): void {
  const { classes, starts, biasStart } = layout;
  const bias = theta.subarray(biasStart, biasStart + classes);
  for (let r = 0; r < count; r++) logits.set(bias, r * classes);
  const own = threads === undefined ? {} : { threads };
  parts.forEach((part, m) => {
    const weights = theta.subarray(starts[m], starts[m] + classes * widths[m]);
    multiply(part, weights, logits, { m: count, n: classes, k: widths[m] }, { transposeB: true, beta: 1, ...own });
  });
}

/** Everything that does not change during a fit. */
interface Problem {
  readonly design: Design;
  readonly labels: ArrayLike<number>;
  readonly layout: Layout;
  readonly decay: number;
  readonly threads: number | undefined;
  readonly onPass: (() => void) | undefined;
  passes: number;
}

interface State {
  readonly objective: number;
  readonly loss: number;
  readonly gradient: Float64Array;
  /** `[rows, classes]` */
  readonly probabilities: Float64Array;
}

/** Adds `D^T Z` and the column sums of `D [count, classes]` to `result`. */
function addTransposed(
  problem: Problem,
  parts: readonly Float64Array[],
  d: Float64Array,
  count: number,
  result: Float64Array,
): void {
  const { classes, starts, biasStart } = problem.layout;
  const own = problem.threads === undefined ? {} : { threads: problem.threads };
  parts.forEach((part, m) => {
    const width = problem.design.widths[m];
    const target = result.subarray(starts[m], starts[m] + classes * width);
    multiply(d, part, target, { m: classes, n: width, k: count }, { transposeA: true, beta: 1, ...own });
  });
  for (let r = 0; r < count; r++) for (let k = 0; k < classes; k++) result[biasStart + k] += d[r * classes + k];
}

function addDecay(problem: Problem, theta: Float64Array, result: Float64Array): void {
  const { biasStart } = problem.layout;
  for (let i = 0; i < biasStart; i++) result[i] += problem.decay * theta[i];
}

/** Turns a row of logits into probabilities in place; returns the log of their sum of exponentials. */
function softmaxRow(values: Float64Array, at: number, classes: number): number {
  let max = Number.NEGATIVE_INFINITY;
  for (let k = 0; k < classes; k++) if (values[at + k] > max) max = values[at + k];
  let total = 0;
  for (let k = 0; k < classes; k++) {
    values[at + k] = Math.exp(values[at + k] - max);
    total += values[at + k];
  }
  const scale = 1 / total;
  for (let k = 0; k < classes; k++) values[at + k] *= scale;
  return max + Math.log(total);
}

function stateAt(problem: Problem, theta: Float64Array): State {
  const { design, labels, layout, decay } = problem;
  const { classes, biasStart } = layout;
  const { rows } = design;
  const probabilities = new Float64Array(rows * classes);
  const gradient = new Float64Array(layout.length);
  const d = new Float64Array(Math.min(rows, BLOCK_ROWS) * classes);
  let loss = 0;
  for (let start = 0; start < rows; start += BLOCK_ROWS) {
    const count = Math.min(BLOCK_ROWS, rows - start);
    const parts = design.widths.map((_, m) => design.part(m, start, count));
    const block = probabilities.subarray(start * classes, (start + count) * classes);
    logitsOfParts(parts, design.widths, layout, theta, count, block, problem.threads);
    for (let r = 0; r < count; r++) {
      const at = r * classes;
      const own = block[at + labels[start + r]];
      loss += softmaxRow(block, at, classes) - own;
      for (let k = 0; k < classes; k++) d[at + k] = block[at + k] / rows;
      d[at + labels[start + r]] -= 1 / rows;
    }
    addTransposed(problem, parts, d, count, gradient);
  }
  addDecay(problem, theta, gradient);
  let squares = 0;
  for (let i = 0; i < biasStart; i++) squares += theta[i] * theta[i];
  problem.passes++;
  problem.onPass?.();
  return { objective: loss / rows + 0.5 * decay * squares, loss: loss / rows, gradient, probabilities };
}

/** Product of the Hessian with a direction, without forming it. */
function hessianTimes(problem: Problem, probabilities: Float64Array, direction: Float64Array): Float64Array {
  const { design, layout } = problem;
  const { classes } = layout;
  const { rows } = design;
  const result = new Float64Array(layout.length);
  const change = new Float64Array(Math.min(rows, BLOCK_ROWS) * classes);
  for (let start = 0; start < rows; start += BLOCK_ROWS) {
    const count = Math.min(BLOCK_ROWS, rows - start);
    const parts = design.widths.map((_, m) => design.part(m, start, count));
    logitsOfParts(parts, design.widths, layout, direction, count, change, problem.threads);
    for (let r = 0; r < count; r++) {
      const at = r * classes;
      const from = (start + r) * classes;
      let mean = 0;
      for (let k = 0; k < classes; k++) mean += probabilities[from + k] * change[at + k];
      for (let k = 0; k < classes; k++) change[at + k] = (probabilities[from + k] * (change[at + k] - mean)) / rows;
    }
    addTransposed(problem, parts, change, count, result);
  }
  addDecay(problem, direction, result);
  problem.passes++;
  problem.onPass?.();
  return result;
}

type Preconditioner = (residual: Float64Array) => Float64Array;

/** Mean of p (1 - p) over rows and classes: the typical curvature of a logit. */
function curvatureOf(probabilities: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < probabilities.length; i++) sum += probabilities[i] * (1 - probabilities[i]);
  return sum / probabilities.length;
}

/**
 * The Hessian with every row's weight replaced by their mean, `I (x) (a G + decay I)`, solved for each class by one
 * factor. Biases see the curvature `a` alone, because features are centred.
 */
function gramPreconditioner(problem: Problem, gram: Float64Array, curvature: number): Preconditioner | undefined {
  const { widths } = problem.design;
  const { classes, starts, biasStart, length } = problem.layout;
  const d = widths.reduce((sum, width) => sum + width, 0);
  const own = problem.threads === undefined ? {} : { threads: problem.threads };
  const matrix = new Float64Array(d * d);
  let trace = 0;
  for (let i = 0; i < d; i++) trace += gram[i * d + i];
  const ridge = problem.decay + (1e-10 * curvature * trace) / d;
  for (let i = 0; i < d; i++) {
    for (let j = 0; j <= i; j++) matrix[i * d + j] = curvature * gram[i * d + j];
    matrix[i * d + i] += ridge;
  }
  if (!choleskyInPlace(matrix, d, own)) return undefined;
  const inverse = invertLower(matrix, d, own);
  const rows = new Float64Array(classes * d);
  return (residual) => {
    const move = (between: (row: number, at: number, width: number) => void): void => {
      for (let k = 0; k < classes; k++) {
        let column = 0;
        widths.forEach((width, m) => {
          between(k * d + column, starts[m] + k * width, width);
          column += width;
        });
      }
    };
    move((row, at, width) => rows.set(residual.subarray(at, at + width), row));
    const solved = solveRows(inverse, d, rows, classes, own);
    const result = new Float64Array(length);
    move((row, at, width) => result.set(solved.subarray(row, row + width), at));
    for (let i = biasStart; i < length; i++) result[i] = residual[i] / curvature;
    return result;
  };
}

/** Solves `H d = -g` by preconditioned conjugate gradients to a share of |g| that shrinks with |g|. */
function newtonDirection(
  times: (v: Float64Array) => Float64Array,
  gradient: Float64Array,
  wanted: number,
  most: number,
  precondition: Preconditioner,
): Float64Array {
  const direction = new Float64Array(gradient.length);
  const residual = gradient.map((g) => -g);
  let solved = precondition(residual);
  const search = solved.slice();
  let product = dot(residual, solved);
  for (let step = 0; step < most && Math.sqrt(dot(residual, residual)) > wanted; step++) {
    const image = times(search);
    const curvature = dot(search, image);
    // Zero curvature: the common shift of all classes, along which the objective does not change.
    if (!(curvature > 0)) break;
    const length = product / curvature;
    for (let i = 0; i < direction.length; i++) {
      direction[i] += length * search[i];
      residual[i] -= length * image[i];
    }
    solved = precondition(residual);
    const next = dot(residual, solved);
    const turn = next / product;
    for (let i = 0; i < search.length; i++) search[i] = solved[i] + turn * search[i];
    product = next;
  }
  return direction;
}

/** Conjugate gradient steps for one Newton step. */
const MOST_STEPS = 2000;
/** The factor of the preconditioner is made anew when the curvature has changed by this. */
const STALE = 1.5;

/**
 * Multinomial logistic regression by Newton's method with conjugate gradients and backtracking: minimises `mean
 * cross-entropy + (decay/2) |W|^2_F` with free biases, to a gradient norm of `tolerance`. Deterministic: the same bits
 * for any number of threads. From zero with decay 0 it stays in the span of the rows, so that dependent features share
 * their weight as the minimum norm would.
 *
 * @param labels `[rows]`, 0..classes-1
 */
export function fitMultinomial(
  design: Design,
  labels: ArrayLike<number>,
  classes: number,
  decay: number,
  options: MultinomialOptions = {},
): MultinomialFit {
  const { tolerance = 1e-8, maxIterations = 200, gram, threads, onPass } = options;
  const layout = multinomialLayout(design.widths, classes);
  const problem: Problem = { design, labels, layout, decay, threads, onPass, passes: 0 };
  let theta = options.start?.slice() ?? new Float64Array(layout.length);
  let state = stateAt(problem, theta);
  let norm = Math.sqrt(dot(state.gradient, state.gradient));
  let precondition: Preconditioner = (residual) => residual.slice();
  let factored = 0;
  let iterations = 0;
  while (norm > tolerance && iterations < maxIterations) {
    const { probabilities, gradient } = state;
    const curvature = curvatureOf(probabilities);
    if (gram && (factored === 0 || curvature > STALE * factored || curvature * STALE < factored) && curvature > 0) {
      precondition = gramPreconditioner(problem, gram, curvature) ?? precondition;
      factored = curvature;
    }
    const wanted = Math.max(0.3 * tolerance, norm * Math.min(0.1, Math.sqrt(norm)));
    const times = (v: Float64Array): Float64Array => hessianTimes(problem, probabilities, v);
    const direction = newtonDirection(times, gradient, wanted, MOST_STEPS, precondition);
    const slope = dot(direction, gradient);
    let length = 1;
    let next = state;
    let moved = theta;
    for (; length > 1e-10; length /= 2) {
      const step = length;
      moved = theta.map((value, i) => value + step * direction[i]);
      next = stateAt(problem, moved);
      // Near the minimum the change of the objective drowns in rounding; a smaller gradient decides then.
      const tiny = 1e-13 * Math.abs(state.objective);
      if (next.objective <= state.objective + 1e-4 * length * slope + tiny) break;
    }
    iterations++;
    if (length <= 1e-10) break;
    theta = moved;
    state = next;
    norm = Math.sqrt(dot(state.gradient, state.gradient));
  }
  const { objective, loss } = state;
  const { passes } = problem;
  return { theta, objective, loss, gradientNorm: norm, iterations, passes, converged: norm <= tolerance };
}
