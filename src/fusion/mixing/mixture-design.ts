import { InputError } from '../../errors.js';
import { createRandom } from '../../random.js';
import { dirichlet } from './dirichlet.js';

export interface DesignSettings {
  readonly groups: number;
  /** Mixtures that are wanted. */
  readonly count: number;
  /** Concentration of the Dirichlet distribution; default 1.5. */
  readonly alpha?: number;
  /** 2^oversampling times as many are drawn; default 4. */
  readonly oversampling?: number;
  readonly seed: number;
}

/** Mixtures drawn at most: distances of all pairs are compared. */
const MOST_DRAWN = 1 << 15;

/**
 * Mixtures for a sweep that are spread over the simplex: 2^f times as many are drawn from Dirichlet(alpha), then the closest pair
 * is replaced by its middle until `count` remain.
 * @returns [count, groups]
 * @throws InputError for numbers out of range
 */
export function designMixtures(settings: DesignSettings): Float64Array {
  const { groups, count, alpha = 1.5, oversampling = 4, seed } = settings;
  if (!(Number.isInteger(groups) && groups >= 2)) throw new InputError(`${groups} groups: mixing needs two or more`);
  if (!(Number.isInteger(count) && count >= 1)) throw new InputError(`${count} mixtures: one or more are needed`);
  if (!(alpha > 0 && Number.isFinite(alpha))) throw new InputError(`alpha ${alpha}: must be above 0`);
  if (!(Number.isInteger(oversampling) && oversampling >= 0)) {
    throw new InputError(`oversampling ${oversampling}: must be a whole number from 0 on`);
  }
  const drawn = count * 2 ** oversampling;
  if (drawn > MOST_DRAWN) {
    throw new InputError(`${drawn} mixtures would be drawn, more than ${MOST_DRAWN}: lower the oversampling`);
  }
  const random = createRandom(seed);
  const concentration = new Float64Array(groups).fill(alpha);
  const points = Array.from({ length: drawn }, () => dirichlet(random, concentration));
  return mergedPoints(points, count, groups);
}

/** Replaces the closest pair by its middle until `count` points remain; their order is kept. */
function mergedPoints(points: Float64Array[], count: number, width: number): Float64Array {
  const alive = new Uint8Array(points.length).fill(1);
  const nearest = new Int32Array(points.length).fill(-1);
  const distances = new Float64Array(points.length).fill(Number.POSITIVE_INFINITY);
  const distance = (a: number, b: number): number => {
    let sum = 0;
    for (let j = 0; j < width; j++) sum += (points[a][j] - points[b][j]) ** 2;
    return sum;
  };
  // Each pair belongs to its earlier point.
  const look = (a: number): void => {
    nearest[a] = -1;
    distances[a] = Number.POSITIVE_INFINITY;
    for (let b = a + 1; b < points.length; b++) {
      if (!alive[b]) continue;
      const found = distance(a, b);
      if (found < distances[a]) {
        distances[a] = found;
        nearest[a] = b;
      }
    }
  };
  for (let a = 0; a < points.length; a++) look(a);
  for (let left = points.length; left > count; left--) {
    let a = -1;
    for (let c = 0; c < points.length; c++) if (alive[c] && (a < 0 || distances[c] < distances[a])) a = c;
    const b = nearest[a];
    points[a] = points[a].map((share, j) => (share + points[b][j]) / 2);
    alive[b] = 0;
    look(a);
    for (let c = 0; c < points.length; c++) {
      if (!alive[c] || c === a) continue;
      if (nearest[c] === a || nearest[c] === b) look(c);
      else if (c < a && distance(c, a) < distances[c]) {
        distances[c] = distance(c, a);
        nearest[c] = a;
      }
    }
  }
  const kept = points.filter((_, a) => alive[a]);
  const mixtures = new Float64Array(kept.length * width);
  kept.forEach((point, r) => {
    mixtures.set(point, r * width);
  });
  return mixtures;
}
