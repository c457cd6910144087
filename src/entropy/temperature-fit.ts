import { LEAST_TEMPERATURE, type RegulariserReduction } from '../training/attention-entropy.js';
import { ROW_PROPER, type ScoredRows } from './attention.js';
import { isPenalised } from './attention-regulariser.js';

/** Queries of one layer in one window: rows `[heads, count]` at positions from..from+count-1. */
export interface FitWindow {
  readonly from: number;
  readonly count: number;
}

/** Temperatures of one layer that shall bring its heads to their thresholds, over fixed scores. */
export interface TemperatureProblem {
  readonly heads: number;
  /** Temperatures per head: 1, or one a position of the query. */
  readonly positions: number;
  readonly windows: readonly FitWindow[];
  /** Rows of a window at temperatures `[heads, count]`, with `scoreVariance`. */
  evaluate(window: number, temperatures: Float64Array): ScoredRows;
  readonly reduction: RegulariserReduction;
  readonly gamma: number;
  readonly contextSize: number;
  /** `[heads]`; `learn`: each where the loss of its head at the start is least, within 0..1. */
  readonly thresholds: Float64Array | 'learn';
  /** `[heads, positions]` */
  readonly start: Float64Array;
  /** Passes over all rows at most. */
  readonly passes: number;
}

export interface TemperatureFit {
  /** `[heads, positions]` */
  readonly temperatures: Float64Array;
  /** `[heads]` */
  readonly thresholds: Float64Array;
  /** Penalties of each head at `thresholds`, without lambda and shares of heads and layers: `[heads]`. */
  readonly lossBefore: Float64Array;
  readonly lossAfter: Float64Array;
  readonly passes: number;
  /** Whether no step lowered the loss further, or nothing was left to lower, within the passes. */
  readonly settled: boolean;
  /** Rows of every window at the temperatures found. */
  readonly rows: readonly ScoredRows[];
}

/** No single step changes log t by more. */
const LONGEST_STEP = 2;
/** A step this small against log t is the end of a search. */
const SHORTEST_STEP = 1e-6;
const LEAST_LOG = Math.log(LEAST_TEMPERATURE);
const GREATEST_LOG = -LEAST_LOG;
/** A step that gains a smaller share of the loss is the last of its unit: thresholds out of reach draw t to infinity. */
const LEAST_GAIN = 1e-6;

/** Loss and descent of every unit: a parameter of its own (`code`), or a head whose parameters act together. */
interface Descent {
  readonly loss: Float64Array;
  /** Step of log t that a Gauss-Newton model of the loss proposes, `[heads * positions]`. */
  readonly direction: Float64Array;
}

/** Entropies of all rows, by window. */
type Rows = readonly ScoredRows[];

/** Calls `visit` with every proper row: its head, parameter, entropy, and d entropy / d log t. */
function eachRow(
  problem: TemperatureProblem,
  rows: Rows,
  visit: (head: number, parameter: number, entropy: number, slope: number) => void,
): void {
  const { heads, positions, windows } = problem;
  windows.forEach(({ from, count }, w) => {
    const { entropyNats, scoreVariance, state } = rows[w];
    for (let head = 0; head < heads; head++) {
      for (let q = 0; q < count; q++) {
        const row = head * count + q;
        if (state[row] !== ROW_PROPER) continue;
        const parameter = head * positions + (positions === 1 ? 0 : from + q);
        visit(head, parameter, entropyNats[row], scoreVariance[row]);
      }
    }
  });
}

function evaluateAll(problem: TemperatureProblem, logs: Float64Array): Rows {
  const { heads, positions, windows } = problem;
  return windows.map(({ from, count }, w) => {
    const temperatures = new Float64Array(heads * count);
    for (let head = 0; head < heads; head++) {
      for (let q = 0; q < count; q++) {
        temperatures[head * count + q] = Math.exp(logs[head * positions + (positions === 1 ? 0 : from + q)]);
      }
    }
    return problem.evaluate(w, temperatures);
  });
}

function clampStep(step: number): number {
  return Math.max(-LONGEST_STEP, Math.min(LONGEST_STEP, step));
}

