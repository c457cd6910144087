import type { FeatureSource } from '../formats/feature-matrix.js';

export const STUDY_CASES = ['factor', 'mixture', 'contrastive'] as const;
export type StudyCase = (typeof STUDY_CASES)[number];

/** How the supervised baseline of a mixture classifies. */
export const BASELINES = ['logistic', 'nearest'] as const;
export type Baseline = (typeof BASELINES)[number];

/** What both kinds of run have. */
export interface EstimatorSettings {
  readonly case: StudyCase;
  /** Latent dimension r, or components K. */
  readonly latent: number;
  /** Variance of the noise of the factor model, or `estimate`. */
  readonly noise: number | 'estimate';
  /** Starts of EM, rows on which they compete, rows of a batch (0: full passes). */
  readonly starts: number;
  readonly startRows: number;
  readonly emBatch: number;
  readonly baseline: Baseline;
  /** Largest norm of a least-squares head, and of its predictions; Infinity for none. */
  readonly headNorm: number;
  readonly truncate: number;
  readonly resamples: number;
  readonly seed: number;
  readonly threads: number;
  readonly maxMemoryBytes: number;
}

/** A study on drawn data. */
export interface StudySettings extends EstimatorSettings {
  readonly dimension: number;
  /** Classes of a mixture. */
  readonly classes: number;
  /** Numbers of unlabelled rows (pairs of contrastive) and of labelled rows, ascending. */
  readonly unlabelled: readonly number[];
  readonly labelled: readonly number[];
  readonly seeds: number;
  /** Length of the loadings, or of the means of components: signal against noise of variance 1. */
  readonly signal: number;
  /** Signals of the sweep, at one m and one n; none when empty. */
  readonly signals: readonly number[];
  readonly sweepUnlabelled: number;
  readonly sweepLabelled: number;
  /** Standard deviation of the noise of y, or the share of flipped labels of a mixture. */
  readonly labelNoise: number;
  /** Rows of test where the risk has no closed form. */
  readonly testRows: number;
  /** Units of the pair network, and its passes over the pairs. */
  readonly hidden: number;
  readonly epochs: number;
}

/** A comparison on the user's data. */
export interface DataSettings extends EstimatorSettings {
  readonly centre: boolean;
  /** Whether the test rows join the unlabelled ones. */
  readonly transductive: boolean;
}

export interface DataArguments {
  readonly unlabelled: FeatureSource;
  readonly labelled: FeatureSource;
  readonly test: FeatureSource;
  /** Class codes, or amounts. */
  readonly y: Int32Array | Float64Array;
  readonly yTest: Int32Array | Float64Array;
  readonly classes: readonly string[] | null;
  readonly settings: DataSettings;
}
