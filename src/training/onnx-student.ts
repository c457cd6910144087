import { create } from '@bufbuild/protobuf';
import { type OnnxValue, Tensor } from 'onnxruntime-node';
import { didYouMean, InputError } from '../errors.js';
import { encodeOnnxModel, onnxOutputs, readOnnxModel } from '../formats/onnx.js';
import { type ModelProto, ValueInfoProtoSchema } from '../formats/onnx_pb.js';
import { graphOf, withGraph } from '../formats/onnx-edit.js';
import { loadExternalData } from '../formats/onnx-external.js';
import { addInto } from '../kernels/optimizer-steps.js';
import { floatsOf } from '../models/sessions.js';
import { hasShapesFromData } from './autodiff/analysis.js';
import { openedModel } from './autodiff/differentiate.js';
import { onnxFloats } from './autodiff/precision.js';
import { prepareModel, weightsAsInputs } from './autodiff/prepare.js';
import { DROPOUT_SEED, seedDropout } from './autodiff/seeded-dropout.js';
import { trainingThreads, weightProducts } from './equal-bits.js';
import { createSavedBuffers, floatTensor, openSegment, type Segment } from './graph-segment.js';
import type { NameSelection } from './name-patterns.js';
import { withParameters, writeOnnxModel } from './onnx-export.js';
import { type BatchFeeds, planBatchFeeds } from './onnx-inputs.js';
import { tieTransposes } from './tied-weights.js';
import type {
  FeatureBatch,
  Floats,
  LogitsBlock,
  Parameter,
  ParameterSet,
  Precision,
  Student,
  TokenBatch,
} from './types.js';
import { selectWeights } from './weight-candidates.js';

export interface OnnxStudentSettings extends NameSelection {
  readonly precision: Precision;
  readonly threads: number;
  /** Output (or inner tensor) with the logits [..., classes]; default: the one called "logits", or the only output. */
  readonly logits?: string;
  /** Output or inner tensor [..., width] that the head reads, with one row for each row of logits. */
  readonly features?: string;
  /** Scalar of the graph that is added to the loss: a term of the student's own under this name. */
  readonly penalty?: string;
  /** Extents of one row of features where the graph leaves them open. */
  readonly dims?: readonly number[];
  /** Saves nothing of the forward pass; the backward pass computes it again. */
  readonly recompute?: boolean;
  /** Leaves dropout out in training too when false. */
  readonly dropout?: boolean;
  /** Seed of dropout masks; default 0. */
  readonly seed?: number;
}

/** A student that is an ONNX graph. */
export interface OnnxStudent<Batch extends FeatureBatch | TokenBatch = FeatureBatch> extends Student<Batch> {
  /** Selected weights that the logits do not depend on; they are no parameters. */
  readonly unreached: readonly string[];
  /** Tensor of the graph that holds the logits. */
  readonly logitsName: string;
  /** Width of the features; undefined where none are shown. */
  readonly featureWidth: number | undefined;
  /** The model as it was given, with the weights that it has now, in the types that it had. */
  trainedModel(): ModelProto;
  /**
   * Writes that model; beyond 2 GiB with its weights in `<path>.data`.
   * @throws InputError when the file is there and `force` is not set
   */
  exportOnnx(path: string, force?: boolean): void;
}

/** Name of the tensor with the logits. @throws InputError when it is not clear or not there */
export function logitsTensor(model: ModelProto, wanted: string | undefined): string {
  const outputs = onnxOutputs(model).map(({ name }) => name);
  if (wanted !== undefined) return wanted;
  if (outputs.includes('logits')) return 'logits';
  if (outputs.length === 1) return outputs[0];
  throw new InputError(`the graph has outputs ${outputs.join(', ')}: name the one with the logits`);
}

/** The model with these tensors as its only outputs. @throws InputError when the graph has no such tensor */
export function withOutputs(model: ModelProto, names: readonly string[]): ModelProto {
  const graph = graphOf(model);
  const known = [...graph.output.map(({ name }) => name), ...graph.node.flatMap(({ output: made }) => made)];
  const output = names.map((name) => {
    if (!known.includes(name)) throw new InputError(`the graph has no tensor "${name}"${didYouMean(name, known)}`);
    return graph.output.find((info) => info.name === name) ?? create(ValueInfoProtoSchema, { name });
  });
  return withGraph(model, { output });
}

