import { feedbackStep } from '../kernels/error-feedback.js';
import { multiply } from '../kernels/gemm.js';
import { storedScale } from '../kernels/pulse-encode-reference.js';
import { type EncodedRows, type PyramidCode, rowCodeBytes, rowGroups, rowIndexBytes } from '../kernels/pyramid.js';
import { dequantizeRows, packCodes, packPulses, unpackCodes, unpackPulses } from '../kernels/pyramid-index.js';
import { type BlockCoupling, descentCoupling, feedbackCoupling, invertBlock } from './block-coupling.js';
import { type EncodeOptions, type EncodeStatistics, encodeRows } from './encode-rows.js';
import { lazyColumns } from './error-feedback.js';
import { refitGains } from './gain-refit.js';
import { type HessianFactor, orderColumns } from './hessian.js';
import { refitRowScales, rowProducts, scaledLoss, timesFactor, timesHessian } from './refits.js';

export interface HessianEncodingOptions extends Pick<EncodeOptions, 'mode' | 'cap' | 'negativeCap' | 'threads'> {
  /** Errors of a block move the targets of the blocks behind it. Default true. */
  readonly feedback?: boolean;
  /** Pulses and gains are searched in the metric of their block, not in the Euclidean one. Default true. */
  readonly metricSearch?: boolean;
  /** Row scales are refitted by least squares. Default true. */
  readonly rowRefit?: boolean;
  /** Gains of a row are refitted jointly and quantised anew with feedback among them. Default false: dear. */
  readonly gainRefit?: boolean;
  /** Passes of coordinate descent over the blocks. Default 0. */
  readonly passes?: number;
  /** Pulses that are moved after the greedy search of a group while its cosine grows, at most. Default 4. */
  readonly polishSteps?: number;
}

/** What a step made of the loss. */
export interface LossStep {
  /** `nearest` is the encoding without Hessian, which also gives the row scales. */
  readonly step: 'nearest' | 'feedback' | 'row-refit' | 'gain-refit' | 'descent';
  /** `tr((W - Ŵ) H (W - Ŵ)ᵀ)` with the damped H. */
  readonly loss: number;
  /** The same with H as it was measured: without the damping. */
  readonly undampedLoss: number;
  /** Rows that the step changed; the others kept what they had, because it was better. */
  readonly rowsChanged: number;
}

export interface HessianStatistics {
  /** `tr(W H Wᵀ)` with the damped H. */
  readonly signal: number;
  readonly steps: readonly LossStep[];
  /** lambda of the factor. */
  readonly damping: number;
  readonly deadInputs: Int32Array;
  /** Of the encoding without Hessian. */
  readonly nearest: EncodeStatistics;
}

export interface HessianEncoding {
  readonly encoded: EncodedRows;
  /** Ŵ `[rows, n]` as decoded, in the domain of the given rows. */
  readonly decoded: Float32Array;
  readonly statistics: HessianStatistics;
}

/** What is built once for all tensors that share a factor and a group length. */
export interface FeedbackPlan {
  readonly factor: HessianFactor;
  readonly feedback: SingleCoupling;
  /** Coupling of coordinate descent, made when it is first asked for. */
  descent(): SingleCoupling;
}

/** A coupling with its metrics in single precision, largest diagonal entry 1. */
interface SingleCoupling {
  readonly coupling: BlockCoupling<Float32Array>;
  readonly metrics: Float32Array;
  readonly metricScales: Float64Array;
}

function singleMetrics(coupling: BlockCoupling<Float32Array>): SingleCoupling {
  const { n, blockColumns: D } = coupling;
  const blocks = Math.ceil(n / D);
  const metricScales = new Float64Array(blocks);
  const metrics = new Float32Array(coupling.metrics.length);
  for (let b = 0; b < blocks; b++) {
    for (let i = 0; i < D; i++) metricScales[b] = Math.max(metricScales[b], coupling.metrics[b * D * D + i * (D + 1)]);
    for (let i = b * D * D; i < (b + 1) * D * D; i++) metrics[i] = coupling.metrics[i] / metricScales[b];
  }
  return { coupling, metrics, metricScales };
}

