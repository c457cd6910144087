import { InputError, RunError } from '../errors.js';
import { multiply } from '../kernels/gemm.js';
import { createRandom } from '../random.js';
import { koopmanMatrix } from './koopman-matrix.js';
import { type LagrangianSettings, type LagrangianTerms, lagrangianGradients, lagrangianTerms } from './lagrangian.js';
import { backwardPerceptron, createAdam, createPerceptron, forwardPerceptron, type Perceptron } from './perceptron.js';
import { type LatentSequence, type Sequences, sequencesOf } from './sequences.js';

/** Trajectories of observations, `[sum of lengths, width]`. */
export interface Trajectories {
  readonly data: Float64Array;
  readonly width: number;
  readonly lengths: readonly number[];
}

export interface FitSettings extends LagrangianSettings {
  readonly latent: number;
  readonly hidden: number;
  /** Optimiser steps. */
  readonly steps: number;
  /** Windows of a batch and observations of a window. */
  readonly batch: number;
  readonly windowLength: number;
  readonly learningRate: number;
  /** Steps after which the rate is multiplied by 0.8; 0: never. */
  readonly decayEvery: number;
  /** Largest norm of the gradient. */
  readonly clip: number;
  readonly seed: number;
  readonly logEvery: number;
}

/** Terms of one batch during the fit. */
export interface FitStep extends Omit<LagrangianTerms, 'koopman'> {
  readonly step: number;
  /** Mean over entries of ‖x − g(z)‖². */
  readonly reconstruction: number;
  /** Mean over entries of ‖x' − g(z C)‖². */
  readonly prediction: number;
  readonly objective: number;
}

/** A fitted linear representation: x → encoder → z, z' = z C, decoder → x. Observations are standardised first. */
export interface KoopmanModel {
  readonly mean: Float64Array;
  readonly scale: Float64Array;
  readonly encoder: Perceptron;
  readonly decoder: Perceptron;
  /** `[latent, latent]`, fitted on all trajectories. */
  readonly koopman: Float64Array;
}

export interface FitResult {
  readonly model: KoopmanModel;
  readonly steps: readonly FitStep[];
}

const DECAY = 0.8;

/** Mean and population deviation of every coordinate; 1 where one does not vary. */
export function standardisation(trajectories: Trajectories): { mean: Float64Array; scale: Float64Array } {
  const { data, width } = trajectories;
  const rows = data.length / width;
  const mean = new Float64Array(width);
  const scale = new Float64Array(width);
  for (let i = 0; i < data.length; i++) mean[i % width] += data[i] / rows;
  for (let i = 0; i < data.length; i++) scale[i % width] += (data[i] - mean[i % width]) ** 2 / rows;
  for (let i = 0; i < width; i++) scale[i] = scale[i] > 0 ? Math.sqrt(scale[i]) : 1;
  return { mean, scale };
}

/** Places where a window of the wanted length fits. */
export function windowStarts(lengths: readonly number[], length: number): Int32Array {
  const starts: number[] = [];
  let at = 0;
  for (const own of lengths) {
    for (let t = 0; t + length <= own; t++) starts.push(at + t);
    at += own;
  }
  return Int32Array.from(starts);
}

/** Latents of windows of `length` observations as sequences that share their buffer. */
function windowSequences(z: Float64Array, width: number, windows: number, length: number): Sequences {
  return sequencesOf(z, width, new Array<number>(windows).fill(length));
}

/**
 * Fits encoder, decoder and the linear dynamics by Adam on the information Lagrangian (Cheng et al. 2025). Paper:
 * `‖x − g(z)‖² − α I + β ‖z' − z C‖² − γ S`. Code: `L_forward + λ L_recon + α loss + β S`, where the pixel errors are summed
 * over the steps of a window and the entropy is minimised. C is solved for in every batch and held fixed in the gradient.
 * @throws InputError when no trajectory is as long as a window; RunError when the objective is no longer finite
 */
