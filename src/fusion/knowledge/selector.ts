/** The adaptive selection network of Fusion-X (Kong et al. 2025): which sources a sequence is learnt from, and how much. */
import { InputError } from '../../errors.js';
import { normalCdf } from '../../linalg/special-functions.js';
import type { Random } from '../../random.js';
import type { Floats } from '../../training/types.js';

/** Probability above which a source is kept, in the paper's recipe. */
export const SELECTION_THRESHOLD = 0.15;
/** Weight of the feedback loss in the whole loss. */
export const FEEDBACK_WEIGHT = 0.5;

/** Added to the sum of the kept probabilities, and to the squared mean of the importance (released code). */
const SUM_FLOOR = 1e-8;
const MEAN_FLOOR = 1e-10;

/** A tensor of the gate in its flat values. */
export interface GateTensor {
  readonly name: string;
  readonly dims: readonly number[];
  readonly offset: number;
  readonly length: number;
}

/** Tensors of a gate over K models: W1 [2K, K], b1, W2 [K, 2K], b2, W3 [K, K], b3. */
export function gateTensors(models: number): GateTensor[] {
  const wide = 2 * models;
  const shapes: [string, number[]][] = [
    ['gate1.weight', [wide, models]],
    ['gate1.bias', [wide]],
    ['gate2.weight', [models, wide]],
    ['gate2.bias', [models]],
    ['gate3.weight', [models, models]],
    ['gate3.bias', [models]],
  ];
  let offset = 0;
  return shapes.map(([name, dims]) => {
    const length = dims.reduce((product, extent) => product * extent, 1);
    offset += length;
    return { name, dims, offset: offset - length, length };
  });
}

/** Numbers of a gate over so many models. */
export function gateSize(models: number): number {
  const last = gateTensors(models)[5];
  return last.offset + last.length;
}

/** A gate as linear layers begin: weights and biases uniform on ±1/√(inputs of the layer). */
export function initialGate(models: number, random: Random): Float64Array {
  const values = new Float64Array(gateSize(models));
  for (const { name, offset, length } of gateTensors(models)) {
    const bound = 1 / Math.sqrt(name.startsWith('gate2') ? 2 * models : models);
    for (let i = 0; i < length; i++) values[offset + i] = (2 * random.uniform() - 1) * bound;
  }
  return values;
}

const INVERSE_ROOT_TAU = 1 / Math.sqrt(2 * Math.PI);
/** x Φ(x). */
const gelu = (x: number): number => x * normalCdf(x);
const geluSlope = (x: number): number => normalCdf(x) + x * INVERSE_ROOT_TAU * Math.exp((-x * x) / 2);

/**
 * s_k = exp(-ce_k), in (0, 1]. One that underflows is the smallest number above 0.
 * @throws InputError for a cross-entropy below 0 or NaN
 */
export function sequenceScores(ces: ArrayLike<number>, place = 'the sequence'): Float64Array {
  return Float64Array.from(ces, (ce, k) => {
    if (ce >= 0) return Math.max(Number.MIN_VALUE, Math.exp(-ce));
    throw new InputError(`${place}: the cross-entropy of model ${k} is ${ce}; it must be a number of nats from 0 on`);
  });
}

/** @throws InputError for scores outside (0, 1] */
function checkScores(scores: ArrayLike<number>): void {
  for (let k = 0; k < scores.length; k++) {
    if (scores[k] > 0 && scores[k] <= 1) continue;
    throw new InputError(`score ${k} is ${scores[k]}: scores are exp(-cross-entropy), so above 0 and at most 1`);
  }
}

/** out = W x + b. */
function affine(values: Floats, weight: GateTensor, bias: GateTensor, x: Float64Array): Float64Array {
  const [rows, columns] = weight.dims;
  const out = new Float64Array(rows);
  for (let r = 0; r < rows; r++) {
    let sum = values[bias.offset + r];
    const from = weight.offset + r * columns;
    for (let c = 0; c < columns; c++) sum += values[from + c] * x[c];
    out[r] = sum;
  }
  return out;
}

/** Adds the gradients of W and b, and returns that of x. */
function affineBackward(
  values: Floats,
  [weight, bias]: readonly [GateTensor, GateTensor],
  x: Float64Array,
  slope: Float64Array,
  gradients: Floats,
): Float64Array {
  const [rows, columns] = weight.dims;
  const ofInput = new Float64Array(columns);
  for (let r = 0; r < rows; r++) {
    const from = weight.offset + r * columns;
    gradients[bias.offset + r] += slope[r];
    for (let c = 0; c < columns; c++) {
      gradients[from + c] += slope[r] * x[c];
      ofInput[c] += slope[r] * values[from + c];
    }
  }
  return ofInput;
}

/** A sequence's selection, and what the pass back needs. */
export interface Selection {
  /** [models] scores the gate read. */
  readonly scores: Float64Array;
  /** [models] P, the softmax of the gate. */
  readonly probabilities: Float64Array;
  /** [models] 1 where a model is kept. */
  readonly kept: Uint8Array;
  /** [models] w_k = P_k kept_k / (Σ P kept + 1e-8). */
  readonly weights: Float64Array;
  /** Σ w_k s_k. */
  readonly fusedScore: number;
  readonly hidden: readonly [Float64Array, Float64Array];
}

