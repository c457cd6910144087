/**
 * Batches beside their perturbed copies, for smooth adversarial losses: the copies are sought by projected gradient ascent
 * on the change of margins ||D(x') - D(x)||_2 with the weights that the student has at that step.
 */
import type { Tensor } from 'onnxruntime-node';
import { encodeOnnxModel, onnxInputs } from '../formats/onnx.js';
import { floatsOf } from '../models/sessions.js';
import { createRandom, type Random } from '../random.js';
import { prepareModel, weightsAsInputs } from './autodiff/prepare.js';
import { seedDropout } from './autodiff/seeded-dropout.js';
import { createSavedBuffers, floatTensor, openSegment } from './graph-segment.js';
import { addMarginGradient } from './losses/smooth-adversarial.js';
import { planBatchFeeds } from './onnx-inputs.js';
import { type OnnxStudent, withOutputs } from './onnx-student.js';
import { type BatchSource, type FeatureBatch, type Floats, IGNORED, type Perturbation } from './types.js';

/** Step of the ascent in radii over the number of steps (Madry et al. 2018). */
const STRIDE = 2.5;
/** Share of the radius at which it starts: at x itself the change has no gradient. */
const START = 0.1;

/** Gradients by the input features, at the student's weights of the moment. */
interface InputGradient {
  readonly classes: number;
  logits(batch: FeatureBatch): Promise<Floats>;
  /** Writes dL/dfeatures for the dL/dlogits that `seed` gives for the logits of the batch. */
  gradient(batch: FeatureBatch, seed: (logits: Floats) => Floats): Promise<Floats>;
  close(): Promise<void>;
}

async function openInputGradient(
  student: OnnxStudent<FeatureBatch>,
  dims: readonly number[],
  threads: number,
): Promise<InputGradient> {
  const { parameters: set, logitsName, classes } = student;
  const { precision } = set;
  const shown = withOutputs(student.trainedModel(), [logitsName]);
  const model = seedDropout(shown)?.inference ?? shown;
  const feeds = planBatchFeeds(model, precision, dims);
  const [{ name }] = onnxInputs(model);
  const names = set.parameters.map((parameter) => parameter.name);
  const weights = Object.fromEntries(
    set.parameters.map(({ name: weight, offset, length, dims: extents }): [string, Tensor] => [
      weight,
      floatTensor(set.values.subarray(offset, offset + length), extents),
    ]),
  );
  const segment = await openSegment({
    graph: encodeOnnxModel(weightsAsInputs(prepareModel(model, precision, [name, ...names]), names)),
    wanted: [name],
    seeds: [logitsName],
    example: { ...feeds.example, ...weights },
    precision,
    threads,
    recompute: false,
    fixedShapes: false,
  });
  const buffers = createSavedBuffers();
  return {
    classes,
    async logits(batch) {
      const outputs = await segment.infer({ ...feeds.feeds(batch), ...weights }, { [logitsName]: null });
      return floatsOf(outputs[logitsName]);
    },
    async gradient(batch, seed) {
      const given = { ...feeds.feeds(batch), ...weights };
      const { outputs, saved } = await segment.forward(given, { [logitsName]: null }, buffers, '');
      const logits = outputs[logitsName] as Tensor;
      const cotangent = floatTensor(seed(floatsOf(logits)), logits.dims);
      const gradient = batch.features.slice();
      const target = floatTensor(gradient, (given[name] as Tensor).dims);
      await segment.backward(given, saved, { [logitsName]: cotangent }, { [name]: target });
      return gradient;
    },
    close: () => segment.close(),
  };
}

function lengthOf(values: Floats): number {
  let sum = 0;
  for (const value of values) sum += value * value;
  return Math.sqrt(sum);
}

