/** How raw multipliers become weights. */
export type Squash = 'tanh' | 'sigmoid' | 'none';

/** How multipliers follow the rewards (spec 9.2; Moskovitz et al. 2023, code). */
export interface MultiplierSettings {
  readonly squash: Squash;
  /** SGD: learning rate 0.1, momentum 0.1 (v <- 0.1 v + g, first v = g). */
  readonly learningRate: number;
  readonly momentum: number;
  /** Largest norm of the gradient over all constraints, 0.5. */
  readonly maxGradientNorm: number;
}

export const USUAL_MULTIPLIERS = { learningRate: 0.1, momentum: 0.1, maxGradientNorm: 0.5 } as const;

/** Raw multiplier that `none` starts from; the others start near 0. */
export const UNSQUASHED_START = 0.5;

/** Weight of a raw multiplier. */
export function squashed(raw: number, squash: Squash): number {
  return squash === 'tanh' ? Math.tanh(raw) : squash === 'sigmoid' ? 1 / (1 + Math.exp(-raw)) : raw;
}

/** d squashed / d raw, of the weight. */
function squashSlope(weight: number, squash: Squash): number {
  return squash === 'tanh' ? 1 - weight * weight : squash === 'sigmoid' ? weight * (1 - weight) : 1;
}

/** Multipliers of n constraints that go on from update to update; changed in place. */
export interface MultiplierState {
  readonly raw: Float64Array;
  readonly velocity: Float64Array;
  updates: number;
}

export const startMultipliers = (raw: Float64Array): MultiplierState => ({
  raw: raw.slice(),
  velocity: new Float64Array(raw.length),
  updates: 0,
});

/** What one update did. */
export interface MultiplierUpdate {
  /** [n], behind the update. */
  readonly raw: Float64Array;
  readonly multipliers: Float64Array;
  /** R - theta. */
  readonly violation: Float64Array;
  readonly gradientNorm: number;
  /** min(1, most / (norm + 1e-6)): what the gradient was scaled by. */
  readonly clip: number;
}

/**
 * One step of gradient descent on sum_i squash(raw_i) (R_i - theta_i): a reward above its threshold loses weight. Once a
 * minibatch, behind the step of the policy.
 * @param rewards [n], the minibatch means of the undiscounted rewards to go
 */
export function updateMultipliers(
  state: MultiplierState,
  rewards: ArrayLike<number>,
  thresholds: ArrayLike<number>,
  { squash, learningRate, momentum, maxGradientNorm }: MultiplierSettings,
): MultiplierUpdate {
  const { raw, velocity } = state;
  const violation = raw.map((_, i) => rewards[i] - thresholds[i]);
  const gradient = raw.map((value, i) => squashSlope(squashed(value, squash), squash) * violation[i]);
  const norm = Math.hypot(...gradient);
  const clip = Math.min(1, maxGradientNorm / (norm + 1e-6));
  for (let i = 0; i < raw.length; i++) {
    const step = clip * gradient[i];
    velocity[i] = state.updates === 0 ? step : momentum * velocity[i] + step;
    raw[i] -= learningRate * velocity[i];
    if (squash === 'none') raw[i] = Math.max(0, raw[i]);
  }
  state.updates++;
  return {
    raw: raw.slice(),
    multipliers: raw.map((value) => squashed(value, squash)),
    violation,
    gradientNorm: norm,
    clip,
  };
}

/**
 * Column standardised over the minibatch: (A - mean) / (s + 1e-8), s the sample deviation.
 * @throws RangeError for fewer than two values, whose deviation is not defined
 */
export function standardiseAdvantages(values: Float64Array): Float64Array {
  const n = values.length;
  if (n < 2) throw new RangeError(`the advantages of a minibatch of ${n} have no sample deviation`);
  const mean = values.reduce((sum, value) => sum + value, 0) / n;
  const deviation = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (n - 1));
  return values.map((value) => (value - mean) / (deviation + 1e-8));
}

/**
 * Weight of the divergence from the reference beside those of the rewards: N - sum of the multipliers, so that all sum to N. It
 * is no convex combination where a multiplier is negative. Unsquashed multipliers leave it at 1.
 */
export function divergenceWeight(multipliers: ArrayLike<number>, squash: Squash): number {
  if (squash === 'none') return 1;
  let sum = 0;
  for (let i = 0; i < multipliers.length; i++) sum += multipliers[i];
  return multipliers.length - sum;
}

/**
 * The advantage that enters the clipped surrogate: w_KL A_KL + sum_i lam_i A_i, every column standardised. All multipliers are
 * used; the released code loses the first one where they are not squashed.
 * @param constraints one column [n] a constraint
 * @param weight of the divergence, {@link divergenceWeight}
 */
export function mixAdvantages(
  divergence: Float64Array,
  constraints: readonly Float64Array[],
  multipliers: ArrayLike<number>,
  weight: number,
): Float64Array {
  const mixed = standardiseAdvantages(divergence).map((value) => weight * value);
  constraints.forEach((column, i) => {
    const standard = standardiseAdvantages(column);
    for (let r = 0; r < mixed.length; r++) mixed[r] += multipliers[i] * standard[r];
  });
  return mixed;
}
