import type { FeatureSource } from '../formats/feature-matrix.js';
import type { Head } from './cat-heads.js';

export const PROBE_KINDS = ['newton', 'sgd', 'two-stage', 'ridge'] as const;
export type ProbeKind = (typeof PROBE_KINDS)[number];

/** Weight decays that are tried when none are named. */
export const DEFAULT_DECAYS: Readonly<Record<ProbeKind, readonly number[]>> = {
  newton: [1e-5, 1e-4, 1e-3, 1e-2, 1e-1],
  sgd: [1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 5e-2],
  'two-stage': [0, 1e-5, 1e-4, 5e-4],
  ridge: [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1],
};

export interface ProbeSettings {
  readonly probe: ProbeKind;
  readonly decays: readonly number[];
  /** How many of the first members are concatenated: ascending, each at least 2. */
  readonly sizes: readonly number[];
  /** `auto`: on for sgd; for two-stage from four members on. */
  readonly batchNorm: 'auto' | 'on' | 'off';
  readonly epochs: number | null;
  readonly learningRate: number | null;
  readonly batch: number;
  /** Resamples of the bootstrap over items of a split. */
  readonly resamples: number;
  /** Rows over which ranks and CKA are measured, at most. */
  readonly rankRows: number;
  readonly seed: number;
  readonly threads: number;
  readonly maxMemoryBytes: number;
}

/** What a split is for. Decays are chosen on `validation`; nothing is ever chosen on `id` and `ood`. */
export type SplitRole = 'train' | 'validation' | 'id' | 'ood';

/** Rows of all members with their targets. */
export interface ProbeSplit {
  readonly name: string;
  readonly role: SplitRole;
  /** One source a member, in the order of the members. */
  readonly sources: readonly FeatureSource[];
  /** Rows of the sources that belong to this split, ascending; all of them without it. */
  readonly rows?: Int32Array;
  /** For every task the class codes or amounts of the split's rows. */
  readonly targets: readonly (Int32Array | Float64Array)[];
}

export interface ProbeTask {
  readonly name: string;
  /** Names of the classes; null for amounts. */
  readonly classes: readonly string[] | null;
}

export interface ProbeMember {
  readonly name: string;
  /** `wide`: a network as wide as a concatenation, which is compared and not concatenated. */
  readonly kind: 'member' | 'wide';
  readonly head?: Head;
}

export interface ProbeArguments {
  readonly members: readonly ProbeMember[];
  readonly tasks: readonly ProbeTask[];
  readonly splits: readonly ProbeSplit[];
  readonly settings: ProbeSettings;
}

/** A single member, the first M side by side, the mean of the predictions of the first M, or M averaged heads. */
export type SetKind = 'single' | 'wide' | 'concatenation' | 'ensemble' | 'averaged-heads';

export interface SetScores {
  readonly split: string;
  readonly role: SplitRole;
  readonly rows: number;
  /** Of classes; null for amounts. */
  readonly accuracy: number | null;
  readonly nllNats: number | null;
  readonly nllNatsSe: number | null;
  readonly ece: number | null;
  /** Of amounts; null for classes. */
  readonly mse: number | null;
  readonly mseSe: number | null;
  readonly r2: number | null;
  /** Bootstrap interval of the accuracy or of the mse. */
  readonly low: number;
  readonly high: number;
}

/** One point of the grid of decays. */
export interface GridPoint {
  readonly decay: number;
  readonly validationAccuracy: number | null;
  readonly validationNllNats: number | null;
  readonly validationMse: number | null;
  readonly trainLoss: number;
  readonly objective: number | null;
  readonly gradientNorm: number | null;
  readonly iterations: number;
  readonly passes: number;
  readonly converged: boolean;
  readonly chosen: boolean;
}

/** What one feature set came to on one task. */
export interface SetResult {
  readonly task: string;
  readonly name: string;
  readonly kind: SetKind;
  /** Members that take part. */
  readonly size: number;
  readonly features: number;
  readonly parameters: number;
  readonly decay: number | null;
  /** How the fit was made: primal, dual, sgd, sgd+bn, eigendecomposition, cholesky, none. */
  readonly path: string;
  /** Mean cross-entropy in nats, or half the mean squared error, of the training rows; NaN where it is not known. */
  readonly trainLoss: number;
  readonly scores: readonly SetScores[];
  readonly grid: readonly GridPoint[];
}
