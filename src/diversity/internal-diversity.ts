import { InputError } from '../errors.js';
import { createRandom } from '../random.js';

/**
 * `IntDiv_q = 1 - sum_ij p_i p_j K_ij^q`, the elementwise power: one less the mean similarity.
 * @param k `[n, n]`
 * @param weights `[n]` with sum 1; `1/n` each when absent
 * @throws InputError for a power that is no integer of a negative similarity
 */
export function internalDiversity(k: Float64Array, n: number, q: number, weights?: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < n; i++) {
    let row = 0;
    for (let j = 0; j < n; j++) row += (weights?.[j] ?? 1) * similarityPower(k[i * n + j], q, i, j);
    sum += (weights?.[i] ?? 1) * row;
  }
  return 1 - (weights ? sum : sum / (n * n));
}

/** `K^q`, with the place of a similarity that has no such power in the error. */
export function similarityPower(similarity: number, q: number, i: number, j: number): number {
  if (q === 1) return similarity;
  if (q === 2) return similarity * similarity;
  if (similarity < 0 && !Number.isInteger(q)) {
    throw new InputError(
      `IntDiv of order ${q}: the similarity of items ${i} and ${j} is ${similarity}, and a negative number has no such ` +
        'power; use an integer order',
    );
  }
  return similarity ** q;
}

/** A mean over pairs of items, with its standard error where the pairs were drawn. */
export interface PairMean {
  readonly value: number;
  readonly standardError: number;
  readonly pairs: number;
}

/**
 * IntDiv_q from randomly drawn pairs of distinct items, where all n² are too many: pairs (i, i) have similarity 1 and
 * are added exactly. Without weights only.
 * @param similarity of items i and j
 */
export function sampledInternalDiversity(
  similarity: (i: number, j: number) => number,
  n: number,
  q: number,
  options: { readonly pairs: number; readonly seed: number },
): PairMean {
  const random = createRandom(options.seed).fork(0x70616972);
  let mean = 0;
  let squares = 0;
  for (let k = 0; k < options.pairs; k++) {
    const i = random.integer(n);
    const drawn = random.integer(n - 1);
    const j = drawn < i ? drawn : drawn + 1;
    const value = similarityPower(similarity(i, j), q, i, j);
    const step = value - mean;
    mean += step / (k + 1);
    squares += step * (value - mean);
  }
  const offDiagonal = (n - 1) / n;
  return {
    value: 1 - (1 / n + offDiagonal * mean),
    standardError: offDiagonal * Math.sqrt(squares / (options.pairs - 1) / options.pairs),
    pairs: options.pairs,
  };
}
