import { multiply } from '../kernels/gemm.js';
import { choleskyInPlace } from '../linalg/blocked-cholesky.js';
import type { HessianFactor } from './hessian.js';
import { rowProducts, timesHessian } from './refits.js';

type Reals = Float32Array | Float64Array;

/** Bytes of the normal matrices of the rows that are worked on together. */
const BAND_BYTES = 64 * 2 ** 20;

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
 * The normal equations of the gains of rows that share a Hessian: shapes of one group times what lies left of it in H is
 * one product for all rows.
 * @param weightsH `W H`, `[rows, n]`
 * @param pulses `[rows, groups * D]`
 */
export function gainSystems(
  weightsH: Reals,
  pulses: Int16Array,
  rows: number,
  D: number,
  factor: HessianFactor,
  threads?: number,
): GainSystem[] {
  const { n, packed, diagonal } = factor;
  const groups = Math.ceil(n / D);
  const stride = groups * D;
  const systems = Array.from({ length: rows }, () => ({
    normal: new Float64Array(groups * groups),
    right: new Float64Array(groups),
  }));
  const shapes = new Float64Array(rows * D);
  const shapesH = new Float64Array(rows * n);
  const own = new Float64Array(D * D);
  for (let a = 0; a < groups; a++) {
    const at = a * D;
    const w = Math.min(D, n - at);
    for (let r = 0; r < rows; r++) {
      for (let i = 0; i < w; i++) {
        shapes[r * w + i] = pulses[r * stride + at + i];
        systems[r].right[a] += shapes[r * w + i] * weightsH[r * n + at + i];
      }
    }
    if (at > 0) {
      multiply(shapes, packed.subarray(at * n), shapesH, { m: rows, n: at, k: w }, { strideB: n, strideC: n, threads });
    }
    for (let i = 0; i < w; i++) {
      own[i * w + i] = diagonal[at + i];
      for (let j = 0; j < i; j++) {
        own[i * w + j] = packed[(at + i) * n + at + j];
        own[j * w + i] = own[i * w + j];
      }
    }
    multiply(shapes, own, shapesH.subarray(at), { m: rows, n: w, k: w }, { strideC: n, threads });
    for (let r = 0; r < rows; r++) {
      const { normal } = systems[r];
      for (let b = 0; b <= a; b++) {
        let sum = 0;
        for (let j = b * D; j < Math.min(n, (b + 1) * D); j++) sum += shapesH[r * n + j] * pulses[r * stride + j];
        normal[a * groups + b] = sum;
        normal[b * groups + a] = sum;
      }
    }
  }
  return systems;
}

/** R upper triangular with `N = R Rᵀ`, or undefined where N is not positive definite. */
function upperRoot({ normal, right }: GainSystem): Float64Array | undefined {
  const root = normal.slice().reverse();
  return choleskyInPlace(root, right.length, { threads: 1 }) ? root.reverse() : undefined;
}

/** Joint least-squares gains `N⁻¹ c` of one row, so that a decoded group is `gain y`; N = R Rᵀ. */
function jointGains(root: Float64Array, right: Float64Array): Float64Array {
  const groups = right.length;
  const gains = right.slice();
  for (let i = groups - 1; i >= 0; i--) {
    for (let j = i + 1; j < groups; j++) gains[i] -= root[i * groups + j] * gains[j];
    gains[i] /= root[i * groups + i];
  }
  for (let i = 0; i < groups; i++) {
    gains[i] /= root[i * groups + i];
    for (let j = i + 1; j < groups; j++) gains[j] -= root[i * groups + j] * gains[i];
  }
  return gains;
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
  const root = upperRoot(system);
  if (root === undefined) return undefined;
  const best = jointGains(root, system.right);
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
  const band = Math.max(1, Math.min(64, Math.floor(BAND_BYTES / (8 * groups * groups))));
  let systems: GainSystem[] = [];
  for (let r = 0; r < rows; r++) {
    if (r % band === 0) {
      const last = Math.min(rows, r + band);
      const own = pulses.subarray(r * groups * D, last * groups * D);
      systems = gainSystems(weightsH.subarray(r * n, last * n), own, last - r, D, factor, threads);
    }
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
    const system = systems[r % band];
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
  const weightsH = timesHessian(weightsR, rows, factor);
  const losses = rowProducts(weightsR, weightsR, rows, n);
  gainSystems(weightsH, pulses, rows, D, factor).forEach((system, r) => {
    const root = upperRoot(system);
    if (root !== undefined) losses[r] += systemLoss(system, jointGains(root, system.right));
  });
  return losses;
}