/** `[n, n]` of f32: 4 n² bytes beside the factor's 8 n², and as much again once there is a descent. */
export function planFeedback(factor: HessianFactor, groupLength: number, threads?: number): FeedbackPlan {
  const { n } = factor;
  let descent: SingleCoupling | undefined;
  return {
    factor,
    feedback: singleMetrics(feedbackCoupling(factor, groupLength, new Float32Array(n * n), threads)),
    descent() {
      descent ??= singleMetrics(descentCoupling(factor, groupLength, new Float32Array(n * n), threads));
      return descent;
    },
  };
}

/** A matrix on its way; arrays in the order of the factor's columns. */
interface Encoding {
  readonly rows: number;
  readonly n: number;
  readonly groups: number;
  readonly code: PyramidCode;
  readonly weights: Float32Array;
  readonly levels: Float32Array;
  readonly scales: Float32Array;
  readonly pulses: Int16Array;
  readonly codes: Uint8Array;
  readonly decoded: Float32Array;
}

const sum = (values: Float64Array): number => values.reduce((total, value) => total + value, 0);

function squaredError({ weights, decoded }: Encoding): number {
  let total = 0;
  for (let i = 0; i < weights.length; i++) total += (weights[i] - decoded[i]) ** 2;
  return total;
}

/** Runs all lazy blocks; in a descent columns before a block move as well. */
function runSteps(
  state: Encoding,
  work: Float32Array,
  single: SingleCoupling,
  options: HessianEncodingOptions,
  descent: boolean,
): Float64Array {
  const { rows, n, code } = state;
  const { matrix } = single.coupling;
  const { threads, cap = code.pulses } = options;
  const lazy = lazyColumns(code.groupLength);
  const change = new Float32Array(rows * lazy);
  const losses = new Float64Array(rows);
  for (let from = 0; from < n; from += lazy) {
    const to = Math.min(n, from + lazy);
    const width = to - from;
    feedbackStep(
      {
        work,
        base: state.weights,
        decoded: state.decoded,
        change,
        coupling: matrix,
        metrics: single.metrics,
        metricScales: single.metricScales,
        scales: state.scales,
        levels: state.levels,
        pulses: state.pulses,
        codes: state.codes,
        losses,
        rows,
        n,
        from,
        to,
        blockColumns: code.groupLength,
        pulseCount: code.pulses,
        cap,
        negativeCap: options.negativeCap ?? cap,
        inMetric: options.metricSearch ?? true,
        descent,
        polishSteps: options.polishSteps ?? 4,
      },
      threads,
    );
    const spread = (first: number, last: number): void => {
      multiply(
        change,
        matrix.subarray(from * n + first),
        work.subarray(first),
        { m: rows, n: last - first, k: width },
        { strideA: width, strideB: n, strideC: n, beta: 1, threads },
      );
    };
    if (descent && from > 0) spread(0, from);
    if (to < n) spread(to, n);
  }
  return losses;
}

/** `(W - Ŵ) R` from the errors `A - Ŵ` of the blocks, which feedback left: block b times R_bb. */
function reachOfErrors(
  errors: Float32Array,
  rows: number,
  factor: HessianFactor,
  D: number,
  threads?: number,
): Float32Array {
  const { n, packed } = factor;
  const reach = new Float32Array(rows * n);
  const root = new Float32Array(D * D);
  for (let at = 0; at < n; at += D) {
    const w = Math.min(D, n - at);
    for (let i = 0; i < w; i++) {
      for (let j = 0; j < w; j++) root[i * w + j] = j >= i ? packed[(at + i) * n + at + j] : 0;
    }
    multiply(
      errors.subarray(at),
      root,
      reach.subarray(at),
      { m: rows, n: w, k: w },
      { strideA: n, strideC: n, threads },
    );
  }
  return reach;
}

/** `(W - Ŵ) R` `[rows, n]`. */
function reachOf({ weights, decoded, rows }: Encoding, factor: HessianFactor, threads?: number): Float32Array {
  const difference = new Float32Array(weights.length);
  for (let i = 0; i < weights.length; i++) difference[i] = weights[i] - decoded[i];
  return timesFactor(difference, rows, factor, threads);
}

