import { InputError } from '../errors.js';
import { addSecondMoment, multiply } from '../kernels/gemm.js';
import { choleskyInPlace, solveRowsInPlace } from '../linalg/blocked-cholesky.js';
import { conjugateGradients } from '../linalg/conjugate-gradients.js';
import { createRowBlocks } from '../linalg/row-blocks.js';
import type { Floats } from '../models/layer-runner.js';
import { floatsLike, runExpert, runInner } from './expert-function.js';
import {
  addWeightedRows,
  type Dispatch,
  dispatch,
  type ExpertSource,
  gatherRows,
  type Routing,
} from './layer-function.js';
import type { ExpertMatrices, ExpertShape } from './types.js';

/** Rows that are multiplied at once; fixed, so that sums do not depend on how the rows came. */
const BLOCK_ROWS = 512;
/** Right-hand sides that conjugate gradients solve together. */
const BLOCK_OUTPUTS = 128;

export interface RefitOptions {
  /** Weight of ||D - D_avg||^2; needed where a group has fewer tokens than the expert is wide. */
  readonly lambda?: number;
  /** Bytes that the I x I normal matrix may take; a wider expert is refitted by conjugate gradients. Default 4 GiB. */
  readonly maxBytes?: number;
  /** Conjugate gradients end at this relative residual, or after so many steps. Defaults 1e-6 and 500. */
  readonly tolerance?: number;
  readonly maxIterations?: number;
  readonly threads?: number;
}

/** The down projection of a group of experts, refitted. */
export interface Refit {
  /** D*, [H, I], f64. */
  readonly down: Float64Array;
  readonly tokens: number;
  readonly lambda: number;
  readonly path: 'cholesky' | 'conjugate-gradients';
  /** Relative residual that conjugate gradients reached; 0 for Cholesky. */
  readonly residual: number;
  readonly iterations: number;
}

/**
 * Least squares of a down projection, rows coming in blocks. Each token x gives h(x), the inner activation of the merged
 * expert, and s(x) y(x), what the members together gave it: the sum over the chosen ones of p_i E_i(x), s their weight.
 * D* = argmin sum_x ||s y - s D h||^2 + lambda ||D - D_avg||_F^2
 *    = (sum s^2 y h^T + lambda D_avg) (sum s^2 h h^T + lambda I)^-1.
 */
export interface DownRefit {
  readonly path: Refit['path'];
  readonly tokens: number;
  /** @param hidden h, [rows, I] @param shares s y, [rows, H], f64 or as wide as h @param weights s, [rows] */
  add(hidden: Floats, shares: Floats, weights: Float64Array, rows: number): void;
  /**
   * Ends the sums, which it uses up.
   * @param average D_avg, [H, I]
   * @throws InputError for fewer tokens than I without a lambda, and for activations whose moments are singular
   */
  solve(average: Floats): Refit;
}

/** Where the sums of a refit are. */
interface RefitSums {
  add(scaled: Floats, shares: Floats, rows: number): void;
  solve(average: Floats, lambda: number): Pick<Refit, 'down' | 'residual' | 'iterations'>;
}

/** Normal equations, [I, I] and [H, I], in f64. */
function normalSums({ hidden, width }: ExpertShape, options: RefitOptions): RefitSums {
  const { threads } = options;
  const moment = new Float64Array(width * width);
  const right = new Float64Array(hidden * width);
  return {
    add(scaled, shares, rows) {
      addSecondMoment(scaled, rows, width, moment, { threads });
      multiply(shares, scaled, right, { m: hidden, n: width, k: rows }, { transposeA: true, beta: 1, threads });
    },
    solve(average, lambda) {
      for (let i = 0; i < width; i++) moment[i * width + i] += lambda;
      for (let i = 0; i < right.length; i++) right[i] += lambda * average[i];
      if (!choleskyInPlace(moment, width, { keepUpper: true, threads })) {
        throw new InputError(
          `refit: the inner activations of a group are linearly dependent, so that its down projection is not ` +
            `determined with lambda ${lambda}; give a larger --refit-lambda`,
        );
      }
      return { down: solveRowsInPlace(moment, width, right, hidden, { threads }), residual: 0, iterations: 0 };
    },
  };
}

