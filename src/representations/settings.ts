import type { FeatureSource } from '../formats/feature-matrix.js';
import type { Labels } from '../formats/labels.js';
import type { BandwidthRule } from './bandwidth.js';
import type { ConstantColumns } from './binned-entropy.js';
import type { DiffusionOperator } from './diffusion-kernel.js';

/** How the entropy of a spectrum is found. */
export type EntropyMethod = 'exact' | 'slq' | 'fkea' | 'nystrom';

export const ENTROPY_METHODS: readonly EntropyMethod[] = ['exact', 'slq', 'fkea', 'nystrom'];

/** Other entropies of the same points. */
export type Variant = 'matrix-entry' | 'adjacency' | 'anisotropic' | 'knn' | 'shannon';

export const VARIANTS: readonly Variant[] = ['matrix-entry', 'adjacency', 'anisotropic', 'knn', 'shannon'];

/** A bandwidth of the sweep: by a rule, or a multiple of the one that was chosen. */
export type SweptBandwidth = BandwidthRule | { readonly kind: 'multiple'; readonly factor: number };

/** Everything that decides the figures. Plain: it crosses to the thread that computes. */
export interface RepresentationSettings {
  readonly sigma: BandwidthRule;
  /** Diffusion times, > 0. */
  readonly times: readonly number[];
  readonly operator: DiffusionOperator;
  readonly method: EntropyMethod | 'auto';
  /** Rows that are used of more; infinite for all. */
  readonly mostRows: number;
  readonly variants: readonly Variant[];
  /** Neighbours of the variant `knn`, the point itself included. */
  readonly neighbours: number;
  /** Bins a column of the variant `shannon`. */
  readonly bins: number;
  readonly constantColumns: ConstantColumns;
  /** Bandwidths of the sweep; empty for none. */
  readonly sweep: readonly SweptBandwidth[];
  /** Sizes of the subsampling curve, or `auto` for halves of the sample; empty for none. */
  readonly curveSizes: readonly number[] | 'auto';
  /** Random subsets for each point of the curve and each category. */
  readonly repetitions: number;
  /** Bins of a real reference, clusters of a vector one. */
  readonly categories: number;
  /** Probe vectors of stochastic Lanczos quadrature. */
  readonly probes: number;
  /** Random frequencies of `fkea`. */
  readonly features: number;
  /** Landmarks of `nystrom`. */
  readonly landmarks: number;
  readonly seed: number;
  readonly threads: number;
  readonly maxMemoryBytes: number;
}

/** One set of features, as the job is given it. */
export interface RepresentationSet {
  readonly name: string;
  readonly layer: number | 'final' | null;
  readonly source: FeatureSource;
}

/** What mutual information is measured with. */
export type Reference =
  | { readonly kind: 'labels'; readonly name: string; readonly labels: Labels }
  /** Features of the same rows: vectors are clustered, one column is binned. */
  | { readonly kind: 'features'; readonly name: string; readonly source: FeatureSource };
