import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { NativeKernels } from './native-signatures.js';

/** What `surprisal doctor` prints about the kernels. */
export interface KernelStatus {
  readonly native: boolean;
  /** Why the TypeScript kernels are in use; empty when the native ones are. */
  readonly reason: string;
  readonly simd: 'avx512' | 'avx2+fma' | 'neon' | 'baseline' | 'typescript';
  readonly path: string;
  readonly compiler: string;
  readonly threads: number;
}

/** Must equal kInterfaceVersion of native/src/addon.cpp. */
const INTERFACE_VERSION = 9;

interface Loaded {
  readonly kernels: NativeKernels | undefined;
  readonly reason: string;
  readonly path: string;
}

let loaded: Loaded | undefined;
let wanted = true;
let defaultThreads: number | undefined;

/**
 * Settings for all kernels of this thread: `native: false` uses the TypeScript references even where the addon is
 * there; `threads` is how many threads a call may use when it does not say. Results are the same bits whatever the
 * number of threads.
 */
export function configureKernels(settings: { native?: boolean; threads?: number }): void {
  if (settings.native !== undefined) wanted = settings.native;
  if (settings.threads !== undefined) defaultThreads = Math.max(1, Math.floor(settings.threads));
}

/** The number of threads for a call that asked for `threads`, or for none in particular. */
export function kernelThreads(threads?: number): number {
  if (threads !== undefined) return Math.max(1, Math.floor(threads));
  defaultThreads ??= availableParallelism();
  return defaultThreads;
}

/** `native/build/surprisal.node` of the package this file belongs to, from `src/kernels` and from `dist/src/kernels`. */
function addonPath(): string {
  const here = dirname(fileURLToPath(import.meta.url));
  const root = join(here, '..', '..');
  const compiled = join(root, '..', 'native', 'build', 'surprisal.node');
  const source = join(root, 'native', 'build', 'surprisal.node');
  return existsSync(source) ? source : compiled;
}

function load(): Loaded {
  // The environment is read here and not at the edge because every worker thread loads the addon for itself.
  if (process.env.SURPRISAL_NO_NATIVE === '1') {
    return { kernels: undefined, reason: 'SURPRISAL_NO_NATIVE=1', path: '' };
  }
  const path = addonPath();
  if (!existsSync(path)) {
    return { kernels: undefined, reason: 'not built; run node native/build.mjs --strict to see why', path };
  }
  try {
    const kernels = createRequire(import.meta.url)(path) as NativeKernels;
    if (kernels.interfaceVersion !== INTERFACE_VERSION) {
      return { kernels: undefined, reason: 'built from another version; run node native/build.mjs', path };
    }
    return { kernels, reason: '', path };
  } catch (error) {
    const message = error instanceof Error ? error.message.split('\n')[0] : String(error);
    return { kernels: undefined, reason: `could not be loaded: ${message}`, path };
  }
}

/** The compiled kernels, loaded at the first call; undefined where the TypeScript references must serve. */
export function nativeKernels(): NativeKernels | undefined {
  if (!wanted) return undefined;
  loaded ??= load();
  return loaded.kernels;
}

/** Which kernels are in use, and why. */
export function kernelStatus(): KernelStatus {
  const kernels = nativeKernels();
  return {
    native: kernels !== undefined,
    reason: kernels !== undefined ? '' : wanted ? (loaded?.reason ?? '') : 'turned off',
    simd: kernels?.simdName() ?? 'typescript',
    path: loaded?.path ?? '',
    compiler: kernels?.compiler.trim() ?? '',
    threads: kernelThreads(),
  };
}

/**
 * Ends the process at once with `code`, without waiting for a worker that is inside a long native call. For signal
 * handlers, after temporary files were removed and output was flushed.
 */
export function quickExit(code: number): never {
  const kernels = nativeKernels();
  if (kernels !== undefined) return kernels.quickExit(code);
  return process.exit(code);
}

/** The most resident memory this process has had so far, in bytes. */
export function peakResidentBytes(): number {
  return process.resourceUsage().maxRSS * 1024;
}

/** Gives freed memory back to the system where the C library can (glibc); true when it did. */
export function trimMemory(): boolean {
  return nativeKernels()?.trimMemory() ?? false;
}
