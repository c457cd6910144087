import { InputError } from '../errors.js';
import { symmetricEigen } from '../linalg/symmetric-eigen.js';
import { standardErrorOfMean } from './aggregate.js';
import { addExact, type ExactSum, mergeExact, totalOf } from './exact-sum.js';

/** Second moments of hidden states `[rows, width]`, mergeable; merged moments agree to rounding. */
export interface SecondMoments {
  readonly width: number;
  rows: number;
  readonly sum: Float64Array;
  /** Lower triangle of the sum of outer products, `[width, width]`. */
  readonly products: Float64Array;
}

export function createSecondMoments(width: number): SecondMoments {
  return { width, rows: 0, sum: new Float64Array(width), products: new Float64Array(width * width) };
}

/** Adds rows of hidden states, `[rows, width]` row-major. */
export function addSecondMoments(moments: SecondMoments, states: Float32Array | Float64Array): void {
  const { width, sum, products } = moments;
  const rows = states.length / width;
  for (let r = 0; r < rows; r++) {
    const row = r * width;
    for (let i = 0; i < width; i++) {
      const value = states[row + i];
      sum[i] += value;
      const at = i * width;
      for (let j = 0; j <= i; j++) products[at + j] += value * states[row + j];
    }
  }
  moments.rows += rows;
}

export function mergeSecondMoments(moments: SecondMoments, other: SecondMoments): void {
  if (moments.width !== other.width) throw new RangeError(`widths ${moments.width} and ${other.width} do not fit`);
  moments.rows += other.rows;
  for (let i = 0; i < moments.sum.length; i++) moments.sum[i] += other.sum[i];
  for (let i = 0; i < moments.products.length; i++) moments.products[i] += other.products[i];
}

/** Measures of a spectrum of nonnegative eigenvalues. */
export interface SpectrumMeasures {
  /** Von Neumann entropy `-sum p log p` of the normalised spectrum, nats. */
  readonly entropyNats: number;
  /** `exp(entropy)` (Roy & Vetterli 2007, on the squared singular values). */
  readonly effectiveRank: number;
  /** `(sum l)^2 / sum l^2`. */
  readonly participationRatio: number;
  /** `sum l / max l`. */
  readonly stableRank: number;
  /** Share of the largest eigenvalue. */
  readonly topShare: number;
}

/**
 * Measures of eigenvalues of a covariance or Gram matrix. Values below zero by rounding count as zero.
 * @throws InputError when nothing is above zero or a value is negative beyond rounding
 */
export function spectrumMeasures(eigenvalues: ArrayLike<number>): SpectrumMeasures {
  let total = 0;
  let squares = 0;
  let largest = 0;
  let smallest = 0;
  for (let i = 0; i < eigenvalues.length; i++) {
    const value = Math.max(0, eigenvalues[i]);
    total += value;
    squares += value * value;
    largest = Math.max(largest, value);
    smallest = Math.min(smallest, eigenvalues[i]);
  }
  if (!(total > 0)) throw new InputError('hidden states do not vary: their covariance is zero');
  if (smallest < -1e-8 * total) {
    throw new InputError(`the matrix is not positive semidefinite: smallest eigenvalue ${smallest}, trace ${total}`);
  }
  let entropy = 0;
  for (let i = 0; i < eigenvalues.length; i++) {
    const p = Math.max(0, eigenvalues[i]) / total;
    if (p > 0) entropy -= p * Math.log(p);
  }
  entropy = Math.max(0, entropy);
  return {
    entropyNats: entropy,
    effectiveRank: Math.exp(entropy),
    participationRatio: (total * total) / squares,
    stableRank: total / largest,
    topShare: largest / total,
  };
}

/** Spectrum measures of the covariance (centred, default) or of the second-moment matrix of accumulated states. */
export function momentMeasures(moments: SecondMoments, centred = true): SpectrumMeasures {
  const { width, rows, sum, products } = moments;
  if (rows < 2) throw new InputError(`effective rank needs at least two hidden states, got ${rows}`);
  const matrix = new Float64Array(width * width);
  for (let i = 0; i < width; i++) {
    for (let j = 0; j <= i; j++) {
      const value = products[i * width + j] / rows - (centred ? (sum[i] / rows) * (sum[j] / rows) : 0);
      matrix[i * width + j] = value;
      matrix[j * width + i] = value;
    }
  }
  return spectrumMeasures(symmetricEigen(matrix, width).values);
}

/**
 * Spectrum measures of a sample of states `[rows, width]` through the smaller of the Gram matrix of the rows and the
 * covariance: for widths too large for an eigendecomposition, with a sample of rows.
 */
