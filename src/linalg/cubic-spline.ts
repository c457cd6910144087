/** A natural cubic spline through points: second derivatives at its knots, 0 at the ends. */
export interface CubicSpline {
  readonly x: Float64Array;
  readonly y: Float64Array;
  readonly curvature: Float64Array;
}

/**
 * @param x strictly increasing, two or more
 * @throws RangeError otherwise
 */
export function cubicSpline(x: Float64Array, y: Float64Array): CubicSpline {
  const n = x.length;
  if (n < 2 || y.length !== n) throw new RangeError(`a spline needs two points or more, got ${n} and ${y.length}`);
  const curvature = new Float64Array(n);
  // Thomas's algorithm on the tridiagonal system of continuous first derivatives.
  const ratio = new Float64Array(n);
  for (let i = 1; i < n; i++) if (!(x[i] > x[i - 1])) throw new RangeError(`knot ${i} of a spline does not increase`);
  for (let i = 1; i + 1 < n; i++) {
    const before = x[i] - x[i - 1];
    const after = x[i + 1] - x[i];
    const pivot = 2 * (before + after) - before * ratio[i - 1];
    ratio[i] = after / pivot;
    const bend = 6 * ((y[i + 1] - y[i]) / after - (y[i] - y[i - 1]) / before);
    curvature[i] = (bend - before * curvature[i - 1]) / pivot;
  }
  for (let i = n - 2; i > 0; i--) curvature[i] -= ratio[i] * curvature[i + 1];
  return { x, y, curvature };
}

/** Value and three derivatives; beyond the knots the end pieces go on as straight lines. */
export function evaluateSpline({ x, y, curvature }: CubicSpline, at: number): [number, number, number, number] {
  const last = x.length - 1;
  const slopeAt = (i: number, end: number): number => {
    const h = x[i + 1] - x[i];
    const slope = (y[i + 1] - y[i]) / h;
    return slope + (h / 6) * (end === i ? -2 * curvature[i] - curvature[i + 1] : curvature[i] + 2 * curvature[i + 1]);
  };
  if (at <= x[0]) return [y[0] + slopeAt(0, 0) * (at - x[0]), slopeAt(0, 0), 0, 0];
  if (at >= x[last]) return [y[last] + slopeAt(last - 1, last) * (at - x[last]), slopeAt(last - 1, last), 0, 0];
  let low = 0;
  let high = last;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (x[middle] <= at) low = middle;
    else high = middle;
  }
  const h = x[high] - x[low];
  const t = at - x[low];
  const jump = (curvature[high] - curvature[low]) / h;
  const slope = slopeAt(low, low);
  return [
    y[low] + t * (slope + t * (curvature[low] / 2 + (t * jump) / 6)),
    slope + t * (curvature[low] + (t * jump) / 2),
    curvature[low] + t * jump,
    jump,
  ];
}
