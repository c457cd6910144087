import { createRandom } from '../../random.js';
import { solvePinballProgram } from './simplex-interior-point.js';
import { dualBound, programObjective, programResiduals, type WeightProgram } from './weight-program.js';

export interface CertifiedSettings {
  /** Gap at which the search ends, relative to the objective. */
  readonly tolerance: number;
  readonly seed: number;
  readonly threads: number;
}

/** Weights on the simplex and how far from the optimum they can be. */
export interface CertifiedWeights {
  readonly weights: Float64Array;
  /** Mean pinball loss on the rows of the program. */
  readonly objective: number;
  /** Lower bound of the optimum by a feasible dual point. */
  readonly bound: number;
  /** Interior-point solves (`lp`) or iterations (`eg`). */
  readonly rounds: number;
  readonly rows: number;
  readonly incomplete: number;
}

/** Up to so many cells the program is solved as it is. */
const SMALL_CELLS = 40_000;
const SMALL_COLUMNS = 64;
/** Rows of the first working set; grows with the columns. */
const FEWEST_ROWS = 1000;
const MOST_NEW_COLUMNS = 16;
const MOST_ROUNDS = 60;
/** Weights below this are noise of an interior point. */
const NO_WEIGHT = 1e-9;
/** Weights below this are left out where the loss does not mind. */
const DUST = 1e-6;

/** Rows and columns that the interior-point method sees; the other rows keep the sign of their residual. */
interface WorkingSet {
  /** 1 a free row, 0 a fixed one. */
  readonly free: Uint8Array;
  readonly columns: number[];
}

/**
 * The optimum of a weight program by interior-point solves on a working set of rows and columns. Rows far from their
 * quantile keep the sign of their residual and enter as a linear term (the globs of Portnoy & Koenker 1997); columns
 * enter when the dual prices them in (Dantzig-Wolfe). Each round evaluates the primal objective of all rows and the
 * dual bound over all rows and columns, so that the gap certifies the weights whatever the working set was.
 */
export function certifiedWeights(
  program: WeightProgram,
  settings: CertifiedSettings,
  start: readonly number[] = [],
): CertifiedWeights {
  const { offsets, columns } = program;
  const n = offsets.length;
  if (columns === 1) {
    const weights = Float64Array.of(1);
    const objective = programObjective(program, programResiduals(program, weights, new Float64Array(n)));
    return { weights, objective, bound: objective, rounds: 0, rows: n, incomplete: program.incomplete };
  }
  const small = n * columns <= SMALL_CELLS || (columns <= SMALL_COLUMNS && n <= FEWEST_ROWS);
  const residuals = new Float64Array(n);
  const dual = new Float64Array(n);
  const set = small ? wholeSet(program) : firstSet(program, settings, start, residuals);
  let best: { weights: Float64Array; objective: number } | undefined;
  let bound = Number.NEGATIVE_INFINITY;
  let rounds = 0;
  for (; rounds < MOST_ROUNDS; ) {
    rounds++;
    const signs = residuals;
    let weights = solveSet(program, set, signs, dual, settings);
    let fresh = programResiduals(program, weights, new Float64Array(n));
    let objective = programObjective(program, fresh);
    const clean = withoutDust(weights);
    if (clean !== undefined) {
      const others = programResiduals(program, clean, new Float64Array(n));
      const without = programObjective(program, others);
      if (without <= objective * (1 + 1e-12)) [weights, fresh, objective] = [clean, others, without];
    }
    if (best === undefined || objective < best.objective) best = { weights, objective };
    const { bound: lower, prices } = dualBound(program, dual);
    bound = Math.max(bound, lower);
    if (best.objective - bound <= settings.tolerance * best.objective) break;
    const grown = growSet(program, set, prices, residuals, fresh);
    residuals.set(fresh);
    if (!grown) break;
  }
  const { weights, objective } = best as { weights: Float64Array; objective: number };
  return { weights, objective, bound: Math.min(bound, objective), rounds, rows: n, incomplete: program.incomplete };
}