export function sampleMeasures(states: Float32Array | Float64Array, width: number, centred = true): SpectrumMeasures {
  const rows = states.length / width;
  if (rows >= width) {
    const moments = createSecondMoments(width);
    addSecondMoments(moments, states);
    return momentMeasures(moments, centred);
  }
  if (rows < 2) throw new InputError(`effective rank needs at least two hidden states, got ${rows}`);
  const centre = new Float64Array(width);
  if (centred) for (let r = 0; r < rows; r++) for (let i = 0; i < width; i++) centre[i] += states[r * width + i] / rows;
  const gram = new Float64Array(rows * rows);
  for (let r = 0; r < rows; r++) {
    for (let s = 0; s <= r; s++) {
      let product = 0;
      for (let i = 0; i < width; i++)
        product += (states[r * width + i] - centre[i]) * (states[s * width + i] - centre[i]);
      gram[r * rows + s] = product / rows;
      gram[s * rows + r] = product / rows;
    }
  }
  return spectrumMeasures(symmetricEigen(gram, rows).values);
}

/** Euclidean norm of every row of `[rows, width]`. */
export function rowNorms(states: Float32Array | Float64Array, width: number): Float64Array {
  const norms = new Float64Array(states.length / width);
  for (let r = 0; r < norms.length; r++) {
    let squares = 0;
    for (let i = r * width; i < (r + 1) * width; i++) squares += states[i] * states[i];
    norms[r] = Math.sqrt(squares);
  }
  return norms;
}

/** What one position gives at one layer. Arrays have one entry a position; an absent measure is not taken. */
export interface LayerRows {
  readonly residualNorm?: Float64Array;
  /** Entropy of the logit lens: the final norm and head applied to the layer's residual. */
  readonly lensEntropyNats?: Float64Array;
  /** KL(final layer || lens), nats. */
  readonly lensKlNats?: Float64Array;
  /** Surprisal of the next token under the lens. */
  readonly lensSurprisalNats?: Float64Array;
  /** 1 where the lens and the final layer agree on the likeliest token. */
  readonly lensAgreement?: ArrayLike<number>;
  /** Cosine of the angle between the residual of this layer and of the one before. */
  readonly cosineToPrevious?: Float64Array;
}

const LAYER_KEYS = [
  ['residualNorm', 'residual_norm'],
  ['lensEntropyNats', 'lens_entropy_nats'],
  ['lensKlNats', 'lens_kl_to_final_nats'],
  ['lensSurprisalNats', 'lens_surprisal_nats'],
  ['lensAgreement', 'lens_top1_agreement'],
  ['cosineToPrevious', 'cosine_to_previous'],
] as const;

/** Exact sums of one measure at one layer; infinite values are counted apart. */
interface MeasureSums {
  count: number;
  infinite: number;
  sum: ExactSum;
  squareSum: ExactSum;
}

/** Mergeable sums, one list of measures a layer (in the order of the keys). Plain: it can be written as JSON as it is. */
export interface LayerStatistics {
  readonly layers: MeasureSums[][];
}

export function createLayerStatistics(layers: number): LayerStatistics {
  return {
    layers: Array.from({ length: layers }, () =>
      LAYER_KEYS.map((): MeasureSums => ({ count: 0, infinite: 0, sum: [], squareSum: [] })),
    ),
  };
}

/** Adds the measures of some positions at one layer; NaN entries (a position without a target) are passed over. */
export function addLayerRows(statistics: LayerStatistics, layer: number, rows: LayerRows): void {
  LAYER_KEYS.forEach(([key], k) => {
    const values = rows[key];
    if (values === undefined) return;
    const sums = statistics.layers[layer][k];
    for (let i = 0; i < values.length; i++) {
      const value = values[i];
      if (Number.isNaN(value)) continue;
      sums.count++;
      if (!Number.isFinite(value)) {
        sums.infinite++;
        continue;
      }
      addExact(sums.sum, value);
      addExact(sums.squareSum, value * value);
    }
  });
}

/** Adds `other` into `statistics`, exactly. */
export function mergeLayers(statistics: LayerStatistics, other: LayerStatistics): void {
  if (statistics.layers.length !== other.layers.length) {
    throw new RangeError(`${other.layers.length} layers do not fit ${statistics.layers.length}`);
  }
  statistics.layers.forEach((measures, layer) => {
    measures.forEach((sums, k) => {
      const from = other.layers[layer][k];
      sums.count += from.count;
      sums.infinite += from.infinite;
      mergeExact(sums.sum, from.sum);
      mergeExact(sums.squareSum, from.squareSum);
    });
  });
}

/** Mean and standard error of every measure taken at a layer: keys `<measure>` and `<measure>_se`. */
export function layerFigures(statistics: LayerStatistics): Record<string, number>[] {
  return statistics.layers.map((measures, layer) => {
    const figures: Record<string, number> = { layer, positions: Math.max(...measures.map((sums) => sums.count)) };
    measures.forEach((sums, k) => {
      if (sums.count === 0) return;
      const key = LAYER_KEYS[k][1];
      const total = totalOf(sums.sum);
      const infinite = sums.infinite > 0;
      figures[key] = infinite ? Number.POSITIVE_INFINITY : total / sums.count;
      figures[`${key}_se`] = infinite ? Number.NaN : standardErrorOfMean(total, totalOf(sums.squareSum), sums.count);
    });
    return figures;
  });
}
