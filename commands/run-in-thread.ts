import { type ComputeReference, startCompute } from '../src/kernels/compute-thread.js';
import { closeBeforeExit } from './edge-run.js';

/** Runs a job in a thread of its own, which ends before the process may. */
export async function runInThread<A, R>(
  reference: ComputeReference<A, R>,
  args: A,
  onProgress?: (value: unknown) => void,
  threads?: number,
): Promise<R> {
  const { result, ended } = startCompute(reference, args, onProgress, threads);
  const closed = closeBeforeExit(() => ended);
  try {
    return await result;
  } finally {
    closed();
  }
}
