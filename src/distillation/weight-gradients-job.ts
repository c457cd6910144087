import { InputError } from '../errors.js';
import { openDecoderStudent } from '../training/decoder-student.js';
import { type TokenWindows, windowBatches } from '../training/language/token-data.js';
import { parseLosses, termWeight } from '../training/losses/loss-text.js';
import { createObjective } from '../training/objective.js';
import { existingStudent, type StudentModel } from '../training/student-config.js';
import type { TokenBatch } from '../training/types.js';

/** Gradients of a loss in the weights of experts over a text. */
export interface WeightGradientsRequest {
  /** Directory of the model. */
  readonly path: string;
  readonly windows: TokenWindows;
  /** As `parseLosses` reads it; losses that need a teacher are refused. */
  readonly loss: string;
  /** Windows of a micro-batch. */
  readonly batchSize: number;
  readonly threads: number;
  readonly maxMemoryBytes: number;
}

/** Gradients of one tensor, in the name and shape of the file. */
export interface WeightGradient {
  readonly name: string;
  readonly shape: readonly number[];
  /** dLoss/dW of the mean over all tokens. */
  readonly mean: Float32Array;
  /** Root of the mean over the micro-batches of the squares of their mean gradients: squared, empirical Fisher information. */
  readonly rootMeanSquare: Float32Array;
}

export interface WeightGradients {
  readonly tensors: readonly WeightGradient[];
  readonly microBatches: number;
  readonly tokens: number;
  /** Mean over the tokens. */
  readonly lossNats: number;
}

/** Names of the tensors that hold routed experts. */
function expertTensorNames({ files }: StudentModel): string[] {
  const names = new Set<string>();
  for (const layer of files.weights.layers) {
    for (const [role, { tensor }] of layer) if (role.startsWith('expert.')) names.add(tensor.name);
  }
  if (names.size === 0) throw new InputError(`${files.path}: has no experts whose gradients could be taken`);
  return [...names];
}

/**
 * dLoss/dW of the experts: a job in a thread of its own. All other weights are constants.
 * @throws InputError for a model without experts, or a loss that needs a teacher
 */
export async function weightGradients(
  request: WeightGradientsRequest,
  progress: (done: number) => void,
): Promise<WeightGradients> {
  const { path, windows, batchSize, threads } = request;
  const terms = parseLosses(request.loss);
  const needy = terms.find(({ loss }) => loss.reads.teacher !== 'none');
  if (needy)
    throw new InputError(`the loss ${needy.loss.label} learns from a teacher; gradients are of losses of the labels`);
  const model = existingStudent(path, threads);
  const student = await openDecoderStudent(model.files, {
    precision: 'f32',
    threads,
    batch: Math.min(batchSize, windows.count),
    length: Math.max(...windows.lengths),
    maxMemoryBytes: request.maxMemoryBytes,
    processBytes: process.memoryUsage.rss(),
    optimizerSlots: 4,
    train: expertTensorNames(model),
  });
  try {
    const objective = createObjective<TokenBatch>(
      terms.map((term) => ({ loss: term.loss, weight: ({ epoch }) => termWeight(term, epoch) })),
      { labels: (batch) => batch.labels, sequences: ({ batch }) => batch },
    );
    const { parameters, gradients } = student.parameters;
    const sums = new Float64Array(gradients.length);
    const squares = new Float64Array(gradients.length);
    const source = windowBatches(windows, batchSize);
    let [tokens, loss, microBatches] = [0, 0, 0];
    for (let index = 0; index < source.perEpoch; index++) {
      const batch = await source.batch(index);
      const valid = objective.validRows(batch, student.rowsOf(batch));
      if (valid === 0) continue;
      gradients.fill(0);
      const visit = objective.begin(batch, { step: 1, epoch: 0 });
      await student.accumulate(batch, visit.visit, { wholeBatch: objective.wholeBatch, ownTermScale: valid });
      for (let i = 0; i < gradients.length; i++) {
        sums[i] += gradients[i];
        squares[i] += (gradients[i] / valid) ** 2;
      }
      loss += visit.totals().sum;
      tokens += valid;
      microBatches++;
      progress(index + 1);
    }
    const tensors = parameters.map(({ name, dims, offset, length }): WeightGradient => {
      const mean = Float32Array.from(sums.subarray(offset, offset + length), (sum) => sum / tokens);
      const root = Float32Array.from(squares.subarray(offset, offset + length), (sum) => Math.sqrt(sum / microBatches));
      if (!model.turnedStacks.has(name)) return { name, shape: dims, mean, rootMeanSquare: root };
      const [experts, out, input] = dims;
      const stored = [experts, input, out];
      return { name, shape: stored, mean: turned(mean, dims), rootMeanSquare: turned(root, dims) };
    });
    return { tensors, microBatches, tokens, lossNats: loss / tokens };
  } finally {
    await student.close();
    model.files.store.close();
  }
}

/** [experts, out, in] as [experts, in, out]. */
function turned(values: Float32Array, [experts, out, input]: readonly number[]): Float32Array {
  const result = new Float32Array(values.length);
  for (let e = 0; e < experts; e++) {
    const start = e * out * input;
    for (let o = 0; o < out; o++) {
      for (let i = 0; i < input; i++) result[start + i * out + o] = values[start + o * input + i];
    }
  }
  return result;
}
