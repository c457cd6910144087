import { configureKernels, nativeKernels } from '../../src/kernels/native.js';

/** The implementations present here: the TypeScript reference, and the addon at each SIMD level of the processor. */
export interface KernelMode {
  readonly name: string;
  use(): void;
}

export function kernelModes(): KernelMode[] {
  const modes: KernelMode[] = [{ name: 'typescript', use: () => configureKernels({ native: false }) }];
  configureKernels({ native: true });
  const native = nativeKernels();
  if (native === undefined) return modes;
  const seen = new Set<string>();
  for (const level of [0, 1, 2]) {
    native.limitSimd(level);
    const name = native.simdName();
    if (seen.has(name)) continue;
    seen.add(name);
    const use = (): void => {
      configureKernels({ native: true });
      native.limitSimd(level);
    };
    modes.push({ name: `native ${name}`, use });
  }
  return modes;
}

/** Back to what a user gets. */
export function useBestKernels(): void {
  configureKernels({ native: true });
  nativeKernels()?.limitSimd(2);
}
