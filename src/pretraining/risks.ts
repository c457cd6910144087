/** Mean of squared differences. */
export function meanSquaredError(predictions: ArrayLike<number>, targets: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < targets.length; i++) sum += (predictions[i] - targets[i]) ** 2;
  return sum / targets.length;
}

/** Share of rows whose class differs. */
export function errorRate(predictions: ArrayLike<number>, targets: ArrayLike<number>): number {
  let wrong = 0;
  for (let i = 0; i < targets.length; i++) if (predictions[i] !== targets[i]) wrong++;
  return wrong / targets.length;
}
