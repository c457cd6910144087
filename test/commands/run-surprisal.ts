import { spawn, spawnSync } from 'node:child_process';

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

/** Runs command lines one after another in one process, which loads the program once, and says how each ended. */
export function severally(lines: readonly (readonly string[])[]): Ended[] {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['test/commands/run-several.mjs'], {
    encoding: 'utf8',
    input: JSON.stringify(lines),
    maxBuffer: 1 << 28,
  });
  if (status !== 0) throw new Error(`run-several.mjs ended with ${status}: ${stderr}`);
  return JSON.parse(stdout) as Ended[];
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