/** Weights without those that an interior point only nearly brought to 0; undefined when there are none. */
function withoutDust(weights: Float64Array): Float64Array | undefined {
  if (!weights.some((weight) => weight > 0 && weight < DUST)) return undefined;
  const kept = weights.map((weight) => (weight < DUST ? 0 : weight));
  const total = kept.reduce((sum, weight) => sum + weight, 0);
  return kept.map((weight) => weight / total);
}

const wholeSet = ({ offsets, columns }: WeightProgram): WorkingSet => ({
  free: new Uint8Array(offsets.length).fill(1),
  columns: Array.from({ length: columns }, (_, k) => k),
});

/** Rows of a sample, by a seeded stream; ascending. */
function sampleRows(n: number, count: number, seed: number): Int32Array {
  if (count >= n) return Int32Array.from({ length: n }, (_, i) => i);
  const random = createRandom(seed);
  const chosen = new Set<number>();
  while (chosen.size < count) chosen.add(random.integer(n));
  return Int32Array.from(chosen).sort();
}

/** A solution on a sample of the rows says which columns matter and which rows lie near their quantile. */
function firstSet(
  program: WeightProgram,
  settings: CertifiedSettings,
  start: readonly number[],
  residuals: Float64Array,
): WorkingSet {
  const { offsets, columns, targets, levels } = program;
  const n = offsets.length;
  const count = Math.max(FEWEST_ROWS, Math.min(4000, Math.floor(2 * n ** (2 / 3))));
  const chosen = sampleRows(n, count, settings.seed);
  const sample: WeightProgram = {
    ...program,
    offsets: Uint32Array.from(chosen, (r) => offsets[r]),
    targets: Float64Array.from(chosen, (r) => targets[r]),
    levels: Float64Array.from(chosen, (r) => levels[r]),
  };
  const set: WorkingSet = {
    free: new Uint8Array(chosen.length).fill(1),
    columns: columns <= SMALL_COLUMNS ? wholeSet(program).columns : firstColumns(sample, start),
  };
  const dual = new Float64Array(chosen.length);
  const none = new Float64Array(chosen.length);
  let weights = solveSet(sample, set, none, dual, { ...settings, tolerance: 1e-6 });
  for (let round = 0; round < 30 && set.columns.length < columns; round++) {
    const { prices } = dualBound(sample, dual);
    if (!addColumns(sample, set, prices, 1e-6)) break;
    weights = solveSet(sample, set, none, dual, { ...settings, tolerance: 1e-6 });
  }
  programResiduals(program, weights, residuals);
  const free = nearestRows(
    residuals,
    Math.min(n, Math.max(FEWEST_ROWS, 40 * set.columns.length, Math.floor(3 * n ** (2 / 3)))),
  );
  const used = columns <= SMALL_COLUMNS ? set.columns : set.columns.filter((k) => weights[k] > 0 || start.includes(k));
  return { free, columns: used };
}

/** The columns that start: those given and the best ones by themselves. */
function firstColumns(sample: WeightProgram, start: readonly number[]): number[] {
  const { values, offsets, step, columns, targets, levels } = sample;
  const losses = new Float64Array(columns);
  for (let r = 0; r < offsets.length; r++) {
    for (let k = 0, cell = offsets[r]; k < columns; k++, cell += step) {
      const error = targets[r] - values[cell];
      losses[k] += error >= 0 ? levels[r] * error : (levels[r] - 1) * error;
    }
  }
  const order = Array.from(losses.keys()).sort((a, b) => losses[a] - losses[b] || a - b);
  return [...new Set([...start, ...order.slice(0, MOST_NEW_COLUMNS)])].sort((a, b) => a - b);
}

