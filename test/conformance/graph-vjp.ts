import { Tensor } from 'onnxruntime-node';
import { decodeOnnxModel, encodeOnnxModel } from '../../src/formats/onnx.js';
import { createSession, runSession } from '../../src/models/sessions.js';
import { differentiate } from '../../src/training/autodiff/differentiate.js';
import type { Json } from './harness.js';
import { isTensor } from './harness.js';
import { float64, shapeOf, tensor } from './tensors.js';

/** A golden tensor as the runtime takes it. */
export function fed(value: Json, name: string): Tensor {
  if (!isTensor(value)) throw new TypeError(`${name} is not a tensor`);
  const dims = shapeOf(value, name);
  if (value.dtype === 'bool')
    return new Tensor(
      'bool',
      Uint8Array.from(value.data, (entry) => Number(entry)),
      dims,
    );
  if (value.dtype.startsWith('int')) {
    return new Tensor(
      'int64',
      BigInt64Array.from(value.data, (entry) => BigInt(entry)),
      dims,
    );
  }
  return new Tensor('float64', float64(value, name), dims);
}

/** A result as golden files hold it. */
export const shown = (value: Tensor): unknown => tensor(value.dims, value.data as Float64Array);

export interface VjpRequest {
  /** Serialised graph in double precision. */
  readonly graph: Uint8Array;
  readonly feeds: Readonly<Record<string, Tensor>>;
  readonly wanted: readonly string[];
  readonly seeds: readonly string[];
  /** The cotangent of each seed, which may depend on the outputs. */
  cotangents(outputs: Readonly<Record<string, Tensor>>): Readonly<Record<string, Tensor>>;
}

export interface VjpResult {
  readonly outputs: Readonly<Record<string, Tensor>>;
  /** By wanted name; zeros where no seed depends on it. */
  readonly gradients: Readonly<Record<string, Tensor>>;
}

/** Outputs and vector-Jacobian products of a graph. */
export async function graphVjp(request: VjpRequest): Promise<VjpResult> {
  const { feeds, wanted, seeds } = request;
  const model = decodeOnnxModel(request.graph, 'graph');
  const made = await differentiate({ model, wanted, seeds, precision: 'f64' }, feeds);
  const settings = { threads: 1, device: 'cpu', arena: false, precision: 'f64' } as const;
  const forward = await createSession(encodeOnnxModel(made.forward), settings);
  const backward = await createSession(encodeOnnxModel(made.backward), settings);
  try {
    const pick = (names: readonly string[], from: Readonly<Record<string, Tensor>>): Record<string, Tensor> =>
      Object.fromEntries(names.map((name) => [name, from[name]]));
    const all = (names: readonly string[]): Record<string, null> =>
      Object.fromEntries(names.map((name) => [name, null]));
    const outputs = await runSession(forward, pick(forward.inputNames, feeds), all(forward.outputNames));
    const found = outputs as Record<string, Tensor>;
    const seeded = Object.entries(request.cotangents(found)).map(([name, value]) => [`grad.${name}`, value]);
    const known = { ...feeds, ...found, ...(Object.fromEntries(seeded) as Record<string, Tensor>) };
    const given = await runSession(backward, pick(backward.inputNames, known), all(backward.outputNames));
    const gradients = wanted.map((name) => [name, given[`grad.${name}`] ?? zerosLike(feeds[name])]);
    return { outputs: found, gradients: Object.fromEntries(gradients) as Record<string, Tensor> };
  } finally {
    await forward.release();
    await backward.release();
  }
}

const zerosLike = ({ dims, size }: Tensor): Tensor => new Tensor('float64', new Float64Array(size), dims);
