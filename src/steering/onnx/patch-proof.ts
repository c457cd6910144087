import { Tensor } from 'onnxruntime-node';
import { InputError } from '../../errors.js';
import { widenToF32 } from '../../kernels/dtypes.js';
import {
  checkDecoderInput,
  type DecoderStep,
  decoderFeed,
  isPastInput,
  readConfigBeside,
  type TensorMetadata,
} from '../../models/onnx-feeds.js';
import { createSession, runSession } from '../../models/sessions.js';
import { createRandom } from '../../random.js';
import { steeringName } from './residual-points.js';
import { encodeSteering } from './steering-inputs.js';

/** A steered layer of the witness: a copy of the patched graph that must be fed and gives all residuals. */
export interface ProofLayer {
  readonly layer: number;
  /** Name of its output [batch, sequence, hidden]. */
  readonly output: string;
  readonly elementType: number;
  /** [hidden], strength included; without it random values of the stream's own size are tried. */
  readonly vector?: Float32Array;
}

export interface ProofRequest {
  /** The graph as it was. */
  readonly original: string;
  /** The graph as it will be written. */
  readonly patched: string;
  /** Absent when nothing is steered: outputs alone are compared. */
  readonly witness?: string;
  readonly layers: readonly ProofLayer[];
  /** The vectors are constants of the patched graph. */
  readonly constant: boolean;
  readonly tokens: Int32Array;
  readonly seed: number;
  readonly threads: number;
}

/** Outputs that two graphs share, compared bit by bit. */
export interface OutputComparison {
  readonly outputs: number;
  readonly bit_identical: boolean;
  readonly max_abs_difference: number;
  /** Of the outputs that differ, the first. */
  readonly differs: string | null;
}

/** The same with and without the runtime's own rewriting of the graph. */
export interface ZeroComparison extends OutputComparison {
  /**
   * Both graphs run node by node, when they differ otherwise: a new reader of a tensor can keep the runtime from fusing a
   * sum, which changes the order of additions but is not part of the graph. Null when it was not needed.
   */
  readonly unoptimised: OutputComparison | null;
}

export interface LayerProof {
  readonly layer: number;
  /** Largest |(steered - unsteered residual) - v| at steered positions. */
  readonly max_abs_error: number;
  /** The same in units in the last place of the largest value involved. */
  readonly max_error_ulp: number;
  /** Residuals of positions before the steered ones have the same bits. */
  readonly earlier_positions_identical: boolean;
  readonly logits_max_abs_change: number;
}

export interface PatchProof {
  readonly tokens: number;
  readonly first_steered_position: number;
  /** Nothing fed, or zeros where an input has no default: against the original. Null for constant vectors. */
  readonly zero_steering: ZeroComparison | null;
  /** Zeros fed to the witness: against the original. Null when nothing is steered. */
  readonly witness_zero_steering: OutputComparison | null;
  /** Constant vectors against the same fed to the witness at all positions. */
  readonly constant_steering: OutputComparison | null;
  readonly layers: readonly LayerProof[];
  /** Logits of the last position, all layers steered: one pass against a step on a cache. Null without a cache. */
  readonly cached_step: { readonly max_abs_difference: number; readonly largest_logit: number } | null;
}

type Values = Readonly<Record<string, Tensor>>;

interface Runner {
  readonly inputs: readonly TensorMetadata[];
  run(step: DecoderStep, steering?: Values): Promise<Values>;
  close(): Promise<void>;
}

/**
 * Runs the original, the patched graph and its witness on the same tokens, one session at a time.
 * @throws InputError when the runtime cannot load a graph or a graph asks for an input that is not known
 */
