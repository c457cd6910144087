import type { Points } from './neighbours.js';

/** Places of the points in ascending order of their first coordinate, and those coordinates. */
function sortedByFirstAxis({ data, rows, columns }: Points): { order: Int32Array; first: Float64Array } {
  const order = Int32Array.from({ length: rows }, (_, i) => i);
  order.sort((a, b) => data[a * columns] - data[b * columns] || a - b);
  return { order, first: Float64Array.from(order, (i) => data[i * columns]) };
}

function maxDistance({ data, columns }: Points, a: number, b: number): number {
  let distance = 0;
  for (let j = 0; j < columns; j++) {
    const along = Math.abs(data[b * columns + j] - data[a * columns + j]);
    if (along > distance) distance = along;
  }
  return distance;
}

/** The k smallest (distance, index) pairs of what `consider` is given. */
function createNearest(k: number): {
  clear(): void;
  bound(): number;
  consider(distance: number, index: number): void;
  readonly distances: Float64Array;
  readonly indices: Int32Array;
} {
  const distances = new Float64Array(k).fill(Number.POSITIVE_INFINITY);
  const indices = new Int32Array(k).fill(-1);
  return {
    distances,
    indices,
    clear() {
      distances.fill(Number.POSITIVE_INFINITY);
      indices.fill(0x7fffffff);
    },
    bound: () => distances[k - 1],
    consider(distance, index) {
      let at = k - 1;
      if (distance > distances[at] || (distance === distances[at] && index > indices[at])) return;
      for (; at > 0; at--) {
        const before = distances[at - 1];
        if (before < distance || (before === distance && indices[at - 1] < index)) break;
        distances[at] = before;
        indices[at] = indices[at - 1];
      }
      distances[at] = distance;
      indices[at] = index;
    },
  };
}

/** Sweeps out from each point along the first axis until that axis alone is farther than the k-th neighbour. */
export function nearestReference(
  points: Points,
  k: number,
  distances: Float64Array,
  neighbours: Int32Array | undefined,
): void {
  const { rows } = points;
  const { order, first } = sortedByFirstAxis(points);
  const nearest = createNearest(k);
  for (let place = 0; place < rows; place++) {
    const point = order[place];
    nearest.clear();
    for (let i = place - 1; i >= 0 && first[place] - first[i] <= nearest.bound(); i--) {
      nearest.consider(maxDistance(points, point, order[i]), order[i]);
    }
    for (let i = place + 1; i < rows && first[i] - first[place] <= nearest.bound(); i++) {
      nearest.consider(maxDistance(points, point, order[i]), order[i]);
    }
    distances[point] = nearest.bound();
    neighbours?.set(nearest.indices, point * k);
  }
}

export function countReference(points: Points, radii: Float64Array, strict: boolean, counts: Int32Array): void {
  const { rows } = points;
  const { order, first } = sortedByFirstAxis(points);
  for (let place = 0; place < rows; place++) {
    const point = order[place];
    const radius = radii[point];
    const isInside = (distance: number): boolean => (strict ? distance < radius : distance <= radius);
    let count = 0;
    for (let i = place - 1; i >= 0 && isInside(first[place] - first[i]); i--) {
      if (isInside(maxDistance(points, point, order[i]))) count++;
    }
    for (let i = place + 1; i < rows && isInside(first[i] - first[place]); i++) {
      if (isInside(maxDistance(points, point, order[i]))) count++;
    }
    counts[point] = count;
  }
}
