import { createRandom } from '../../src/random.js';
import type { PointCloud } from '../../src/representations/points.js';
import type { RepresentationSettings } from '../../src/representations/settings.js';

/** Normal clouds around `centres` random centres, rows cycling through them; the labels are row mod centres. */
export function blobs(n: number, d: number, centres: number, seed: number, spread = 4): PointCloud {
  const random = createRandom(seed);
  const middle = Float64Array.from({ length: centres * d }, () => spread * random.normal());
  const data = new Float64Array(n * d);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < d; j++) data[i * d + j] = middle[(i % centres) * d + j] + random.normal();
  }
  return { data, n, d };
}

export const SETTINGS: RepresentationSettings = {
  sigma: { kind: 'median' },
  times: [1],
  operator: 'K',
  method: 'auto',
  mostRows: 10_000,
  variants: [],
  neighbours: 10,
  bins: 2,
  constantColumns: 'error',
  sweep: [],
  curveSizes: [],
  repetitions: 5,
  categories: 10,
  probes: 64,
  features: 256,
  landmarks: 128,
  seed: 0,
  threads: 2,
  maxMemoryBytes: 2 ** 31,
};
