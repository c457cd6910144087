import type { Floats } from '../models/layer-runner.js';
import { type Dispatch, gateMass } from './layer-function.js';

/** Floor of both gate masses inside the logarithm of their divergence. */
export const GATE_FLOOR = 1e-9;

/**
 * Sums over tokens of the squared errors of a layer's output. y is the original output, r that of the merged experts
 * under the original routing ("remap"), m that of the merged layer as it is stored. All fields add up, so batches and
 * shards unite by addition.
 */
export interface OutputErrorSums {
  readonly tokens: number;
  /** Sum of a = ||y||^2, and of a^2. */
  readonly outputSquares: number;
  readonly outputFourths: number;
  /** b = ||m - y||^2: sum, sum of squares, sum of a b. */
  readonly total: SquaredError;
  /** b = ||r - y||^2: what merged experts cost while the router stays as it was. */
  readonly experts: SquaredError;
  /** b = ||m - r||^2: what the change of the router adds. */
  readonly routing: SquaredError;
  /** Sum of <r - y, m - r>; total = experts + routing + 2 * this. */
  readonly cross: number;
  /** Tokens whose set of running experts differs from that under the original routing. */
  readonly changedTokens: number;
  /** Sum and sum of squares of KL(gate mass of groups under remap || as stored), over `dividedTokens`. */
  readonly divergence: number;
  readonly divergenceSquares: number;
  /** Tokens that keep some gate mass; fewer than `tokens` where dropped experts took all of it. */
  readonly dividedTokens: number;
  /** Sum over tokens of the share of the router's weight that went to dropped experts. */
  readonly lostMass: number;
}

/** Sums of a squared error b beside those of a = ||y||^2. */
export interface SquaredError {
  readonly sum: number;
  readonly squares: number;
  readonly products: number;
}

/** Rows of one batch. */
export interface LayerOutputs {
  readonly rows: number;
  readonly hidden: number;
  /** [rows, H] each. */
  readonly original: Floats;
  readonly remapped: Floats;
  readonly merged: Floats;
}

/** Where the rows of a batch went. */
export interface LayerRoutings {
  readonly rows: number;
  /** Under the original router, whose experts run as merged ones; and as stored. Both over the same stored experts. */
  readonly remapped: Dispatch;
  readonly merged: Dispatch;
  /** Sum of the original weights of each row, [rows]; default what `remapped` has. */
  readonly weightSums?: Float64Array;
}

function squaredDistance(a: Floats, b: Floats, from: number, to: number): number {
  let sum = 0;
  for (let i = from; i < to; i++) sum += (a[i] - b[i]) ** 2;
  return sum;
}

/** Sum of the squared error of each row. */
function squaredErrors(a: Floats, b: Floats, rows: number, hidden: number, norms: Float64Array): SquaredError {
  let sum = 0;
  let squares = 0;
  let products = 0;
  for (let row = 0; row < rows; row++) {
    const error = squaredDistance(a, b, row * hidden, (row + 1) * hidden);
    sum += error;
    squares += error * error;
    products += error * norms[row];
  }
  return { sum, squares, products };
}

/**
 * KL(p || q) in nats of two distributions over groups, sum over p > 0 of p ln(max(p, floor) / max(q, floor)): finite
 * where q is zero, and the larger the smaller the floor.
 */
export function gateDivergence(p: Float64Array, q: Float64Array, floor = GATE_FLOOR): number {
  let sum = 0;
  for (let g = 0; g < p.length; g++) {
    if (p[g] > 0) sum += p[g] * Math.log(Math.max(p[g], floor) / Math.max(q[g], floor));
  }
  return sum;
}

function total(values: Float64Array): number {
  let sum = 0;
  for (const value of values) sum += value;
  return sum;
}

/** Entries divided by their sum; false when that is zero. */
function divideBySum(values: Float64Array): boolean {
  const sum = total(values);
  if (!(sum > 0)) return false;
  for (let i = 0; i < values.length; i++) values[i] /= sum;
  return true;
}

type RoutingChange = Pick<
  OutputErrorSums,
  'changedTokens' | 'divergence' | 'divergenceSquares' | 'dividedTokens' | 'lostMass'
>;

/**
 * How the routing of rows changed: sets of experts that run, and gate masses, each divided by its sum.
 * @throws RangeError when the two routings are not over the same experts
 */
export function routingChange(routings: LayerRoutings, floor = GATE_FLOOR): RoutingChange {
  const { rows, weightSums } = routings;
  const { experts } = routings.remapped;
  if (routings.merged.experts !== experts) {
    throw new RangeError(`routings over ${experts} and ${routings.merged.experts} experts cannot be compared`);
  }
  const before = gateMass(routings.remapped, rows);
  const after = gateMass(routings.merged, rows);
  let changedTokens = 0;
  let divergence = 0;
  let divergenceSquares = 0;
  let dividedTokens = 0;
  let lostMass = 0;
  for (let row = 0; row < rows; row++) {
    const p = before.subarray(row * experts, (row + 1) * experts);
    const q = after.subarray(row * experts, (row + 1) * experts);
    if (p.some((mass, g) => mass > 0 !== q[g] > 0)) changedTokens++;
    const all = weightSums?.[row] ?? 0;
    if (all > 0) lostMass += Math.max(0, 1 - total(p) / all);
    if (!divideBySum(p) || !divideBySum(q)) continue;
    const nats = gateDivergence(p, q, floor);
    dividedTokens++;
    divergence += nats;
    divergenceSquares += nats * nats;
  }
  return { changedTokens, divergence, divergenceSquares, dividedTokens, lostMass };
}