/** Every row is penalised for itself: each parameter descends alone. */
function descentOfRows(problem: TemperatureProblem, thresholds: Float64Array, rows: Rows): Descent {
  const size = problem.heads * problem.positions;
  const maximum = Math.log(problem.contextSize);
  const tolerance = problem.gamma * maximum;
  const loss = new Float64Array(size);
  const gradient = new Float64Array(size);
  const curvature = new Float64Array(size);
  eachRow(problem, rows, (head, parameter, entropy, slope) => {
    const delta = entropy - thresholds[head] * maximum;
    if (!isPenalised(delta, tolerance)) return;
    loss[parameter] += delta * delta;
    gradient[parameter] += delta * slope;
    curvature[parameter] += slope * slope;
  });
  return { loss, direction: gradient.map((g, i) => (curvature[i] > 0 ? clampStep(-g / curvature[i]) : 0)) };
}

/** The mean entropy of a head is penalised: its parameters descend together, along the shortest step. */
function descentOfMeans(problem: TemperatureProblem, thresholds: Float64Array, rows: Rows): Descent {
  const { heads, positions } = problem;
  const maximum = Math.log(problem.contextSize);
  const loss = new Float64Array(heads);
  const direction = new Float64Array(heads * positions);
  const sums = new Float64Array(heads);
  const counts = new Float64Array(heads);
  const slopes = new Float64Array(heads * positions);
  eachRow(problem, rows, (head, parameter, entropy, slope) => {
    sums[head] += entropy;
    counts[head]++;
    slopes[parameter] += slope;
  });
  for (let head = 0; head < heads; head++) {
    const delta = sums[head] / counts[head] - thresholds[head] * maximum;
    if (!isPenalised(delta, problem.gamma * maximum)) continue;
    loss[head] = delta * delta;
    const own = slopes.subarray(head * positions, (head + 1) * positions);
    const square = own.reduce((sum, slope) => sum + slope * slope, 0);
    if (square === 0) continue;
    own.forEach((slope, i) => {
      direction[head * positions + i] = clampStep((-delta * counts[head] * slope) / square);
    });
  }
  return { loss, direction };
}

function descentOf(problem: TemperatureProblem, thresholds: Float64Array, rows: Rows): Descent {
  return (problem.reduction === 'code' ? descentOfRows : descentOfMeans)(problem, thresholds, rows);
}

function sumByHead(loss: Float64Array, heads: number): Float64Array {
  const per = loss.length / heads;
  return Float64Array.from({ length: heads }, (_, head) =>
    loss.subarray(head * per, (head + 1) * per).reduce((sum, part) => sum + part, 0),
  );
}

/**
 * The threshold in 0..1 at which rows of the given entropies cost least, with penalties delta^2 of |delta| > tolerance.
 * The loss is quadratic between the points where a row enters or leaves the tolerance: all of them, and the least of
 * every quadratic piece, are compared. Ties go to the lowest.
 */
export function bestThreshold(entropies: Float64Array, tolerance: number, maximum: number): number {
  const sorted = Float64Array.from(entropies).sort();
  const n = sorted.length;
  if (n === 0) return 0;
  const centre = sorted[n >> 1];
  const sums = new Float64Array(n + 1);
  const squares = new Float64Array(n + 1);
  for (let i = 0; i < n; i++) {
    sums[i + 1] = sums[i] + (sorted[i] - centre);
    squares[i + 1] = squares[i] + (sorted[i] - centre) ** 2;
  }
  // Just inside, so that rounding leaves a row at the edge within its tolerance.
  const reach = tolerance * (1 - 1e-12);
  const edges = new Float64Array(2 * n + 2);
  sorted.forEach((entropy, i) => {
    edges[2 * i] = entropy - reach;
    edges[2 * i + 1] = entropy + reach;
  });
  edges[2 * n + 1] = maximum;
  const places = edges.map((edge) => Math.max(0, Math.min(maximum, edge))).sort();
  /** How many entropies are below `limit`, or not above it. */
  const rank = (limit: number, orEqual: boolean): number => {
    let [low, high] = [0, n];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sorted[middle] < limit || (orEqual && sorted[middle] === limit)) low = middle + 1;
      else high = middle;
    }
    return low;
  };
  let best = { at: 0, loss: Number.POSITIVE_INFINITY };
  /** Weighs a threshold; gives the mean of the rows that it leaves outside the tolerance. */
  const consider = (at: number): number => {
    const first = rank(at - tolerance, false);
    const last = rank(at + tolerance, true);
    const outside = n - (last - first);
    const sum = sums[n] - sums[last] + sums[first];
    const square = squares[n] - squares[last] + squares[first];
    const shift = at - centre;
    const loss = Math.max(0, square - 2 * shift * sum + outside * shift * shift);
    if (loss < best.loss) best = { at, loss };
    return outside === 0 ? at : centre + sum / outside;
  };
  for (let i = 0; i < places.length; i++) {
    consider(places[i]);
    if (i + 1 === places.length || places[i + 1] === places[i]) continue;
    const mean = consider((places[i] + places[i + 1]) / 2);
    if (mean > places[i] && mean < places[i + 1]) consider(mean);
  }
  return best.at / maximum;
}