function parameterSet(model: ModelProto, names: readonly string[], precision: Precision): ParameterSet {
  const wanted = new Set(names);
  const tensors = graphOf(model).initializer.filter(({ name }) => wanted.has(name));
  let offset = 0;
  const parameters = tensors.map((tensor): Parameter => {
    const dims = tensor.dims.map(Number);
    const length = dims.reduce((product, extent) => product * extent, 1);
    const parameter = { name: tensor.name, dims, offset, length };
    offset += length;
    return parameter;
  });
  const make = (): Floats => (precision === 'f32' ? new Float32Array(offset) : new Float64Array(offset));
  const set = { precision, parameters, values: make(), gradients: make() };
  tensors.forEach((tensor, at) => {
    set.values.set(onnxFloats(tensor, precision), parameters[at].offset);
  });
  return set;
}

/** A tensor on a stretch of a flat buffer, which it shares. */
function viewOf(buffer: Floats, { offset, length, dims }: Parameter): Tensor {
  return floatTensor(buffer.subarray(offset, offset + length), dims);
}

/** Whether every number is zero; read two at a time. */
function isZero(values: Floats): boolean {
  const wide =
    values instanceof Float32Array && values.byteOffset % 8 === 0 && values.length % 2 === 0
      ? new Float64Array(values.buffer, values.byteOffset, values.length / 2)
      : values;
  for (let i = 0; i < wide.length; i++) if (wide[i] !== 0) return false;
  return true;
}

/** Two words that change with the weights and with the batch: the seed of a step's dropout masks. */
function dropoutSeed(set: ParameterSet, batch: FeatureBatch | TokenBatch, seed: number): Tensor {
  let [first, second] = [Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b), seed | 0];
  const add = (word: number): void => {
    first = Math.imul(first ^ word, 0x01000193);
    second = (Math.imul(second, 31) + Math.imul(word, 0xc2b2ae35)) | 0;
  };
  const { values } = set;
  const words = new Int32Array(values.buffer, values.byteOffset, values.byteLength / 4);
  const stride = Math.max(1, Math.floor(words.length / 64));
  for (let i = 0; i < words.length; i += stride) add(words[i]);
  for (const place of 'tokens' in batch ? batch.windows : batch.indices) add(place);
  return new Tensor('int64', BigInt64Array.of(BigInt(first >>> 0), BigInt(second >>> 0)), [2]);
}

/** What an open student holds. */
interface Open {
  readonly set: ParameterSet;
  readonly inputs: BatchFeeds;
  readonly segments: Segments;
  readonly logits: string;
  readonly features: string | undefined;
  readonly penalty: string | undefined;
  /** Seed of dropout, where the graph has it. */
  readonly maskSeed?: number;
}

/**
 * Opens an ONNX graph as a student: its weights become inputs that are fed from one flat buffer, gradients come out of
 * a second graph. `train` and `freeze` are globs over initializer names; without `train` all weights are trained, which
 * are those of `weightCandidates`.
 * Dropout nodes are active in `accumulate`, and their masks are a function of `seed`, the weights and the batch.
 * @throws InputError for a graph without logits, with inputs of another kind, or with operators that have no gradient
 */
