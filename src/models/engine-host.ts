import { Worker } from 'node:worker_threads';
import { RunError } from '../errors.js';
import { reviveError, type ThreadError } from '../kernels/thread-messages.js';
import type { EngineOptions } from './engine.js';
import type { LanguageModel, ModelInfo } from './language-model.js';

/** A function that runs beside the engine, in its thread. Arguments and results are structured-cloneable. */
export type Job<A, R> = (model: LanguageModel, args: A, progress: (value: unknown) => void) => Promise<R>;

/** A job and where the worker finds it: `{ module: import.meta.url, job }` in the module that exports it. */
export interface JobReference<A, R> {
  readonly module: string;
  readonly job: Job<A, R>;
}

export interface WorkerStart {
  readonly path: string;
  readonly options: EngineOptions;
}

export type HostMessage =
  | {
      readonly kind: 'run';
      readonly id: number;
      readonly module: string;
      readonly name: string;
      readonly args: unknown;
    }
  | { readonly kind: 'close' };

export type WorkerMessage =
  | { readonly kind: 'ready'; readonly info: ModelInfo }
  | { readonly kind: 'progress'; readonly id: number; readonly value: unknown }
  | { readonly kind: 'done'; readonly id: number; readonly value: unknown }
  | { readonly kind: 'failed'; readonly id: number; readonly error: ThreadError }
  | { readonly kind: 'closed' };

/** A model in its own thread. Jobs queue; the calling thread stays free for signals, tokenising and writing. */
export interface EngineHost {
  readonly info: ModelInfo;
  run<A, R>(reference: JobReference<A, R>, args: A, progress?: (value: unknown) => void): Promise<R>;
  close(): Promise<void>;
}

interface Pending {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
  readonly progress?: (value: unknown) => void;
}

/** Starts the worker and opens the model in it. */
export async function startEngine(path: string, options: EngineOptions): Promise<EngineHost> {
  const worker = new Worker(new URL('./engine-worker.js', import.meta.url), {
    workerData: { path, options } satisfies WorkerStart,
  });
  const pending = new Map<number, Pending>();
  let next = 0;
  let settleReady: Pending | undefined;
  let settleClosed: (() => void) | undefined;

  const fail = (error: Error): void => {
    settleReady?.reject(error);
    for (const waiting of pending.values()) waiting.reject(error);
    pending.clear();
    settleClosed?.();
  };
  worker.on('error', (error: Error & { code?: string }) => {
    fail(
      error.code === 'ERR_WORKER_OUT_OF_MEMORY'
        ? new RunError(`the engine ran out of memory: ${error.message}`)
        : error,
    );
  });
  worker.on('exit', (code) => fail(new RunError(`the engine's thread ended with code ${code}`)));

  const ready = new Promise<ModelInfo>((resolve, reject) => {
    settleReady = { resolve: resolve as (value: unknown) => void, reject };
  });
  worker.on('message', (message: WorkerMessage) => {
    switch (message.kind) {
      case 'ready':
        settleReady?.resolve(message.info);
        break;
      case 'closed':
        settleClosed?.();
        break;
      case 'progress':
        pending.get(message.id)?.progress?.(message.value);
        break;
      case 'done':
        pending.get(message.id)?.resolve(message.value);
        pending.delete(message.id);
        break;
      case 'failed': {
        const error = reviveError(message.error);
        if (message.id < 0) settleReady?.reject(error);
        pending.get(message.id)?.reject(error);
        pending.delete(message.id);
        break;
      }
    }
  });

  let info: ModelInfo;
  try {
    info = await ready;
  } catch (error) {
    await worker.terminate();
    throw error;
  }
  return {
    info,
    run<A, R>(reference: JobReference<A, R>, args: A, progress?: (value: unknown) => void): Promise<R> {
      const id = next++;
      return new Promise<R>((resolve, reject) => {
        pending.set(id, { resolve: resolve as (value: unknown) => void, reject, ...(progress && { progress }) });
        const message: HostMessage = { kind: 'run', id, module: reference.module, name: reference.job.name, args };
        worker.postMessage(message);
      });
    },
    async close() {
      const closed = new Promise<void>((resolve) => {
        settleClosed = resolve;
      });
      worker.postMessage({ kind: 'close' } satisfies HostMessage);
      await closed;
      await worker.terminate();
    },
  };
}
