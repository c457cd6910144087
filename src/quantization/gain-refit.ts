import { cholesky, choleskySolve } from '../linalg/cholesky.js';
import type { HessianFactor } from './hessian.js';
import { timesHessian } from './refits.js';

/** Rows whose pulses are kept and whose gains are chosen anew. */
export interface GainRows {
  readonly rows: number;
  readonly n: number;
  readonly groups: number;
  readonly code: { readonly groupLength: number };
  readonly levels: Float32Array;
  readonly scales: Float32Array;
  readonly pulses: Int16Array;
  readonly codes: Uint8Array;
  readonly decoded: Float32Array;
}

/** `N = B H Bᵀ` of a row and `c = B H wᵀ`, with the group shapes of B at their columns: the loss is `sNs - 2cs + wHw`. */
export interface GainSystem {
  /** `[groups, groups]`, both triangles. */
  readonly normal: Float64Array;
  readonly right: Float64Array;
}

/**
 * The normal equations of the gains of one row.
 * @param shapes pulses of the groups, `[groups * D]`
 * @param weightsH `w H`, `[n]`
 */
export function gainSystem(
  weightsH: Float32Array | Float64Array,
  shapes: Int16Array,
  D: number,
  factor: HessianFactor,
): GainSystem {
  const { n, packed, diagonal } = factor;
  const groups = Math.ceil(n / D);
  const normal = new Float64Array(groups * groups);
  const right = new Float64Array(groups);
  const shapeH = new Float64Array(n);
  for (let a = 0; a < groups; a++) {
    const to = Math.min(n, (a + 1) * D);
    shapeH.fill(0, 0, to);
    for (let i = a * D; i < to; i++) {
      const pulses = shapes[i];
      if (pulses === 0) continue;
      right[a] += pulses * weightsH[i];
      for (let j = 0; j < i; j++) shapeH[j] += pulses * packed[i * n + j];
      shapeH[i] += pulses * diagonal[i];
      for (let j = i + 1; j < to; j++) shapeH[j] += pulses * packed[j * n + i];
    }
    for (let b = 0; b <= a; b++) {
      let sum = 0;
      for (let j = b * D; j < Math.min(n, (b + 1) * D); j++) sum += shapeH[j] * shapes[j];
      normal[a * groups + b] = sum;
      normal[b * groups + a] = sum;
    }
  }
  return { normal, right };
}

/** Joint least-squares gains `N⁻¹ c` of one row, so that a decoded group is `gain y`. */
export function jointGains({ normal, right }: GainSystem): Float64Array {
  const lower = cholesky(normal, right.length);
  return lower === undefined ? new Float64Array(right.length) : choleskySolve(lower, right.length, right);
}

/** `sNs - 2cs`: the loss but for `wHw`. */
function systemLoss({ normal, right }: GainSystem, gains: Float64Array): number {
  const groups = right.length;
  let loss = 0;
  for (let a = 0; a < groups; a++) {
    let dot = 0;
    for (let b = 0; b < groups; b++) dot += normal[a * groups + b] * gains[b];
    loss += gains[a] * (dot - 2 * right[a]);
  }
  return loss;
}

/**
 * Quantises joint gains one group after another: group b takes the level nearest to
 * `s_b + sum_{j<b} (s_j - q_j) R_jb / R_bb`, `N = R Rᵀ` with R upper: error feedback in the space of the gains.
 * @param steps what one unit of every level is worth, `scale / ||y||`, `[groups]`
 */
function quantiseGains(
  system: GainSystem,
  steps: Float64Array,
  levels: Float32Array,
): { codes: Uint8Array; gains: Float64Array } | undefined {
  const groups = system.right.length;
  const reversed = system.normal.slice().reverse();
  const root = cholesky(reversed, groups)?.reverse();
  if (root === undefined) return undefined;
  const best = jointGains(system);
  const codes = new Uint8Array(groups);
  const gains = new Float64Array(groups);
  const carried = new Float64Array(groups);
  for (let b = 0; b < groups; b++) {
    const target = best[b] + carried[b] / root[b * groups + b];
    let code = 0;
    while (code + 1 < levels.length && target > (steps[b] * (levels[code] + levels[code + 1])) / 2) code++;
    codes[b] = code;
    gains[b] = steps[b] * levels[code];
    const error = best[b] - gains[b];
    for (let j = b + 1; j < groups; j++) carried[j] += error * root[b * groups + j];
  }
  return { codes, gains };
}

/**
 * Joint refit of the gains of every row, pulses and row scale kept: least squares in the metric of the Hessian, then
 * levels in order with feedback. A row keeps its gains where the new ones are not better.
 * @param weightsR `W R`, `[rows, n]`
 * @param losses of the rows as they are
 * @returns losses of the rows, and how many rows changed
 */
export function refitGains(
  state: GainRows,
  weightsR: Float32Array,
  losses: Float64Array,
  factor: HessianFactor,
  threads?: number,
): { losses: Float64Array; changed: number } {
  const { rows, n, groups, levels, scales, pulses, codes, decoded } = state;
  const D = state.code.groupLength;
  const weightsH = timesHessian(weightsR, rows, factor, threads);
  const after = losses.slice();
  let changed = 0;
  for (let r = 0; r < rows; r++) {
    if (!(scales[r] > 0)) continue;
    const shapes = pulses.subarray(r * groups * D, (r + 1) * groups * D);
    const steps = new Float64Array(groups);
    const had = new Float64Array(groups);
    for (let g = 0; g < groups; g++) {
      let squares = 0;
      for (let j = g * D; j < (g + 1) * D; j++) squares += shapes[j] * shapes[j];
      steps[g] = scales[r] / Math.sqrt(squares);
      had[g] = steps[g] * levels[codes[r * groups + g]];
    }
    const system = gainSystem(weightsH.subarray(r * n, (r + 1) * n), shapes, D, factor);
    const chosen = quantiseGains(system, steps, levels);
    if (chosen === undefined) continue;
    const gained = systemLoss(system, chosen.gains) - systemLoss(system, had);
    if (!(gained < 0)) continue;
    changed++;
    after[r] = losses[r] + gained;
    codes.set(chosen.codes, r * groups);
    for (let c = 0; c < n; c++) decoded[r * n + c] = chosen.gains[Math.floor(c / D)] * shapes[c];
  }
  return { losses: after, changed };
}

/** Losses of every row with the joint least-squares gains of its groups, unquantised. */
export function jointGainLosses(
  weightsR: Float64Array,
  rows: number,
  pulses: Int16Array,
  D: number,
  factor: HessianFactor,
): Float64Array {
  const { n } = factor;
  const stride = Math.ceil(n / D) * D;
  const weightsH = timesHessian(weightsR, rows, factor);
  const losses = new Float64Array(rows);
  for (let r = 0; r < rows; r++) {
    const system = gainSystem(
      weightsH.subarray(r * n, (r + 1) * n),
      pulses.subarray(r * stride, (r + 1) * stride),
      D,
      factor,
    );
    let energy = 0;
    for (let c = r * n; c < (r + 1) * n; c++) energy += weightsR[c] ** 2;
    losses[r] = energy + systemLoss(system, jointGains(system));
  }
  return losses;
}
