import type { Floats } from '../models/layer-runner.js';
import type { Random } from '../random.js';

/**
 * Weights plus white Gaussian noise, whose expected energy in every row of W [rows = out, columns = in] is that row's own
 * times `relativeEnergy`: what a code with row scales leaves after a rotation, to the second moment.
 * @param weights as the engine holds them: W, or its transpose [in, out]
 * @param target of the same length; overwritten
 */
export function addWeightNoise(
  weights: Floats,
  shape: { readonly rows: number; readonly columns: number; readonly transposed: boolean },
  relativeEnergy: number,
  random: Random,
  target: Floats,
): void {
  const { rows, columns, transposed } = shape;
  const [rowStep, columnStep] = transposed ? [1, rows] : [columns, 1];
  for (let row = 0; row < rows; row++) {
    const start = row * rowStep;
    let energy = 0;
    for (let j = 0, at = start; j < columns; j++, at += columnStep) energy += weights[at] * weights[at];
    const deviation = Math.sqrt((relativeEnergy * energy) / columns);
    for (let j = 0, at = start; j < columns; j++, at += columnStep) {
      target[at] = weights[at] + deviation * random.normal();
    }
  }
}
