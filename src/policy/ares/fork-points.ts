/** A position at which an extra continuation would be forked. */
export interface ForkPoint {
  readonly position: number;
  /** Mean entropy of the window that starts there, nats. */
  readonly mean: number;
}

/**
 * Where the paper forks (spec 4, branching): at the first window of every contiguous region above the threshold, at most one
 * in `width` tokens, the first `budget` of a response.
 * @param means window means from every position, nats
 */
export function forkPoints(means: Float64Array, threshold: number, width: number, budget: number): ForkPoint[] {
  const forks: ForkPoint[] = [];
  let last = Number.NEGATIVE_INFINITY;
  let inside = false;
  for (let t = 0; t < means.length && forks.length < budget; t++) {
    const above = means[t] > threshold;
    if (above && !inside && t - last >= width) {
      forks.push({ position: t, mean: means[t] });
      last = t;
    }
    inside = above;
  }
  return forks;
}
