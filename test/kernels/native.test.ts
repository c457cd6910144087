import { spawnSync } from 'node:child_process';
import { chmodSync, cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import {
  configureKernels,
  kernelStatus,
  kernelThreads,
  nativeKernels,
  peakResidentBytes,
} from '../../src/kernels/native.js';
import { useBestKernels } from './kernel-modes.js';

const root = fileURLToPath(new URL('../../', import.meta.url));
const addon = join(root, 'native', 'build', 'surprisal.node');
const built = existsSync(addon);

function node(
  args: string[],
  environment: NodeJS.ProcessEnv = {},
  cwd = root,
): { status: number | null; out: string; err: string } {
  const result = spawnSync(process.execPath, args, {
    cwd,
    encoding: 'utf8',
    env: { ...process.env, SURPRISAL_NO_NATIVE: '', ...environment },
  });
  return { status: result.status, out: result.stdout, err: result.stderr };
}

describe('building the addon', () => {
  // A copy, so that what fails here leaves the repository's own addon alone.
  const copy = mkdtempSync(join(tmpdir(), 'surprisal-native-'));
  cpSync(join(root, 'native', 'src'), join(copy, 'native', 'src'), { recursive: true });
  cpSync(join(root, 'native', 'build.mjs'), join(copy, 'native', 'build.mjs'));
  const build = (environment: NodeJS.ProcessEnv, ...args: string[]): ReturnType<typeof node> =>
    node([join(copy, 'native', 'build.mjs'), ...args], environment, copy);
  afterAll(() => rmSync(copy, { recursive: true, force: true }));

  it('says in one line that there are no headers, and ends well', () => {
    const { status, out, err } = build({});
    expect([status, err]).toEqual([0, '']);
    expect(out).toBe(
      'surprisal: no native kernels (node-api-headers is not installed); ' +
        'the TypeScript kernels will be used, which are slower\n',
    );
    symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'));
  });

  it('says in one line that there is no compiler, and ends well', () => {
    const { status, out, err } = build({ CXX: join(copy, 'no-compiler') });
    expect([status, err]).toEqual([0, '']);
    expect(out).toMatch(/^surprisal: no native kernels \(no C\+\+ compiler found; set CXX to one\).*\n$/);
    expect(build({ CXX: join(copy, 'no-compiler') }, '--strict').status).toBe(1);
  });

  it('shows what the compiler said under --strict only, and leaves no halves', () => {
    const broken = join(copy, 'broken-compiler');
    writeFileSync(
      broken,
      '#!/bin/sh\n[ "$1" = --version ] && { echo "broken 1.0"; exit 0; }\necho "no such header" >&2\nexit 1\n',
    );
    chmodSync(broken, 0o755);
    const quiet = build({ CXX: broken });
    expect([quiet.status, quiet.err]).toEqual([0, '']);
    expect(quiet.out).toMatch(/^surprisal: no native kernels \(broken 1.0 could not compile them.*\n$/);
    const strict = build({ CXX: broken }, '--strict');
    expect(strict.status).toBe(1);
    expect(strict.err).toContain('no such header');
    expect(existsSync(join(copy, 'native', 'build', 'surprisal.node'))).toBe(false);
  });

  it('removes an addon of other sources when it cannot build its own', () => {
    const stale = join(copy, 'native', 'build', 'surprisal.node');
    writeFileSync(stale, 'old');
    build({ CXX: join(copy, 'no-compiler') });
    expect(existsSync(stale)).toBe(false);
  });

  it('does nothing when told so', () => {
    const { status, out } = build({ SURPRISAL_NO_NATIVE: '1' });
    expect([status, out]).toEqual([0, 'surprisal: native kernels not built (SURPRISAL_NO_NATIVE=1)\n']);
  });

  it.runIf(built)('keeps an addon of the same sources when the compiler is gone', () => {
    const build = join(copy, 'native', 'build');
    const stamp = readFileSync(join(root, 'native', 'build', 'stamp'), 'utf8');
    writeFileSync(join(build, 'surprisal.node'), 'built before');
    writeFileSync(join(build, 'stamp'), stamp);
    const { status, out } = node([join(copy, 'native', 'build.mjs')], { CXX: join(copy, 'no-compiler') });
    expect([status, out]).toEqual([
      0,
      'surprisal: native kernels kept as they were built before (no C++ compiler found; set CXX to one)\n',
    ]);
    expect(readFileSync(join(build, 'surprisal.node'), 'utf8')).toBe('built before');
  });

  it.runIf(built)('does nothing when the addon is up to date', () => {
    // With the compiler that the stamp names, whatever CXX is now.
    const build = join(copy, 'native', 'build');
    const { command, prefix } = JSON.parse(readFileSync(join(build, 'stamp'), 'utf8').split('\n')[1]);
    const CXX = [command, ...prefix].join(' ');
    expect(node([join(copy, 'native', 'build.mjs')], { CXX })).toEqual({ status: 0, out: '', err: '' });
    expect(readFileSync(join(build, 'surprisal.node'), 'utf8')).toBe('built before');
  });
});

describe('choosing kernels', () => {
  afterAll(useBestKernels);

  it('reports what is in use', () => {
    configureKernels({ native: false });
    expect(kernelStatus()).toMatchObject({ native: false, simd: 'typescript', reason: 'turned off' });
    configureKernels({ native: true });
    const status = kernelStatus();
    expect(status.native).toBe(nativeKernels() !== undefined);
    if (status.native) {
      expect(['avx512', 'avx2+fma', 'neon', 'baseline']).toContain(status.simd);
      expect(status.path).toBe(addon);
      expect(status.compiler).not.toBe('');
      expect(status.reason).toBe('');
    } else {
      expect(status.reason).not.toBe('');
    }
  });

  it('takes the number of threads from the call, then from the settings', () => {
    configureKernels({ threads: 3 });
    expect([kernelThreads(), kernelThreads(2), kernelThreads(0)]).toEqual([3, 2, 1]);
  });

  it('knows how much memory was needed', () => {
    expect(peakResidentBytes()).toBeGreaterThan(process.memoryUsage().rss / 2);
  });
});

describe.runIf(built)('the addon in a process', () => {
  const run = (code: string): ReturnType<typeof node> => node(['--input-type=commonjs', '-e', code]);

  it('outlives the workers that loaded it, its threads included', () => {
    const code = `
      const { Worker } = require('node:worker_threads');
      const work = ${JSON.stringify(`
        const kernels = require(${JSON.stringify(addon)});
        const source = new Uint8Array(4 << 20);
        for (let i = 0; i < 20; i++) kernels.widenToF32(source, 3, new Float32Array(2 << 20), 4);
      `)};
      const start = () => new Promise((resolve, reject) => {
        new Worker(work, { eval: true }).on('error', reject).on('exit', resolve);
      });
      (async () => {
        for (let i = 0; i < 3; i++) await Promise.all([start(), start()]);
        console.log('done');
      })();`;
    expect(run(code)).toEqual({ status: 0, out: 'done\n', err: '' });
  });

  it('ends the process at once, worker or not', () => {
    const code = `
      const kernels = require(${JSON.stringify(addon)});
      process.on('exit', () => console.log('handlers ran'));
      new (require('node:worker_threads').Worker)('for (;;);', { eval: true });
      setTimeout(() => kernels.quickExit(130), 50);`;
    expect(run(code)).toEqual({ status: 130, out: '', err: '' });
  });

  it('refuses arguments that would reach outside an array', () => {
    const code = `
      const kernels = require(${JSON.stringify(addon)});
      const refused = (f) => { try { f(); console.log('taken'); } catch (error) { console.log(error.constructor.name); } };
      refused(() => kernels.widenToF32(new Uint8Array(3), 1, new Float32Array(1), 1));
      refused(() => kernels.widenToF32(new Uint8Array(4), 99, new Float32Array(1), 1));
      refused(() => kernels.dequantizeGgml(new Uint8Array(34), 0, new Float32Array(64), 1));
      const floats = (n) => new Float32Array(n);
      const doubles = (n) => new Float64Array(n);
      const scores = (dim, sums, temperatures) =>
        kernels.attentionScoresF32(
          floats(8), floats(4), 2, 1, dim, 2, 2, 0, 0, 1, 1, 0, doubles(temperatures), 0, doubles(sums), 1);
      scores(2, 20, 4);
      refused(() => scores(3, 20, 4));
      refused(() => scores(2, 19, 4));
      refused(() => scores(2, 20, 3));
      refused(() => kernels.accumulateRows(new Uint8Array(8), 1, 2, 2));
      refused(() => kernels.readMemory('text', 1));`;
    expect(run(code).out).toBe('TypeError\n'.repeat(8));
  });
});
