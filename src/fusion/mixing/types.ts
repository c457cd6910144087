/** What the parts of data mixing say to each other. Matrices are [k, k] row-major: row = evaluated group, column = trained group. */

/** What is measured for a round, by the kind of method. */
export type Evidence =
  /** Losses [k] before the probes, and behind each of them, one after the other. */
  | { readonly kind: 'probes'; readonly start: Float64Array; readonly probes: readonly Probe[] }
  /** Losses [k] of the student and of the reference on the same text. */
  | { readonly kind: 'excess'; readonly losses: Float64Array; readonly reference: Float64Array }
  /** <g_j, g_val> and |g_j| [k] of the groups' gradients, and the learning rate of the step. */
  | {
      readonly kind: 'alignments';
      readonly inner: Float64Array;
      readonly norms: Float64Array;
      readonly learningRate: number;
    }
  | { readonly kind: 'losses'; readonly losses: Float64Array };

export type EvidenceKind = Evidence['kind'];

/** The probe mixture of group `group` was trained; `losses` [k] were measured behind it. */
export interface Probe {
  readonly group: number;
  readonly losses: Float64Array;
}

/** What an update found. */
export interface MixingRound {
  /** Mixing matrix as measured, and as used (normalised, averaged); null where only its column sums are known. */
  readonly matrix: Float64Array | null;
  readonly used: Float64Array | null;
  /** What is added to the logarithms of the weights: eta times the column sums, [k]. */
  readonly exponent: Float64Array;
  /** Proportions behind the update, [k]. */
  readonly proportions: Float64Array;
  /** cond(W) of the probes; null where there are none. */
  readonly condition: number | null;
  /** Mean |drop| over its standard error, from sweeps that repeat; null for a single sweep or none. */
  readonly signalToNoise: number | null;
}

/** A method at work: one update after the other. */
export interface Mixer {
  /** Proportions to train on now, [k]. */
  readonly proportions: Float64Array;
  /** @throws InputError for losses that are no finite numbers, and evidence of the wrong kind or size */
  update(evidence: Evidence): MixingRound;
  /** What the method recommends at its end: the last proportions, or their mean over all updates. */
  result(): Float64Array;
}

/** Numbers of a method; each method reads some of them. */
export interface MixingParameters {
  /** Step of exponentiated gradient. */
  readonly eta: number;
  /** DoReMi: step; DoGE: inverse step. */
  readonly mu: number;
  /** Weight of the matrix of before in the running mean; null for none. */
  readonly ema: number | null;
  /** Share of the probed group. */
  readonly gamma: number;
  /** Whether weights go on from round to round or begin anew at uniform. */
  readonly memory: 'accumulate' | 'uniform';
  readonly diagonal: boolean;
  readonly normalise: boolean;
  /** DoReMi: share of the uniform mixture. */
  readonly smoothing: number;
  /** DoGE: greatest score, as a multiple of the learning rate. */
  readonly clip: number;
  /** Skill-It: loss vectors that are summed. */
  readonly window: number;
  /** No proportion falls below it. */
  readonly floor: number;
}

export type MixingParameter = keyof MixingParameters;

/** What a method begins with. */
export interface MixerStart {
  readonly groups: readonly string[];
  readonly parameters: MixingParameters;
  /** Skill-It: [k, k], row = trained group, column = evaluated group. */
  readonly graph?: Float64Array;
  /** DoReMi: scores [k] of the update before; 1e-6 when absent. */
  readonly scores?: Float64Array;
  /** Data mixing laws: runs on static mixtures. */
  readonly sweep?: Sweep;
  /** Proportions [k] at which multiplied weights begin; uniform when absent. */
  readonly initial?: Float64Array;
  readonly seed: number;
}

/** Static mixtures [n, k] and the losses [n, groups] behind their runs. */
export interface Sweep {
  readonly count: number;
  /** Names of the columns of `mixtures`. */
  readonly sources: readonly string[];
  /** Names of the columns of `losses`; often the same. */
  readonly evaluated: readonly string[];
  readonly mixtures: Float64Array;
  readonly losses: Float64Array;
}

/** A row of the unified framework: one file of `rows/` each. */
export interface MixingMethod {
  /** Name on the command line. */
  readonly name: string;
  readonly summary: string;
  readonly law: 'none' | 'linear-dynamic' | 'log-linear-static';
  /** What an update reads; null where there is none. */
  readonly evidence: EvidenceKind | null;
  /** Parameters that it reads, with their defaults for k groups. */
  parameters(groups: number): Partial<MixingParameters>;
  create(start: MixerStart): Mixer;
}
