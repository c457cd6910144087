import type { ActivationStore } from './activation-store.js';
import { areaUnderCurve, randomFolds } from './held-out.js';
import { type LayerVector, scaled, type VectorSettings } from './layer-figures.js';
import { type ContrastMethod, type PairRows, pairDifferences, type SignRule } from './methods/contrast.js';
import { activationNorms } from './scaling.js';
import { cosine, dot, meanRow, norm, projections } from './vector-measures.js';

/** Parts of the pairs, each projected on the direction that the others give. */
const FOLDS = 5;

export interface ContrastSettings extends VectorSettings {
  readonly method: ContrastMethod;
  readonly sign?: SignRule;
  readonly threads?: number;
}

/** Row numbers 2p and 2p + 1 of the pairs. */
const rowsOf = (pairs: readonly number[]): number[] => pairs.flatMap((pair) => [2 * pair, 2 * pair + 1]);

function subset(rows: PairRows, pairs: readonly number[]): PairRows {
  const { width } = rows;
  const data = new Float64Array(2 * pairs.length * width);
  rowsOf(pairs).forEach((row, i) => {
    for (let j = 0; j < width; j++) data[i * width + j] = rows.data[row * width + j];
  });
  return { data, pairs: pairs.length, width };
}

/** Projections of every row on the unit direction of the folds that lack its pair; NaN where those have no direction. */
export function heldOutProjections(rows: PairRows, settings: ContrastSettings): Float64Array {
  const result = new Float64Array(2 * rows.pairs).fill(Number.NaN);
  if (rows.pairs < 2) return result;
  const folds = randomFolds(rows.pairs, FOLDS, settings.seed);
  for (const fold of folds) {
    const held = new Set(fold);
    const others = Array.from({ length: rows.pairs }, (_, p) => p).filter((p) => !held.has(p));
    const train = subset(rows, others);
    const { vector } = settings.method.direction(train, settings);
    const length = norm(vector);
    // Folds share one origin: the midpoint of what they were learnt from.
    const origin = dot(meanRow(train.data, rows.width), vector) / length;
    const projected = projections(subset(rows, fold).data, rows.width, vector);
    rowsOf(fold).forEach((row, i) => {
      result[row] = projected[i] / length - origin;
    });
  }
  return result;
}

/** How well held-out projections tell positive from negative rows; pairs are the units of the standard errors. */
export function separation(held: Float64Array): {
  readonly auc: number;
  readonly aucSe: number;
  readonly accuracy: number;
  readonly accuracySe: number;
} {
  const pairs = Array.from({ length: held.length / 2 }, (_, p) => p).filter(
    (p) => Number.isFinite(held[2 * p]) && Number.isFinite(held[2 * p + 1]),
  );
  if (pairs.length === 0) return { auc: Number.NaN, aucSe: Number.NaN, accuracy: Number.NaN, accuracySe: Number.NaN };
  const side = (of: 0 | 1): { scores: Float64Array; clusterOf: number[] } => ({
    scores: Float64Array.from(pairs, (p) => held[2 * p + of]),
    clusterOf: pairs.map((_, i) => i),
  });
  const { value, se } = areaUnderCurve(side(0), side(1), pairs.length);
  const right = pairs.reduce((sum, p) => sum + (Math.sign(held[2 * p] - held[2 * p + 1]) + 1) / 2, 0) / pairs.length;
  return { auc: value, aucSe: se, accuracy: right, accuracySe: Math.sqrt((right * (1 - right)) / pairs.length) };
}

function meanCentredNorm(rows: PairRows): number {
  const halves = pairDifferences(rows);
  let sum = 0;
  for (let p = 0; p < rows.pairs; p++) sum += norm(halves.subarray(p * rows.width, (p + 1) * rows.width)) / 2;
  return sum / rows.pairs;
}

/**
 * The vector of contrast pairs at the block `store.layers[place]`; rows of the store alternate positive and negative.
 * @throws InputError when the method finds no direction
 */
export function contrastVector(store: ActivationStore, place: number, settings: ContrastSettings): LayerVector {
  const { width } = store;
  const data = Float64Array.from(
    store.read(
      place,
      Array.from({ length: store.rows }, (_, row) => row),
    ),
  );
  const rows: PairRows = { data, pairs: store.rows / 2, width };
  const found = settings.method.direction(rows, settings);
  const { vector, figures } = scaled(found.vector, activationNorms(data, width, found.vector), settings);
  const held = heldOutProjections(rows, settings);
  const { auc, aucSe, accuracy, accuracySe } = separation(held);
  const layer = store.layers[place];
  return {
    layer,
    vector,
    projections: projections(data, width, vector),
    heldOutProjections: held,
    figures: {
      layer,
      ...figures,
      mean_centred_norm: meanCentredNorm(rows),
      separation_auc: auc,
      separation_auc_se: aucSe,
      pair_accuracy: accuracy,
      pair_accuracy_se: accuracySe,
      correlation: Number.NaN,
      explained_entropy_share: Number.NaN,
      held_out_correlation: Number.NaN,
      held_out_correlation_se: Number.NaN,
      held_out_correlation_low: Number.NaN,
      held_out_correlation_high: Number.NaN,
      permuted_correlation_mean: Number.NaN,
      permuted_correlation_sd: Number.NaN,
      permutation_p: Number.NaN,
      explained_variance_ratio: found.explainedVarianceRatio ?? Number.NaN,
      cosine_mean_difference: cosine(found.vector, meanRow(pairDifferences(rows), width)),
    },
  };
}
