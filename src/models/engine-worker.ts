import { parentPort, workerData } from 'node:worker_threads';
import { describeError, transferables } from '../kernels/thread-messages.js';
import type { HostMessage, WorkerMessage, WorkerStart } from './engine-host.js';
import { openLanguageModel } from './language-model.js';

/** The thread that owns sessions, weights and kernels. Jobs are named by module and function. */
const port = parentPort;
if (!port) throw new Error('engine-worker runs as a worker thread only');
const send = (message: WorkerMessage, transfer: ArrayBuffer[] = []): void => port.postMessage(message, transfer);

const start = workerData as WorkerStart;
const opening = openLanguageModel(start.path, start.options);
opening.then(
  (model) => send({ kind: 'ready', info: model.info }),
  (error) => send({ kind: 'failed', id: -1, error: describeError(error) }),
);

// Jobs run one after another: the runtime would only queue a second one.
let tail: Promise<void> = opening.then(
  () => undefined,
  () => undefined,
);
port.on('message', (message: HostMessage) => {
  tail = tail.then(async () => {
    try {
      const model = await opening;
      if (message.kind === 'close') {
        await model.close();
        send({ kind: 'closed' });
        port.close();
        return;
      }
      const module = (await import(message.module)) as Record<string, (...args: unknown[]) => Promise<unknown>>;
      const report = (value: unknown): void => send({ kind: 'progress', id: message.id, value });
      const value = await module[message.name](model, message.args, report);
      send({ kind: 'done', id: message.id, value }, transferables(value));
    } catch (error) {
      send({ kind: 'failed', id: message.kind === 'run' ? message.id : -1, error: describeError(error) });
    }
  });
});
