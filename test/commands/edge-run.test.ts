import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { describeFailure } from '../../commands/edge-run.js';
import { InputError, RunError } from '../../src/errors.js';
import { temporaryFolder } from '../formats/collect.js';

const folder = temporaryFolder();

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a scenario of edge-process.mjs; `onOutput` sees the child at its first output. */
function run(argv: string[], onOutput?: (child: ReturnType<typeof spawn>) => void): Promise<Ended> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, ['test/commands/edge-process.mjs', ...argv]);
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (chunk: Buffer) => {
      if (stdout === '') onOutput?.(child);
      stdout += chunk.toString();
    });
    child.stderr.on('data', (chunk: Buffer) => {
      stderr += chunk.toString();
    });
    child.on('close', (code) => resolve({ code, stdout, stderr }));
  });
}

describe('runCommand', { timeout: 30_000 }, () => {
  it.each([
    ['done', 0, /^$/],
    ['assert', 3, /^$/],
    ['input', 2, /^error: a\.jsonl:3: no field "text"\n$/],
    ['run', 1, /^error: diverged at step 7\n$/],
    ['fault', 1, /^error: fault in surprisal: .*; run it again with --debug and report what it prints\n$/],
    ['late', 1, /^error: fault in surprisal: thrown outside of the action; .*\n$/],
    ['rejected', 2, /^error: rejected outside of the action\n$/],
    ['memory', 1, /^error: out of memory \(.*\); lower --max-memory or --context, or use a larger machine\n$/],
    ['missing', 2, /^error: .*none\.txt: cannot open: no such file or directory: check the path\n$/],
  ])('ends %s with %d', async (scenario, code, stderr) => {
    expect(await run([scenario, folder])).toEqual({ code, stdout: '', stderr: expect.stringMatching(stderr) });
  });

  it.runIf(process.platform === 'linux')('ends with 1 on a full disk', async () => {
    expect(await run(['full'])).toEqual({
      code: 1,
      stdout: '',
      stderr: 'error: /dev/full: cannot write: no space left on the device: free some space and run again\n',
    });
  });

  it('shows the stack with --debug only', async () => {
    const { code, stderr } = await run(['fault', folder, '--debug']);
    expect(code).toBe(1);
    expect(stderr).toMatch(/\n {4}at /);
  });

  it.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)('ends at %s with %d and leaves no file', async (signal, code) => {
    const own = mkdtempSync(join(folder, 'wait-'));
    const ended = await run(['wait', own], (child) => {
      expect(readdirSync(own)).toHaveLength(1);
      child.kill(signal);
    });
    expect(ended).toEqual({ code, stdout: 'ready\n', stderr: '' });
    expect(readdirSync(own)).toEqual([]);
  });

  it('ends quietly with 0 when its reader leaves', async () => {
    const ended = await run(['flood'], (child) => child.stdout?.destroy());
    expect(ended).toMatchObject({ code: 0, stderr: '' });
  });
});

describe('describeFailure', () => {
  const system = (code: string): Error => Object.assign(new Error(`${code}: what the system said`), { code });

  it.each([
    [new InputError('x'), 2],
    [new RunError('x'), 1],
    // Structured cloning between threads keeps the name only.
    [Object.assign(new Error('x'), { name: 'InputError' }), 2],
    [Object.assign(new Error('x'), { name: 'RunError' }), 1],
    [system('ENOSPC'), 1],
    [system('EIO'), 1],
    [system('ENOMEM'), 1],
    [Object.assign(system('EACCES'), { path: 'secret.json' }), 2],
    [Object.assign(system('ENOSPC'), { path: 'out.json' }), 1],
    [new RangeError('Array buffer allocation failed'), 1],
    [new TypeError('x is not a function'), 1],
    ['a text', 1],
    [undefined, 1],
  ])('%s ends with %d, in one line', (error, code) => {
    const failure = describeFailure(error);
    expect(failure.code).toBe(code);
    expect(failure.message).not.toContain('\n');
  });
});
