import type { Tensor } from 'onnxruntime-node';
import type { Floats, Intervention } from './layer-runner.js';
import { tensorOf } from './sessions.js';

/** One row of a run: a window of the caller's list and a position in it. */
export interface RowPlace {
  readonly window: number;
  readonly position: number;
}

/** Inputs of the operators of one layer for the rows of a run (see `interventions.ts`). */
export function interventionFeeds(
  interventions: readonly Intervention[],
  rows: readonly RowPlace[],
  prefix: string,
  make: (length: number) => Floats,
): Record<string, Tensor> {
  const feeds: Record<string, Tensor> = {};
  interventions.forEach((intervention, j) => {
    const vector = make(intervention.vector.length);
    vector.set(intervention.vector);
    const scale = make(1);
    scale[0] = intervention.scale;
    const mask = make(rows.length);
    rows.forEach(({ window, position }, r) => {
      mask[r] = intervention.positions(window, position) ? 1 : 0;
    });
    feeds[`${prefix}steer.${j}.vector`] = tensorOf(vector, [vector.length]);
    feeds[`${prefix}steer.${j}.scale`] = tensorOf(scale, [1]);
    feeds[`${prefix}steer.${j}.mask`] = tensorOf(mask, [mask.length, 1]);
  });
  return feeds;
}
