import { brentMinimum } from '../../linalg/brent.js';
import { nelderMead } from '../../linalg/nelder-mead.js';
import type { DataBox, Surface } from './types.js';

/** Places at which a curve is looked at before its highest part is refined. */
const SCAN = 64;

/** Highest point of a curve on [low, high]: a scan, then Brent's search around its best place. */
export function curveMaximum(surface: Surface, low: number, high: number): number {
  const place = new Float64Array(1);
  const f = (x: number): number => {
    place[0] = x;
    return -surface.predict(place);
  };
  const step = (high - low) / SCAN;
  let [best, least] = [low, f(low)];
  for (let i = 1; i <= SCAN; i++) {
    const x = i === SCAN ? high : low + i * step;
    const value = f(x);
    if (value < least) [best, least] = [x, value];
  }
  const found = brentMinimum(f, Math.max(low, best - step), Math.min(high, best + step));
  return found.value < least ? found.x : best;
}

/**
 * Highest point of a smooth surface on a box: Nelder and Mead's search from each start, held to the box, then again from where it
 * ended; the best of all. Local from each start.
 * @param tolerance of the point, in sides of the box
 */
export function surfaceMaximum(
  surface: Surface,
  { low, high }: DataBox,
  starts: readonly Float64Array[],
  tolerance: number,
): Float64Array {
  const n = low.length;
  const size = low.map((value, i) => high[i] - value || 1);
  const inside = (u: Float64Array): Float64Array =>
    u.map((value, i) => low[i] + size[i] * Math.min(1, Math.max(0, value)));
  // What leaves the unit box falls off, so that the simplex comes back.
  const f = (u: Float64Array): number => {
    let outside = 0;
    for (let i = 0; i < n; i++) outside += Math.max(0, -u[i], u[i] - 1);
    return outside - surface.predict(inside(u));
  };
  let best: Float64Array = starts[0];
  let least = Number.POSITIVE_INFINITY;
  for (const start of starts) {
    let u: Float64Array = start.map((value, i) => (value - low[i]) / size[i]);
    for (const edge of [0.15, 0.03]) {
      const step = u.map((value) => (value > 0.5 ? -edge : edge));
      u = nelderMead(f, u, { step, valueTolerance: 1e-4 * tolerance, pointTolerance: tolerance }).point;
    }
    const x = inside(u);
    const value = -surface.predict(x);
    if (value < least) [best, least] = [x, value];
  }
  return best;
}
