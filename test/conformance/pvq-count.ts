import { indexBits, log2Big, pyramidCount } from '../../src/kernels/pyramid.js';
import type { Json } from './harness.js';
import { numbers } from './tensors.js';

export function run(inputs: { [key: string]: Json }): unknown {
  if (!Array.isArray(inputs.pairs)) throw new TypeError('pairs is not a list');
  const counts = inputs.pairs.map((pair) => {
    const [D, K] = numbers(pair, 'a pair');
    return pyramidCount(D, K);
  });
  return {
    count: counts.map(String),
    log2: counts.map((count) => (count === 0n ? null : log2Big(count))),
    index_bits: counts.map((count) => (count === 0n ? null : indexBits(count))),
  };
}
