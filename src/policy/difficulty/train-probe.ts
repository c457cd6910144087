import { eachBlock, type FeatureMatrix, loadMatrix } from '../../formats/feature-matrix.js';
import { multiply } from '../../kernels/gemm.js';
import { adamStep } from '../../kernels/optimizer-steps.js';
import type { Standardisation } from '../../linalg/linear-probe.js';
import { VARIANCE_FLOOR } from '../../linalg/linear-probe.js';
import { createRandom, type Random } from '../../random.js';
import { type DifficultyProbe, headRows, hiddenRows, softmaxRows, standardiseRows } from './probe.js';
import type { ProbeSettings } from './probe-settings.js';

/** Rows that are read at once where not all are held. */
const BLOCK_ROWS = 4096;

/** Mean and scale of the columns of some rows, by updates that keep their digits. @throws InputError for NaN */
async function standardisationOf(matrix: FeatureMatrix, isWanted: Uint8Array): Promise<Standardisation> {
  const { columns } = matrix;
  const mean = new Float64Array(columns);
  const squares = new Float64Array(columns);
  let count = 0;
  await eachBlock(matrix, BLOCK_ROWS, 'f64', (rows, start, length) => {
    for (let r = 0; r < length; r++) {
      if (isWanted[start + r] === 0) continue;
      count++;
      for (let j = 0; j < columns; j++) {
        const value = rows[r * columns + j];
        const delta = value - mean[j];
        mean[j] += delta / count;
        squares[j] += delta * (value - mean[j]);
      }
    }
  });
  const variance = squares.map((sum) => sum / count);
  return { mean, variance, scale: variance.map((v) => Math.sqrt(Math.max(v, VARIANCE_FLOOR))) };
}

interface Flat {
  readonly values: Float32Array;
  readonly gradients: Float32Array;
  readonly probe: DifficultyProbe;
  readonly gradient: {
    readonly w1: Float32Array;
    readonly b1: Float32Array;
    readonly w2: Float32Array;
    readonly b2: Float32Array;
  };
}

/** One buffer for all weights. Weights and biases begin uniform in +-1/sqrt(inputs), as PyTorch's `Linear`. */
function createFlat(features: number, hidden: number, classes: number, by: Standardisation, random: Random): Flat {
  const sizes = [hidden * features, hidden, classes * hidden, classes];
  const total = sizes.reduce((sum, size) => sum + size, 0);
  const cut = (flat: Float32Array): [Float32Array, Float32Array, Float32Array, Float32Array] => {
    const ends = sizes.map((_, i) => sizes.slice(0, i + 1).reduce((sum, size) => sum + size, 0));
    const part = (i: number): Float32Array => flat.subarray(ends[i] - sizes[i], ends[i]);
    return [part(0), part(1), part(2), part(3)];
  };
  const values = new Float32Array(total);
  const gradients = new Float32Array(total);
  const [w1, b1, w2, b2] = cut(values);
  for (const [tensor, inputs] of [
    [w1, features],
    [b1, features],
    [w2, hidden],
    [b2, hidden],
  ] as const) {
    for (let i = 0; i < tensor.length; i++) tensor[i] = (2 * random.uniform() - 1) / Math.sqrt(inputs);
  }
  const [g1, h1, g2, h2] = cut(gradients);
  return {
    values,
    gradients,
    probe: { features, hidden, classes, w1, b1, w2, b2, standardisation: by },
    gradient: { w1: g1, b1: h1, w2: g2, b2: h2 },
  };
}

/** Writes the gradient of the mean weighted cross-entropy of a minibatch; gives the sum of its losses. */
function backward(
  { probe, gradient }: Flat,
  z: Float32Array,
  labels: Uint8Array,
  weights: Float64Array,
  threads: number,
): number {
  const { features, hidden, classes } = probe;
  const rows = labels.length;
  const activations = hiddenRows(probe, z, rows, threads) as Float32Array;
  const p = softmaxRows(headRows(probe, activations, rows), classes);
  const total = labels.reduce((sum, label) => sum + weights[label], 0);
  let loss = 0;
  const dLogits = new Float32Array(rows * classes);
  gradient.b2.fill(0);
  for (let r = 0; r < rows; r++) {
    const weight = weights[labels[r]] / total;
    loss -= Math.log(p[r * classes + labels[r]]);
    for (let c = 0; c < classes; c++) {
      dLogits[r * classes + c] = weight * (p[r * classes + c] - Number(c === labels[r]));
      gradient.b2[c] += dLogits[r * classes + c];
    }
  }
  multiply(dLogits, activations, gradient.w2, { m: classes, n: hidden, k: rows }, { transposeA: true });
  const dHidden = multiply(dLogits, probe.w2 as Float32Array, new Float32Array(rows * hidden), {
    m: rows,
    n: hidden,
    k: classes,
  });
  gradient.b1.fill(0);
  for (let i = 0; i < dHidden.length; i++) {
    if (activations[i] === 0) dHidden[i] = 0;
    gradient.b1[i % hidden] += dHidden[i];
  }
  multiply(dHidden, z, gradient.w1, { m: hidden, n: features, k: rows }, { transposeA: true, threads });
  return loss;
}

