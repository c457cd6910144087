/** Nodes ascending, and weights that sum to 1. */
export interface NodeWeights {
  readonly values: Float64Array;
  readonly weights: Float64Array;
}

/** Sweeps after which an eigenvalue that has not settled is a fault of the input; two or three are usual. */
const MOST_SWEEPS = 60;

/**
 * Gauss quadrature of the measure whose Jacobi matrix has the diagonal `alphas` and the off-diagonal `betas`: the nodes
 * are its eigenvalues, the weights the squared first entries of its eigenvectors (Golub & Welsch 1969). Implicit QL that
 * carries the first row of the eigenvectors along.
 * @throws RangeError when an entry is not finite
 */
export function quadratureNodes(alphas: ArrayLike<number>, betas: ArrayLike<number>): NodeWeights {
  const m = alphas.length;
  const d = Float64Array.from(alphas);
  const e = new Float64Array(m);
  for (let i = 0; i + 1 < m; i++) e[i] = betas[i];
  const first = new Float64Array(m);
  if (m > 0) first[0] = 1;
  for (const values of [d, e])
    for (const value of values) if (!Number.isFinite(value)) throw new RangeError(`${value}`);
  for (let low = 0; low < m; low++) {
    for (let sweep = 0; ; sweep++) {
      const high = decoupledAt(d, e, low);
      if (high === low) break;
      if (sweep === MOST_SWEEPS) throw new RangeError('the eigenvalues of a Jacobi matrix do not settle');
      implicitStep(d, e, first, low, high);
    }
  }
  const order = Int32Array.from({ length: m }, (_, i) => i).sort((a, b) => d[a] - d[b]);
  return {
    values: Float64Array.from(order, (i) => d[i]),
    weights: Float64Array.from(order, (i) => first[i] * first[i]),
  };
}

/** Gauss-Legendre quadrature of [low, high]: nodes ascending, weights that sum to its length. */
export function gaussLegendre(count: number, low: number, high: number): NodeWeights {
  const betas = Float64Array.from(
    { length: Math.max(0, count - 1) },
    (_, i) => (i + 1) / Math.sqrt(4 * (i + 1) ** 2 - 1),
  );
  const { values, weights } = quadratureNodes(new Float64Array(count), betas);
  const half = (high - low) / 2;
  return {
    values: values.map((value) => low + half * (1 + value)),
    weights: weights.map((weight) => weight * (high - low)),
  };
}

/** The first index from `low` on whose off-diagonal entry is negligible. */
function decoupledAt(d: Float64Array, e: Float64Array, low: number): number {
  let at = low;
  while (at + 1 < d.length && Math.abs(e[at]) > Number.EPSILON * (Math.abs(d[at]) + Math.abs(d[at + 1]))) at++;
  return at;
}

/** One implicit QL step with Wilkinson's shift on low..high (Golub & Van Loan 2013, section 8.3, from below). */
function implicitStep(d: Float64Array, e: Float64Array, first: Float64Array, low: number, high: number): void {
  const slope = (d[low + 1] - d[low]) / (2 * e[low]);
  const radius = Math.hypot(slope, 1);
  let g = d[high] - d[low] + e[low] / (slope + (slope >= 0 ? radius : -radius));
  let sine = 1;
  let cosine = 1;
  let shift = 0;
  for (let i = high - 1; i >= low; i--) {
    const f = sine * e[i];
    const b = cosine * e[i];
    const r = Math.hypot(f, g);
    e[i + 1] = r;
    if (r === 0) {
      d[i + 1] -= shift;
      e[high] = 0;
      return;
    }
    sine = f / r;
    cosine = g / r;
    g = d[i + 1] - shift;
    const t = (d[i] - g) * sine + 2 * cosine * b;
    shift = sine * t;
    d[i + 1] = g + shift;
    g = cosine * t - b;
    const held = first[i + 1];
    first[i + 1] = sine * first[i] + cosine * held;
    first[i] = cosine * first[i] - sine * held;
  }
  d[low] -= shift;
  e[low] = g;
  e[high] = 0;
}