/** The rows themselves, in single precision: I x I is never formed. */
function rowSums({ hidden, width }: ExpertShape, options: RefitOptions): RefitSums {
  const { threads, tolerance = 1e-6, maxIterations = 500 } = options;
  const blocks: { readonly scaled: Float32Array; readonly shares: Float32Array; readonly rows: number }[] = [];
  const diagonal = new Float64Array(width);

  /** into = X (sum s^2 h h^T + lambda I) for rows X [count, I]. */
  const apply = (x: Float64Array, into: Float64Array, count: number, lambda: number): void => {
    for (let i = 0; i < x.length; i++) into[i] = lambda * x[i];
    const narrow = Float32Array.from(x);
    for (const { scaled, rows } of blocks) {
      const inner = new Float32Array(count * rows);
      multiply(narrow, scaled, inner, { m: count, n: rows, k: width }, { transposeB: true, threads });
      multiply(inner, scaled, into, { m: count, n: width, k: rows }, { beta: 1, threads });
    }
  };
  /** Rows [from, from + count) of sum s y h^T + lambda D_avg. */
  const rightHandSides = (average: Floats, lambda: number, from: number, count: number): Float64Array => {
    const right = new Float64Array(count * width);
    for (let i = 0; i < right.length; i++) right[i] = lambda * average[from * width + i];
    for (const { scaled, shares, rows } of blocks) {
      const own = shares.subarray(from);
      const sizes = { m: count, n: width, k: rows };
      multiply(own, scaled, right, sizes, { transposeA: true, strideA: hidden, beta: 1, threads });
    }
    return right;
  };
  return {
    add(scaled, shares, rows) {
      for (let i = 0; i < rows * width; i++) diagonal[i % width] += scaled[i] * scaled[i];
      blocks.push({ scaled: Float32Array.from(scaled), shares: Float32Array.from(shares), rows });
    },
    solve(average, lambda) {
      // A neuron that never fired keeps its average: its row of the system is lambda alone, or nothing.
      const positive = diagonal.map((value) => (value + lambda > 0 ? value + lambda : 1));
      const down = new Float64Array(hidden * width);
      let residual = 0;
      let iterations = 0;
      for (let from = 0; from < hidden; from += BLOCK_OUTPUTS) {
        const count = Math.min(BLOCK_OUTPUTS, hidden - from);
        const start = Float64Array.from(average.subarray(from * width, (from + count) * width));
        const operator = (x: Float64Array, into: Float64Array): void => apply(x, into, count, lambda);
        const right = rightHandSides(average, lambda, from, count);
        const found = conjugateGradients(operator, positive, right, start, { tolerance, maxIterations });
        down.set(found.solution, from * width);
        residual = Math.max(residual, found.residual);
        iterations = Math.max(iterations, found.iterations);
      }
      return { down, residual, iterations };
    },
  };
}

/** @throws InputError for a lambda that is no number of 0 or more */
export function createDownRefit(shape: ExpertShape, options: RefitOptions = {}): DownRefit {
  const { hidden, width } = shape;
  const { lambda, maxBytes = 4 * 2 ** 30 } = options;
  if (lambda !== undefined && !(lambda >= 0 && Number.isFinite(lambda))) {
    throw new InputError(`refit: lambda ${lambda} is no number of 0 or more`);
  }
  const path = 8 * width * width <= maxBytes ? 'cholesky' : 'conjugate-gradients';
  const sums = path === 'cholesky' ? normalSums(shape, options) : rowSums(shape, options);
  const blocks = createRowBlocks([width, hidden], BLOCK_ROWS, ([scaled, shares], rows) =>
    sums.add(scaled, shares, rows),
  );
  let tokens = 0;
  return {
    path,
    get tokens() {
      return tokens;
    },
    add(inner, shares, weights, rows) {
      const scaled = floatsLike(inner, rows * width);
      for (let row = 0; row < rows; row++) {
        for (let i = row * width; i < (row + 1) * width; i++) scaled[i] = weights[row] * inner[i];
      }
      const own = inner instanceof Float32Array ? Float32Array.from(shares) : shares;
      blocks.add([scaled, own], rows);
      tokens += rows;
    },
    solve(average) {
      if (tokens < width && !((lambda ?? 0) > 0)) {
        throw new InputError(
          `refit: a group has ${tokens} calibration tokens, its experts are ${width} wide; give more text, or ` +
            '--refit-lambda, which holds the down projection near the average',
        );
      }
      blocks.finish();
      return { ...sums.solve(average, lambda ?? 0), tokens, lambda: lambda ?? 0, path };
    },
  };
}

