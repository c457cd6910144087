import { rmSync } from 'node:fs';
import { InputError, RunError } from '../src/errors.js';
import { abortPendingWrites } from '../src/formats/atomic.js';
import { fileError } from '../src/formats/files.js';
import { kernelStatus, quickExit } from '../src/kernels/native.js';

/** Exit codes of every command (an assert that does not hold: 3; SIGINT: 130; SIGTERM: 143). */
export const EXIT = { done: 0, failed: 1, wrongInput: 2, assertFailed: 3, interrupted: 130, terminated: 143 } as const;

/** How a failure ends: the exit code and the one line for standard error. */
export interface Failure {
  readonly code: number;
  readonly message: string;
}

const OUT_OF_MEMORY =
  /out of memory|allocation failed|bad_alloc|invalid (typed )?array (buffer )?length|failed to allocate/i;

/** Makes one line of a message, whatever a library put in it. */
function oneLine(text: string): string {
  return text.replace(/\s*[\r\n]+\s*/g, ' ').trim();
}

/** Turns whatever was thrown into an exit code and one line. */
export function describeFailure(thrown: unknown): Failure {
  const systemPath = (thrown as NodeJS.ErrnoException | null)?.path;
  const error = systemPath === undefined ? thrown : fileError(thrown, systemPath, 'open');
  const name = error instanceof Error ? error.name : '';
  const message = oneLine(error instanceof Error ? error.message : String(error));
  // Errors that crossed from a worker thread keep their name and lose their class.
  if (error instanceof InputError || name === 'InputError') return { code: EXIT.wrongInput, message };
  if (error instanceof RunError || name === 'RunError') return { code: EXIT.failed, message };
  const code = (error as NodeJS.ErrnoException | null)?.code;
  if (code === 'ENOSPC' || code === 'EDQUOT')
    return { code: EXIT.failed, message: `no space left on the device: ${message}` };
  if (code === 'EIO') return { code: EXIT.failed, message: `input/output error: ${message}` };
  if (code === 'ENOMEM' || code === 'ERR_WORKER_OUT_OF_MEMORY' || OUT_OF_MEMORY.test(message)) {
    return {
      code: EXIT.failed,
      message: `out of memory (${message}); lower --max-memory or --context, or use a larger machine`,
    };
  }
  return {
    code: EXIT.failed,
    message: `fault in surprisal: ${message}; run it again with --debug and report what it prints`,
  };
}

const closers = new Set<() => Promise<void>>();

/**
 * Enters something that must be closed before the process may end: without the native addon, Node cannot end a worker
 * thread that is inside a native call. Returns the function that takes it out again.
 */
export function closeBeforeExit(close: () => Promise<void>): () => void {
  closers.add(close);
  return () => closers.delete(close);
}

const folders = new Set<string>();

/** Enters a temporary folder that is removed however the process ends. Returns the function that removes it now. */
export function removeBeforeExit(folder: string): () => void {
  folders.add(folder);
  return () => {
    folders.delete(folder);
    rmSync(folder, { recursive: true, force: true });
  };
}

/** Removes what must not outlive the process; never throws. */
function removeLeftovers(): void {
  abortPendingWrites();
  for (const folder of folders) {
    try {
      rmSync(folder, { recursive: true, force: true });
    } catch {
      // The process is ending: what cannot be removed stays.
    }
  }
  folders.clear();
}

/** Ends the process at once where the addon can; else as soon as no worker is inside a native call. */
function leave(code: number): void {
  if (kernelStatus().native || closers.size === 0) quickExit(code);
  const signal = code === EXIT.interrupted ? 'SIGINT' : code === EXIT.terminated ? 'SIGTERM' : undefined;
  if (signal !== undefined) {
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
    return;
  }
  void Promise.allSettled([...closers].map((close) => close())).then(() => process.exit(code));
}

/** Removes unfinished outputs and ends the process, also while a worker thread is inside a native call. */
function abandon(code: number): void {
  removeLeftovers();
  leave(code);
}

/** Prints a failure and ends the process. */
export function fail(thrown: unknown, debug: boolean): void {
  const failure = describeFailure(thrown);
  removeLeftovers();
  if (debug && thrown instanceof Error && thrown.stack) process.stderr.write(`${thrown.stack}\n`);
  process.stderr.write(`error: ${failure.message}\n`);
  leave(failure.code);
}

/**
 * Runs a command to its exit code: signals remove unfinished outputs, a closed pipe ends quietly, and every failure
 * becomes one line on standard error.
 * @param action gives the exit code; without one, `process.exitCode` holds (an action sets it to 3 for a failed assert)
 */
export async function runCommand(action: () => Promise<number | undefined>, debug: boolean): Promise<void> {
  process.on('SIGINT', () => abandon(EXIT.interrupted));
  process.on('SIGTERM', () => abandon(EXIT.terminated));
  // A reader that has left (`| head`) is no failure.
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) =>
      error.code === 'EPIPE' ? abandon(EXIT.done) : fail(error, debug),
    );
  }
  process.on('uncaughtException', (error) => fail(error, debug));
  process.on('unhandledRejection', (reason) => fail(reason, debug));
  process.on('exit', removeLeftovers);
  try {
    process.exit((await action()) ?? Number(process.exitCode ?? EXIT.done));
  } catch (error) {
    fail(error, debug);
  }
}