export async function openOnnxStudent<Batch extends FeatureBatch | TokenBatch = FeatureBatch>(
  source: ModelProto | string,
  settings: OnnxStudentSettings,
): Promise<OnnxStudent<Batch>> {
  const { precision } = settings;
  const given = tieTransposes(loadModel(source));
  const logits = logitsTensor(given, settings.logits);
  const { features, penalty } = settings;
  const seeds = [logits, features, penalty].filter((name) => name !== undefined);
  const plain = withOutputs(given, seeds);
  const dropout = seedDropout(plain);
  const training = settings.dropout === false ? (dropout?.inference ?? plain) : (dropout?.training ?? plain);
  const inputs = planBatchFeeds(plain, precision, settings.dims);
  const maskExample = { [DROPOUT_SEED]: new Tensor('int64', new BigInt64Array(2), [2]) };
  const selected = selectWeights(given, settings);
  const attempt = async (wanted: readonly string[], threads: number): Promise<Segment> => {
    const encode = (model: ModelProto): Uint8Array => encodeOnnxModel(weightsAsInputs(model, wanted));
    const quiet = dropout?.inference ?? plain;
    // The runtime has no double kernels for some operators, which differentiation writes out by itself.
    const inference =
      precision === 'f64'
        ? await openedModel(quiet, precision, wanted, inputs.example)
        : prepareModel(quiet, precision, wanted);
    return openSegment({
      graph: encode(prepareModel(training, precision, wanted)),
      inference: encode(inference),
      wanted,
      seeds,
      example: {
        ...inputs.example,
        ...(dropout && maskExample),
        ...weightFeeds(parameterSet(given, wanted, precision)),
      },
      precision,
      threads,
      recompute: settings.recompute ?? false,
      fixedShapes: !hasShapesFromData(training),
    });
  };
  let segment = await attempt(selected, settings.threads);
  const unreached = selected.filter((name) => segment.unreached.has(name));
  const reached = selected.filter((name) => !unreached.includes(name));
  if (unreached.length > 0) {
    await segment.close();
    if (unreached.length === selected.length) {
      throw new InputError('no weight that is trained has an influence on the logits');
    }
    segment = await attempt(reached, settings.threads);
  }
  const set = parameterSet(given, reached, precision);
  const open: Open = {
    set,
    inputs,
    segments: segmentsByThreads(segment, given, inputs, settings.threads, (threads) => attempt(reached, threads)),
    logits,
    features,
    penalty,
    ...(dropout && settings.dropout !== false && { maskSeed: settings.seed ?? 0 }),
  };
  return studentOf<Batch>(open, given, unreached, await describeOutputs(open, segment));
}

/** The sessions for batches of a number of rows, whose bits do not depend on the number of threads. */
interface Segments {
  forRows(rows: number): Promise<Segment>;
  close(): Promise<void>;
}

function segmentsByThreads(
  first: Segment,
  model: ModelProto,
  { rowsAreFlat }: BatchFeeds,
  threads: number,
  openWith: (threads: number) => Promise<Segment>,
): Segments {
  const products = weightProducts(model);
  const open = new Map([[threads, Promise.resolve(first)]]);
  return {
    forRows(rows) {
      const most = trainingThreads(products, rows, threads, rowsAreFlat ? rows : Number.POSITIVE_INFINITY);
      const segment = open.get(most) ?? openWith(most);
      open.set(most, segment);
      return segment;
    },
    async close() {
      for (const segment of open.values()) await (await segment).close();
    },
  };
}

/** The weights as inputs: tensors on the flat buffer, which see its later values. */
const weightFeeds = (set: ParameterSet): Record<string, Tensor> =>
  Object.fromEntries(set.parameters.map((parameter) => [parameter.name, viewOf(set.values, parameter)]));

/** The cotangent of a penalty: its factor, in the shape of a scalar or of one number. */
function scaleLike(penalty: OnnxValue, scale: number): Tensor {
  const data = zerosLike(floatsOf(penalty));
  if (data.length !== 1) throw new InputError(`a penalty is one number, not ${data.length}`);
  return floatTensor(data.fill(scale), (penalty as Tensor).dims);
}

/** Columns of logits and features, from a run on the example. */
async function describeOutputs(
  open: Open,
  segment: Segment,
): Promise<{ classes: number; featureWidth: number | undefined }> {
  const { inputs, set, logits, features } = open;
  const fetches = { [logits]: null, ...(features !== undefined && { [features]: null }) };
  const outputs = await segment.infer({ ...inputs.example, ...weightFeeds(set) }, fetches);
  const lastExtent = (name: string): number | undefined => (outputs[name] as Tensor).dims.at(-1);
  const classes = lastExtent(logits);
  if (classes === undefined || classes < 1) throw new InputError(`"${logits}" has no columns: it holds no logits`);
  return { classes, featureWidth: features === undefined ? undefined : lastExtent(features) };
}

