/** What became of a solution by conjugate gradients. */
export interface ConjugateSolution {
  /** [count, n], as given and changed in place. */
  readonly solution: Float64Array;
  readonly iterations: number;
  /** Largest ||b - A x|| / ||b|| over the right-hand sides, from the last residuals of the recursion. */
  readonly residual: number;
}

export interface ConjugateOptions {
  /** ||b - A x|| / ||b|| that every right-hand side must reach. */
  readonly tolerance: number;
  readonly maxIterations: number;
}

function dot(a: Float64Array, b: Float64Array, from: number, to: number): number {
  let sum = 0;
  for (let i = from; i < to; i++) sum += a[i] * b[i];
  return sum;
}

/**
 * Solves A x = b for several right-hand sides at once by conjugate gradients with a diagonal preconditioner (Golub & Van
 * Loan 2013, section 11.5). Each has its own step lengths; one that is done stands still, so its bits do not depend on
 * the others.
 *
 * @param apply writes X A, [count, n], for a symmetric positive definite A that is never held
 * @param diagonal of A, [n], positive
 * @param right right-hand sides as rows, [count, n]
 * @param start first guess, [count, n]; becomes the solution
 */
export function conjugateGradients(
  apply: (x: Float64Array, into: Float64Array) => void,
  diagonal: Float64Array,
  right: Float64Array,
  start: Float64Array,
  options: ConjugateOptions,
): ConjugateSolution {
  const n = diagonal.length;
  const count = right.length / n;
  const product = new Float64Array(count * n);
  const residual = new Float64Array(count * n);
  const direction = new Float64Array(count * n);
  const norms = Float64Array.from({ length: count }, (_, r) => Math.sqrt(dot(right, right, r * n, (r + 1) * n)));
  const distances = new Float64Array(count);
  const rho = new Float64Array(count);
  /** Norm of what is left of row r, relative to its right-hand side; sets the preconditioned product. */
  const measure = (r: number): number => {
    let square = 0;
    let preconditioned = 0;
    for (let i = 0; i < n; i++) {
      const left = residual[r * n + i];
      square += left * left;
      preconditioned += (left * left) / diagonal[i];
    }
    rho[r] = preconditioned;
    distances[r] = norms[r] > 0 ? Math.sqrt(square) / norms[r] : Math.sqrt(square);
    return preconditioned;
  };
  apply(start, product);
  for (let r = 0; r < count; r++) {
    for (let i = r * n; i < (r + 1) * n; i++) {
      residual[i] = right[i] - product[i];
      direction[i] = residual[i] / diagonal[i - r * n];
    }
    measure(r);
  }
  const open = (r: number): boolean => distances[r] > options.tolerance;
  let iterations = 0;
  while (iterations < options.maxIterations && distances.some((_, r) => open(r))) {
    iterations++;
    apply(direction, product);
    for (let r = 0; r < count; r++) {
      const [from, to] = [r * n, (r + 1) * n];
      const curvature = open(r) ? dot(direction, product, from, to) : 0;
      if (!(curvature > 0)) continue;
      const before = rho[r];
      const step = before / curvature;
      for (let i = from; i < to; i++) {
        start[i] += step * direction[i];
        residual[i] -= step * product[i];
      }
      const share = measure(r) / before;
      for (let i = from; i < to; i++) direction[i] = residual[i] / diagonal[i - from] + share * direction[i];
    }
  }
  return { solution: start, iterations, residual: distances.reduce((most, value) => Math.max(most, value), 0) };
}
