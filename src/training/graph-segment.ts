import { fromBinary, toBinary } from '@bufbuild/protobuf';
import { Tensor } from 'onnxruntime-node';
import { RunError } from '../errors.js';
import { type ModelProto, ModelProtoSchema } from '../formats/onnx_pb.js';
import { elementCount } from '../formats/tensor.js';
import { type DirectSession, openDirectSession } from '../models/direct-sessions.js';
import { differentiate } from './autodiff/differentiate.js';
import type { Floats, Precision } from './types.js';

/** Tensors by name. */
export type Feeds = Readonly<Record<string, Tensor>>;

/** A piece of a student that is one graph forward and one backward. */
export interface SegmentRequest {
  /** Encoded graph whose weights are inputs. */
  readonly graph: Uint8Array;
  /** What `infer` runs where that is another graph, such as one without dropout. */
  readonly inference?: Uint8Array;
  /** Inputs whose gradients are wanted. */
  readonly wanted: readonly string[];
  /** Outputs that get a cotangent. */
  readonly seeds: readonly string[];
  /** Small inputs on which ranks are found out. */
  readonly example: Feeds;
  readonly precision: Precision;
  readonly threads: number;
  /** Nothing is kept from the forward pass: the backward pass computes it again. */
  readonly recompute: boolean;
  /** Shapes of what is kept are functions of the batch and length alone. */
  readonly fixedShapes: boolean;
}

/** What the backward pass of one call needs of its forward pass. */
export interface SavedState {
  readonly tensors: Feeds;
}

/** Memory of the saved tensors of one place in the student, used again from batch to batch. */
export interface SavedBuffers {
  shape: string;
  tensors: readonly Tensor[];
}

/** Without buffers: the first run of a shape makes them. */
export function createSavedBuffers(): SavedBuffers {
  return { shape: '', tensors: [] };
}

type TensorShape = Pick<Tensor, 'type' | 'dims'>;

export interface Segment {
  readonly unreached: ReadonlySet<string>;
  /** Forward alone; writes into `outputs` where a tensor is given. */
  infer(feeds: Feeds, outputs: Readonly<Record<string, Tensor | null>>): Promise<Feeds>;
  /** Forward for a later `backward`. `shape` names the batch and length: equal names, equal shapes. */
  forward(
    feeds: Feeds,
    outputs: Readonly<Record<string, Tensor | null>>,
    buffers: SavedBuffers,
    shape: string,
  ): Promise<{ readonly outputs: Feeds; readonly saved: SavedState }>;
  /**
   * Gradients of `wanted` inputs into the tensors given under their names.
   * @param feeds what `forward` was given
   * @param cotangents of the outputs, by their names
   */
  backward(
    feeds: Feeds,
    saved: SavedState,
    cotangents: Feeds,
    gradients: Readonly<Record<string, Tensor>>,
  ): Promise<void>;
  close(): Promise<void>;
}

const decode = (graph: Uint8Array): ModelProto => fromBinary(ModelProtoSchema, graph);

function inputNames(model: ModelProto): Set<string> {
  const stored = new Set(model.graph?.initializer.map((tensor) => tensor.name));
  return new Set(model.graph?.input.map((input) => input.name).filter((name) => !stored.has(name)));
}

function pick(feeds: Feeds, names: ReadonlySet<string>): Record<string, Tensor> {
  const picked: Record<string, Tensor> = {};
  for (const name of names) if (feeds[name]) picked[name] = feeds[name];
  return picked;
}

/** A zeroed tensor. */
function emptyLike(tensor: TensorShape): Tensor {
  const length = elementCount(tensor.dims);
  switch (tensor.type) {
    case 'float32':
      return new Tensor('float32', new Float32Array(length), tensor.dims);
    case 'float64':
      return new Tensor('float64', new Float64Array(length), tensor.dims);
    case 'int64':
      return new Tensor('int64', new BigInt64Array(length), tensor.dims);
    case 'int32':
      return new Tensor('int32', new Int32Array(length), tensor.dims);
    case 'bool':
      return new Tensor('bool', new Uint8Array(length), tensor.dims);
    default:
      throw new RunError(`a saved tensor of type ${tensor.type} has no buffer`);
  }
}

