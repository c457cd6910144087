import { InputError } from '../errors.js';
import { encodeOnnxModel } from '../formats/onnx.js';
import { createRandom } from '../random.js';
import { composeAutoencoder } from '../training/autoencoder.js';
import { parseNetwork } from '../training/network-text.js';
import { NETWORK_LOGITS } from '../training/networks.js';
import type { Objective } from '../training/objective.js';
import { openOnnxStudent } from '../training/onnx-student.js';
import { train } from '../training/trainer.js';
import type { FeatureBatch, LogitsBlock, Precision } from '../training/types.js';
import type { FitSettings, FitStep, Trajectories } from './fit.js';
import { standardisation, windowStarts } from './fit.js';
import { koopmanMatrix } from './koopman-matrix.js';
import { lagrangianGradients, lagrangianTerms } from './lagrangian.js';
import { sequencesOf } from './sequences.js';

export interface NetworkFitSettings extends FitSettings {
  /** Encoder as `parseNetwork` reads it: the decoder has its hidden layers in reverse. */
  readonly network: string;
  readonly precision: Precision;
  readonly threads: number;
}

/** A representation that the training engine has fitted: both networks as ONNX files, observations in their own units. */
export interface NetworkFit {
  readonly steps: readonly FitStep[];
  /** [rows, latent] of the trajectories. */
  readonly latents: Float64Array;
  readonly koopman: Float64Array;
  /** Input `features` [rows, width], output `logits` [rows, latent]. */
  readonly encoder: Uint8Array;
  /** Input `features` [rows, latent], output `logits` [rows, width] on the standardised scale. */
  readonly decoder: Uint8Array;
  readonly mean: Float64Array;
  readonly scale: Float64Array;
  readonly weights: number;
  /** Latents of observations, [rows, width] to [rows, latent]. */
  encode(observations: Float64Array): Promise<Float64Array>;
  /** Observations of latents. */
  decode(latents: Float64Array): Promise<Float64Array>;
  close(): Promise<void>;
}

/** Rows that pass through a network together when nothing is learnt. */
const ROWS_TOGETHER = 4096;

/**
 * Fits encoder, decoder and the linear dynamics on the paper's information Lagrangian, `‖x − g(z)‖² − α I + β ‖z' − z C‖² − γ S`
 * (Cheng et al. 2025), with networks of any depth by the training engine: Adam, the norm of the gradient cut. As in
 * `fitKoopman`, C is solved for in every batch and held fixed in the gradient.
 * @throws InputError when no trajectory is as long as a window, for another network than an mlp, or the released code's objective
 * @throws RunError when the fit diverges
 */