export function fitKoopman(
  trajectories: Trajectories,
  settings: FitSettings,
  onStep: (step: FitStep) => void = () => undefined,
): FitResult {
  const { data, width, lengths } = trajectories;
  const { latent, hidden, batch, windowLength } = settings;
  const { mean, scale } = standardisation(trajectories);
  const x = data.map((value, at) => (value - mean[at % width]) / scale[at % width]);
  const starts = windowStarts(lengths, windowLength);
  if (starts.length === 0) {
    throw new InputError(
      `no trajectory has ${windowLength} steps (the longest has ${Math.max(0, ...lengths)}); lower --sequence-length`,
    );
  }
  const random = createRandom(settings.seed);
  const encoder = createPerceptron({ input: width, hidden, output: latent }, random.fork(1));
  const decoder = createPerceptron({ input: latent, hidden, output: width }, random.fork(2));
  const updates = [createAdam(encoder.parameters.length), createAdam(decoder.parameters.length)];
  const draws = random.fork(3);
  const rows = batch * windowLength;
  const inputs = new Float64Array(rows * width);
  const log: FitStep[] = [];
  for (let step = 0; step < settings.steps; step++) {
    for (let w = 0; w < batch; w++) {
      const start = starts[draws.integer(starts.length)];
      inputs.set(x.subarray(start * width, (start + windowLength) * width), w * windowLength * width);
    }
    const gradients = [encoder, decoder].map(({ parameters }) => new Float64Array(parameters.length));
    const found = batchGradients({ encoder, decoder }, inputs, batch, settings, gradients);
    if (!Number.isFinite(found.objective)) {
      throw new RunError(`the fit diverged at step ${step} (objective ${found.objective}); lower --learning-rate`);
    }
    clipTogether(gradients, settings.clip);
    const decays = settings.decayEvery > 0 ? Math.floor(step / settings.decayEvery) : 0;
    const rate = settings.learningRate * DECAY ** decays;
    updates[0](encoder.parameters, gradients[0], rate);
    updates[1](decoder.parameters, gradients[1], rate);
    if (step % settings.logEvery === 0 || step === settings.steps - 1) log.push({ ...found, step });
    onStep({ ...found, step });
  }
  const z = forwardPerceptron(encoder, x, x.length / width).outputs;
  const usable = lengths.filter((length) => length > 0);
  const koopman = koopmanMatrix(sequencesOf(z, latent, usable), settings.ridge);
  return { model: { mean, scale, encoder, decoder, koopman }, steps: log };
}

function clipTogether(gradients: readonly Float64Array[], most: number): void {
  let squares = 0;
  for (const gradient of gradients) for (const value of gradient) squares += value * value;
  const norm = Math.sqrt(squares);
  if (!(norm > most)) return;
  for (const gradient of gradients) for (let i = 0; i < gradient.length; i++) gradient[i] *= most / norm;
}