/**
 * Differentiates a graph and opens its sessions.
 * @throws InputError naming every operator without a gradient
 */
export async function openSegment(request: SegmentRequest): Promise<Segment> {
  const { precision, threads, recompute, wanted, seeds } = request;
  const model = decode(request.graph);
  const open = (proto: ModelProto | Uint8Array): Promise<DirectSession> =>
    openDirectSession(proto instanceof Uint8Array ? proto : toBinary(ModelProtoSchema, proto), {
      threads: precision === 'f64' ? 1 : threads,
      device: 'cpu',
      arena: true,
      precision,
    });
  let plain: Promise<DirectSession> | undefined;
  const plainInputs = inputNames(request.inference ? decode(request.inference) : model);
  const infer: Segment['infer'] = async (feeds, outputs) => {
    plain ??= open(request.inference ?? request.graph);
    return (await plain).run(pick(feeds, plainInputs), outputs);
  };
  const closePlain = async (): Promise<void> => {
    if (plain) await (await plain).release();
  };
  if (wanted.length === 0 || seeds.length === 0) return frozenSegment(wanted, infer, closePlain);

  const { forward, backward, saved, unreached } = await differentiate(
    { model, wanted, seeds, precision, recompute },
    request.example,
  );
  const forwardSession = await open(forward);
  const backwardSession = await open(backward);
  const forwardInputs = inputNames(forward);
  const backwardInputs = inputNames(backward);
  const names = saved.map((tensor) => tensor.name);
  /** Shapes of what is saved, by the name of the batch's shape. */
  const shapes = new Map<string, readonly TensorShape[]>();

  return {
    unreached: new Set(unreached),

    infer,

    async forward(feeds, outputs, buffers, shape) {
      const known = request.fixedShapes ? shapes.get(shape) : undefined;
      if (known && buffers.shape !== shape) {
        buffers.tensors = known.map(emptyLike);
        buffers.shape = shape;
      }
      const fetches: Record<string, Tensor | null> = { ...outputs };
      names.forEach((name, i) => {
        fetches[name] = known ? buffers.tensors[i] : null;
      });
      const given = await forwardSession.run(pick(feeds, forwardInputs), fetches);
      const kept = known ? buffers.tensors : names.map((name) => given[name]);
      if (!known)
        shapes.set(
          shape,
          kept.map(({ type, dims }) => ({ type, dims })),
        );
      return { outputs: given, saved: { tensors: Object.fromEntries(names.map((name, i) => [name, kept[i]])) } };
    },

    async backward(feeds, state, cotangents, gradients) {
      const inputs = pick({ ...feeds, ...state.tensors }, backwardInputs);
      for (const [name, tensor] of Object.entries(cotangents)) {
        const place = `grad.${name}`;
        if (backwardInputs.has(place)) inputs[place] = tensor;
      }
      const fetches: Record<string, Tensor> = {};
      for (const [name, tensor] of Object.entries(gradients)) fetches[`grad.${name}`] = tensor;
      await backwardSession.run(inputs, fetches);
    },

    async close() {
      await forwardSession.release();
      await backwardSession.release();
      await closePlain();
    },
  };
}

/** A segment in which nothing learns. */
function frozenSegment(wanted: readonly string[], infer: Segment['infer'], close: () => Promise<void>): Segment {
  return {
    unreached: new Set(wanted),
    infer,
    forward: async (feeds, outputs) => ({ outputs: await infer(feeds, outputs), saved: { tensors: {} } }),
    backward: () => Promise.resolve(),
    close,
  };
}

/** A floating-point tensor over memory that stays the caller's. */
export function floatTensor(data: Floats, dims: readonly number[]): Tensor {
  return data instanceof Float32Array ? new Tensor('float32', data, dims) : new Tensor('float64', data, dims);
}