/** Moves one row by a step of ascent and back into the ball about `centre`. */
function ascend(row: Floats, centre: Floats, gradient: Floats, { radius, norm, steps }: Perturbation): void {
  const stride = (STRIDE * radius) / steps;
  if (norm === 'inf') {
    for (let d = 0; d < row.length; d++) {
      const moved = row[d] + stride * Math.sign(gradient[d]);
      row[d] = Math.max(centre[d] - radius, Math.min(centre[d] + radius, moved));
    }
    return;
  }
  const length = lengthOf(gradient);
  if (length === 0) return;
  for (let d = 0; d < row.length; d++) row[d] += (stride * gradient[d]) / length - centre[d];
  const distance = lengthOf(row);
  const shrink = distance > radius ? radius / distance : 1;
  for (let d = 0; d < row.length; d++) row[d] = centre[d] + shrink * row[d];
}

function startNear(features: Floats, rows: number, { radius, norm }: Perturbation, random: Random): Floats {
  const width = features.length / rows;
  const started = features.slice();
  for (let row = 0; row < rows; row++) {
    const offset = Float64Array.from({ length: width }, () => random.normal());
    const scale = norm === '2' ? (START * radius) / lengthOf(offset) : START * radius;
    for (let d = 0; d < width; d++) {
      started[row * width + d] += norm === '2' ? scale * offset[d] : scale * Math.sign(offset[d]);
    }
  }
  return started;
}

/** Features of the worst copies found, [rows, width]: what they change is a lower estimate of the supremum. */
async function seek(
  open: InputGradient,
  batch: FeatureBatch,
  perturbation: Perturbation,
  random: Random,
): Promise<Floats> {
  const { rows, features, labels } = batch;
  const width = features.length / rows;
  const { classes } = open;
  const clean = (await open.logits(batch)).slice();
  const moved = startNear(features, rows, perturbation, random);
  for (let step = 0; step < perturbation.steps; step++) {
    const gradient = await open.gradient({ ...batch, features: moved }, (logits) => {
      const both =
        logits instanceof Float32Array ? new Float32Array(2 * logits.length) : new Float64Array(2 * logits.length);
      both.set(clean);
      both.set(logits, logits.length);
      const slopes = both.map(() => 0) as Floats;
      labels.forEach((label, row) => {
        if (label === IGNORED) return;
        addMarginGradient(both, row * classes, (rows + row) * classes, { classes, label, scale: 1 }, slopes);
      });
      return slopes.slice(logits.length);
    });
    for (let row = 0; row < rows; row++) {
      const [from, to] = [row * width, (row + 1) * width];
      ascend(moved.subarray(from, to), features.subarray(from, to), gradient.subarray(from, to), perturbation);
    }
  }
  return moved;
}

/** A source of doubled batches, to be closed behind the run. */
export interface PerturbedSource extends BatchSource<FeatureBatch> {
  close(): Promise<void>;
}

/**
 * Batches of twice the rows: those of `source`, and their perturbed copies with labels that count nowhere. Reads the
 * student's weights when a batch is asked for, so that a resumed run finds the same copies.
 *
 * @param dims extents of one row
 * @throws InputError for a graph whose input has no gradient
 */
export async function perturbedBatches(
  source: BatchSource<FeatureBatch>,
  student: OnnxStudent<FeatureBatch>,
  perturbation: Perturbation,
  { dims, seed, threads }: { dims: readonly number[]; seed: number; threads: number },
): Promise<PerturbedSource> {
  const open = await openInputGradient(student, dims, threads);
  return {
    perEpoch: source.perEpoch,
    async batch(index) {
      const batch = await source.batch(index);
      const { rows, features, labels, indices } = batch;
      const moved = await seek(open, batch, perturbation, createRandom(seed).fork(index));
      const doubled =
        features instanceof Float32Array
          ? new Float32Array(2 * features.length)
          : new Float64Array(2 * features.length);
      doubled.set(features);
      doubled.set(moved, features.length);
      const both = new Int32Array(2 * rows).fill(IGNORED);
      both.set(labels);
      const places = new Int32Array(2 * rows);
      places.set(indices);
      places.set(indices, rows);
      return { features: doubled, rows: 2 * rows, labels: both, indices: places };
    },
    close: () => open.close(),
  };
}