function softmax(logits: Float64Array): Float64Array {
  const most = logits.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const powers = logits.map((logit) => Math.exp(logit - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

/** Models with P above the threshold; where none is, the first of the most likely. */
export function keptModels(probabilities: Float64Array, threshold: number): Uint8Array {
  const kept = Uint8Array.from(probabilities, (p) => (p > threshold ? 1 : 0));
  if (!kept.includes(1)) kept[probabilities.indexOf(Math.max(...probabilities))] = 1;
  return kept;
}

/**
 * P = softmax(W3 gelu(W2 gelu(W1 s + b1) + b2) + b3), the models it keeps, and their weights.
 * @param values the gate's numbers, as `gateTensors` lays them out
 * @throws InputError for scores outside (0, 1]
 */
export function selectSources(values: Floats, scores: Float64Array, threshold = SELECTION_THRESHOLD): Selection {
  checkScores(scores);
  const [w1, b1, w2, b2, w3, b3] = gateTensors(scores.length);
  const first = affine(values, w1, b1, scores);
  const second = affine(values, w2, b2, first.map(gelu));
  const probabilities = softmax(affine(values, w3, b3, second.map(gelu)));
  const kept = keptModels(probabilities, threshold);
  const mass = probabilities.reduce((sum, p, k) => sum + p * kept[k], 0) + SUM_FLOOR;
  const weights = probabilities.map((p, k) => (p * kept[k]) / mass);
  const fusedScore = weights.reduce((sum, w, k) => sum + w * scores[k], 0);
  return { scores, probabilities, kept, weights, fusedScore, hidden: [first, second] };
}

/**
 * Adds the gradient of a loss by the gate's numbers, the kept set taken as constant.
 * @param slope [models] dL/dw
 */
export function selectSourcesBackward(
  values: Floats,
  { scores, probabilities, kept, weights, hidden }: Selection,
  slope: ArrayLike<number>,
  gradients: Floats,
): void {
  const models = scores.length;
  const [w1, b1, w2, b2, w3, b3] = gateTensors(models);
  const [first, second] = hidden;
  const mass = probabilities.reduce((sum, p, k) => sum + p * kept[k], 0) + SUM_FLOOR;
  let along = 0;
  for (let k = 0; k < models; k++) along += slope[k] * weights[k];
  const ofProbability = probabilities.map((_, k) => (kept[k] * (slope[k] - along)) / mass);
  let mean = 0;
  for (let k = 0; k < models; k++) mean += ofProbability[k] * probabilities[k];
  const ofLogits = probabilities.map((p, k) => p * (ofProbability[k] - mean));
  const ofSecond = affineBackward(values, [w3, b3], second.map(gelu), ofLogits, gradients);
  const secondSlope = ofSecond.map((value, i) => value * geluSlope(second[i]));
  const ofFirst = affineBackward(values, [w2, b2], first.map(gelu), secondSlope, gradients);
  const firstSlope = ofFirst.map((value, i) => value * geluSlope(first[i]));
  affineBackward(values, [w1, b1], scores, firstSlope, gradients);
}

/** [models] Σ over the sequences of a batch of their weights. */
export function importanceOf(weights: readonly Float64Array[], models: number): Float64Array {
  const importance = new Float64Array(models);
  for (const ofSequence of weights) for (let k = 0; k < models; k++) importance[k] += ofSequence[k];
  return importance;
}

/** The feedback loss and its derivative by the importance of each model, so by each of the weights. */
export interface Feedback {
  /** CV²: the sample variance of the importance over its squared mean; 0 for one model. */
  readonly value: number;
  /** [models] */
  readonly slope: Float64Array;
}

/** L_fb = var(importance; ddof 1) / (mean² + 1e-10). It does not depend on the importance's scale. */
export function feedbackLoss(importance: Float64Array): Feedback {
  const models = importance.length;
  const slope = new Float64Array(models);
  if (models === 1) return { value: 0, slope };
  const mean = importance.reduce((a, b) => a + b, 0) / models;
  let variance = 0;
  for (const value of importance) variance += (value - mean) ** 2 / (models - 1);
  const below = mean * mean + MEAN_FLOOR;
  for (let k = 0; k < models; k++) {
    const ofVariance = (2 * (importance[k] - mean)) / (models - 1);
    slope[k] = ofVariance / below - (variance * 2 * mean) / (models * below * below);
  }
  return { value: variance / below, slope };
}

/** H(w) in nats; exp of it is the effective number of sources. */
export function selectionEntropy(weights: Float64Array): number {
  const sum = weights.reduce((a, b) => a + b, 0);
  let entropy = 0;
  for (const weight of weights) if (weight > 0) entropy -= (weight / sum) * Math.log(weight / sum);
  return entropy;
}
