import type { Random } from '../random.js';

/** Rounds after which centres are taken as they are. */
const MOST_ROUNDS = 100;
/** Starts, of which the one with the least sum of squares is kept: fewer where a round takes long. */
const STARTS = { least: 8, most: 64, work: 2e8 } as const;

/**
 * Lloyd's k-means with k-means++ starts (Arthur and Vassilvitskii 2007). No cluster is empty: one that loses its last point
 * takes the point that lies farthest from its own centre.
 * @param points [n, columns]
 * @returns cluster of every point, numbered by first appearance, [n]
 * @throws RangeError unless 1 <= clusters <= n
 */
export function kMeans(points: Float64Array, n: number, columns: number, clusters: number, random: Random): Int32Array {
  if (!(clusters >= 1 && clusters <= n)) throw new RangeError(`${clusters} clusters of ${n} points`);
  let best = new Int32Array(n);
  let least = Number.POSITIVE_INFINITY;
  const starts = Math.floor(STARTS.work / (n * columns * clusters));
  for (let start = 0; start < Math.min(STARTS.most, Math.max(STARTS.least, starts)); start++) {
    const { labels, squares } = refine(
      points,
      n,
      columns,
      firstCentres(points, n, columns, clusters, random),
      clusters,
    );
    if (squares < least) {
      least = squares;
      best = labels;
    }
  }
  const numbers = new Map<number, number>();
  return best.map((label) => {
    const number = numbers.get(label) ?? numbers.size;
    numbers.set(label, number);
    return number;
  });
}

function squaredDistance(a: Float64Array, at: number, b: Float64Array, bt: number, columns: number): number {
  let sum = 0;
  for (let c = 0; c < columns; c++) sum += (a[at + c] - b[bt + c]) ** 2;
  return sum;
}

/** Points drawn with probability in proportion to their squared distance to the nearest centre so far, [clusters, columns]. */
function firstCentres(
  points: Float64Array,
  n: number,
  columns: number,
  clusters: number,
  random: Random,
): Float64Array {
  const centres = new Float64Array(clusters * columns);
  const nearest = new Float64Array(n).fill(Number.POSITIVE_INFINITY);
  let chosen = random.integer(n);
  for (let k = 0; k < clusters; k++) {
    centres.set(points.subarray(chosen * columns, (chosen + 1) * columns), k * columns);
    let total = 0;
    for (let i = 0; i < n; i++) {
      nearest[i] = Math.min(nearest[i], squaredDistance(points, i * columns, centres, k * columns, columns));
      total += nearest[i];
    }
    let left = random.uniform() * total;
    chosen = nearest.findIndex((distance) => {
      left -= distance;
      return left < 0;
    });
    if (chosen < 0) chosen = random.integer(n);
  }
  return centres;
}

function refine(
  points: Float64Array,
  n: number,
  columns: number,
  centres: Float64Array,
  clusters: number,
): { labels: Int32Array<ArrayBuffer>; squares: number } {
  const labels = new Int32Array(n).fill(-1);
  const distances = new Float64Array(n);
  for (let round = 0; round < MOST_ROUNDS; round++) {
    let changed = false;
    for (let i = 0; i < n; i++) {
      let label = 0;
      distances[i] = Number.POSITIVE_INFINITY;
      for (let k = 0; k < clusters; k++) {
        const distance = squaredDistance(points, i * columns, centres, k * columns, columns);
        if (distance < distances[i]) {
          distances[i] = distance;
          label = k;
        }
      }
      changed ||= labels[i] !== label;
      labels[i] = label;
    }
    changed = fillEmpty(labels, distances, clusters) || changed;
    moveCentres(points, columns, labels, centres, clusters);
    if (!changed) break;
  }
  return { labels, squares: distances.reduce((sum, distance) => sum + distance, 0) };
}

/** Gives every empty cluster the farthest point of a cluster that has others. */
function fillEmpty(labels: Int32Array, distances: Float64Array, clusters: number): boolean {
  const sizes = new Int32Array(clusters);
  for (const label of labels) sizes[label]++;
  let changed = false;
  for (let k = 0; k < clusters; k++) {
    if (sizes[k] > 0) continue;
    let far = -1;
    distances.forEach((distance, i) => {
      if (sizes[labels[i]] > 1 && (far < 0 || distance > distances[far])) far = i;
    });
    sizes[labels[far]]--;
    labels[far] = k;
    sizes[k] = 1;
    distances[far] = 0;
    changed = true;
  }
  return changed;
}

function moveCentres(
  points: Float64Array,
  columns: number,
  labels: Int32Array,
  centres: Float64Array,
  clusters: number,
): void {
  const sizes = new Int32Array(clusters);
  centres.fill(0);
  labels.forEach((label, i) => {
    sizes[label]++;
    for (let c = 0; c < columns; c++) centres[label * columns + c] += points[i * columns + c];
  });
  for (let k = 0; k < clusters; k++) {
    for (let c = 0; c < columns; c++) centres[k * columns + c] /= sizes[k];
  }
}
