import type { InterventionParameter, InterventionSettings } from '../interventions/types.js';

/** One training rule of the laboratory: the policy gradient under one intervention. */
export interface LabMethod {
  /** Unique among the methods of a run; what tables, curves and figures say. */
  readonly label: string;
  /** Name in the registry of interventions; `grpo` is the plain rule. */
  readonly intervention: string;
  /** Settings that differ from the intervention's initial ones. */
  readonly settings: InterventionSettings;
}

/** Sizes and rates of an engine's task by name, all given. */
export type LabTask = Readonly<Record<string, number>>;

/** What one training run is. The same request gives the same bytes, whatever runs beside it. */
export interface LabRunRequest {
  readonly method: LabMethod;
  readonly seed: number;
  /** Steps: one batch of rollouts each, with as many updates as the task has minibatches. */
  readonly steps: number;
  readonly task: LabTask;
}

/**
 * A run by step, [steps] each; row s is measured before the updates of step s, so that row 0 is the untrained policy. NaN
 * where an engine did not measure.
 */
export interface LabCurves {
  /** Mean entropy of the policy's tokens, nats: exact over all contexts (tabular), or the mean over the rollouts' tokens. */
  readonly entropy: Float64Array;
  /** Probability of a right answer: exact (tabular), or the share right on the evaluation prompts. */
  readonly success: Float64Array;
  /** Mean reward of the rollouts of the step. */
  readonly reward: Float64Array;
  /** Mean tokens of a response. */
  readonly length: Float64Array;
  /** Mean of the summands of the covariance of log-probability and advantage over the tokens of the step. */
  readonly covariance: Float64Array;
  /** Share of tokens whose loss was not plain GRPO's, over the minibatches of the step. */
  readonly touched: Float64Array;
  /** Groups that were generated for the step, and those that were trained on. */
  readonly generatedGroups: Float64Array;
  readonly usedGroups: Float64Array;
  /** Share of the groups trained on whose rewards were all equal. */
  readonly zeroAdvantageGroups: Float64Array;
  /** What an engine or a rule measures beside these, by snake-case name with its unit. */
  readonly extra: Readonly<Record<string, Float64Array>>;
}

export const CURVE_NAMES = [
  'entropy',
  'success',
  'reward',
  'length',
  'covariance',
  'touched',
  'generatedGroups',
  'usedGroups',
  'zeroAdvantageGroups',
] as const satisfies readonly (keyof LabCurves)[];

/** One response that was trained on, in the terms of spec 0.1. Per-token arrays are [tokens]; nats. */
export interface LabRollout {
  readonly step: number;
  readonly promptId: string;
  /** Unique in the run. */
  readonly responseId: string;
  readonly tokens: Int32Array;
  readonly tokenText?: readonly string[];
  /** Of the policy that was updated, when the record's minibatch was reached. */
  readonly logProb: Float64Array;
  /** Of the policy that sampled. */
  readonly oldLogProb: Float64Array;
  /** Entropy over the whole vocabulary of the policy that sampled. */
  readonly entropy: Float64Array;
  /** The likeliest tokens of every position, [tokens, k], where the engine keeps them. */
  readonly topTokens?: { readonly k: number; readonly ids: Int32Array; readonly logProbs: Float64Array };
  readonly mask?: Uint8Array;
  /** One number, or one a token; GRPO's, before any intervention. */
  readonly advantage: number | Float64Array;
  readonly reward: number;
  readonly correct?: boolean;
  readonly difficulty?: string;
  /** Position of the last token of the end-of-thinking marker; absent without one. */
  readonly thinkEnd?: number;
  /** Turns, [from, to) each, flat. */
  readonly stepSpans?: Int32Array;
}

/** Takes what a run generates while it goes on. `rollouts` gets the records of one step in a fixed order. */
export interface LabSink {
  rollouts?(records: readonly LabRollout[]): void;
  /** After every step. */
  progress?(step: number): void;
  /** Behind the last step, of engines whose policies have hidden states. */
  probe?(probe: LabProbe): void;
}

/** Prompts asked with the finished policy, for a probe of their difficulty. */
export interface LabProbe {
  /** Responses to every prompt; their step is the number of steps. */
  readonly records: readonly LabRollout[];
  readonly promptIds: readonly string[];
  readonly width: number;
  /** [prompts, width]: what the head reads at the last token of the prompt. */
  readonly states: Float32Array;
}

/** A finished run. */
export interface LabRun {
  readonly method: LabMethod;
  readonly seed: number;
  readonly curves: LabCurves;
  /** Notes that belong in the report. */
  readonly warnings: readonly string[];
}

/** A world in which policies are trained. Runs on the thread of a job. */
export interface LabEngine {
  readonly name: string;
  readonly title: string;
  /** What `--task name=value` takes. */
  readonly task: Readonly<Record<string, InterventionParameter & { readonly kind: 'number' }>>;
  /** Steps when `--steps` is absent. */
  readonly steps: number;
  /** Names of the extra curves that a run may have. */
  readonly measures: readonly string[];
  /** Interventions that it can train under. */
  readonly rules: readonly string[];
  /**
   * Trains one policy.
   * @throws InputError for settings or sizes that the task cannot have
   */
  run(request: LabRunRequest, sink?: LabSink): LabRun | Promise<LabRun>;
}
