import { multiply } from '../kernels/gemm.js';
import type { Trajectories } from './fit.js';

/** Errors of predictions some steps ahead. */
export interface RolloutError {
  readonly horizon: number;
  /** `‖x̂ − x‖ / ‖x‖` over all predictions of this horizon together. */
  readonly nrmse: number;
  /** Root mean square of the entries of x̂ − x. */
  readonly rmse: number;
  readonly predictions: number;
}

/**
 * Rolls latents forward by C from every start and compares, `horizon` steps later.
 * @param latents `[rows, latent]`, laid out like the trajectories
 * @param decode takes latents to the space of the trajectories' data; identity when the data are the latents
 * @param stride steps between starts
 */
export async function rolloutErrors(
  trajectories: Trajectories,
  latents: Float64Array,
  latent: number,
  koopman: Float64Array,
  horizons: readonly number[],
  decode: (rows: Float64Array) => Float64Array | Promise<Float64Array>,
  stride = 1,
): Promise<RolloutError[]> {
  const { data, width, lengths } = trajectories;
  const found: RolloutError[] = [];
  for (const horizon of horizons) {
    const starts: number[] = [];
    let at = 0;
    for (const length of lengths) {
      for (let t = 0; t + horizon < length; t += stride) starts.push(at + t);
      at += length;
    }
    const count = starts.length;
    let rows = new Float64Array(count * latent);
    for (const [i, start] of starts.entries()) {
      rows.set(latents.subarray(start * latent, (start + 1) * latent), i * latent);
    }
    for (let step = 0; step < horizon; step++) {
      rows = multiply(rows, koopman, new Float64Array(rows.length), { m: count, n: latent, k: latent });
    }
    const predicted = await decode(rows);
    let errors = 0;
    let squares = 0;
    for (const [i, start] of starts.entries()) {
      for (let j = 0; j < width; j++) {
        const truth = data[(start + horizon) * width + j];
        errors += (predicted[i * width + j] - truth) ** 2;
        squares += truth * truth;
      }
    }
    found.push({
      horizon,
      nrmse: Math.sqrt(errors / squares),
      rmse: Math.sqrt(errors / (count * width)),
      predictions: count,
    });
  }
  return found;
}