function learntThresholds(problem: TemperatureProblem, rows: Rows): Float64Array {
  const maximum = Math.log(problem.contextSize);
  const byHead: number[][] = Array.from({ length: problem.heads }, () => []);
  eachRow(problem, rows, (head, _, entropy) => byHead[head].push(entropy));
  return Float64Array.from(byHead, (entropies) => {
    if (problem.reduction === 'code') {
      return bestThreshold(Float64Array.from(entropies), problem.gamma * maximum, maximum);
    }
    const mean = entropies.reduce((sum, entropy) => sum + entropy, 0) / Math.max(1, entropies.length);
    return Math.min(1, mean / maximum);
  });
}

/** What the search moves: log t in place, with loss and direction of every unit. */
interface Search {
  readonly logs: Float64Array;
  readonly thresholds: Float64Array;
  readonly state: Descent;
}

/**
 * Steps of all units side by side, halved twice where the loss did not fall, until none moves or `budget` passes are
 * spent. Returns the passes.
 */
function descendTemperatures(problem: TemperatureProblem, { logs, thresholds, state }: Search, budget: number): number {
  const units = state.loss.length;
  const width = logs.length / units;
  const steps = new Float64Array(units).fill(1);
  const moving = new Uint8Array(units);
  let passes = 0;
  for (; passes < budget; passes++) {
    const trial = logs.slice();
    for (let unit = 0; unit < units; unit++) {
      moving[unit] = 0;
      if (state.loss[unit] === 0 || steps[unit] === 0) continue;
      for (let i = unit * width; i < (unit + 1) * width; i++) {
        const moved = Math.max(LEAST_LOG, Math.min(GREATEST_LOG, logs[i] + steps[unit] * state.direction[i]));
        if (Math.abs(moved - logs[i]) > SHORTEST_STEP) moving[unit] = 1;
        trial[i] = moved;
      }
      if (moving[unit] === 0) trial.set(logs.subarray(unit * width, (unit + 1) * width), unit * width);
    }
    if (!moving.includes(1)) break;
    const next = descentOf(problem, thresholds, evaluateAll(problem, trial));
    for (let unit = 0; unit < units; unit++) {
      if (moving[unit] === 0) continue;
      if (!(next.loss[unit] < state.loss[unit])) {
        steps[unit] /= 4;
        continue;
      }
      const [from, to] = [unit * width, (unit + 1) * width];
      const gained = state.loss[unit] - next.loss[unit];
      steps[unit] = gained < LEAST_GAIN * state.loss[unit] ? 0 : Math.min(1, 2 * steps[unit]);
      logs.set(trial.subarray(from, to), from);
      state.direction.set(next.direction.subarray(from, to), from);
      state.loss[unit] = next.loss[unit];
    }
  }
  return passes;
}

/**
 * Lowers the entropy regulariser over log t: Gauss-Newton steps with d e / d log t = Var(z), cut until the loss falls,
 * for all parameters side by side, so that one pass over the rows serves them all. Deterministic. Temperatures stay
 * within 1e-4 and 1e4. Thresholds that are learnt are found first, for the rows as they start: without the loss of a task
 * beside it, the regulariser is no guide for both at once.
 */
export function fitTemperatures(problem: TemperatureProblem): TemperatureFit {
  const { heads } = problem;
  const logs = problem.start.map((t) => Math.max(LEAST_LOG, Math.min(GREATEST_LOG, Math.log(t))));
  const first = evaluateAll(problem, logs);
  const thresholds = problem.thresholds === 'learn' ? learntThresholds(problem, first) : problem.thresholds;
  const state = descentOf(problem, thresholds, first);
  const lossBefore = sumByHead(state.loss, heads);
  const passes = 1 + descendTemperatures(problem, { logs, thresholds, state }, problem.passes);
  const rows = evaluateAll(problem, logs);
  return {
    temperatures: logs.map(Math.exp),
    thresholds,
    lossBefore,
    lossAfter: sumByHead(descentOf(problem, thresholds, rows).loss, heads),
    passes,
    settled: passes <= problem.passes,
    rows,
  };
}