/** New row scales, rounded as they are stored; a row keeps its own where rounding makes that the better one. */
function refitRows(
  { rows, n, scales, decoded }: Encoding,
  weightsR: Float32Array,
  reach: Float32Array,
): { losses: Float64Array; changed: number } {
  const { factors, before } = refitRowScales(weightsR, reach, rows, n);
  const losses = before.slice();
  let changed = 0;
  for (let r = 0; r < rows; r++) {
    const scale = storedScale(scales[r] * factors[r]);
    if (!(scale > 0) || scale === scales[r]) continue;
    const ratio = scale / scales[r];
    const loss = scaledLoss(weightsR, reach, r, n, ratio);
    if (!(loss < before[r])) continue;
    losses[r] = loss;
    changed++;
    scales[r] = scale;
    for (let c = r * n; c < (r + 1) * n; c++) {
      decoded[c] *= ratio;
      reach[c] = weightsR[c] - ratio * (weightsR[c] - reach[c]);
    }
  }
  return { losses, changed };
}

/** `V = (W - Ŵ) C` of the descent: `(W - Ŵ) H = reach Rᵀ`, block b times H_bb⁻¹. */
function descentTargets(
  { rows, n, code }: Encoding,
  reach: Float32Array,
  factor: HessianFactor,
  metrics: Float64Array,
  threads?: number,
): Float32Array {
  const D = code.groupLength;
  const gradient = timesHessian(reach, rows, factor, threads);
  const targets = new Float32Array(rows * n);
  for (let at = 0; at < n; at += D) {
    const w = Math.min(D, n - at);
    const inverse = Float32Array.from(invertBlock(metrics.subarray(at * D), D, w));
    multiply(
      gradient.subarray(at),
      inverse,
      targets.subarray(at),
      { m: rows, n: w, k: w },
      { strideA: n, strideC: n, threads },
    );
  }
  return targets;
}

/** Groups of a row in the order of the factor's columns. */
function groupsInOrder(order: Int32Array | undefined, groups: number, D: number): Int32Array {
  return Int32Array.from({ length: groups }, (_, g) => (order === undefined ? g : order[g * D] / D));
}

/** Takes pulses and codes of rows from the stored order of the groups, or back to it. */
function reorderGroups(state: Encoding, places: Int32Array, inverse: boolean): void {
  const { rows, groups, code, pulses, codes } = state;
  const D = code.groupLength;
  const keptPulses = new Int16Array(groups * D);
  const keptCodes = new Uint8Array(groups);
  for (let r = 0; r < rows; r++) {
    keptPulses.set(pulses.subarray(r * groups * D, (r + 1) * groups * D));
    keptCodes.set(codes.subarray(r * groups, (r + 1) * groups));
    for (let g = 0; g < groups; g++) {
      const [from, to] = inverse ? [g, places[g]] : [places[g], g];
      pulses.set(keptPulses.subarray(from * D, (from + 1) * D), (r * groups + to) * D);
      codes[r * groups + to] = keptCodes[from];
    }
  }
}

function unpack(encoded: EncodedRows, weights: Float32Array, decoded: Float32Array, threads?: number): Encoding {
  const { rows, columns: n, code, levels } = encoded;
  const groups = rowGroups(n, code.groupLength);
  const pulses = new Int16Array(rows * groups * code.groupLength);
  const codes = new Uint8Array(rows * groups);
  unpackPulses(encoded.index, rows, groups, code, pulses, threads);
  if (code.gainBits > 0) unpackCodes(encoded.gain, rows, groups, code.gainBits, codes);
  return { rows, n, groups, code, weights, levels, scales: encoded.scales, pulses, codes, decoded };
}

function pack(state: Encoding, threads?: number): EncodedRows {
  const { rows, n, groups, code, levels, scales, pulses, codes } = state;
  const index = new Uint8Array(rows * rowIndexBytes(code, groups));
  const gain = new Uint8Array(rows * rowCodeBytes(code.gainBits, groups));
  packPulses(pulses, rows, groups, code, index, threads);
  if (code.gainBits > 0) packCodes(codes, rows, groups, code.gainBits, gain);
  return { rows, columns: n, code, index, gain, scales, levels };
}

/**
 * Encodes rows `[rows, n]` with error feedback and what belongs to it. Row scales come from the encoding without
 * Hessian and stay until a refit; a row that a refit or a descent does not improve keeps what it had.
 * @param rotated rows as they are to be coded: dead inputs cleared, then rotated, in the order of the tensor
 * @param plan of {@link planFeedback}, made from the Hessian of the same rotation
 * @throws InputError when a weight is not finite, RangeError when sizes do not fit
 */