export async function fitKoopmanNetwork(
  trajectories: Trajectories,
  settings: NetworkFitSettings,
  onStep: (step: number) => void = () => undefined,
): Promise<NetworkFit> {
  const { data, width, lengths } = trajectories;
  const { latent, batch, windowLength, precision, threads, seed } = settings;
  const design = parseNetwork(settings.network);
  if (design.kind !== 'mlp')
    throw new InputError(`--network ${settings.network}: the rows of trajectories need an mlp`);
  if (settings.variant !== 'paper') {
    throw new InputError("--network fits the paper's objective; the released code's predicts through its own decoder");
  }
  const { mean, scale } = standardisation(trajectories);
  const starts = windowStarts(lengths, windowLength);
  if (starts.length === 0) {
    throw new InputError(
      `no trajectory has ${windowLength} steps (the longest has ${Math.max(0, ...lengths)}); lower --sequence-length`,
    );
  }
  const inverse = scale.map((value) => 1 / value);
  const autoencoder = composeAutoencoder(design, { width, latent, seed, precision, scale: { mean, inverse } });
  const opened = { precision, threads, seed, logits: NETWORK_LOGITS };
  const student = await openOnnxStudent<FeatureBatch>(autoencoder.model, {
    ...opened,
    train: autoencoder.parameters,
    dims: [width],
  });
  const take = (values: ArrayLike<number>): Float32Array | Float64Array =>
    precision === 'f32' ? Float32Array.from(values) : Float64Array.from(values);
  const rowsOf = (features: Float32Array | Float64Array, columns: number): FeatureBatch => {
    const rows = features.length / columns;
    return { features, rows, labels: new Int32Array(rows), indices: new Int32Array(rows) };
  };
  const random = createRandom(seed).fork(3);
  const steps: FitStep[] = [];
  try {
    await train(
      student,
      {
        perEpoch: Math.max(1, Math.floor(starts.length / batch)),
        batch(index) {
          const draws = random.fork(index);
          const features = take(new Float64Array(batch * windowLength * width));
          for (let w = 0; w < batch; w++) {
            const start = starts[draws.integer(starts.length)];
            features.set(data.subarray(start * width, (start + windowLength) * width), w * windowLength * width);
          }
          return rowsOf(features, width);
        },
      },
      lagrangianObjective({ width, mean, inverse }, settings, (step) => {
        if ((step.step - 1) % settings.logEvery === 0 || step.step === settings.steps) {
          steps.push({ ...step, step: step.step - 1 });
        }
        onStep(step.step);
      }),
      {
        steps: settings.steps,
        optimizer: { method: 'adam' },
        schedule: { learningRate: settings.learningRate },
        clipNorm: settings.clip,
        threads,
      },
    );
    const models = [autoencoder.encoder(student.parameters), autoencoder.decoder(student.parameters)];
    const encoder = await openOnnxStudent<FeatureBatch>(models[0], { ...opened, dims: [width] });
    const decoder = await openOnnxStudent<FeatureBatch>(models[1], { ...opened, dims: [latent] });
    /** Outputs of a network on rows. */
    const applied = async (network: typeof encoder, rows: Float64Array, columns: number): Promise<Float64Array> => {
      const { classes } = network;
      const outputs = new Float64Array((rows.length / columns) * classes);
      for (let first = 0; first < rows.length; first += ROWS_TOGETHER * columns) {
        const part = rowsOf(take(rows.subarray(first, first + ROWS_TOGETHER * columns)), columns);
        await network.evaluate(part, (block) => {
          outputs.set(block.logits.subarray(0, block.rows * classes), (first / columns + block.firstRow) * classes);
        });
      }
      return outputs;
    };
    const latents = await applied(encoder, data, width);
    const usable = lengths.filter((length) => length > 0);
    return {
      steps,
      latents,
      koopman: koopmanMatrix(sequencesOf(latents, latent, usable), settings.ridge),
      encoder: encodeOnnxModel(models[0]),
      decoder: encodeOnnxModel(models[1]),
      mean,
      scale,
      weights: student.parameters.values.length,
      encode: (observations) => applied(encoder, observations, width),
      async decode(rows) {
        const found = await applied(decoder, rows, latent);
        return found.map((value, i) => value * scale[i % width] + mean[i % width]);
      },
      async close() {
        await encoder.close();
        await decoder.close();
      },
    };
  } finally {
    await student.close();
  }
}

/** The paper's objective on the rows [latents | decoded] of a batch of windows. */
export function lagrangianObjective(
  observed: { readonly width: number; readonly mean: Float64Array; readonly inverse: Float64Array },
  settings: NetworkFitSettings,
  seen: (step: FitStep) => void,
): Objective<FeatureBatch> {
  const { width, mean, inverse } = observed;
  const { latent, windowLength } = settings;
  return {
    terms: ['lagrangian'],
    wholeBatch: true,
    validRows: (_, rows) => rows,
    begin(batch, progress) {
      let objective = 0;
      const visit = (block: LogitsBlock): void => {
        const { rows, classes, logits, gradient } = block;
        const z = new Float64Array(rows * latent);
        for (let i = 0; i < z.length; i++) z[i] = logits[Math.floor(i / latent) * classes + (i % latent)];
        const sequences = sequencesOf(z, latent, new Array<number>(rows / windowLength).fill(windowLength));
        const { koopman, ...terms } = lagrangianTerms(sequences, settings);
        // Gradients are those of a sum over rows: the trainer divides by their number.
        let squares = 0;
        for (let r = 0; r < rows; r++) {
          for (let j = 0; j < width; j++) {
            const target = (batch.features[r * width + j] - mean[j]) * inverse[j];
            const error = logits[r * classes + latent + j] - target;
            squares += error * error;
            if (gradient) gradient[r * classes + latent + j] += 2 * error;
          }
        }
        const reconstruction = squares / (rows * width);
        objective = width * reconstruction + terms.lagrangian;
        seen({ ...terms, step: progress.step, reconstruction, prediction: Number.NaN, objective });
        if (!gradient) return;
        const slopes = lagrangianGradients(sequences, settings, koopman);
        const add = (values: Float64Array, firstRow: number): void => {
          for (let i = 0; i < values.length; i++) {
            gradient[(firstRow + Math.floor(i / latent)) * classes + (i % latent)] += rows * values[i];
          }
        };
        for (const [w, values] of slopes.z.entries()) add(values, w * windowLength);
        for (const [w, values] of slopes.next.entries()) add(values, w * windowLength + 1);
      };
      return {
        visit,
        totals: () => ({
          sum: objective * batch.rows,
          validRows: batch.rows,
          terms: { lagrangian: objective * batch.rows },
          diagnostics: {},
        }),
      };
    },
  };
}
