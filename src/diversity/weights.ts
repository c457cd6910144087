import { InputError } from '../errors.js';

/** Weights sum to 1 within this. */
export const WEIGHT_SUM_TOLERANCE = 1e-6;

/**
 * Holds weights to what a weighted score needs: as many as items, not negative, sum 1 within 1e-6. Zeros are allowed.
 * @throws InputError with the row and size of what does not hold
 */
export function checkWeights(weights: Float64Array, items: number, name: string): void {
  if (weights.length !== items)
    throw new InputError(`${name}: ${weights.length} weights for ${items} items; one weight an item is needed`);
  let sum = 0;
  weights.forEach((weight, row) => {
    if (!(weight >= 0 && weight < Number.POSITIVE_INFINITY))
      throw new InputError(`${name}: the weight of row ${row} is ${weight}; weights are at least 0`);
    sum += weight;
  });
  if (Math.abs(sum - 1) > WEIGHT_SUM_TOLERANCE) {
    throw new InputError(
      `${name}: the weights sum to ${sum}, not to 1 within ${WEIGHT_SUM_TOLERANCE}; divide them by their sum`,
    );
  }
}