export async function provePatch(request: ProofRequest): Promise<PatchProof> {
  const { tokens, layers } = request;
  const whole: DecoderStep = { tokens, first: 0 };
  const before = await once(request.original, request, (runner) => runner.run(whole));
  const after = await once(request.patched, request, (runner) => runner.run(whole));
  const zero = request.constant ? null : await compareZero(request, whole, before, after);
  if (request.witness === undefined) {
    return {
      tokens: tokens.length,
      first_steered_position: tokens.length,
      zero_steering: zero,
      witness_zero_steering: null,
      constant_steering: null,
      layers: [],
      cached_step: null,
    };
  }
  return once(request.witness, request, async (runner) => {
    const unsteered = await runner.run(whole);
    const first = tokens.length >> 1;
    const vectors = new Map(layers.map((layer) => [layer.layer, vectorOf(layer, unsteered, request.seed)]));
    const proofs: LayerProof[] = [];
    for (const layer of layers) {
      const vector = vectors.get(layer.layer) ?? new Float32Array(0);
      const feeds = { [steeringName(layer.layer)]: steeringFeed(layer, vector, 0, tokens.length, first) };
      proofs.push(compareLayer(layer, vector, first, unsteered, await runner.run(whole, feeds)));
    }
    const fed = (start: number, length: number, from: number): Values =>
      Object.fromEntries(
        layers.map((layer) => [
          steeringName(layer.layer),
          steeringFeed(layer, vectors.get(layer.layer) ?? new Float32Array(0), start, length, from),
        ]),
      );
    return {
      tokens: tokens.length,
      first_steered_position: first,
      zero_steering: zero,
      witness_zero_steering: compareOutputs(before, unsteered),
      constant_steering: request.constant
        ? compareOutputs(after, await runner.run(whole, fed(0, tokens.length, 0)))
        : null,
      layers: proofs,
      cached_step: await compareCachedStep(runner, tokens, first, fed),
    };
  });
}

async function compareZero(
  request: ProofRequest,
  step: DecoderStep,
  before: Values,
  after: Values,
): Promise<ZeroComparison> {
  const optimised = compareOutputs(before, after);
  if (optimised.bit_identical) return { ...optimised, unoptimised: null };
  const plain = (path: string): Promise<Values> => once(path, request, (runner) => runner.run(step), true);
  return { ...optimised, unoptimised: compareOutputs(await plain(request.original), await plain(request.patched)) };
}

async function once<T>(
  path: string,
  request: ProofRequest,
  use: (runner: Runner) => Promise<T>,
  unoptimised = false,
): Promise<T> {
  const runner = await openRunner(path, request, unoptimised);
  try {
    return await use(runner);
  } finally {
    await runner.close();
  }
}

async function openRunner(path: string, { original, threads }: ProofRequest, unoptimised: boolean): Promise<Runner> {
  const session = await createSession(path, { threads, device: 'cpu', arena: true, unoptimised });
  const inputs = session.inputMetadata as readonly TensorMetadata[];
  const beside = readConfigBeside(original);
  for (const input of inputs) checkDecoderInput(original, input);
  const fetches = Object.fromEntries(session.outputNames.map((name) => [name, null]));
  return {
    inputs,
    async run(step, steering = {}) {
      const feeds: Record<string, Tensor> = {};
      for (const input of inputs) feeds[input.name] = steering[input.name] ?? decoderFeed(input, step, beside);
      return (await runSession(session, feeds, fetches)) as Record<string, Tensor>;
    },
    close: () => session.release(),
  };
}

/** The vector as the stream's type holds it, so that errors are those of the sum alone. */
function vectorOf(layer: ProofLayer, unsteered: Values, seed: number): Float32Array {
  const residual = unsteered[layer.output];
  const hidden = residual.dims.at(-1) ?? 0;
  const given = layer.vector ?? randomVector(hidden, rootMeanSquare(floats(residual)), seed, layer.layer);
  return floats(tensorOfType(residual.type, encodeSteering(given, layer.elementType, layer.layer), [given.length]));
}

function randomVector(length: number, size: number, seed: number, layer: number): Float32Array {
  const random = createRandom(seed).fork(layer + 1);
  return Float32Array.from({ length }, () => random.normal() * size);
}

function rootMeanSquare(values: Float32Array): number {
  let sum = 0;
  for (const value of values) sum += value * value;
  return Math.sqrt(sum / values.length) || 1;
}

/** [1, length, hidden]: the vector at positions from `from` on, of the window that begins at `start`. */
function steeringFeed(layer: ProofLayer, vector: Float32Array, start: number, length: number, from: number): Tensor {
  const rows = new Float32Array(length * vector.length);
  for (let row = Math.max(0, from - start); row < length; row++) rows.set(vector, row * vector.length);
  const type = layer.elementType === FLOAT16 ? 'float16' : 'float32';
  return tensorOfType(type, encodeSteering(rows, layer.elementType, layer.layer), [1, length, vector.length]);
}

const FLOAT16 = 10;

function tensorOfType(type: string, bytes: Uint8Array, dims: readonly number[]): Tensor {
  const { buffer, byteOffset, byteLength } = bytes;
  if (type === 'float16') return new Tensor('float16', new Uint16Array(buffer, byteOffset, byteLength / 2), dims);
  if (type === 'float32') return new Tensor('float32', new Float32Array(buffer, byteOffset, byteLength / 4), dims);
  throw new InputError(`the proof runs float32 and float16 streams, not ${type}; pass --no-proof`);
}

