/** Quantile of ascending values, linear between order statistics (type 7 of Hyndman & Fan). */
export function quantileType7(sorted: ArrayLike<number>, probability: number): number {
  const place = (sorted.length - 1) * Math.min(1, Math.max(0, probability));
  const below = Math.floor(place);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (place - below) * (sorted[above] - sorted[below]);
}