export function quantizeWithHessian(
  rotated: Float32Array,
  rows: number,
  n: number,
  plan: FeedbackPlan,
  code: PyramidCode,
  levels: Float32Array,
  options: HessianEncodingOptions = {},
): HessianEncoding {
  const { factor, feedback } = plan;
  const D = code.groupLength;
  const { threads } = options;
  if (factor.n !== n || feedback.coupling.blockColumns !== D) {
    throw new RangeError(
      `a plan for ${factor.n} columns in groups of ${feedback.coupling.blockColumns}, not ${n} in groups of ${D}`,
    );
  }
  const nearest = encodeRows(rotated, rows, n, code, levels, {
    threads,
    ...(options.mode !== undefined && { mode: options.mode }),
    ...(options.cap !== undefined && { cap: options.cap }),
    ...(options.negativeCap !== undefined && { negativeCap: options.negativeCap }),
  });
  const decoded = new Float32Array(rows * n);
  dequantizeRows(nearest.encoded, decoded, { threads });
  const weights = rotated.slice();
  const state = unpack(nearest.encoded, weights, decoded, threads);
  const places = groupsInOrder(factor.columnOrder, state.groups, D);
  if (factor.columnOrder !== undefined) {
    orderColumns(weights, rows, n, factor.columnOrder);
    orderColumns(decoded, rows, n, factor.columnOrder);
    reorderGroups(state, places, false);
  }
  const steps = improve(state, plan, options);
  if (factor.columnOrder !== undefined) {
    orderColumns(decoded, rows, n, factor.columnOrder, true);
    reorderGroups(state, places, true);
  }
  const encoded = pack(state, threads);
  dequantizeRows(encoded, decoded, { threads });
  const { damping, deadInputs } = factor;
  return { encoded, decoded, statistics: { ...steps, damping, deadInputs, nearest: nearest.statistics } };
}

function improve(
  state: Encoding,
  plan: FeedbackPlan,
  options: HessianEncodingOptions,
): Pick<HessianStatistics, 'signal' | 'steps'> {
  const { factor, feedback } = plan;
  const { rows, n, code, weights } = state;
  const { threads } = options;
  const steps: LossStep[] = [];
  const record = (step: LossStep['step'], loss: number, rowsChanged: number): void => {
    steps.push({ step, loss, undampedLoss: Math.max(0, loss - factor.ridge * squaredError(state)), rowsChanged });
  };
  const weightsR = timesFactor(weights, rows, factor, threads);
  const signal = sum(rowProducts(weightsR, weightsR, rows, n));
  let reach = reachOf(state, factor, threads);
  record('nearest', sum(rowProducts(reach, reach, rows, n)), rows);
  if (options.feedback ?? true) {
    const work = weights.slice();
    const losses = runSteps(state, work, feedback, options, false);
    record('feedback', sum(losses), rows);
    reach = reachOfErrors(work, rows, factor, code.groupLength, threads);
  }
  const refitScales = (): void => {
    const { losses, changed } = refitRows(state, weightsR, reach);
    record('row-refit', sum(losses), changed);
  };
  if (options.rowRefit ?? true) refitScales();
  if (options.gainRefit ?? false) {
    const { losses, changed } = refitGains(state, weightsR, rowProducts(reach, reach, rows, n), factor, threads);
    record('gain-refit', sum(losses), changed);
    reach = reachOf(state, factor, threads);
  }
  const passes = options.passes ?? 0;
  if (passes > 0) {
    const single = plan.descent();
    const work = descentTargets(state, reach, factor, single.coupling.metrics, threads);
    let loss = sum(rowProducts(reach, reach, rows, n));
    for (let pass = 0; pass < passes; pass++) {
      const gained = runSteps(state, work, single, options, true);
      loss += sum(gained);
      record(
        'descent',
        loss,
        gained.reduce((count, value) => count + (value < 0 ? 1 : 0), 0),
      );
    }
    reach = reachOf(state, factor, threads);
    if (options.rowRefit ?? true) refitScales();
  }
  return { signal, steps };
}
