/** Coefficients and stopping rule of the search. */
export interface CachedSimplexOptions {
  /** Reflection, expansion, contraction, shrink: 1, 2, 0.5, 0.5. */
  readonly alpha?: number;
  readonly gamma?: number;
  readonly rho?: number;
  readonly sigma?: number;
  /** The search has converged when, behind a shrink, the population deviation of the values is below it (0.01). */
  readonly tolerance?: number;
  /** A pass begins only while fewer points than this have been evaluated; the first one always does. */
  readonly maxEvaluations: number;
  /** A point that is nearer than this to an earlier one in every coordinate has its value: one for all, or [n] (0.005). */
  readonly cacheTolerance?: number | ArrayLike<number>;
}

export interface EvaluatedPoint {
  readonly x: Float64Array;
  readonly value: number;
}

export type SimplexStep = 'reflect' | 'expand' | 'contract' | 'shrink';

/** One pass: the simplex by ascending value as the pass found it, and what became of it. */
export interface SimplexPass {
  readonly vertices: readonly EvaluatedPoint[];
  readonly step: SimplexStep;
  /** Points evaluated before the pass. */
  readonly evaluations: number;
}

export interface CachedSimplexResult {
  readonly passes: readonly SimplexPass[];
  /** The simplex at the end: as its last step left it, not sorted. */
  readonly final: readonly Float64Array[];
  /** Points that were evaluated, in order; answers of the cache are not among them. */
  readonly evaluated: readonly EvaluatedPoint[];
  /** Questions that the cache answered for a point near an earlier one. */
  readonly nearAnswers: number;
  readonly converged: boolean;
  readonly best: EvaluatedPoint;
}

/**
 * Nelder and Mead's simplex as a training loop over thresholds runs it (Moskovitz et al. 2023, code): yields a point and takes
 * its value, which is minimised. It differs from {@link nelderMeadSearch} in what is accepted, because an evaluation is a
 * training run and is noisy: values are cached and shared by neighbours; an expansion is taken when it beats the best vertex,
 * though the reflection be better still; a contraction is always inside and must beat the worst vertex; convergence is tested
 * behind a shrink alone, by the deviation of the values.
 *
 * @param simplex n + 1 points of n coordinates
 * @throws RangeError for a simplex of another shape
 */
export function* cachedSimplexSearch(
  simplex: readonly ArrayLike<number>[],
  options: CachedSimplexOptions,
): Generator<Float64Array, CachedSimplexResult, number> {
  const n = simplex.length - 1;
  if (n < 1 || simplex.some((x) => x.length !== n)) {
    throw new RangeError(
      `a simplex of n coordinates has n + 1 points; ${simplex.length} of ${simplex[0]?.length} given`,
    );
  }
  const { alpha = 1, gamma = 2, rho = 0.5, sigma = 0.5, tolerance = 0.01, maxEvaluations } = options;
  const near = toleranceOf(options.cacheTolerance ?? 5e-3, n);
  const evaluated: EvaluatedPoint[] = [];
  let nearAnswers = 0;
  function* answerAt(x: Float64Array): Generator<Float64Array, number, number> {
    const same = evaluated.find((point) => point.x.every((value, i) => value === x[i]));
    if (same !== undefined) return same.value;
    // The first in the order of evaluation, not the nearest.
    const close = evaluated.find((point) => point.x.every((value, i) => Math.abs(value - x[i]) < near[i]));
    if (close !== undefined) {
      nearAnswers++;
      return close.value;
    }
    const answer = yield x.slice();
    const value = Number.isNaN(answer) ? Number.POSITIVE_INFINITY : answer;
    evaluated.push({ x, value });
    return value;
  }
  function* vertexAt(x: Float64Array): Generator<Float64Array, EvaluatedPoint, number> {
    return { x, value: yield* answerAt(x) };
  }
  let vertices: EvaluatedPoint[] = [];
  for (const x of simplex) vertices.push(yield* vertexAt(Float64Array.from(x)));
  const passes: SimplexPass[] = [];
  let converged = false;
  // The first simplex is part of the first pass: it is evaluated, and the pass made, whatever the budget.
  while (!converged && (passes.length === 0 || evaluated.length < maxEvaluations)) {
    const before = evaluated.length;
    const sorted = vertices.toSorted((a, b) => a.value - b.value);
    vertices = sorted.slice();
    const [best, worst] = [sorted[0], sorted[n]];
    const centroid = new Float64Array(n);
    for (let k = 0; k < n; k++) for (let i = 0; i < n; i++) centroid[i] += sorted[k].x[i];
    for (let i = 0; i < n; i++) centroid[i] /= n;
    let step: SimplexStep;
    const reflected = yield* vertexAt(centroid.map((c, i) => c + alpha * (c - worst.x[i])));
    if (best.value <= reflected.value && reflected.value < sorted[n - 1].value) {
      vertices[n] = reflected;
      step = 'reflect';
    } else if (reflected.value < best.value) {
      const expanded = yield* vertexAt(centroid.map((c, i) => c + gamma * (reflected.x[i] - c)));
      step = expanded.value < best.value ? 'expand' : 'reflect';
      vertices[n] = step === 'expand' ? expanded : reflected;
    } else {
      const contracted = yield* vertexAt(centroid.map((c, i) => c + rho * (worst.x[i] - c)));
      if (contracted.value < worst.value) {
        vertices[n] = contracted;
        step = 'contract';
      } else {
        step = 'shrink';
        for (let k = 1; k <= n; k++) {
          vertices[k] = yield* vertexAt(sorted[k].x.map((value, i) => best.x[i] + sigma * (value - best.x[i])));
        }
        converged = populationDeviation(vertices) < tolerance;
      }
    }
    passes.push({ vertices: sorted, step, evaluations: before });
  }
  const best = evaluated.reduce((least, point) => (point.value < least.value ? point : least), evaluated[0]);
  return { passes, final: vertices.map(({ x }) => x), evaluated, nearAnswers, converged, best };
}

function toleranceOf(given: number | ArrayLike<number>, n: number): ArrayLike<number> {
  return typeof given === 'number' ? new Float64Array(n).fill(given) : given;
}

function populationDeviation(vertices: readonly EvaluatedPoint[]): number {
  const mean = vertices.reduce((sum, { value }) => sum + value, 0) / vertices.length;
  return Math.sqrt(vertices.reduce((sum, { value }) => sum + (value - mean) ** 2, 0) / vertices.length);
}

/** The whole search with a function that answers at once. */
export function cachedSimplex(
  f: (x: Float64Array) => number,
  simplex: readonly ArrayLike<number>[],
  options: CachedSimplexOptions,
): CachedSimplexResult {
  const search = cachedSimplexSearch(simplex, options);
  let step = search.next();
  while (!step.done) step = search.next(f(step.value));
  return step.value;
}
