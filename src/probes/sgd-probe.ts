import { multiply } from '../kernels/gemm.js';
import { createRandom } from '../random.js';
import type { Head } from './cat-heads.js';
import { softmaxRows } from './class-metrics.js';
import type { MemberRows } from './member-rows.js';

/** How a probe is trained by stochastic gradients. */
export interface SgdSettings {
  readonly epochs: number;
  readonly learningRate: number;
  /** Epochs (0-based) before which the rate is divided by ten. */
  readonly milestones: readonly number[];
  readonly batch: number;
  readonly momentum: number;
  /** Added to gradients as `decay * weight`, of the head's weights and biases but not of the normalisation. */
  readonly decay: number;
  readonly batchNorm: boolean;
  readonly seed: number;
}

/** The probe recipe of the published experiments: 28 epochs at 0.01, divided by ten at 8, 16 and 24, batches of 256. */
export const PROBE_RECIPE = { epochs: 28, learningRate: 0.01, milestones: [8, 16, 24], batch: 256, momentum: 0.9 };

/** The second stage of two-stage fine-tuning: two epochs at 0.001. */
export const SECOND_STAGE_RECIPE = { epochs: 2, learningRate: 1e-3, milestones: [], batch: 256, momentum: 0.9 };

/** Standard deviation of the initial weights of a head. */
const HEAD_DEVIATION = 0.01;
/** Batch normalisation: weight of a new batch in the running statistics, and what is added to variances. */
const RUNNING_SHARE = 0.1;
const NORM_EPSILON = 1e-5;

/** A linear layer, behind a batch normalisation where there is one. */
export interface SgdProbe {
  readonly features: number;
  readonly classes: number;
  readonly weights: Float64Array;
  readonly bias: Float64Array;
  readonly norm: BatchNorm | null;
  /** Mean cross-entropy of the batches of the last epoch, as it was met. */
  readonly lastEpochLossNats: number;
}

export interface BatchNorm {
  readonly gain: Float64Array;
  readonly shift: Float64Array;
  readonly runningMean: Float64Array;
  readonly runningVariance: Float64Array;
}

/** A parameter with its velocity. */
interface Parameter {
  readonly values: Float64Array;
  readonly velocity: Float64Array;
  readonly decay: number;
}

const parameter = (values: Float64Array, decay: number): Parameter => ({
  values,
  velocity: new Float64Array(values.length),
  decay,
});

/** Nesterov momentum as frameworks have it: `v = m v + g`, then a step along `g + m v`. */
function step(target: Parameter, gradient: Float64Array, rate: number, momentum: number): void {
  const { values, velocity, decay } = target;
  for (let i = 0; i < values.length; i++) {
    const g = gradient[i] + decay * values[i];
    velocity[i] = momentum * velocity[i] + g;
    values[i] -= rate * (g + momentum * velocity[i]);
  }
}

/** Normalises a batch `[count, features]` into `out` by its own statistics, and updates the running ones. */
function normaliseBatch(
  x: Float64Array,
  count: number,
  norm: BatchNorm,
  normalised: Float64Array,
  out: Float64Array,
): void {
  const { gain, shift, runningMean, runningVariance } = norm;
  const features = gain.length;
  const mean = new Float64Array(features);
  const variance = new Float64Array(features);
  for (let r = 0; r < count; r++) for (let j = 0; j < features; j++) mean[j] += x[r * features + j] / count;
  for (let r = 0; r < count; r++) {
    for (let j = 0; j < features; j++) variance[j] += (x[r * features + j] - mean[j]) ** 2 / count;
  }
  for (let j = 0; j < features; j++) {
    const unbiased = count > 1 ? (variance[j] * count) / (count - 1) : variance[j];
    runningMean[j] += RUNNING_SHARE * (mean[j] - runningMean[j]);
    runningVariance[j] += RUNNING_SHARE * (unbiased - runningVariance[j]);
    variance[j] = 1 / Math.sqrt(variance[j] + NORM_EPSILON);
  }
  for (let r = 0; r < count; r++) {
    for (let j = 0; j < features; j++) {
      const at = r * features + j;
      normalised[at] = (x[at] - mean[j]) * variance[j];
      out[at] = gain[j] * normalised[at] + shift[j];
    }
  }
}

/** Batches of an epoch: consecutive runs of a permutation. A single row left over joins the batch before it. */
function batchesOf(order: Int32Array, size: number): Int32Array[] {
  const batches: Int32Array[] = [];
  for (let start = 0; start < order.length; start += size) {
    const rest = order.length - start;
    if (rest === 1 && batches.length > 0) {
      batches[batches.length - 1] = order.subarray(start - size);
      break;
    }
    batches.push(order.subarray(start, start + size));
  }
  return batches;
}

