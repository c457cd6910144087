import { createRandom } from '../../src/random.js';

export function normals(count: number, key: number): Float64Array {
  const random = createRandom(1).fork(key);
  return Float64Array.from({ length: count }, () => random.normal());
}

/** `(2/N) sum x xᵀ` of N tokens whose inputs are correlated and of unequal size. */
export function correlatedHessian(n: number, tokens: number, key: number): Float64Array {
  const random = createRandom(key).fork(1);
  const H = new Float64Array(n * n);
  const x = new Float64Array(n);
  for (let t = 0; t < tokens; t++) {
    let carried = random.normal();
    const shared = random.normal();
    for (let i = 0; i < n; i++) {
      carried = 0.8 * carried + 0.6 * random.normal();
      x[i] = (1 + (i % 7) / 3) * (carried + 0.5 * shared);
    }
    for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) H[i * n + j] += (2 / tokens) * x[i] * x[j];
  }
  return H;
}
