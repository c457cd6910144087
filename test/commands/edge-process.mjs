// A process that behaves as a command does, for the tests of the edge: node edge-process.mjs SCENARIO [FOLDER] [--debug]
import { join } from 'node:path';
import { EXIT, runCommand } from '../../dist/commands/edge-run.js';
import { InputError, RunError } from '../../dist/src/errors.js';
import { createAtomicFile } from '../../dist/src/formats/atomic.js';

const [scenario, folder = '.'] = process.argv.slice(2);

const scenarios = {
  done: async () => undefined,
  assert: async () => {
    process.exitCode = EXIT.assertFailed;
    return undefined;
  },
  input: async () => {
    throw new InputError('a.jsonl:3: no field\n"text"');
  },
  run: async () => {
    throw new RunError('diverged at step 7');
  },
  fault: async () => undefined.nothing,
  late: () =>
    new Promise(() => {
      setTimeout(() => {
        throw new Error('thrown outside of the action');
      }, 1);
    }),
  rejected: () =>
    new Promise(() => {
      Promise.reject(new InputError('rejected outside of the action'));
      setTimeout(() => undefined, 60_000);
    }),
  memory: async () => {
    const lists = [];
    for (;;) lists.push(new ArrayBuffer(2 ** 53 - 1));
  },
  full: async () => {
    createAtomicFile('/dev/full').write('x'.repeat(100_000));
  },
  missing: async () => {
    const { readFileSync } = await import('node:fs');
    readFileSync(join(folder, 'none.txt'));
  },
  flood: async () => {
    for (;;) {
      if (!process.stdout.write(`${'x'.repeat(100)}\n`))
        await new Promise((resolve) => process.stdout.once('drain', resolve));
      await new Promise((resolve) => setImmediate(resolve));
    }
  },
  wait: async () => {
    createAtomicFile(join(folder, 'out.csv')).write('half');
    process.stdout.write('ready\n');
    await new Promise((resolve) => setTimeout(resolve, 60_000));
  },
};

await runCommand(scenarios[scenario], process.argv.includes('--debug'));
