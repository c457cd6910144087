import { InputError } from '../errors.js';
import { addSecondMoment, multiply } from '../kernels/gemm.js';
import { choleskyInPlace, solveRowsInPlace } from '../linalg/blocked-cholesky.js';
import { createRowBlocks } from '../linalg/row-blocks.js';
import type { Floats } from '../models/layer-runner.js';
import { membersOf } from './grouping.js';
import type { LayerGrouping } from './types.js';

/** Rows that are multiplied at once; fixed, so that sums do not depend on how the rows came. */
const BLOCK_ROWS = 512;

/** The row of each group's dominant, [G, columns]. */
export function dominantRows(rows: Floats, columns: number, grouping: LayerGrouping): Float64Array {
  const reduced = new Float64Array(grouping.dominants.length * columns);
  grouping.dominants.forEach((expert, g) => {
    reduced.set(rows.subarray(expert * columns, (expert + 1) * columns), g * columns);
  });
  return reduced;
}

/** The mean of each group's rows, weighted by usage, [G, columns]; unweighted where no member was ever used. */
export function meanRows(
  rows: Floats,
  columns: number,
  grouping: LayerGrouping,
  usage: ArrayLike<number>,
): Float64Array {
  const reduced = new Float64Array(grouping.dominants.length * columns);
  membersOf(grouping).forEach((members, g) => {
    const used = members.reduce((sum, expert) => sum + usage[expert], 0);
    for (const e of members) {
      const weight = used > 0 ? usage[e] / used : 1 / members.length;
      for (let d = 0; d < columns; d++) reduced[g * columns + d] += weight * rows[e * columns + d];
    }
  });
  return reduced;
}

/** A router of G rows that was fitted to one of E. */
export interface RouterFit {
  /** [G, H]. */
  readonly rows: Float64Array;
  readonly tokens: number;
  /** Share of the variance of each group's target that the row explains, [G]; NaN for a constant target. */
  readonly explained: Float64Array;
}

/** Least squares of the rows of a merged router, calibration inputs coming in blocks. */
export interface RouterRowFit {
  /** @param x inputs of the layer, [rows, H] @param logits of the original router, [rows, E] */
  add(x: Floats, logits: Floats, rows: number): void;
  /**
   * @param start rows that lambda holds the result near, [G, H]; groups of one expert keep theirs to the last bit
   * @throws InputError for fewer tokens than H without a lambda, and for inputs whose moments are singular
   */
  solve(start: Floats, lambda?: number): RouterFit;
}

/** t_g = log sum over the members i of g of exp z_i, [rows, G]. */
export function groupLogits(logits: Floats, rows: number, grouping: LayerGrouping): Float64Array {
  const experts = grouping.labels.length;
  const members = membersOf(grouping);
  const groups = members.length;
  const targets = new Float64Array(rows * groups);
  for (let row = 0; row < rows; row++) {
    const from = row * experts;
    for (let g = 0; g < groups; g++) {
      let most = Number.NEGATIVE_INFINITY;
      for (const e of members[g]) most = Math.max(most, logits[from + e]);
      let sum = 0;
      for (const e of members[g]) sum += Math.exp(logits[from + e] - most);
      targets[row * groups + g] = most + Math.log(sum);
    }
  }
  return targets;
}

/**
 * Rows of a reduced router by least squares: w_g minimises sum_x (w_g x - log sum_{i in g} exp z_i(x))^2 +
 * lambda ||w_g - start_g||^2. A softmax over these targets is the probability of the groups under the original router.
 */
export function createRouterRowFit(
  hidden: number,
  grouping: LayerGrouping,
  options: { readonly threads?: number } = {},
): RouterRowFit {
  const groups = grouping.dominants.length;
  const moment = new Float64Array(hidden * hidden);
  const right = new Float64Array(groups * hidden);
  const sums = new Float64Array(groups);
  const squares = new Float64Array(groups);
  let tokens = 0;
  const blocks = createRowBlocks([hidden, groups], BLOCK_ROWS, ([inputs, targets], rows) => {
    addSecondMoment(inputs, rows, hidden, moment, options);
    const sizes = { m: groups, n: hidden, k: rows };
    multiply(targets, inputs, right, sizes, { transposeA: true, beta: 1, ...options });
  });
  return {
    add(x, logits, rows) {
      const targets = groupLogits(logits, rows, grouping);
      for (let i = 0; i < targets.length; i++) {
        sums[i % groups] += targets[i];
        squares[i % groups] += targets[i] * targets[i];
      }
      const own = x.subarray(0, rows * hidden);
      blocks.add([own instanceof Float64Array ? own : Float64Array.from(own), targets], rows);
      tokens += rows;
    },
    solve(start, lambda = 0) {
      if (tokens < hidden && !(lambda > 0)) {
        throw new InputError(
          `router rows: ${tokens} calibration tokens do not determine rows of ${hidden} entries; give more text, ` +
            '--router-lambda, or --router-rows dominant',
        );
      }
      blocks.finish();
      const factor = moment.slice();
      const rows = right.slice();
      for (let i = 0; i < hidden; i++) factor[i * hidden + i] += lambda;
      for (let i = 0; i < rows.length; i++) rows[i] += lambda * start[i];
      if (!choleskyInPlace(factor, hidden, options)) {
        throw new InputError(
          `router rows: the layer's inputs are linearly dependent, so that rows are not determined with lambda ${lambda}; ` +
            'give a larger --router-lambda, or --router-rows dominant',
        );
      }
      solveRowsInPlace(factor, hidden, rows, groups, options);
      // The target of a single expert is linear in x, and its own row is the exact solution.
      membersOf(grouping).forEach((members, g) => {
        if (members.length === 1) rows.set(start.subarray(g * hidden, (g + 1) * hidden), g * hidden);
      });
      return { rows, tokens, explained: explainedShares(rows, moment, right, { hidden, tokens, sums, squares }) };
    },
  };
}

/** 1 - residual / variance of each target, from the moments: residual = sum t^2 - 2 w b + w A w. */
function explainedShares(
  rows: Float64Array,
  moment: Float64Array,
  right: Float64Array,
  targets: { hidden: number; tokens: number; sums: Float64Array; squares: Float64Array },
): Float64Array {
  const { hidden, tokens, sums, squares } = targets;
  const product = new Float64Array(hidden);
  return sums.map((sum, g) => {
    const row = rows.subarray(g * hidden, (g + 1) * hidden);
    product.fill(0);
    // The lower triangle stands for the whole.
    for (let i = 0; i < hidden; i++) {
      for (let j = 0; j < i; j++) {
        product[i] += moment[i * hidden + j] * row[j];
        product[j] += moment[i * hidden + j] * row[i];
      }
      product[i] += moment[i * hidden + i] * row[i];
    }
    let residual = squares[g];
    for (let d = 0; d < hidden; d++) residual += row[d] * (product[d] - 2 * right[g * hidden + d]);
    const variance = squares[g] - (sum * sum) / tokens;
    return variance > 0 ? 1 - Math.max(0, residual) / variance : Number.NaN;
  });
}
