import type { Random } from '../random.js';

/** Parameters of the search; defaults are standard practice. */
export interface CrossEntropyOptions {
  readonly mean: ArrayLike<number>;
  readonly deviation: ArrayLike<number>;
  /** Points drawn a round (default 100). */
  readonly samples?: number;
  /** Share of the points that are elite (default 0.1). */
  readonly eliteShare?: number;
  /** Weight of the elite's moments against the old ones (default 0.8). */
  readonly smoothing?: number;
  /** Rounds at most (default 50). */
  readonly maxRounds?: number;
  /** Stop when every deviation is below (default 1e-6). */
  readonly deviationTolerance?: number;
  /** Points outside the box are never elite. */
  readonly low?: ArrayLike<number>;
  readonly high?: ArrayLike<number>;
}

export interface CrossEntropyRound {
  /** Score of the worst elite point. */
  readonly threshold: number;
  readonly bestScore: number;
  readonly elite: number;
  readonly mean: Float64Array;
  readonly deviation: Float64Array;
}

export interface CrossEntropyResult {
  /** The best point met in any round. */
  readonly point: Float64Array;
  readonly score: number;
  readonly rounds: CrossEntropyRound[];
  readonly converged: boolean;
}

/**
 * Maximises a score by the cross-entropy method (Rubinstein 1999) with an independent Gaussian a coordinate: draw points,
 * take the mean and population deviation of the best, smooth. Ties go to the point drawn first; NaN scores are never
 * elite. A round without any elite point leaves the Gaussian as it is.
 */
export function crossEntropyMethod(
  score: (x: Float64Array) => number,
  random: Pick<Random, 'normal'>,
  options: CrossEntropyOptions,
): CrossEntropyResult {
  const { samples = 100, eliteShare = 0.1, smoothing = 0.8, maxRounds = 50, deviationTolerance = 1e-6 } = options;
  const n = options.mean.length;
  const mean = Float64Array.from(options.mean);
  const deviation = Float64Array.from(options.deviation);
  const wantedElite = Math.ceil(eliteShare * samples);
  const rounds: CrossEntropyRound[] = [];
  let best: Float64Array = Float64Array.from(mean);
  let bestScore = Number.NEGATIVE_INFINITY;
  let converged = false;
  for (let round = 0; round < maxRounds && !converged; round++) {
    const drawn: { x: Float64Array; score: number }[] = [];
    for (let k = 0; k < samples; k++) {
      const x = new Float64Array(n);
      let inside = true;
      for (let i = 0; i < n; i++) {
        x[i] = mean[i] + deviation[i] * random.normal();
        if (options.low !== undefined && x[i] < options.low[i]) inside = false;
        if (options.high !== undefined && x[i] > options.high[i]) inside = false;
      }
      if (!inside) continue;
      const value = score(x);
      if (!Number.isNaN(value)) drawn.push({ x, score: value });
    }
    drawn.sort((a, b) => b.score - a.score);
    const elite = drawn.slice(0, wantedElite);
    if (elite.length > 0) {
      if (elite[0].score > bestScore) {
        bestScore = elite[0].score;
        best = elite[0].x;
      }
      for (let i = 0; i < n; i++) {
        let sum = 0;
        for (const { x } of elite) sum += x[i];
        const centre = sum / elite.length;
        let squares = 0;
        for (const { x } of elite) squares += (x[i] - centre) ** 2;
        mean[i] = smoothing * centre + (1 - smoothing) * mean[i];
        deviation[i] = smoothing * Math.sqrt(squares / elite.length) + (1 - smoothing) * deviation[i];
      }
    }
    rounds.push({
      threshold: elite.length > 0 ? elite[elite.length - 1].score : Number.NaN,
      bestScore,
      elite: elite.length,
      mean: mean.slice(),
      deviation: deviation.slice(),
    });
    converged = deviation.every((value) => value < deviationTolerance);
  }
  return { point: best, score: bestScore, rounds, converged };
}
