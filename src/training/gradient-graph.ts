import { Tensor } from 'onnxruntime-node';
import { decodeOnnxModel } from '../formats/onnx.js';
import type { ModelProto } from '../formats/onnx_pb.js';
import { graphOf, onnxTensor, withGraph } from '../formats/onnx-edit.js';
import { readBy } from '../formats/onnx-graph.js';
import { composeGraph } from '../models/graph.js';
import { createRandom } from '../random.js';
import { appendGraph, composeJointGraph } from './autodiff/joint-graph.js';
import { elementTypeOf } from './autodiff/precision.js';
import { prepareModel, weightsAsInputs } from './autodiff/prepare.js';
import { type Feeds, floatTensor } from './graph-segment.js';
import type { WeightedLoss } from './losses/loss-text.js';
import { planBatchFeeds } from './onnx-inputs.js';
import { type OnnxStudent, withOutputs } from './onnx-student.js';
import type { FeatureBatch, Floats, Loss, Precision, TokenBatch } from './types.js';

/** The graph of a model with its loss and its gradients, and what of the loss it holds. */
export interface GradientGraph {
  readonly model: ModelProto;
  /** `inside`: the graph computes the loss. `outside`: it takes the loss's gradient by the logits as an input. */
  readonly loss: 'inside' | 'outside';
  /** Inputs that are no weights, and outputs that are no gradients. */
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  /** Tensors that have a gradient. */
  readonly gradients: number;
}

export interface GradientGraphRequest {
  /** Weights are initializers, or inputs whose values `weights` has. */
  readonly model: ModelProto;
  readonly weights?: Feeds;
  /** Trained tensors. */
  readonly wanted: readonly string[];
  readonly precision: Precision;
  /** Output [..., classes]. */
  readonly logits: string;
  readonly classes: number;
  /** Scalar output that is added to the loss. */
  readonly penalty?: string;
  /** Terms of the loss, where the graph is to compute it. */
  readonly terms?: readonly WeightedLoss[];
  /** A small batch; with `weights`, values for them too. */
  readonly example: Feeds;
}

type ComposedTerm = Loss & Required<Pick<Loss, 'compose'>>;

const INT64 = 'int64';
const EXAMPLE_SEED = 11;

const isComposed = (loss: Loss): loss is ComposedTerm => loss.compose !== undefined;

/**
 * The terms as a graph: inputs `logits`, `labels` (int64, IGNORED where nothing is asked) and, where a term reads it,
 * `teacher`; output `loss`, the mean over the rows that count, plus the input `penalty` where there is one. Undefined when a
 * term has no form in a graph, or a weight that changes while a run lasts.
 */
function composeLoss(
  terms: readonly WeightedLoss[],
  { classes, precision, penalty }: Pick<GradientGraphRequest, 'classes' | 'precision' | 'penalty'>,
  rowAxes: readonly string[],
): { readonly model: ModelProto; readonly readsTeacher: boolean } | undefined {
  const g = composeGraph('loss', precision);
  const readsTeacher = terms.some(({ loss }) => loss.reads.teacher !== 'none');
  const rows = (name: string): string =>
    g.node('Reshape', [g.input(name, precision, [...rowAxes, classes]), g.integers([-1, classes])]);
  const student = rows('logits');
  const labels = g.node('Reshape', [g.input('labels', 'i64', rowAxes), g.integers([-1])]);
  const inputs = { student, labels, teacher: readsTeacher ? rows('teacher') : '', classes };
  const weighed: string[] = [];
  for (const { loss, weight, warmUpEpochs } of terms) {
    if (!isComposed(loss) || warmUpEpochs > 0) return undefined;
    weighed.push(g.node('Mul', [loss.compose(g, inputs), g.scalar(weight)]));
  }
  const each = weighed.length === 1 ? weighed[0] : g.node('Sum', weighed);
  const counts = g.node('GreaterOrEqual', [inputs.labels, g.integers([0], true)]);
  const whole = { attributes: { keepdims: { int: 0 } } };
  const sum = g.node('ReduceSum', [g.node('Where', [counts, each, g.scalar(0)])], whole);
  const ones = g.node('Where', [counts, g.scalar(1), g.scalar(0)]);
  const count = g.node('Max', [g.node('ReduceSum', [ones], whole), g.scalar(1)]);
  const mean = g.node('Div', [sum, count]);
  const total = penalty === undefined ? mean : g.node('Add', [mean, g.input('penalty', precision, [])]);
  g.publish(total, 'loss', []);
  return { model: decodeOnnxModel(g.encode(), 'loss'), readsTeacher };
}

