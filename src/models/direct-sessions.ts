import { Tensor } from 'onnxruntime-node';
import { RunError } from '../errors.js';
import { nativeKernels } from '../kernels/native.js';
import type { NativeKernels } from '../kernels/native-signatures.js';
import type { OnnxSessionHandle } from '../kernels/signatures/training.js';
import { createSession, runFailure, runSession, type SessionSettings } from './sessions.js';

/** A session on the CPU that writes outputs into the memory of the tensors that are given for them. */
export interface DirectSession {
  /**
   * @param fetches a tensor that is written, or null for one that is made
   * @throws RunError when the runtime fails
   */
  run(
    feeds: Readonly<Record<string, Tensor>>,
    fetches: Readonly<Record<string, Tensor | null>>,
  ): Promise<Record<string, Tensor>>;
  release(): Promise<void>;
}

/** The name under which onnxruntime-node loads its library. Elsewhere the package's own binding serves. */
const LIBRARY = process.platform === 'linux' ? 'libonnxruntime.so.1' : undefined;

/** Element types by their numbers in ONNX. */
const TYPES = { float32: 1, uint8: 2, int32: 6, int64: 7, bool: 9, float64: 11 } as const;

type DirectType = keyof typeof TYPES;

const isDirect = (type: string): type is DirectType => Object.hasOwn(TYPES, type);

/**
 * Opens a session for graphs that run often on large tensors. The binding of onnxruntime-node copies every output into a
 * new array, those with memory of their own too, which costs a tenth of a training step; the addon calls the same library
 * without that. Without the addon the package's binding serves. The bits are the same.
 * @throws InputError when the graph is not usable
 */
export async function openDirectSession(model: Uint8Array, settings: SessionSettings): Promise<DirectSession> {
  const native = nativeKernels();
  const handle = native && openHandle(native, model, settings);
  if (native && handle !== undefined) return directSession(native, handle);
  const session = await createSession(model, settings);
  return {
    async run(feeds, fetches) {
      const outputs = await runSession(session, feeds, fetches);
      return Object.fromEntries(
        Object.entries(outputs).map(([name, value]) => {
          const given = fetches[name];
          if (given) return [name, given];
          if (value instanceof Tensor) return [name, value];
          throw new RunError(`ONNX Runtime gave no tensor "${name}"`);
        }),
      );
    },
    release: () => session.release(),
  };
}

function openHandle(
  native: NativeKernels,
  model: Uint8Array,
  settings: SessionSettings,
): OnnxSessionHandle | undefined {
  if (LIBRARY === undefined || settings.device !== 'cpu') return undefined;
  // As in `createSession`.
  const optimisation = settings.unoptimised ? 0 : settings.precision === 'f64' ? 1 : 99;
  try {
    return native.openOnnxSession(LIBRARY, model, settings.threads, settings.arena ? 1 : 0, optimisation);
  } catch {
    return undefined; // the package's binding tries, and says what is wrong
  }
}

function directSession(native: NativeKernels, handle: OnnxSessionHandle): DirectSession {
  return {
    async run(feeds, fetches) {
      // Runs take milliseconds to seconds: what waits for this thread gets its turn, as with the package's binding.
      await new Promise(setImmediate);
      return runHandle(native, handle, feeds, fetches);
    },
    release() {
      native.closeOnnxSession(handle);
      return Promise.resolve();
    },
  };
}

function runHandle(
  native: NativeKernels,
  handle: OnnxSessionHandle,
  feeds: Readonly<Record<string, Tensor>>,
  fetches: Readonly<Record<string, Tensor | null>>,
): Record<string, Tensor> {
  const arrays: (ArrayBufferView | null)[] = [];
  const layout: number[] = [];
  const add = (name: string, tensor: Tensor): void => {
    const { type, dims, data } = tensor;
    if (!isDirect(type) || !ArrayBuffer.isView(data)) throw new RunError(`tensor "${name}" is of type ${type}`);
    arrays.push(data);
    layout.push(TYPES[type], dims.length, ...dims);
  };
  for (const [name, tensor] of Object.entries(feeds)) add(name, tensor);
  const inputs = arrays.length;
  for (const [name, tensor] of Object.entries(fetches)) {
    if (tensor) add(name, tensor);
    else arrays.push(null);
  }
  const outputNames = Object.keys(fetches);
  const names = [...Object.keys(feeds), ...outputNames];
  try {
    const made = native.runOnnxSession(handle, names, arrays, Float64Array.from(layout), inputs);
    return Object.fromEntries(outputNames.map((name, i) => [name, fetches[name] ?? tensorOfOutput(name, made[i])]));
  } catch (error) {
    throw error instanceof RunError ? error : runFailure(error);
  }
}

function tensorOfOutput(
  name: string,
  output: readonly [type: number, dims: readonly number[], memory: ArrayBuffer] | undefined,
): Tensor {
  if (output === undefined) throw new RunError(`ONNX Runtime gave no tensor "${name}"`);
  const [type, dims, memory] = output;
  switch (type) {
    case TYPES.float32:
      return new Tensor('float32', new Float32Array(memory), dims);
    case TYPES.float64:
      return new Tensor('float64', new Float64Array(memory), dims);
    case TYPES.int64:
      return new Tensor('int64', new BigInt64Array(memory), dims);
    case TYPES.int32:
      return new Tensor('int32', new Int32Array(memory), dims);
    case TYPES.uint8:
      return new Tensor('uint8', new Uint8Array(memory), dims);
    default:
      return new Tensor('bool', new Uint8Array(memory), dims);
  }
}
