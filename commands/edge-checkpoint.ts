import { existsSync, readFileSync, rmSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { InputError } from '../src/errors.js';
import { createAtomicFile } from '../src/formats/atomic.js';

/** Seconds between two checkpoints, unless SURPRISAL_CHECKPOINT_SECONDS says otherwise. */
const INTERVAL_SECONDS = 10;

/** The state of a long run, kept beside its output so that `--resume` can continue after a kill. */
export interface Checkpoint<S> {
  /** What an interrupted run left, if it was the same run. */
  readonly found: S | undefined;
  /** Whether enough time has passed since the last save. */
  due(): boolean;
  save(state: S): void;
  /** Removes the file: the run is complete. */
  remove(): void;
}

/**
 * @param output the output beside which the state is kept
 * @param run everything that decides the result; a leftover of another run is an error
 * @param resume `--resume`; without it nothing is kept
 * @throws InputError when the leftover belongs to a run with other parameters or cannot be read
 */
export function openCheckpoint<S>(output: string | undefined, run: object, resume: boolean): Checkpoint<S> {
  const none: Checkpoint<S> = {
    found: undefined,
    due: () => false,
    save: () => undefined,
    remove: () => undefined,
  };
  if (!resume) return none;
  if (output === undefined) throw new InputError('--resume needs --out or --report: the state is kept beside it');
  const path = join(dirname(output), `.${basename(output)}.checkpoint`);
  const fingerprint = JSON.stringify(run);
  const interval = 1000 * Number(process.env.SURPRISAL_CHECKPOINT_SECONDS ?? INTERVAL_SECONDS);
  let last = performance.now();
  return {
    found: existsSync(path) ? readCheckpoint<S>(path, fingerprint) : undefined,
    due: () => performance.now() - last >= interval,
    save(state) {
      const file = createAtomicFile(path, { resume: true });
      file.write(JSON.stringify({ fingerprint, state }));
      file.commit();
      last = performance.now();
    },
    remove: () => rmSync(path, { force: true }),
  };
}

function readCheckpoint<S>(path: string, fingerprint: string): S {
  let saved: { fingerprint?: unknown; state?: S };
  try {
    saved = JSON.parse(readFileSync(path, 'utf8')) as typeof saved;
  } catch {
    throw new InputError(`${path}: not a checkpoint that can be read; remove it to start again`);
  }
  if (saved.fingerprint !== fingerprint) {
    throw new InputError(`${path}: left by a run with other options; use those options, or remove it to start again`);
  }
  return saved.state as S;
}
