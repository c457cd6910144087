import { spawn, spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** How a run of the real binary ended. */
export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs `surprisal` as a user does. */
export function surprisal(argv: readonly string[], env: Readonly<Record<string, string>> = {}, input?: string): Ended {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['bin/surprisal.js', ...argv], {
    encoding: 'utf8',
    env: { ...process.env, ...env },
    ...(input !== undefined && { input }),
    maxBuffer: 1 << 28,
  });
  return { code: status, stdout, stderr };
}

/** Ends of the two pipes to a process that runs command lines for this file of tests. */
let pipes: { readonly lines: number; readonly answers: number } | undefined;

/** Starts the process. Blocking reads need named pipes: those that Node makes do not block. */
function startResident(): { readonly lines: number; readonly answers: number } {
  const folder = mkdtempSync(join(tmpdir(), 'surprisal-resident-'));
  const [input, output] = ['lines', 'answers'].map((name) => join(folder, name));
  spawnSync('mkfifo', [input, output]);
  // An end opens at once where the other one is open: both are held until each side has its own.
  const held = [input, output].map((path) => openSync(path, 'r+'));
  const theirs = [openSync(input, 'r'), openSync(output, 'w')];
  const found = { lines: openSync(input, 'w'), answers: openSync(output, 'r') };
  const child = spawn(process.execPath, ['test/commands/resident-process.mjs'], { stdio: [...theirs, 'inherit'] });
  child.unref();
  for (const fd of [...held, ...theirs]) closeSync(fd);
  rmSync(folder, { recursive: true });
  return found;
}

/**
 * Runs a command line in a process that stays for the next one, and so loads the program once. For what a command
 * writes and how it ends; signals, memory and the end of the process itself are `surprisal`'s to show.
 */
export function resident(argv: readonly string[]): Ended {
  pipes ??= startResident();
  writeSync(pipes.lines, `${JSON.stringify(argv)}\n`);
  const chunks: Buffer[] = [];
  for (const chunk = Buffer.alloc(1 << 16); chunks.at(-1)?.at(-1) !== 10; ) {
    const length = readSync(pipes.answers, chunk);
    if (length === 0) throw new Error(`the resident process ended at ${argv.join(' ')}`);
    chunks.push(Buffer.from(chunk.subarray(0, length)));
  }
  return JSON.parse(Buffer.concat(chunks).toString()) as Ended;
}

/** Runs command lines one after another in the process that stays. */
export function severally(lines: readonly (readonly string[])[]): Ended[] {
  return lines.map(resident);
}

/** Starts `surprisal`, sends `signal` when `ready` says so, and waits for its end. */
export function interrupted(
  argv: readonly string[],
  signal: NodeJS.Signals,
  ready: () => boolean,
  env: Readonly<Record<string, string>> = {},
): Promise<{ code: number | null; signal: NodeJS.Signals | null; stderr: string }> {
  const child = spawn(process.execPath, ['bin/surprisal.js', ...argv], { env: { ...process.env, ...env } });
  let stderr = '';
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  const watch = setInterval(() => {
    if (ready()) {
      clearInterval(watch);
      child.kill(signal);
    }
  }, 20);
  return new Promise((resolve) => {
    child.on('exit', (code, ended) => {
      clearInterval(watch);
      resolve({ code, signal: ended, stderr });
    });
  });
}