/** Objective of a batch of windows and, added up in `gradients`, what it asks of encoder and decoder. */
export function batchGradients(
  networks: { readonly encoder: Perceptron; readonly decoder: Perceptron },
  inputs: Float64Array,
  batch: number,
  settings: Pick<FitSettings, 'windowLength' | 'latent' | keyof LagrangianSettings>,
  gradients: readonly Float64Array[],
): Omit<FitStep, 'step'> {
  const { encoder, decoder } = networks;
  const { windowLength: length, latent, variant, weights } = settings;
  const width = encoder.shape.input;
  const rows = batch * length;
  const encoded = forwardPerceptron(encoder, inputs, rows);
  const sequences = windowSequences(encoded.outputs, latent, batch, length);
  const { koopman, ...terms } = lagrangianTerms(sequences, settings);

  const decoded = forwardPerceptron(decoder, encoded.outputs, rows);
  const predictedRows = batch * (length - 1);
  const earlier = joined(sequences.list, latent);
  const moved = multiply(earlier, koopman, new Float64Array(earlier.length), {
    m: predictedRows,
    n: latent,
    k: latent,
  });
  const predicted = forwardPerceptron(decoder, moved, predictedRows);
  const targets = laterRows(inputs, width, batch, length);

  const reconstruction = meanSquare(decoded.outputs, inputs);
  const prediction = meanSquare(predicted.outputs, targets);
  // The paper's squared norm is summed over the entries of an observation; the code sums errors over the steps.
  const scales =
    variant === 'paper'
      ? { reconstruction: width, prediction: 0 }
      : { reconstruction: weights.reconstruction * length, prediction: length - 1 };
  const objective = scales.reconstruction * reconstruction + scales.prediction * prediction + terms.lagrangian;

  const slopes = lagrangianGradients(sequences, settings, koopman);
  const intoLatents = new Float64Array(rows * latent);
  sequences.list.forEach((_, w) => {
    const base = w * length * latent;
    slopes.z[w].forEach((value, i) => {
      intoLatents[base + i] += value;
    });
    slopes.next[w].forEach((value, i) => {
      intoLatents[base + latent + i] += value;
    });
  });
  const fromDecoder = backwardPerceptron(
    decoder,
    decoded,
    difference(decoded.outputs, inputs, (2 * scales.reconstruction) / inputs.length),
    gradients[1],
  );
  for (let i = 0; i < intoLatents.length; i++) intoLatents[i] += fromDecoder[i];
  if (scales.prediction > 0) {
    const slope = difference(predicted.outputs, targets, (2 * scales.prediction) / targets.length);
    const fromPrediction = backwardPerceptron(decoder, predicted, slope, gradients[1]);
    const back = multiply(
      fromPrediction,
      koopman,
      new Float64Array(fromPrediction.length),
      { m: predictedRows, n: latent, k: latent },
      { transposeB: true },
    );
    const block = (length - 1) * latent;
    for (let i = 0; i < back.length; i++) {
      intoLatents[Math.floor(i / block) * length * latent + (i % block)] += back[i];
    }
  }
  backwardPerceptron(encoder, encoded, intoLatents, gradients[0]);
  return { ...terms, reconstruction, prediction, objective };
}

function joined(list: readonly LatentSequence[], width: number): Float64Array {
  const rows = new Float64Array(list.reduce((sum, { steps }) => sum + steps * width, 0));
  let at = 0;
  for (const { z } of list) {
    rows.set(z, at);
    at += z.length;
  }
  return rows;
}

/** Rows 1..length-1 of every window. */
function laterRows(inputs: Float64Array, width: number, batch: number, length: number): Float64Array {
  const rows = new Float64Array(batch * (length - 1) * width);
  for (let w = 0; w < batch; w++) {
    const from = (w * length + 1) * width;
    rows.set(inputs.subarray(from, from + (length - 1) * width), w * (length - 1) * width);
  }
  return rows;
}

function meanSquare(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] - b[i]) ** 2;
  return sum / a.length;
}

const difference = (a: Float64Array, b: Float64Array, scale: number): Float64Array =>
  a.map((value, i) => scale * (value - b[i]));

/** Latents `[rows, latent]` of observations `[rows, width]`. */
export function encode(model: KoopmanModel, observations: Float64Array): Float64Array {
  const width = model.mean.length;
  const x = observations.map((value, at) => (value - model.mean[at % width]) / model.scale[at % width]);
  return forwardPerceptron(model.encoder, x, x.length / width).outputs;
}

/** Observations of latents, in their own units. */
export function decode(model: KoopmanModel, latents: Float64Array): Float64Array {
  const width = model.mean.length;
  const rows = latents.length / model.encoder.shape.output;
  const x = forwardPerceptron(model.decoder, latents, rows).outputs;
  return x.map((value, at) => value * model.scale[at % width] + model.mean[at % width]);
}
