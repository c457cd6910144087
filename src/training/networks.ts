import { create } from '@bufbuild/protobuf';
import { InputError } from '../errors.js';
import { decodeOnnxModel } from '../formats/onnx.js';
import { type ModelProto, TensorProto_DataType, TensorProtoSchema } from '../formats/onnx_pb.js';
import { composeGraph, type GraphComposer } from '../models/graph.js';
import { createRandom } from '../random.js';
import type { NetworkDesign } from './network-text.js';
import type { Precision } from './types.js';

/** What a network is composed for. */
export interface NetworkOptions {
  /** Extents of one example: [features], or [channels, height, width] for a `cnn`. */
  readonly dims: readonly number[];
  readonly classes: number;
  readonly seed: number;
  readonly precision?: Precision;
  /** What the network does to its input first: (x - mean) * inverse, each over the extents of one example. */
  readonly scale?: { readonly mean: ArrayLike<number>; readonly inverse: ArrayLike<number> };
}

/** A network with its weights as initializers of an ONNX model. */
export interface Network {
  /** Input `features` [rows, ...dims]; outputs `logits` [rows, classes] and `hidden` [rows, width], what the head reads. */
  readonly model: ModelProto;
  /** Names of the trainable initializers, in the order of the layers. */
  readonly parameters: readonly string[];
  /** Weights and biases. */
  readonly weights: number;
}

/** Names of the values of a network. */
export const NETWORK_INPUT = 'features';
export const NETWORK_LOGITS = 'logits';
export const NETWORK_HIDDEN = 'hidden';

/** A trainable tensor before it becomes an initializer. */
interface Weight {
  readonly name: string;
  readonly dims: readonly number[];
  readonly values: Float64Array;
}

/** Draws the weights of one network: a stream of its own for every tensor, in their order. */
function createWeights(
  g: GraphComposer,
  design: NetworkDesign,
  seed: number,
): {
  readonly made: Weight[];
  layer(name: string, dims: readonly number[]): [string, string];
  activate(x: string, name: string): string;
} {
  const root = createRandom(seed).fork(0x6e657473);
  const made: Weight[] = [];
  const add = (name: string, dims: readonly number[], draw: (at: number) => number): string => {
    const values = Float64Array.from({ length: dims.reduce((product, extent) => product * extent, 1) }, (_, i) =>
      draw(i),
    );
    made.push({ name, dims, values });
    return g.input(name, g.float, dims);
  };
  return {
    made,
    layer(name, dims) {
      const fanIn = dims.slice(1).reduce((product, extent) => product * extent, 1);
      const bound = 1 / Math.sqrt(fanIn);
      const random = root.fork(made.length);
      const kaiming = design.initialisation === 'kaiming';
      const weight = add(`${name}.weight`, dims, () =>
        kaiming ? Math.SQRT2 * bound * random.normal() : bound * (2 * random.uniform() - 1),
      );
      const bias = add(`${name}.bias`, [dims[0]], () => (kaiming ? 0 : bound * (2 * random.uniform() - 1)));
      return [weight, bias];
    },
    activate(x, name) {
      const { activation } = design;
      const own: Record<string, string> = {};
      for (const [key, start] of Object.entries(activation.parameters))
        own[key] = add(`${name}.${key}`, [1], () => start);
      return activation.compose(g, x, own);
    },
  };
}

type Weights = ReturnType<typeof createWeights>;

/** Convolutional stages; gives the value and the extents of one example of it. */
function composeStages(
  g: GraphComposer,
  design: NetworkDesign,
  weights: Weights,
  input: string,
  dims: readonly number[],
): [string, number] {
  let [channels, height, width] = dims;
  let x = input;
  const pad = (design.kernel - 1) / 2;
  design.channels.forEach((out, stage) => {
    const name = `stages.${stage}`;
    const convolved = g.node('Conv', [x, ...weights.layer(name, [out, channels, design.kernel, design.kernel])], {
      attributes: { pads: { ints: [pad, pad, pad, pad] }, kernel_shape: { ints: [design.kernel, design.kernel] } },
    });
    x = weights.activate(convolved, name);
    channels = out;
    if (design.pool === 'none') return;
    if (height < 2 || width < 2) {
      throw new InputError(
        `a network of ${design.channels.length} stages halves images of ${dims[1]} x ${dims[2]} too often; use fewer stages or pool=none`,
      );
    }
    x = g.node(design.pool === 'max' ? 'MaxPool' : 'AveragePool', [x], {
      attributes: { kernel_shape: { ints: [2, 2] }, strides: { ints: [2, 2] } },
    });
    height = Math.floor(height / 2);
    width = Math.floor(width / 2);
  });
  if (design.head === 'mean') {
    const means = g.node('GlobalAveragePool', [x]);
    return [g.node('Flatten', [means], { attributes: { axis: { int: 1 } } }), channels];
  }
  return [g.node('Flatten', [x], { attributes: { axis: { int: 1 } } }), channels * height * width];
}

