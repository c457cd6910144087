/** Coefficients and stopping rule of the simplex search. */
export interface NelderMeadOptions {
  /** Edge of the first simplex along every axis, or one a coordinate (default 0.1 * max(1, |x|)). */
  readonly step?: number | ArrayLike<number>;
  /** Evaluations at most (default 200 a dimension). */
  readonly maxEvaluations?: number;
  /** Stop when the values of the simplex and its points spread less than this (default 1e-10 each). */
  readonly valueTolerance?: number;
  readonly pointTolerance?: number;
  /** Coefficients that depend on the dimension (Gao & Han 2012): better from about ten dimensions on. */
  readonly adaptive?: boolean;
}

export interface NelderMeadResult {
  readonly point: Float64Array;
  readonly value: number;
  readonly evaluations: number;
  /** False when the evaluations ran out first. */
  readonly converged: boolean;
}

interface Vertex {
  readonly x: Float64Array;
  readonly value: number;
}

/**
 * Minimises a function of n variables without derivatives (Nelder & Mead 1965): reflection 1, expansion 2, contraction
 * 1/2, shrink 1/2. NaN counts as plus infinity. Deterministic.
 * @param f called with a scratch array that it must not keep
 */
export function nelderMead(
  f: (x: Float64Array) => number,
  start: ArrayLike<number>,
  options: NelderMeadOptions = {},
): NelderMeadResult {
  const search = nelderMeadSearch(start, options);
  let step = search.next();
  while (!step.done) step = search.next(f(step.value));
  return step.value;
}

/** The same as questions and answers: yields a point and takes its value, for functions that cannot answer at once. */
export function* nelderMeadSearch(
  start: ArrayLike<number>,
  options: NelderMeadOptions = {},
): Generator<Float64Array, NelderMeadResult, number> {
  const n = start.length;
  if (n === 0) throw new RangeError('a search needs at least one variable');
  const { maxEvaluations = 200 * n, valueTolerance = 1e-10, pointTolerance = 1e-10, adaptive = false } = options;
  const expansion = adaptive && n > 1 ? 1 + 2 / n : 2;
  const contraction = adaptive && n > 1 ? 0.75 - 1 / (2 * n) : 0.5;
  const shrink = adaptive && n > 1 ? 1 - 1 / n : 0.5;
  let evaluations = 0;
  function* vertexOf(x: Float64Array): Generator<Float64Array, Vertex, number> {
    evaluations++;
    const value = yield x;
    return { x, value: Number.isNaN(value) ? Number.POSITIVE_INFINITY : value };
  }
  const simplex = [yield* vertexOf(Float64Array.from(start))];
  for (let i = 0; i < n; i++) {
    const x = Float64Array.from(start);
    const { step } = options;
    x[i] += step === undefined ? 0.1 * Math.max(1, Math.abs(x[i])) : typeof step === 'number' ? step : step[i];
    simplex.push(yield* vertexOf(x));
  }
  const centroid = new Float64Array(n);
  const along = (coefficient: number): Generator<Float64Array, Vertex, number> => {
    const worst = simplex[n].x;
    return vertexOf(centroid.map((c, i) => c + coefficient * (worst[i] - c)));
  };
  let converged = false;
  for (;;) {
    simplex.sort((a, b) => a.value - b.value);
    let spread = 0;
    for (const { x } of simplex)
      for (let i = 0; i < n; i++) spread = Math.max(spread, Math.abs(x[i] - simplex[0].x[i]));
    converged = simplex[n].value - simplex[0].value <= valueTolerance && spread <= pointTolerance;
    if (converged || evaluations >= maxEvaluations) break;
    centroid.fill(0);
    for (let k = 0; k < n; k++) for (let i = 0; i < n; i++) centroid[i] += simplex[k].x[i] / n;
    const reflected = yield* along(-1);
    if (reflected.value < simplex[0].value) {
      const expanded = yield* along(-expansion);
      simplex[n] = expanded.value < reflected.value ? expanded : reflected;
      continue;
    }
    if (reflected.value < simplex[n - 1].value) {
      simplex[n] = reflected;
      continue;
    }
    const outside = reflected.value < simplex[n].value;
    const contracted = yield* along(outside ? -contraction : contraction);
    if (contracted.value < (outside ? reflected.value : simplex[n].value)) {
      simplex[n] = contracted;
      continue;
    }
    for (let k = 1; k <= n; k++) {
      simplex[k] = yield* vertexOf(
        simplex[k].x.map((value, i) => simplex[0].x[i] + shrink * (value - simplex[0].x[i])),
      );
    }
  }
  return { point: simplex[0].x, value: simplex[0].value, evaluations, converged };
}