/** Rows of a layer's input with what the original router decided for them. */
export interface RoutedRows {
  /** [rows, H], of the precision of the experts. */
  readonly x: Floats;
  readonly rows: number;
  readonly routing: Routing;
}

/** A group of experts of the original layer, and the expert that they became. */
export interface MergedGroup {
  readonly shape: ExpertShape;
  /** Places of the members in the original layer. */
  readonly members: readonly number[];
  readonly original: ExpertSource;
  readonly merged: ExpertMatrices;
}

/** Rows by the expert that they chose: those of expert e are starts[e] to starts[e + 1] of the lists. */
type ChosenRows = Pick<Dispatch, 'starts' | 'rows'> & { readonly weights: Floats };

/** What a group gave to the rows that reached it. */
export interface GroupShares {
  readonly rows: Int32Array;
  /** Weight of the group, s(x), [rows]. */
  readonly weights: Float64Array;
  /** Sum over the chosen members of p_i E_i(x), [rows, H]. */
  readonly shares: Float64Array;
}

/**
 * What the members of a group gave together, each to the rows that chose it.
 * @param output of a member on its rows, [rows, H]
 * @param count rows in all
 */
export function groupShares(
  members: ArrayLike<number>,
  { starts, rows, weights }: ChosenRows,
  output: (member: number) => Floats,
  count: number,
  hidden: number,
): GroupShares {
  const mass = new Float64Array(count);
  const each = Array.from(members);
  for (const e of each) for (let i = starts[e]; i < starts[e + 1]; i++) mass[rows[i]] += weights[i];
  const reached = Int32Array.from(mass.keys()).filter((row) => mass[row] > 0);
  const places = new Int32Array(count);
  reached.forEach((row, place) => {
    places[row] = place;
  });
  const shares = new Float64Array(reached.length * hidden);
  for (const e of each) {
    if (starts[e] === starts[e + 1]) continue;
    const own = rows.subarray(starts[e], starts[e + 1]).map((row) => places[row]);
    addWeightedRows(shares, hidden, own, weights.subarray(starts[e]), output(e));
  }
  return { rows: reached, weights: Float64Array.from(reached, (row) => mass[row]), shares };
}

/** Adds to a refit what the members of a group gave to rows x [*, H], beside the inner activations of the merged expert. */
export function addGroupRows(
  refit: DownRefit,
  merged: ExpertMatrices,
  shape: ExpertShape,
  x: Floats,
  { rows, weights, shares }: GroupShares,
  options: { readonly threads?: number } = {},
): void {
  const { hidden, width } = shape;
  for (let from = 0; from < rows.length; from += BLOCK_ROWS) {
    const to = Math.min(rows.length, from + BLOCK_ROWS);
    const inputs = gatherRows(x, hidden, rows.subarray(from, to));
    const inner = floatsLike(x, (to - from) * width);
    runInner(merged, shape, inputs, to - from, inner, options);
    refit.add(inner, shares.subarray(from * hidden, to * hidden), weights.subarray(from, to), to - from);
  }
}

/**
 * Refits the down projection of a merged expert to what its members gave on calibration rows (in the spirit of MergeMoE,
 * 2025): gate and up stay as merged. What it gains on these rows says little; measure on others.
 *
 * @param visit gives all calibration rows of the layer, in blocks
 * @throws InputError see {@link DownRefit.solve}
 */
export function refitGroup(
  group: MergedGroup,
  visit: (use: (block: RoutedRows) => void) => void,
  options: RefitOptions = {},
): Refit {
  const { shape, members, merged, original } = group;
  const { hidden } = shape;
  const refit = createDownRefit(shape, options);
  visit(({ x, rows, routing }) => {
    const chosen = dispatch(routing);
    const output = (e: number): Floats => {
      const own = chosen.rows.subarray(chosen.starts[e], chosen.starts[e + 1]);
      return runExpert(original(e), shape, gatherRows(x, hidden, own), own.length, options);
    };
    addGroupRows(refit, merged, shape, x, groupShares(members, chosen, output, rows, hidden), options);
  });
  return refit.solve(merged.down);
}