function scaled(g: GraphComposer, scale: NonNullable<NetworkOptions['scale']>, dims: readonly number[]): string {
  const centred = g.node('Sub', [NETWORK_INPUT, g.floats('mean', scale.mean, dims)]);
  return g.node('Mul', [centred, g.floats('inverse', scale.inverse, dims)]);
}

/**
 * Composes a network with weights drawn from the seed; layouts and names are PyTorch's: `layers.<l>.weight` [out, in],
 * `stages.<s>.weight` [out, in, kernel, kernel], `.bias` [out], and learnable scalars of activations such as
 * `layers.<l>.epsilon` [1]. Dropout is an operator of the graph that does nothing outside training.
 * @throws InputError where images are needed and rows of features are given, or are too small for the stages
 */
export function composeNetwork(design: NetworkDesign, options: NetworkOptions): Network {
  const { dims, classes } = options;
  const g = composeGraph('network', options.precision ?? 'f32');
  const weights = createWeights(g, design, options.seed);
  g.input(NETWORK_INPUT, g.float, ['rows', ...dims]);
  let x = options.scale ? scaled(g, options.scale, dims) : NETWORK_INPUT;
  let width = dims.reduce((product, extent) => product * extent, 1);
  if (design.kind === 'cnn') {
    if (dims.length !== 3) {
      throw new InputError(
        `a cnn reads images [channels, height, width], but an example is [${dims.join(', ')}]; give the images as an array of 3 or 4 axes, or --image`,
      );
    }
    [x, width] = composeStages(g, design, weights, x, dims);
  } else if (dims.length > 1) x = g.node('Flatten', [x], { attributes: { axis: { int: 1 } } });
  design.hidden.forEach((units, l) => {
    const name = `layers.${l}`;
    const sums = g.node('Gemm', [x, ...weights.layer(name, [units, width])], { attributes: { transB: { int: 1 } } });
    x = weights.activate(sums, name);
    if (design.dropout > 0) x = g.node('Dropout', [x, g.scalar(design.dropout)]);
    width = units;
  });
  g.publish(x, NETWORK_HIDDEN, ['rows', width]);
  const head = weights.layer('head', [classes, width]);
  g.node('Gemm', [NETWORK_HIDDEN, ...head], { attributes: { transB: { int: 1 } }, outputs: [NETWORK_LOGITS] });
  g.output(NETWORK_LOGITS, g.float, ['rows', classes]);
  return withInitializers(g, weights.made);
}

/** The composed graph with its weights as initializers in place of inputs. */
function withInitializers(g: GraphComposer, made: readonly Weight[]): Network {
  const model = decodeOnnxModel(g.encode(), 'network');
  const names = new Set(made.map(({ name }) => name));
  if (!model.graph) throw new Error('a composed model has a graph');
  model.graph.input = model.graph.input.filter(({ name }) => !names.has(name));
  for (const { name, dims, values } of made) {
    const stored = g.float === 'f32' ? Float32Array.from(values) : values;
    model.graph.initializer.push(
      create(TensorProtoSchema, {
        name,
        dims: dims.map(BigInt),
        dataType: g.float === 'f32' ? TensorProto_DataType.FLOAT : TensorProto_DataType.DOUBLE,
        rawData: new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength),
      }),
    );
  }
  return {
    model,
    parameters: made.map(({ name }) => name),
    weights: made.reduce((sum, { values }) => sum + values.length, 0),
  };
}