/** Rows to train on, in blocks: one of all rows where they are held. */
interface Feed {
  /** Blocks of an epoch, in a random order; features are standardised. */
  blocks(random: Random): Iterable<{ z: Float32Array; labels: Uint8Array }>;
}

function heldFeed(matrix: FeatureMatrix, rows: Int32Array, labels: Uint8Array, by: Standardisation): Feed {
  const z = Float32Array.from(loadMatrix(matrix, rows));
  standardiseRows(z, rows.length, by);
  const own = Uint8Array.from(rows, (row) => labels[row]);
  return { blocks: () => [{ z, labels: own }] };
}

function streamedFeed(matrix: FeatureMatrix, isWanted: Uint8Array, labels: Uint8Array, by: Standardisation): Feed {
  const { columns } = matrix;
  const count = Math.ceil(matrix.rows / BLOCK_ROWS);
  const buffer = new Float32Array(BLOCK_ROWS * columns);
  return {
    *blocks(random) {
      for (const block of random.permutation(count)) {
        const start = block * BLOCK_ROWS;
        const length = Math.min(BLOCK_ROWS, matrix.rows - start);
        matrix.readRows(start, length, buffer);
        const own: number[] = [];
        for (let r = 0; r < length; r++) {
          if (isWanted[start + r] === 0) continue;
          buffer.copyWithin(own.length * columns, r * columns, (r + 1) * columns);
          own.push(labels[start + r]);
        }
        standardiseRows(buffer, own.length, by);
        yield { z: buffer.subarray(0, own.length * columns), labels: Uint8Array.from(own) };
      }
    },
  };
}

/** A trained probe and the mean loss of every epoch, nats. */
export interface TrainedProbe {
  readonly probe: DifficultyProbe;
  readonly lossNats: Float64Array;
  readonly held: boolean;
}

/**
 * Trains the probe by AdamW on minibatches, in f32. Same seed, same bits, whatever the number of threads.
 * @param labels [matrix rows]
 * @param rows rows of the training split, ascending
 * @throws InputError for features that are no numbers, with their row and column
 */
export async function trainProbe(
  matrix: FeatureMatrix,
  labels: Uint8Array,
  rows: Int32Array,
  classes: number,
  settings: ProbeSettings,
): Promise<TrainedProbe> {
  const { hidden, epochs, learningRate, weightDecay, batchSize, threads } = settings;
  const isWanted = new Uint8Array(matrix.rows);
  for (const row of rows) isWanted[row] = 1;
  const by = await standardisationOf(matrix, isWanted);
  const root = createRandom(settings.seed).fork(0x70726f62);
  const flat = createFlat(matrix.columns, hidden, classes, by, root.fork(0));
  const held = rows.length * matrix.columns * 12 <= settings.holdBytes;
  const feed = held ? heldFeed(matrix, rows, labels, by) : streamedFeed(matrix, isWanted, labels, by);

  const counts = new Float64Array(classes);
  for (const row of rows) counts[labels[row]]++;
  const weights = counts.map((n) => (settings.balanced && n > 0 ? rows.length / (classes * n) : 1));
  const [m, v] = [new Float32Array(flat.values.length), new Float32Array(flat.values.length)];
  const segments = {
    ends: Float64Array.of(flat.values.length),
    factors: Float64Array.of(1 - learningRate * weightDecay),
  };
  const [beta1, beta2] = [0.9, 0.999];
  let step = 0;
  const lossNats = new Float64Array(epochs);
  const batch = new Float32Array(batchSize * matrix.columns);
  for (let epoch = 0; epoch < epochs; epoch++) {
    const random = root.fork(epoch + 1);
    for (const { z, labels: own } of feed.blocks(random)) {
      const order = random.permutation(own.length);
      for (let at = 0; at < order.length; at += batchSize) {
        const picked = order.subarray(at, at + batchSize);
        picked.forEach((row, i) => {
          batch.set(z.subarray(row * matrix.columns, (row + 1) * matrix.columns), i * matrix.columns);
        });
        const part = batch.subarray(0, picked.length * matrix.columns);
        lossNats[epoch] +=
          backward(
            flat,
            part,
            Uint8Array.from(picked, (row) => own[row]),
            weights,
            threads,
          ) / rows.length;
        step++;
        adamStep(flat.values, flat.gradients, m, v, segments, {
          ...{ gradientScale: 1, clear: false, coupled: false, beta1, beta2, epsilon: 1e-8 },
          stepSize: learningRate / (1 - beta1 ** step),
          rootScale: 1 / Math.sqrt(1 - beta2 ** step),
        });
      }
    }
  }
  return { probe: flat.probe, lossNats, held };
}
