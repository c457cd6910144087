import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, it } from 'vitest';

const script = fileURLToPath(new URL('long-run.mjs', import.meta.url));
const STEPS = 30;

let directories: string[];
beforeEach(() => {
  directories = [0, 1].map(() => mkdtempSync(join(tmpdir(), 'surprisal-killed-')));
});
afterEach(() => {
  for (const directory of directories) rmSync(directory, { recursive: true, force: true });
});

const start = (directory: string): ChildProcess =>
  spawn(process.execPath, [script, directory, String(STEPS)], { stdio: ['ignore', 'pipe', 'inherit'] });

/** Lines of a process until `seen` says enough, or to its end. */
async function linesOf(child: ChildProcess, seen: (line: string) => boolean = () => false): Promise<string[]> {
  const lines: string[] = [];
  if (child.stdout === null) return lines;
  for await (const line of createInterface({ input: child.stdout })) {
    lines.push(line);
    if (seen(line)) break;
  }
  return lines;
}

it('a run that was killed goes on to the weights and metrics of an unbroken one', async () => {
  const [broken, whole] = directories;
  const unbroken = linesOf(start(whole));
  const child = start(broken);
  const ended = new Promise<NodeJS.Signals | null>((resolve) => {
    child.on('exit', (_, signal) => resolve(signal));
  });
  await linesOf(child, (line) => line === 'step 11');
  child.kill('SIGKILL');
  expect(await ended).toBe('SIGKILL');
  expect(readdirSync(join(broken, 'checkpoints')).some((name) => /^step-\d+$/.test(name))).toBe(true);
  const resumed = await linesOf(start(broken));
  expect(resumed.length).toBeLessThan(STEPS);
  expect(resumed.at(-1)).toMatch(/^[0-9a-f]{64}$/);
  expect(resumed.at(-1)).toBe((await unbroken).at(-1));
  expect(readFileSync(join(broken, 'metrics.csv'), 'utf8')).toBe(readFileSync(join(whole, 'metrics.csv'), 'utf8'));
  expect(readdirSync(join(broken, 'checkpoints'))).toEqual([`step-${String(STEPS).padStart(8, '0')}`]);
}, 30_000);