/** Labels and a teacher for rows such as those of the example. */
function lossExample(dims: readonly number[], classes: number, precision: Precision): Feeds {
  const rows = dims.reduce((product, extent) => product * extent, 1);
  const random = createRandom(EXAMPLE_SEED);
  const labels = BigInt64Array.from({ length: rows }, (_, r) => BigInt(r % classes));
  const values = Float64Array.from({ length: rows * classes }, () => random.normal());
  const teacher: Floats = precision === 'f32' ? Float32Array.from(values) : values;
  return { labels: new Tensor(INT64, labels, dims), teacher: floatTensor(teacher, [...dims, classes]) };
}

/**
 * Weights that are inputs get their values as defaults; those that are not trained are inputs no longer, nor is what no node
 * reads.
 */
function withDefaults(
  model: ModelProto,
  weights: Feeds,
  wanted: ReadonlySet<string>,
  precision: Precision,
): ModelProto {
  const { input, initializer, node } = graphOf(model);
  const read = new Set(node.flatMap(readBy));
  const stored = input.flatMap(({ name }) => {
    const tensor = weights[name];
    if (!tensor) return [];
    const data = tensor.data as Floats;
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    return [onnxTensor(name, elementTypeOf(precision), tensor.dims, bytes)];
  });
  return withGraph(model, {
    input: input.filter(({ name }) => (name in weights ? wanted.has(name) : read.has(name))),
    initializer: [...initializer, ...stored],
  });
}

/**
 * Forward and backward pass of a model as one ordinary ONNX model. With the loss inside: inputs `labels` and, where a term
 * reads it, `teacher` beside those of the model; outputs the logits, `loss`, `grad.<tensor>` of the loss by each trained
 * tensor, and `grad_norm`. Else `grad.<logits>` (and `grad.<penalty>`) are inputs. Trained weights are inputs with their
 * values as defaults. Bytes of weights are shared with `weights`.
 * @throws InputError for operators that have no gradient
 */
export async function composeGradientGraph(request: GradientGraphRequest): Promise<GradientGraph> {
  const { wanted, precision, logits, classes, penalty, terms, example, weights } = request;
  const outputs = [logits, ...(penalty === undefined ? [] : [penalty])];
  const model = prepareModel(withOutputs(request.model, outputs), precision, wanted);
  const rowDims = rowDimsOf(example, weights ?? {});
  const loss = terms && composeLoss(terms, request, rowDims.length === 1 ? ['rows'] : ['batch', 'length']);
  const connections = { logits, ...(penalty !== undefined && { penalty }) };
  const joint = await composeJointGraph(
    {
      model: loss ? appendGraph(model, loss.model, connections) : model,
      wanted,
      precision,
      from: loss ? { loss: 'loss' } : { seeds: outputs },
      norm: true,
    },
    { ...example, ...(loss && lossExample(rowDims, classes, precision)) },
  );
  const trained = new Set(wanted);
  const complete = weights ? withDefaults(joint, weights, trained, precision) : joint;
  const inputs = graphOf(complete).input.map(({ name }) => name);
  const made = graphOf(complete).output.map(({ name }) => name);
  const ofWeight = (name: string): boolean => name.startsWith('grad.') && trained.has(name.slice('grad.'.length));
  return {
    model: complete,
    loss: loss ? 'inside' : 'outside',
    inputs: inputs.filter((name) => !trained.has(name)),
    outputs: made.filter((name) => !ofWeight(name)),
    gradients: made.filter(ofWeight).length,
  };
}

/** The gradient graph of an ONNX student as it is now; see `composeGradientGraph`. */
export function onnxGradientGraph<Batch extends FeatureBatch | TokenBatch>(
  student: OnnxStudent<Batch>,
  settings: Pick<GradientGraphRequest, 'terms'> & {
    /** Extents of one row of features where the graph leaves them open. */
    readonly dims?: readonly number[];
  },
): Promise<GradientGraph> {
  const { precision, parameters, values } = student.parameters;
  const model = student.trainedModel();
  const wanted = parameters.map(({ name }) => name);
  // As inputs: a runtime cannot read a graph whose initializers have more than 2 GiB from memory.
  const weights = Object.fromEntries(
    parameters.map(({ name, dims, offset, length }) => [
      name,
      floatTensor(values.subarray(offset, offset + length), dims),
    ]),
  );
  return composeGradientGraph({
    model: weightsAsInputs(prepareModel(model, precision, wanted), wanted),
    weights,
    wanted,
    precision,
    logits: student.logitsName,
    classes: student.classes,
    example: { ...planBatchFeeds(model, precision, settings.dims).example, ...weights },
    ...(settings.terms && { terms: settings.terms }),
  });
}

/** Extents of the rows of a batch: [batch, length] of tokens, [rows] of features. */
function rowDimsOf(example: Feeds, weights: Feeds): readonly number[] {
  if (example.input_ids) return example.input_ids.dims;
  const features = Object.entries(example).find(([name]) => !(name in weights));
  return features ? [features[1].dims[0]] : [];
}