/** Marks the `count` rows of smallest |residual|. */
function nearestRows(residuals: Float64Array, count: number): Uint8Array {
  const sizes = residuals.map(Math.abs);
  const threshold = sizes.slice().sort()[Math.min(count, sizes.length) - 1];
  return Uint8Array.from(sizes, (size) => (size <= threshold ? 1 : 0));
}

/** Solves the program on the set; writes the dual of all rows. */
function solveSet(
  program: WeightProgram,
  set: WorkingSet,
  signs: Float64Array,
  dual: Float64Array,
  settings: CertifiedSettings,
): Float64Array {
  const { values, offsets, step, targets, levels } = program;
  const { free, columns } = set;
  const p = columns.length;
  const cells = Int32Array.from(columns, (k) => k * step);
  let count = 0;
  for (let r = 0; r < free.length; r++) count += free[r];
  const rows = new Int32Array(count);
  const design = new Float64Array(count * p);
  const taus = new Float64Array(count);
  const linear = new Float64Array(p);
  // One unit for the differences, so that tolerances mean the same for all data.
  let size = 0;
  for (let r = 0, at = 0; r < offsets.length; r++) {
    const offset = offsets[r];
    const y = targets[r];
    if (free[r] === 1) {
      rows[at] = r;
      taus[at] = levels[r];
      for (let k = 0; k < p; k++) {
        const difference = y - values[offset + cells[k]];
        design[at * p + k] = difference;
        size += Math.abs(difference);
      }
      at++;
    } else {
      const sign = signs[r] >= 0 ? levels[r] : levels[r] - 1;
      dual[r] = sign;
      for (let k = 0; k < p; k++) linear[k] += sign * (y - values[offset + cells[k]]);
    }
  }
  const scale = size > 0 ? (count * p) / size : 1;
  for (let c = 0; c < design.length; c++) design[c] *= scale;
  for (let k = 0; k < p; k++) linear[k] *= scale;
  const tolerance = Math.min(1e-11, settings.tolerance / 100);
  const solution = solvePinballProgram(
    { design, rows: count, columns: p, levels: taus, linear },
    tolerance,
    settings.threads,
  );
  for (let at = 0; at < count; at++) dual[rows[at]] = solution.dual[at];
  const weights = new Float64Array(program.columns);
  let total = 0;
  for (let k = 0; k < p; k++) {
    if (solution.weights[k] < NO_WEIGHT) continue;
    weights[columns[k]] = solution.weights[k];
    total += solution.weights[k];
  }
  for (const k of columns) weights[k] /= total;
  return weights;
}

/** Adds the columns that the dual prices in by more than `slack`; whether there were any. */
function addColumns(program: WeightProgram, set: WorkingSet, prices: Float64Array, slack: number): boolean {
  const inside = new Set(set.columns);
  let least = Number.POSITIVE_INFINITY;
  for (const k of set.columns) least = Math.min(least, prices[k]);
  const margin = slack * Math.abs(least);
  const wanted: number[] = [];
  for (let k = 0; k < program.columns; k++) if (!inside.has(k) && prices[k] < least - margin) wanted.push(k);
  wanted.sort((a, b) => prices[a] - prices[b] || a - b);
  for (const k of wanted.slice(0, MOST_NEW_COLUMNS)) set.columns.push(k);
  set.columns.sort((a, b) => a - b);
  return wanted.length > 0;
}

/** Frees rows whose residual changed its sign, and adds columns; whether the set grew. */
function growSet(
  program: WeightProgram,
  set: WorkingSet,
  prices: Float64Array,
  before: Float64Array,
  fresh: Float64Array,
): boolean {
  let freed = 0;
  for (let r = 0; r < fresh.length; r++) {
    if (set.free[r] === 0 && fresh[r] >= 0 !== before[r] >= 0) {
      set.free[r] = 1;
      freed++;
    }
  }
  const added = addColumns(program, set, prices, 1e-12);
  return freed > 0 || added;
}
