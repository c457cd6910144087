import type { SymmetricOperator } from '../linalg/kernel-operator.js';
import { type SpectralFunction, traceFunctions } from '../linalg/lanczos-quadrature.js';
import type { SpectralSource } from './feature-source.js';
import type { KernelSource, QuadratureScores } from './kernel-source.js';

/** Nearer to order 1 than this, the trace of `x^q` less that of `x` is estimated, which keeps the digits of the score. */
const NEAR_ONE = 1e-3;

export interface QuadratureSettings {
  readonly probes: number;
  readonly seed: number;
  readonly threads: number;
  readonly maxMemoryBytes: number;
}

/** The trace that a score of order q needs, and the score and its slope at that trace. */
interface TraceScore {
  readonly at: (eigenvalue: number) => number;
  readonly score: (trace: number) => number;
  readonly slope: (trace: number, score: number) => number;
}

const positive = (value: number, of: (x: number) => number): number => (value > 0 ? of(value) : 0);

function traceScore(q: number): TraceScore {
  if (q === 1) {
    return {
      at: (value) => positive(value, (x) => -x * Math.log(x)),
      score: Math.exp,
      slope: (_, score) => score,
    };
  }
  if (Math.abs(q - 1) < NEAR_ONE) {
    return {
      at: (value) => positive(value, (x) => x * Math.expm1((q - 1) * Math.log(x))),
      score: (trace) => Math.exp(Math.log1p(trace) / (1 - q)),
      slope: (trace, score) => score / ((1 - q) * (1 + trace)),
    };
  }
  return {
    at: (value) => positive(value, (x) => x ** q),
    score: (trace) => Math.exp(Math.log(trace) / (1 - q)),
    slope: (trace, score) => score / ((1 - q) * trace),
  };
}

/**
 * Scores from `tr f(K/n)` by stochastic Lanczos quadrature, with standard errors over the probes. Order infinity is the
 * largest Ritz value, which the largest eigenvalue can only exceed: an upper bound that Lanczos reaches first of all.
 * Order 0 has no estimate.
 */
export async function quadratureScores(
  operator: SymmetricOperator,
  orders: readonly number[],
  settings: QuadratureSettings,
): Promise<QuadratureScores> {
  const finite = orders.filter((q) => q > 0 && q < Number.POSITIVE_INFINITY);
  const parts = finite.map(traceScore);
  const functions = finite.map((q, i): SpectralFunction => ({ name: `order ${q}`, at: parts[i].at }));
  const { probes, seed, threads, maxMemoryBytes } = settings;
  const found = await traceFunctions(operator, functions, { probes, seed, threads, maxMemoryBytes });
  const scores = new Float64Array(orders.length).fill(Number.NaN);
  const standardErrors = new Float64Array(orders.length).fill(Number.NaN);
  orders.forEach((q, k) => {
    if (q === Number.POSITIVE_INFINITY) scores[k] = 1 / found.largest;
    const i = finite.indexOf(q);
    if (i < 0) return;
    const { value, standardError } = found.traces[i];
    scores[k] = parts[i].score(value);
    standardErrors[k] = Math.abs(parts[i].slope(value, scores[k])) * standardError;
  });
  return { scores, standardErrors };
}

/** What a source without a spectrum is made of. */
export interface OperatorSource {
  /** K/n, or the weighted matrix, as a product. */
  readonly operator: SymmetricOperator;
  /** The kernel over some items, small enough for a matrix. */
  subset(rows: Int32Array): Promise<KernelSource>;
}

const outOfReach = (what: string): RangeError =>
  new RangeError(`${what} needs a spectrum, which quadrature does not give`);

/** A kernel that is known by its products: scores by quadrature, subsamples by matrices of their own. */
export function quadratureSource({ operator, subset }: OperatorSource, settings: QuadratureSettings): SpectralSource {
  return {
    path: 'slq',
    items: operator.n,
    order: operator.n,
    async eigenvalues(rows) {
      if (!rows) throw outOfReach('a spectrum of all items');
      return (await subset(rows)).eigenvalues();
    },
    eigenvaluesWithout: async () => {
      throw outOfReach('leaving one out');
    },
    async squaredNorm() {
      if (!operator.squaredNorm) throw outOfReach('the norm');
      return operator.squaredNorm();
    },
    rowSquares: async () => {
      throw outOfReach('what every item adds');
    },
    parts: async () => {
      throw outOfReach('resampling');
    },
    leading: async () => undefined,
    quadrature: (orders) => quadratureScores(operator, orders, settings),
  };
}