function gatherRows(members: readonly MemberRows[], batch: Int32Array, features: number, target: Float64Array): void {
  let column = 0;
  for (const member of members) {
    batch.forEach((row, r) => {
      target.set(member.read(row, 1), r * features + column);
    });
    column += member.columns;
  }
}

/**
 * Trains a linear classifier on the raw features of members side by side by stochastic gradients with Nesterov momentum
 * (the probe recipe of Zhang & Bottou 2023 with {@link PROBE_RECIPE}). Memory is one batch and the weights.
 *
 * @param start where the head begins; without it weights are normal with deviation 0.01 and biases 0
 */
export function trainSgdProbe(
  members: readonly MemberRows[],
  labels: ArrayLike<number>,
  classes: number,
  settings: SgdSettings,
  start?: Head,
  onEpoch?: () => void,
): SgdProbe {
  const { batchNorm, decay, learningRate, milestones, momentum } = settings;
  const features = members.reduce((sum, { columns }) => sum + columns, 0);
  const { rows } = members[0];
  const random = createRandom(settings.seed);
  const drawn = random.fork(1);
  const weights = parameter(
    start?.weights.slice() ?? Float64Array.from({ length: classes * features }, () => HEAD_DEVIATION * drawn.normal()),
    decay,
  );
  const bias = parameter(start?.bias.slice() ?? new Float64Array(classes), decay);
  const norm: BatchNorm | null = batchNorm
    ? {
        gain: new Float64Array(features).fill(1),
        shift: new Float64Array(features),
        runningMean: new Float64Array(features),
        runningVariance: new Float64Array(features).fill(1),
      }
    : null;
  const gain = norm && parameter(norm.gain, 0);
  const shift = norm && parameter(norm.shift, 0);
  const size = settings.batch + 1;
  const raw = new Float64Array(size * features);
  const normalised = new Float64Array(norm ? size * features : 0);
  const scaled = norm ? new Float64Array(size * features) : raw;
  const logits = new Float64Array(size * classes);
  const weightGradient = new Float64Array(classes * features);
  const back = new Float64Array(norm ? size * features : 0);
  let lastEpochLossNats = Number.NaN;
  for (let epoch = 0; epoch < settings.epochs; epoch++) {
    const rate = learningRate / 10 ** milestones.filter((at) => epoch >= at).length;
    let loss = 0;
    for (const batch of batchesOf(random.fork(2 + epoch).permutation(rows), settings.batch)) {
      const count = batch.length;
      gatherRows(members, batch, features, raw);
      if (norm) normaliseBatch(raw, count, norm, normalised, scaled);
      for (let r = 0; r < count; r++) logits.set(bias.values, r * classes);
      multiply(scaled, weights.values, logits, { m: count, n: classes, k: features }, { transposeB: true, beta: 1 });
      softmaxRows(logits, count, classes);
      const biasGradient = new Float64Array(classes);
      for (let r = 0; r < count; r++) {
        const own = labels[batch[r]];
        loss -= Math.log(Math.max(logits[r * classes + own], Number.MIN_VALUE)) / rows;
        logits[r * classes + own] -= 1;
        for (let k = 0; k < classes; k++) {
          logits[r * classes + k] /= count;
          biasGradient[k] += logits[r * classes + k];
        }
      }
      multiply(logits, scaled, weightGradient, { m: classes, n: features, k: count }, { transposeA: true });
      if (norm && gain && shift) {
        multiply(logits, weights.values, back, { m: count, n: features, k: classes });
        const gainGradient = new Float64Array(features);
        const shiftGradient = new Float64Array(features);
        for (let r = 0; r < count; r++) {
          for (let j = 0; j < features; j++) {
            gainGradient[j] += back[r * features + j] * normalised[r * features + j];
            shiftGradient[j] += back[r * features + j];
          }
        }
        step(gain, gainGradient, rate, momentum);
        step(shift, shiftGradient, rate, momentum);
      }
      step(weights, weightGradient, rate, momentum);
      step(bias, biasGradient, rate, momentum);
    }
    lastEpochLossNats = loss;
    onEpoch?.();
  }
  return { features, classes, weights: weights.values, bias: bias.values, norm, lastEpochLossNats };
}

/** The probe as one linear map of raw features: running statistics are folded into weights and biases. */
export function headOfSgdProbe(probe: SgdProbe): Head {
  const { features, classes, norm } = probe;
  const weights = probe.weights.slice();
  const bias = probe.bias.slice();
  if (norm) {
    for (let j = 0; j < features; j++) {
      const factor = norm.gain[j] / Math.sqrt(norm.runningVariance[j] + NORM_EPSILON);
      const offset = norm.shift[j] - norm.runningMean[j] * factor;
      for (let k = 0; k < classes; k++) {
        bias[k] += probe.weights[k * features + j] * offset;
        weights[k * features + j] *= factor;
      }
    }
  }
  return { weights, bias, features, classes };
}