function studentOf<Batch extends FeatureBatch | TokenBatch>(
  open: Open,
  given: ModelProto,
  unreached: readonly string[],
  described: { readonly classes: number; readonly featureWidth: number | undefined },
): OnnxStudent<Batch> {
  const { set, inputs, segments, logits, features, penalty, maskSeed } = open;
  const { classes, featureWidth } = described;
  const weights = weightFeeds(set);
  const shown = {
    [logits]: null,
    ...(features !== undefined && { [features]: null }),
    ...(penalty !== undefined && { [penalty]: null }),
  };
  const buffers = createSavedBuffers();
  const tensorsOn = (buffer: Floats): Record<string, Tensor> =>
    Object.fromEntries(set.parameters.map((parameter) => [parameter.name, viewOf(buffer, parameter)]));
  const direct = tensorsOn(set.gradients);
  let scratch: { readonly gradients: Floats; readonly tensors: Record<string, Tensor> } | undefined;

  const blockOf = (outputs: Readonly<Record<string, OnnxValue>>): LogitsBlock => {
    const values = floatsOf(outputs[logits]);
    return {
      firstRow: 0,
      rows: values.length / classes,
      classes,
      logits: values,
      ...(features !== undefined && { features: floatsOf(outputs[features]), featureWidth }),
    };
  };

  return {
    parameters: set,
    classes,
    logitsName: logits,
    featureWidth,
    unreached,
    rowsOf: (batch) => inputs.rowsOf(batch),
    async accumulate(batch, visit, { ownTermScale = 1 } = {}) {
      const feeds = {
        ...inputs.feeds(batch),
        ...weights,
        ...(maskSeed !== undefined && { [DROPOUT_SEED]: dropoutSeed(set, batch, maskSeed) }),
      };
      const segment = await segments.forRows(inputs.rowsOf(batch));
      const { outputs, saved } = await segment.forward(feeds, shown, buffers, inputs.key(batch));
      const block = blockOf(outputs);
      const gradient = zerosLike(block.logits);
      const featureGradient = block.features && zerosLike(block.features);
      await visit({ ...block, gradient, ...(featureGradient && { featureGradient }) });
      const cotangents = {
        [logits]: floatTensor(gradient, (outputs[logits] as Tensor).dims),
        ...(features !== undefined &&
          featureGradient && { [features]: floatTensor(featureGradient, (outputs[features] as Tensor).dims) }),
        ...(penalty !== undefined && { [penalty]: scaleLike(outputs[penalty], ownTermScale) }),
      };
      const ownTerms = penalty === undefined ? [] : [{ name: penalty, value: floatsOf(outputs[penalty])[0] }];
      // The runtime overwrites, so only the first micro-batch of a step may go straight into the sum.
      if (isZero(set.gradients)) {
        await segment.backward(feeds, saved, cotangents, direct);
        return ownTerms;
      }
      if (!scratch) {
        const gradients = zerosLike(set.gradients);
        scratch = { gradients, tensors: tensorsOn(gradients) };
      }
      await segment.backward(feeds, saved, cotangents, scratch.tensors);
      addInto(set.gradients, scratch.gradients);
      return ownTerms;
    },
    async evaluate(batch, visit) {
      const segment = await segments.forRows(inputs.rowsOf(batch));
      await visit(blockOf(await segment.infer({ ...inputs.feeds(batch), ...weights }, shown)));
    },
    trainedModel: () => withParameters(given, set),
    exportOnnx: (path, force) => writeOnnxModel(withParameters(given, set), path, force),
    close: () => segments.close(),
  };
}

const zerosLike = (like: Floats): Floats =>
  like instanceof Float32Array ? new Float32Array(like.length) : new Float64Array(like.length);

/** @throws InputError as `readOnnxModel` */
function loadModel(source: ModelProto | string): ModelProto {
  if (typeof source !== 'string') return source;
  const model = readOnnxModel(source);
  loadExternalData(model, source);
  return model;
}
