import type { FeatureSource } from '../formats/feature-matrix.js';
import type { KernelName, MethodName } from './kernel-plan.js';
import type { NgramOptions } from './ngram-kernel.js';

/** What a set is made of. A `matrix` is the similarity matrix of its items. */
export type DiversityItems =
  | { readonly kind: 'features'; readonly source: FeatureSource }
  | { readonly kind: 'matrix'; readonly source: FeatureSource }
  | { readonly kind: 'texts'; readonly texts: readonly string[] };

/** One sample of items. */
export interface DiversitySet {
  readonly name: string;
  readonly items: DiversityItems;
  /** `[items]`, not negative, with sum 1. */
  readonly weights?: Float64Array;
  /** Group of every item, an index into `names`. */
  readonly groups?: { readonly codes: Int32Array; readonly names: readonly string[] };
}

/** What is measured, and how. */
export interface DiversitySettings {
  readonly kernel: KernelName;
  readonly method: MethodName | 'auto';
  readonly sigma: number | 'median';
  readonly ngrams: Omit<NgramOptions, 'normalize'>;
  readonly normalize: boolean;
  readonly negative: 'error' | 'drop';
  /** Share of the largest eigenvalue below which others are noise; null for the default. */
  readonly relativeCut: number | null;
  readonly orders: readonly number[];
  readonly truncations: readonly number[];
  /** Raise eigenvalues to 1e-10 before truncation, as the reference does. */
  readonly referenceFloor: boolean;
  readonly internalOrders: readonly number[];
  readonly frequencies: number;
  readonly landmarks: number;
  readonly probes: number;
  /** Arithmetic of products; `auto` takes f32 for random features and quadrature of rows that are stored in it. */
  readonly precision: 'auto' | 'f32' | 'f64';
  /** Sizes of subsamples; `auto` for eight up to all items, none when empty. */
  readonly curve: readonly number[] | 'auto';
  readonly subsamples: number;
  /** Half-samples of a standard error. */
  readonly resamples: number;
  readonly permutations: number;
  /** Items that are left out, one at a time. */
  readonly leaveOneOut: number;
  /** Whether what each item adds to the order-2 score is wanted: a pass over the items. */
  readonly itemGains: boolean;
  readonly modes: number;
  /** Items that are listed for a mode. */
  readonly modeItems: number;
  readonly seed: number;
  readonly threads: number;
  readonly maxMemoryBytes: number;
}
