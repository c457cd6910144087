import { env, InferenceSession, type OnnxValue, Tensor } from 'onnxruntime-node';
import { InputError, RunError } from '../errors.js';

// Failures come back as errors; the runtime's own log would add lines of another form.
env.logLevel = 'fatal';

export type Device = 'cpu' | 'webgpu' | 'cuda';

export interface SessionSettings {
  readonly threads: number;
  readonly device: Device;
  /** Keep freed buffers for the next run: faster, but memory never shrinks. */
  readonly arena: boolean;
  readonly precision?: 'f32' | 'f64';
  /** Run the graph node by node as it is written. */
  readonly unoptimised?: boolean;
}

/** Sessions by key; graphs depend on shapes alone, so a few sessions serve a whole model. */
export interface SessionPool {
  /** @param threads at most these, when the bits of a product would depend on more (see `product-threads.ts`) */
  get(key: string, compose: () => Uint8Array, threads?: number): Promise<InferenceSession>;
  close(): Promise<void>;
}

export function createSessionPool(settings: SessionSettings): SessionPool {
  const sessions = new Map<string, Promise<InferenceSession>>();
  return {
    get(key, compose, wanted = settings.threads) {
      // Operators on doubles round otherwise at the ends of a thread's share: one thread, so that bits are equal.
      const threads = settings.precision === 'f64' ? 1 : wanted;
      const own = `${key}|${threads}`;
      let session = sessions.get(own);
      if (!session) {
        session = createSession(compose(), { ...settings, threads });
        sessions.set(own, session);
      }
      return session;
    },
    async close() {
      for (const session of sessions.values()) await (await session).release();
      sessions.clear();
    },
  };
}

/**
 * Creates a session from an encoded model or from a file.
 * @throws InputError when the graph or the device is not usable.
 */
export async function createSession(model: Uint8Array | string, settings: SessionSettings): Promise<InferenceSession> {
  const options: InferenceSession.SessionOptions = {
    executionProviders: settings.device === 'cpu' ? ['cpu'] : [settings.device, 'cpu'],
    intraOpNumThreads: settings.threads,
    interOpNumThreads: 1,
    executionMode: 'sequential',
    // The extended level fuses x * sigmoid(x) into an operator that has no double kernel.
    graphOptimizationLevel: settings.unoptimised ? 'disabled' : settings.precision === 'f64' ? 'basic' : 'all',
    enableCpuMemArena: settings.arena,
    enableMemPattern: settings.arena,
    logSeverityLevel: 4,
    // Several sessions share the cores: an idle one must not spin.
    extra: { session: { intra_op: { allow_spinning: '0' } } },
  };
  try {
    return typeof model === 'string'
      ? await InferenceSession.create(model, options)
      : await InferenceSession.create(model, options);
  } catch (error) {
    const what = typeof model === 'string' ? model : 'the composed graph';
    throw new InputError(`ONNX Runtime cannot load ${what} on ${settings.device}: ${oneLine(error)}`);
  }
}

/** Runs a session; allocation failures become RunError. */
export async function runSession(
  session: InferenceSession,
  feeds: Record<string, Tensor>,
  fetches: Record<string, Tensor | null>,
): Promise<Record<string, OnnxValue>> {
  try {
    return await session.run(feeds, fetches);
  } catch (error) {
    throw runFailure(error);
  }
}

/** What is told of a graph that failed while it ran. */
export function runFailure(error: unknown): RunError {
  const message = oneLine(error);
  if (/bad_alloc|allocate memory|out of memory/i.test(message)) {
    return new RunError(`out of memory in ONNX Runtime: ${message}; pass a smaller --max-memory`);
  }
  return new RunError(`ONNX Runtime failed: ${message}`);
}

function oneLine(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).replace(/\s+/g, ' ').trim();
}

/** Wraps a typed array as a tensor; the memory is shared. */
export function tensorOf(data: Float32Array | Float64Array | Int32Array | Uint8Array, dims: readonly number[]): Tensor {
  if (data instanceof Float32Array) return new Tensor('float32', data, dims);
  if (data instanceof Float64Array) return new Tensor('float64', data, dims);
  if (data instanceof Int32Array) return new Tensor('int32', data, dims);
  return new Tensor('bool', data, dims);
}

/** An output of int64 whose values fit 32 bits. */
export function integersOf(value: OnnxValue | undefined): Int32Array {
  const data = (value as Tensor | undefined)?.data;
  if (data instanceof BigInt64Array) return Int32Array.from(data, Number);
  throw new RunError('ONNX Runtime returned no integers where some were expected');
}

/** The typed array of a floating-point output. */
export function floatsOf(value: OnnxValue | undefined): Float32Array | Float64Array {
  const data = (value as Tensor | undefined)?.data;
  if (data instanceof Float32Array || data instanceof Float64Array) return data;
  throw new RunError('ONNX Runtime returned no floating-point output where one was expected');
}
