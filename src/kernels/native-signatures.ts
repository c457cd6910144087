import type { KernelStatus } from './native.js';
import type { LinalgKernels } from './signatures/linalg.js';
import type { MergeDenseKernels } from './signatures/merge-dense.js';
import type { MergeSparseKernels } from './signatures/merge-sparse.js';
import type { ModelKernels } from './signatures/models.js';
import type { PanelKernels } from './signatures/panel.js';
import type { PolicyKernels } from './signatures/policy.js';
import type { PyramidKernels } from './signatures/pyramid.js';
import type { StatisticsKernels } from './signatures/statistics.js';
import type { TrainingKernels } from './signatures/training.js';

/**
 * The functions of the compiled addon (`native/src/addon.cpp`). Each writes into the typed arrays it is given; sizes
 * are checked by the callers in this folder. `dtype`, `format` and `type` are the positions of the names in
 * `DTYPE_CODES`, `LOGIT_FORMATS` and `GGML_CODES`.
 */
export interface NativeKernels
  extends MergeDenseKernels,
    LinalgKernels,
    MergeSparseKernels,
    ModelKernels,
    PanelKernels,
    PolicyKernels,
    PyramidKernels,
    StatisticsKernels,
    TrainingKernels {
  readonly interfaceVersion: number;
  readonly compiler: string;
  simdName(): KernelStatus['simd'];
  /** 0 baseline, 1 AVX2, 2 AVX-512: lowers the level for later calls. */
  limitSimd(level: number): void;
  /** Reads every byte once: what plain reading costs, for benchmarks. */
  readMemory(data: Uint8Array, threads: number): number;
  /** Address of the first byte modulo `modulus`. */
  addressModulo(data: Uint8Array, modulus: number): number;
  trimMemory(): boolean;
  quickExit(code: number): never;
}
