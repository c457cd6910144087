import type { ExpertModel } from './expert-layout.js';

/** f32 matrices of one expert: gate [I, H] (gated experts alone), up [I, H], down [H, I]. */
export interface ReadExpert {
  readonly gate?: Float32Array;
  readonly up: Float32Array;
  readonly down: Float32Array;
}

/** What decides about a token's experts, f32. */
export interface RouterTensors {
  /** [E, H]. */
  readonly rows: Float32Array;
  /** [E]. */
  readonly bias?: Float32Array;
  /** [E]. */
  readonly correctionBias?: Float32Array;
}

/**
 * Expert `e` of `model.layers[index]`, whatever the layout of the files.
 * @param into buffers to fill instead of new ones; they must have the expert's sizes
 */
export declare function readExpert(
  model: ExpertModel,
  index: number,
  e: number,
  threads?: number,
  into?: ReadExpert,
): ReadExpert;

/** Router of `model.layers[index]`. */
export declare function readRouter(model: ExpertModel, index: number, threads?: number): RouterTensors;
