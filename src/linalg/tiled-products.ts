import type { InferenceSession, Tensor } from 'onnxruntime-node';
import { RunError } from '../errors.js';
import type { Floats } from '../formats/feature-matrix.js';
import { kernelThreads } from '../kernels/native.js';
import { equalBitThreads } from '../kernels/product-threads.js';

/**
 * Which operands are stored transposed: `nt` A[m,k]·B[n,k]ᵀ, `nn` A[m,k]·B[k,n], `tn` A[k,m]ᵀ·B[k,n], all row-major.
 */
export type ProductForm = 'nt' | 'nn' | 'tn';

/** Extents of a product: [m, k] times [k, n]. */
export interface ProductShape {
  readonly m: number;
  readonly n: number;
  readonly k: number;
}

/** Products of tiles by ONNX Runtime; holds sessions, so close it. */
export interface TiledProducts {
  /** The most threads of a product. */
  readonly threads: number;
  /** A[m,k]·B[n,k]ᵀ into the first m·n entries of `target`, which is made when absent. f32 and f64. */
  product<T extends Floats>(a: T, m: number, b: T, n: number, k: number, target?: T): Promise<T>;
  /** The same with either operand transposed. */
  multiply<T extends Floats>(form: ProductForm, a: T, b: T, shape: ProductShape, target?: T): Promise<T>;
  close(): Promise<void>;
}

type Runtime = Pick<typeof import('onnxruntime-node'), 'InferenceSession' | 'Tensor'> &
  Pick<typeof import('./product-model.js'), 'productModel'>;

let loaded: Promise<Runtime> | undefined;

/** The runtime, when a product first needs it: threads that only name jobs do without. */
function loadRuntime(): Promise<Runtime> {
  loaded ??= Promise.all([import('onnxruntime-node'), import('./product-model.js')]).then(([runtime, model]) => {
    // Failures come back as errors; the runtime's own log would add lines of another form.
    runtime.env.logLevel = 'fatal';
    return { ...model, InferenceSession: runtime.InferenceSession, Tensor: runtime.Tensor };
  });
  return loaded;
}

/**
 * Matrix products by ONNX Runtime's MatMul (its operator with transposes, `FusedMatMul`), in f32 and f64, written into
 * the caller's memory. The bits do not depend on `threads`: products whose columns would be shared out too narrowly run
 * on fewer (`equalBitThreads`). Nor do the bits of a row of the result depend on the other rows, as long as there are
 * two rows or more. Callers cut their work into tiles of fixed extents, see `TILE`.
 *
 * A call runs in the calling thread until the product is done. One thread with AVX-512 gives 65 to 95 GFLOP/s in f32 and
 * 30 to 48 in f64 over the shapes of this folder (inner extents 64 to 1,024), as the kernels of `gemm.ts` do; those are
 * quicker for few inner products in f64, these for 64 vectors by a tile.
 */
export function openProducts(settings: { readonly threads?: number } = {}): TiledProducts {
  const threads = kernelThreads(settings.threads);
  const sessions = new Map<string, Promise<InferenceSession>>();
  const session = (runtime: Runtime, form: ProductForm, dtype: 'F32' | 'F64', wanted: number) => {
    const key = `${form} ${dtype} ${wanted}`;
    let found = sessions.get(key);
    if (found === undefined) {
      found = runtime.InferenceSession.create(runtime.productModel(form, dtype), {
        executionProviders: ['cpu'],
        intraOpNumThreads: wanted,
        interOpNumThreads: 1,
        logSeverityLevel: 4,
        // Kernels of this project run between the products: idle threads must not spin.
        extra: { session: { intra_op: { allow_spinning: '0' } } },
      });
      sessions.set(key, found);
    }
    return found;
  };
  const multiply = async <T extends Floats>(
    form: ProductForm,
    a: T,
    b: T,
    { m, n, k }: ProductShape,
    target?: T,
  ): Promise<T> => {
    if (a.length < m * k || b.length < n * k || (target !== undefined && target.length < m * n)) {
      throw new RangeError(`${a.length} and ${b.length} entries hold no product of [${m}, ${k}] and [${k}, ${n}]`);
    }
    const single = a instanceof Float32Array;
    const result = target ?? ((single ? new Float32Array(m * n) : new Float64Array(m * n)) as T);
    const written = (result.length === m * n ? result : result.subarray(0, m * n)) as T;
    if (m === 0 || n === 0) return result;
    if (k === 0) {
      written.fill(0);
      return result;
    }
    const wanted = equalBitThreads([{ columns: n, depth: k }], m, threads);
    const runtime = await loadRuntime();
    const tensorOf = (data: Floats, dims: readonly number[]): Tensor =>
      data instanceof Float32Array
        ? new runtime.Tensor('float32', data, dims)
        : new runtime.Tensor('float64', data, dims);
    const runner = await session(runtime, form, single ? 'F32' : 'F64', wanted);
    const feeds = {
      a: tensorOf(a.subarray(0, m * k), form === 'tn' ? [k, m] : [m, k]),
      b: tensorOf(b.subarray(0, n * k), form === 'nt' ? [n, k] : [k, n]),
    };
    try {
      await runner.run(feeds, { c: tensorOf(written, [m, n]) });
    } catch (error) {
      const message = error instanceof Error ? error.message.split('\n')[0] : String(error);
      throw new RunError(`a product of [${m}, ${k}] and [${k}, ${n}] failed in ONNX Runtime: ${message}`);
    }
    return result;
  };
  return {
    threads,
    multiply,
    product: (a, m, b, n, k, target) => multiply('nt', a, b, { m, n, k }, target),
    async close() {
      const open = [...sessions.values()];
      sessions.clear();
      for (const found of open) await (await found).release();
    },
  };
}

/** Side of a square tile of a matrix of pairs: 4 MiB of f32, 8 MiB of f64. Fixed, so that no memory limit changes bits. */
export const TILE = 1024;

/** Opens products for the time of `work`. */
export async function withProducts<R>(
  settings: { readonly threads?: number },
  work: (products: TiledProducts) => Promise<R>,
): Promise<R> {
  const products = openProducts(settings);
  try {
    return await work(products);
  } finally {
    await products.close();
  }
}
