import { Worker } from 'node:worker_threads';
import { RunError } from '../errors.js';
import { reviveError, type ThreadError } from './thread-messages.js';

/** Work that needs no model: arguments and results are structured-cloneable, typed arrays of the result move. */
export type ComputeJob<A, R> = (args: A, progress: (value: unknown) => void) => Promise<R> | R;

/** A job and where the thread finds it: `{ module: import.meta.url, job }` in the module that exports it. */
export interface ComputeReference<A, R> {
  readonly module: string;
  readonly job: ComputeJob<A, R>;
}

export interface ComputeStart {
  readonly module: string;
  readonly name: string;
  readonly args: unknown;
  /** Threads of a kernel call that does not say. */
  readonly threads?: number;
}

export type ComputeMessage =
  | { readonly kind: 'progress'; readonly value: unknown }
  | { readonly kind: 'done'; readonly value: unknown }
  | { readonly kind: 'failed'; readonly error: ThreadError };

/** A job in its own thread: the calling thread stays free for signals, progress and writing. */
export interface ComputeRun<R> {
  readonly result: Promise<R>;
  /** Ends when the thread has ended. */
  readonly ended: Promise<void>;
}

/**
 * Runs one job in a thread of its own.
 * @throws (through `result`) what the job threw; RunError when the thread ended without an answer
 */
export function startCompute<A, R>(
  reference: ComputeReference<A, R>,
  args: A,
  progress?: (value: unknown) => void,
  threads?: number,
): ComputeRun<R> {
  const start: ComputeStart = {
    module: reference.module,
    name: reference.job.name,
    args,
    ...(threads !== undefined && { threads }),
  };
  const worker = new Worker(new URL('./compute-worker.js', import.meta.url), { workerData: start });
  const ended = new Promise<void>((resolve) => {
    worker.once('exit', () => resolve());
  });
  const result = new Promise<R>((resolve, reject) => {
    worker.on('error', (error: Error & { code?: string }) => {
      reject(
        error.code === 'ERR_WORKER_OUT_OF_MEMORY'
          ? new RunError(`the analysis ran out of memory: ${error.message}; lower --max-memory or use fewer rows`)
          : error,
      );
    });
    worker.on('exit', (code) => reject(new RunError(`the thread of the analysis ended with code ${code}`)));
    worker.on('message', (message: ComputeMessage) => {
      if (message.kind === 'progress') progress?.(message.value);
      else if (message.kind === 'done') resolve(message.value as R);
      else reject(reviveError(message.error));
    });
  });
  return { result, ended };
}
