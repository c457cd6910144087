import {
  divergenceWeight,
  type MultiplierSettings,
  mixAdvantages,
  type Squash,
  startMultipliers,
  updateMultipliers,
} from './multipliers.js';

/**
 * How thresholds are used (spec 9.2): `xi-ppo` meets them (equality, tanh); `mu-ppo` meets or exceeds them (lower bounds,
 * sigmoid), the divergence being the objective; `all-ppo` keeps below them (upper bounds, sigmoid), every reward being an
 * objective of weight 1 that its multiplier takes away; `ppo-sat` has fixed weights and rewards that saturate at the threshold;
 * `ppo` has fixed weights alone.
 */
export const VARIANTS = ['xi-ppo', 'mu-ppo', 'all-ppo', 'ppo-sat', 'ppo'] as const;
export type Variant = (typeof VARIANTS)[number];

const SQUASHES: Readonly<Record<Variant, Squash>> = {
  'xi-ppo': 'tanh',
  'mu-ppo': 'sigmoid',
  'all-ppo': 'sigmoid',
  'ppo-sat': 'none',
  ppo: 'none',
};

export const squashOf = (variant: Variant): Squash => SQUASHES[variant];
/** Whether multipliers move at all. */
export const learnsMultipliers = (variant: Variant): boolean => variant !== 'ppo-sat' && variant !== 'ppo';

export interface ReplayOptions extends MultiplierSettings {
  readonly variant: Variant;
  /** Raw multipliers [n] at the start; fixed weights of `ppo` and `ppo-sat`. */
  readonly start: Float64Array;
}

/** What a replay says of every update, [updates, n] row-major where not said otherwise. */
export interface Replay {
  readonly updates: number;
  readonly raw: Float64Array;
  /** The multiplier. */
  readonly multiplier: Float64Array;
  /** Weight of the reward's advantage in the mix: the multiplier, for `all-ppo` 1 less it, 0 for `ppo-sat` above the threshold. */
  readonly weight: Float64Array;
  /** R - theta. */
  readonly violation: Float64Array;
  /** [updates]: weight of the divergence's advantage. */
  readonly divergence: Float64Array;
  /** [updates]: norm of the gradient before it was clipped, and what it was scaled by. */
  readonly gradientNorm: Float64Array;
  readonly clip: Float64Array;
}

/**
 * The multipliers that a log of rewards would have made: an open loop, in which the policy does not answer them.
 * @param rewards [updates, n] row-major @param thresholds [n]
 */
export function replayMultipliers(rewards: Float64Array, thresholds: Float64Array, options: ReplayOptions): Replay {
  const n = thresholds.length;
  const updates = rewards.length / n;
  const matrix = (): Float64Array => new Float64Array(updates * n);
  const result: Replay = {
    updates,
    raw: matrix(),
    multiplier: matrix(),
    weight: matrix(),
    violation: matrix(),
    divergence: new Float64Array(updates),
    gradientNorm: new Float64Array(updates),
    clip: new Float64Array(updates).fill(1),
  };
  const { variant, start, squash } = options;
  const state = startMultipliers(start);
  for (let u = 0; u < updates; u++) {
    const now = rewards.subarray(u * n, (u + 1) * n);
    let multipliers = start;
    if (learnsMultipliers(variant)) {
      // An upper bound is a lower one with its sides exchanged.
      const [from, to] = variant === 'all-ppo' ? [thresholds, now] : [now, thresholds];
      const step = updateMultipliers(state, from, to, options);
      multipliers = step.multipliers;
      result.gradientNorm[u] = step.gradientNorm;
      result.clip[u] = step.clip;
    }
    const weights = weightsOf(variant, multipliers, now, thresholds);
    result.raw.set(state.raw, u * n);
    result.multiplier.set(multipliers, u * n);
    result.weight.set(weights, u * n);
    result.violation.set(
      now.map((value, i) => value - thresholds[i]),
      u * n,
    );
    result.divergence[u] = divergenceOf(variant, multipliers, squash);
  }
  return result;
}

/** Weights of the advantages of the rewards. */
export function weightsOf(
  variant: Variant,
  multipliers: Float64Array,
  rewards: ArrayLike<number>,
  thresholds: ArrayLike<number>,
): Float64Array {
  if (variant === 'all-ppo') return multipliers.map((value) => 1 - value);
  if (variant !== 'ppo-sat') return multipliers;
  return multipliers.map((value, i) => (rewards[i] < thresholds[i] ? value : 0));
}

const divergenceOf = (variant: Variant, multipliers: Float64Array, squash: Squash): number =>
  learnsMultipliers(variant) && variant !== 'all-ppo' ? divergenceWeight(multipliers, squash) : 1;

/** Advantages of minibatches: rows of update u mixed by the weights of update u. */
export interface LoggedAdvantages {
  /** [rows]: number of the update, from 0. */
  readonly update: Int32Array;
  readonly divergence: Float64Array;
  /** One column [rows] a reward. */
  readonly constraints: readonly Float64Array[];
}

/** The advantages [rows] that would have entered the clipped surrogate, every column standardised within its update. */
export function replayAdvantages({ update, divergence, constraints }: LoggedAdvantages, replay: Replay): Float64Array {
  const n = constraints.length;
  const mixed = new Float64Array(update.length);
  const rowsOf = new Map<number, number[]>();
  update.forEach((u, row) => {
    const rows = rowsOf.get(u);
    if (rows === undefined) rowsOf.set(u, [row]);
    else rows.push(row);
  });
  for (const [u, rows] of rowsOf) {
    const take = (column: Float64Array): Float64Array => Float64Array.from(rows, (row) => column[row]);
    const weights = replay.weight.subarray(u * n, (u + 1) * n);
    // Weights stand for themselves; the divergence has its own.
    const own = mixAdvantages(take(divergence), constraints.map(take), weights, replay.divergence[u]);
    rows.forEach((row, i) => {
      mixed[row] = own[i];
    });
  }
  return mixed;
}
