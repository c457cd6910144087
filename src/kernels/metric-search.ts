/** Working memory of {@link metricPoint} for groups of up to `columns` weights. */
export interface SearchMemory {
  readonly projected: Float64Array;
  readonly moved: Float64Array;
}

export function createSearchMemory(columns: number): SearchMemory {
  return { projected: new Float64Array(columns), moved: new Float64Array(columns) };
}

/** What a search found: `xy = x M yᵀ`, `yy = y M yᵀ`; both 0 for a group of zeros, whose pulses are all on coordinate 0. */
export interface FoundPoint {
  xy: number;
  yy: number;
}

/** Starts at `trunc(K x / ||x||₁)` when K > D/2, else at zero. Returns the pulses placed, or -1 for a group of zeros. */
function startPoint(x: Float64Array, w: number, pulses: number, y: Int32Array): number {
  let sum = 0;
  let most = 0;
  for (let j = 0; j < w; j++) most = Math.max(most, Math.abs(x[j]));
  y.fill(0, 0, w);
  if (!(most > 0)) return -1;
  if (pulses <= Math.floor(w / 2)) return 0;
  for (let j = 0; j < w; j++) sum += Math.abs(x[j]) / most;
  const factor = pulses / sum;
  let placed = 0;
  for (let j = 0; j < w; j++) {
    const size = Math.floor((factor * Math.abs(x[j])) / most);
    y[j] = x[j] < 0 ? -size : size;
    placed += size;
  }
  // A sum that was rounded down can place one pulse too many.
  for (let j = 0; placed > pulses; j = (j + 1) % w) {
    if (y[j] === 0) continue;
    y[j] -= Math.sign(y[j]);
    placed--;
  }
  return placed;
}

/**
 * Greedy search in a metric M: maximises `(x M yᵀ)² / (y M yᵀ)` from `trunc(K x / ||x||₁)` when K > D/2, else from
 * nothing, one pulse at a time. A pulse joins those of its coordinate; where there are none, either sign is tried.
 * Equal candidates go to the lowest index.
 * @param metric symmetric positive definite `[w, w]`, rows `stride` apart
 */
export function metricPoint(
  x: Float64Array,
  w: number,
  pulses: number,
  metric: Float64Array,
  stride: number,
  y: Int32Array,
  memory: SearchMemory,
): FoundPoint {
  const { projected, moved } = memory;
  let placed = startPoint(x, w, pulses, y);
  if (placed < 0) {
    y[0] = pulses;
    return { xy: 0, yy: 0 };
  }
  let xy = 0;
  let yy = 0;
  for (let j = 0; j < w; j++) {
    let mx = 0;
    let my = 0;
    for (let k = 0; k < w; k++) {
      mx += metric[j * stride + k] * x[k];
      my += metric[j * stride + k] * y[k];
    }
    projected[j] = mx;
    moved[j] = my;
    xy += mx * y[j];
    yy += my * y[j];
  }
  for (; placed < pulses; placed++) {
    let best = 0;
    let bestSign = 1;
    let bestTop = Number.NEGATIVE_INFINITY;
    let bestBottom = 1;
    for (let j = 0; j < w; j++) {
      const own = metric[j * stride + j];
      for (let sign = 1; sign >= -1; sign -= 2) {
        if (sign * y[j] < 0) continue;
        const reach = xy + sign * projected[j];
        const top = reach * Math.abs(reach);
        const bottom = yy + 2 * sign * moved[j] + own;
        if (top * bestBottom > bestTop * bottom) {
          best = j;
          bestSign = sign;
          bestTop = top;
          bestBottom = bottom;
        }
      }
    }
    xy += bestSign * projected[best];
    yy += 2 * bestSign * moved[best] + metric[best * stride + best];
    y[best] += bestSign;
    for (let k = 0; k < w; k++) moved[k] += bestSign * metric[best * stride + k];
  }
  return { xy, yy };
}
