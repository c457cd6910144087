/** Logged checkpoints or runs: component rewards and the score of an evaluation that is trusted more than they are. */
export interface ScoredRuns {
  readonly names: readonly string[];
  readonly rows: number;
  /** [rows, names] row-major. */
  readonly rewards: Float64Array;
  /** [rows]. */
  readonly score: Float64Array;
}

/** Smallest and largest value of every reward, [names] each. */
export interface DataBox {
  readonly low: Float64Array;
  readonly high: Float64Array;
}

/** A fitted score as a function of the rewards. */
export interface Surface {
  /** Score at rewards [names]. */
  predict(x: ArrayLike<number>): number;
}

export const SMOOTHERS = ['quadratic', 'gp', 'loess'] as const;
export type Smoother = (typeof SMOOTHERS)[number];
