import { readFileSync } from 'node:fs';
import { arch, platform, release } from 'node:os';
import type { Command } from 'commander';
import { kernelStatus } from '../src/kernels/native.js';
import { type SummaryCell, summaryTable } from '../src/report/summary-table.js';
import { printJson } from '../src/report/values.js';
import { memoryLimitBytes, thisMachine, usableThreads } from './edge-resources.js';
import { toolVersion } from './edge-version.js';
import { attachShared } from './shared-options.js';

/** One thing that was looked at. `version` is empty where it does not work, and `fault` then says why. */
interface Part {
  readonly version: string;
  readonly fault: string;
}

interface Diagnosis {
  readonly surprisal: string;
  readonly node: string;
  readonly platform: string;
  readonly kernels: {
    readonly native: boolean;
    readonly simd: string;
    readonly compiler: string;
    readonly path: string;
    readonly reason: string;
  };
  readonly threads: { readonly usable: number; readonly machine: number };
  readonly memory: { readonly limit_bytes: number; readonly default_max_bytes: number; readonly machine_bytes: number };
  readonly onnxruntime: Part & { readonly backends: readonly { readonly name: string; readonly bundled: boolean }[] };
  readonly plotting: Part;
  readonly rasterizer: Part;
  readonly tokenizers: Part;
}

const firstLine = (error: unknown): string => (error instanceof Error ? error.message : String(error)).split('\n')[0];

/** The version in the package.json of an installed dependency, found from its entry point upwards. */
function packageVersion(name: string): string {
  let folder = new URL('.', import.meta.resolve(name));
  for (;;) {
    try {
      const description = JSON.parse(readFileSync(new URL('package.json', folder), 'utf8')) as Record<string, string>;
      if (description.name === name) return description.version;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
    const parent = new URL('..', folder);
    if (parent.href === folder.href) throw new Error(`${name} has no package.json`);
    folder = parent;
  }
}

/** Loads a dependency, which shows more than that its folder is there. */
async function tryPart(name: string, load: () => Promise<unknown>): Promise<Part> {
  try {
    await load();
    return { version: packageVersion(name), fault: '' };
  } catch (error) {
    return { version: '', fault: firstLine(error) };
  }
}

async function diagnoseOnnxRuntime(): Promise<Diagnosis['onnxruntime']> {
  let backends: { name: string; bundled: boolean }[] = [];
  const part = await tryPart('onnxruntime-node', async () => {
    const { listSupportedBackends } = await import('onnxruntime-node');
    backends = listSupportedBackends().map(({ name, bundled }) => ({ name, bundled }));
  });
  return { ...part, backends };
}

async function diagnose(): Promise<Diagnosis> {
  const machine = thisMachine();
  const limit = memoryLimitBytes(machine);
  const { native, simd, compiler, path, reason } = kernelStatus();
  return {
    surprisal: toolVersion(),
    node: process.version.replace(/^v/, ''),
    platform: `${platform()} ${arch()} ${release()}`,
    kernels: { native, simd, compiler, path, reason },
    threads: { usable: usableThreads(machine), machine: machine.cpus },
    memory: { limit_bytes: limit, default_max_bytes: Math.floor(limit * 0.75), machine_bytes: machine.memoryBytes },
    onnxruntime: await diagnoseOnnxRuntime(),
    plotting: await tryPart('@observablehq/plot', () => import('@observablehq/plot')),
    rasterizer: await tryPart('@resvg/resvg-js', () => import('@resvg/resvg-js')),
    tokenizers: await tryPart('@huggingface/tokenizers', () => import('@huggingface/tokenizers')),
  };
}

const megabytes = (bytes: number): string => `${Math.round(bytes / 1e6)} MB`;
const shownPart = (part: Part): string => (part.fault === '' ? part.version : `does not load: ${part.fault}`);

function kernelLine({ native, compiler, reason }: Diagnosis['kernels']): string {
  return native ? `native, built by ${compiler}` : `TypeScript, slower (native kernels: ${reason})`;
}

function rowsOf(found: Diagnosis): SummaryCell[][] {
  const { kernels, threads, memory, onnxruntime } = found;
  const backends = onnxruntime.backends
    .map(({ name, bundled }) => (bundled ? name : `${name} (not bundled)`))
    .join(', ');
  return [
    ['surprisal', found.surprisal],
    ['node', found.node],
    ['platform', found.platform],
    ['kernels', kernelLine(kernels)],
    ...(kernels.native ? [['kernel file', kernels.path]] : []),
    ['simd', kernels.simd],
    ['threads', `${threads.usable} usable, ${threads.machine} by affinity`],
    [
      'memory',
      `limit ${megabytes(memory.limit_bytes)}, used at most ${megabytes(memory.default_max_bytes)} by default`,
    ],
    ['onnxruntime', shownPart(onnxruntime)],
    ['backends', backends === '' ? 'none' : backends],
    ['plotting', shownPart(found.plotting)],
    ['png pictures', shownPart(found.rasterizer)],
    ['tokenizers', shownPart(found.tokenizers)],
  ];
}

export function configure(command: Command): void {
  command.option('--json', 'print JSON');
  const readShared = attachShared(command, []);
  command.action(async () => {
    await readShared();
    const found = await diagnose();
    const asJson = command.opts<{ json?: boolean }>().json === true;
    process.stdout.write(asJson ? `${printJson(found)}\n` : summaryTable(['', ''], rowsOf(found)));
  });
}
