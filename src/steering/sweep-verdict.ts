/** A mean over prompts with its 95 % bootstrap interval over runs. */
export interface IntervalMean {
  readonly mean: number;
  readonly se: number;
  readonly low: number;
  readonly high: number;
}

/** Change of a mean from the unsteered model, over the same prompts. */
export interface Change extends IntervalMean {
  readonly strength: number;
}

/** What one layer's curve shows. */
export interface LayerVerdict {
  readonly layer: number;
  /**
   * The longest range of strengths around zero over which the mean action entropy grows from each strength to the next;
   * both ends are zero when it grows nowhere next to zero.
   */
  readonly rising_from: number;
  readonly rising_to: number;
  /** Growth of the mean entropy over that range, with its interval. */
  readonly growth_nats: number;
  readonly growth_low_nats: number;
  readonly growth_high_nats: number;
  /** Whether the interval of the growth lies above zero. */
  readonly rises: boolean;
  /** (H(b) - H(-b)) / 2b at the least strength b that was run, or one-sided where one sign alone was. */
  readonly slope_nats_per_strength: number;
  /** Largest |growth| of a control over the same range; null without controls. */
  readonly random_growth_nats: number | null;
  readonly shuffled_growth_nats: number | null;
  /** Share of controls whose growth is at least the vector's. */
  readonly controls_as_large: number | null;
  /** Whether every control's growth is below a quarter of the vector's. */
  readonly controls_flat: boolean | null;
}

/** A curve's longest strictly growing range around zero, as indices. `means` follow ascending `strengths` with a zero. */
export function risingRange(strengths: readonly number[], means: readonly number[]): readonly [number, number] {
  const zero = strengths.indexOf(0);
  let from = zero;
  while (from > 0 && means[from - 1] < means[from]) from--;
  let to = zero;
  while (to < strengths.length - 1 && means[to + 1] > means[to]) to++;
  return [from, to];
}

/** Slope of the curve at zero by the nearest strengths. */
export function slopeAtZero(strengths: readonly number[], means: readonly number[]): number {
  const zero = strengths.indexOf(0);
  const before = zero > 0 ? zero - 1 : zero;
  const after = zero < strengths.length - 1 ? zero + 1 : zero;
  return before === after ? Number.NaN : (means[after] - means[before]) / (strengths[after] - strengths[before]);
}

/** Controls are called flat when none reaches this share of the vector's growth. */
export const FLAT_SHARE = 0.25;
