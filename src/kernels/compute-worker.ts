import { parentPort, workerData } from 'node:worker_threads';
import type { ComputeMessage, ComputeStart } from './compute-thread.js';
import { configureKernels } from './native.js';
import { describeError, transferables } from './thread-messages.js';

/** The thread that runs one job, named by module and function, and ends. */
const port = parentPort;
if (!port) throw new Error('compute-worker runs as a worker thread only');
const send = (message: ComputeMessage, transfer: ArrayBuffer[] = []): void => port.postMessage(message, transfer);

const { module: location, name, args, threads } = workerData as ComputeStart;
if (threads !== undefined) configureKernels({ threads });
try {
  const module = (await import(location)) as Record<string, (...args: unknown[]) => unknown>;
  const value = await module[name](args, (progress: unknown) => send({ kind: 'progress', value: progress }));
  send({ kind: 'done', value }, transferables(value));
} catch (error) {
  send({ kind: 'failed', error: describeError(error) });
}