/** Sums of a batch of rows. Reductions run row by row in f64. */
export function outputErrorSums(outputs: LayerOutputs, routings: LayerRoutings, floor = GATE_FLOOR): OutputErrorSums {
  const { rows, hidden, original, remapped, merged } = outputs;
  const norms = new Float64Array(rows);
  let outputSquares = 0;
  let outputFourths = 0;
  let cross = 0;
  for (let row = 0; row < rows; row++) {
    for (let i = row * hidden; i < (row + 1) * hidden; i++) {
      norms[row] += original[i] * original[i];
      cross += (remapped[i] - original[i]) * (merged[i] - remapped[i]);
    }
    outputSquares += norms[row];
    outputFourths += norms[row] * norms[row];
  }
  return {
    tokens: rows,
    outputSquares,
    outputFourths,
    total: squaredErrors(merged, original, rows, hidden, norms),
    experts: squaredErrors(remapped, original, rows, hidden, norms),
    routing: squaredErrors(merged, remapped, rows, hidden, norms),
    cross,
    ...routingChange(routings, floor),
  };
}

const addSquared = (a: SquaredError, b: SquaredError): SquaredError => ({
  sum: a.sum + b.sum,
  squares: a.squares + b.squares,
  products: a.products + b.products,
});

/** Sums of two sets of tokens. */
export function addOutputErrors(a: OutputErrorSums, b: OutputErrorSums): OutputErrorSums {
  return {
    tokens: a.tokens + b.tokens,
    outputSquares: a.outputSquares + b.outputSquares,
    outputFourths: a.outputFourths + b.outputFourths,
    total: addSquared(a.total, b.total),
    experts: addSquared(a.experts, b.experts),
    routing: addSquared(a.routing, b.routing),
    cross: a.cross + b.cross,
    changedTokens: a.changedTokens + b.changedTokens,
    divergence: a.divergence + b.divergence,
    divergenceSquares: a.divergenceSquares + b.divergenceSquares,
    dividedTokens: a.dividedTokens + b.dividedTokens,
    lostMass: a.lostMass + b.lostMass,
  };
}

/** A figure with its standard error over tokens; NaN where no token has it. */
export interface Estimate {
  readonly value: number;
  readonly standardError: number;
}

/** Figures of {@link OutputErrorSums}. Standard errors take tokens as independent. */
export interface OutputErrors {
  readonly tokens: number;
  /** ||m - y||_F / ||y||_F. */
  readonly total: Estimate;
  /** ||r - y||_F / ||y||_F. */
  readonly experts: Estimate;
  /** ||m - r||_F / ||y||_F. */
  readonly routing: Estimate;
  /** 2 <r - y, m - r> / ||y||_F^2: total^2 = experts^2 + routing^2 + this. */
  readonly cross: number;
  /** Share of tokens whose set of running experts changed. */
  readonly changedShare: Estimate;
  /** Mean KL of group gate masses, nats. */
  readonly divergenceNats: Estimate;
  /** Mean share of the router's weight that dropped experts took with them. */
  readonly lostShare: number;
}

/** Root of a ratio of sums, its error by the linearised ratio (Cochran 1977, section 6.4). */
function relativeError(sums: OutputErrorSums, { sum, squares, products }: SquaredError): Estimate {
  const { tokens, outputSquares, outputFourths } = sums;
  const ratio = sum / outputSquares;
  const residual = Math.max(0, squares - 2 * ratio * products + ratio * ratio * outputFourths);
  const ofRatio = Math.sqrt((residual * tokens) / Math.max(1, tokens - 1)) / outputSquares;
  const value = Math.sqrt(ratio);
  return { value, standardError: value > 0 ? ofRatio / (2 * value) : 0 };
}

/** Mean with its standard error, from sums of values and of squares. */
function meanOf(count: number, sum: number, squares: number): Estimate {
  const value = sum / count;
  const variance = Math.max(0, squares / count - value * value);
  return { value, standardError: Math.sqrt(variance / Math.max(1, count - 1)) };
}

export function outputErrors(sums: OutputErrorSums): OutputErrors {
  const { tokens, changedTokens, dividedTokens } = sums;
  return {
    tokens,
    total: relativeError(sums, sums.total),
    experts: relativeError(sums, sums.experts),
    routing: relativeError(sums, sums.routing),
    cross: (2 * sums.cross) / sums.outputSquares,
    changedShare: meanOf(tokens, changedTokens, changedTokens),
    divergenceNats: meanOf(dividedTokens, sums.divergence, sums.divergenceSquares),
    lostShare: sums.lostMass / tokens,
  };
}