function floats(tensor: Tensor): Float32Array {
  const { data } = tensor;
  if (data instanceof Float32Array) return data;
  const wide = new Float32Array(data.length);
  if (tensor.type === 'float16') widenToF32(bytesOf(tensor), 'F16', wide);
  else for (let i = 0; i < wide.length; i++) wide[i] = Number(data[i]);
  return wide;
}

function bytesOf({ data }: Tensor): Uint8Array {
  const view = data as unknown as { buffer: ArrayBuffer; byteOffset: number; byteLength: number };
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

function compareOutputs(left: Values, right: Values): OutputComparison {
  const shared = Object.keys(left).filter((name) => right[name] !== undefined);
  let largest = 0;
  let differs: string | null = null;
  for (const name of shared) {
    if (Buffer.compare(bytesOf(left[name]), bytesOf(right[name])) === 0) continue;
    differs ??= name;
    largest = Math.max(largest, largestDifference(floats(left[name]), floats(right[name])));
  }
  return { outputs: shared.length, bit_identical: differs === null, max_abs_difference: largest, differs };
}

function largestDifference(left: Float32Array, right: Float32Array): number {
  if (left.length !== right.length) return Number.POSITIVE_INFINITY;
  let largest = 0;
  for (let i = 0; i < left.length; i++) {
    if (Object.is(left[i], right[i])) continue;
    const difference = Math.abs(left[i] - right[i]);
    largest = Number.isNaN(difference) ? Number.POSITIVE_INFINITY : Math.max(largest, difference);
  }
  return largest;
}

function compareLayer(
  layer: ProofLayer,
  vector: Float32Array,
  first: number,
  unsteered: Values,
  steered: Values,
): LayerProof {
  const before = floats(unsteered[layer.output]);
  const after = floats(steered[layer.output]);
  const hidden = vector.length;
  let error = 0;
  let largest = 0;
  for (let i = first * hidden; i < before.length; i++) {
    const value = vector[i % hidden];
    const off = Math.abs(after[i] - before[i] - value);
    error = Number.isNaN(off) ? Number.POSITIVE_INFINITY : Math.max(error, off);
    largest = Math.max(largest, Math.abs(before[i]), Math.abs(after[i]), Math.abs(value));
  }
  const digits = layer.elementType === FLOAT16 ? 10 : 23;
  const ulp = 2 ** (Math.floor(Math.log2(largest || 1)) - digits);
  const logits = mainName(unsteered, layer.output);
  return {
    layer: layer.layer,
    max_abs_error: error,
    max_error_ulp: error / ulp,
    earlier_positions_identical:
      largestDifference(before.subarray(0, first * hidden), after.subarray(0, first * hidden)) === 0,
    logits_max_abs_change: largestDifference(floats(unsteered[logits]), floats(steered[logits])),
  };
}

function mainName(values: Values, fallback: string): string {
  return values.logits
    ? 'logits'
    : (Object.keys(values).find((name) => !/present|past|residual\./.test(name)) ?? fallback);
}

/** Cache inputs by the outputs that become them: `past_key_values.0.key` is fed with `present.0.key`. */
function cacheOf(runner: Runner, values: Values): Record<string, Tensor> | undefined {
  const past: Record<string, Tensor> = {};
  for (const { name } of runner.inputs) {
    if (!isPastInput(name)) continue;
    const rest = name.replace(/^past(_key_values)?/, '');
    const present = values[`present${rest}`] ?? values[`present_key_values${rest}`];
    if (!present) return undefined;
    past[name] = present;
  }
  return Object.keys(past).length > 0 ? past : undefined;
}

async function compareCachedStep(
  runner: Runner,
  tokens: Int32Array,
  first: number,
  fed: (start: number, length: number, from: number) => Values,
): Promise<PatchProof['cached_step']> {
  const length = tokens.length - 1;
  if (length < 1 || !runner.inputs.some(({ name }) => isPastInput(name))) return null;
  const whole = await runner.run({ tokens, first: 0 }, fed(0, tokens.length, first));
  const prefix = await runner.run({ tokens: tokens.subarray(0, length), first: 0 }, fed(0, length, first));
  const past = cacheOf(runner, prefix);
  const name = mainName(whole, '');
  if (!past || !whole[name]) return null;
  const step = await runner.run({ tokens: tokens.subarray(length), first: length, past }, fed(length, 1, first));
  const width = whole[name].dims.at(-1) ?? 0;
  const expected = floats(whole[name]).slice(-width);
  return {
    max_abs_difference: largestDifference(expected, floats(step[name]).slice(-width)),
    largest_logit: expected.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0),
  };
}
