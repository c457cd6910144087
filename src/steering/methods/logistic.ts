import { InputError, RunError } from '../../errors.js';
import { multiply } from '../../kernels/gemm.js';
import { choleskyInPlace, solveRowsInPlace } from '../../linalg/blocked-cholesky.js';
import { dot, norm, unit } from '../vector-measures.js';
import { type ContrastMethod, checkPairs, pairDifferences } from './contrast.js';

/** Weight of the losses against |w|^2 / 2, as scikit-learn has it by default. */
const LOSS_WEIGHT = 1;
const MOST_STEPS = 100;
/** Newton decrement, relative to the objective, at which the fit ends. */
const TOLERANCE = 1e-14;

/** ln(1 + e^-m), without overflow. */
const softplusOfNegative = (m: number): number => (m > 0 ? Math.log1p(Math.exp(-m)) : Math.log1p(Math.exp(m)) - m);
/** 1 / (1 + e^m) */
const failure = (m: number): number => (m > 0 ? Math.exp(-m) / (1 + Math.exp(-m)) : 1 / (1 + Math.exp(m)));

function objective(w: Float64Array, margins: Float64Array): number {
  let loss = 0;
  for (const m of margins) loss += softplusOfNegative(m);
  return 2 * LOSS_WEIGHT * loss + dot(w, w) / 2;
}

/**
 * Newton step of the ridge-regularised fit at weights s: `(I + X' S X)^-1 r`, S = diag(s). With fewer rows than columns
 * by the identity of Woodbury, so that the system has the smaller of the two orders.
 */
function newtonStep(x: Float64Array, n: number, width: number, s: Float64Array, r: Float64Array): Float64Array {
  const rooted = x.map((value, at) => value * Math.sqrt(s[Math.floor(at / width)]));
  const order = Math.min(n, width);
  const wide = n < width;
  const system = multiply(
    rooted,
    rooted,
    new Float64Array(order * order),
    wide ? { m: n, n, k: width } : { m: width, n: width, k: n },
    wide ? { transposeB: true } : { transposeA: true },
  );
  for (let i = 0; i < order; i++) system[i * order + i] += 1;
  if (!choleskyInPlace(system, order)) throw new RunError('logistic: the Newton system is not positive definite');
  if (!wide) {
    const step = r.slice();
    solveRowsInPlace(system, order, step, 1);
    return step;
  }
  const inner = multiply(rooted, r, new Float64Array(n), { m: n, n: 1, k: width });
  solveRowsInPlace(system, order, inner, 1);
  const back = multiply(inner, rooted, new Float64Array(width), { m: 1, n: width, k: n });
  return r.map((value, i) => value - back[i]);
}

/**
 * Coefficients of the logistic regression of positive against negative on rows minus the midpoint of their pair, without
 * intercept and with |w|^2 / 2: the two rows of a pair are plus and minus half their difference x, so each pair counts
 * `2 ln(1 + e^(-w.x))`. Damped Newton steps; the objective is strictly convex.
 * @param halves half differences `[n, width]`
 */
export function fitPairedLogistic(halves: Float64Array, n: number, width: number): Float64Array {
  let w = new Float64Array(width);
  let margins = new Float64Array(n);
  let value = objective(w, margins);
  for (let step = 0; step < MOST_STEPS; step++) {
    const fails = margins.map(failure);
    const pull = multiply(fails, halves, new Float64Array(width), { m: 1, n: width, k: n });
    const residual = pull.map((entry, i) => 2 * LOSS_WEIGHT * entry - w[i]);
    const weights = fails.map((p) => 2 * LOSS_WEIGHT * p * (1 - p));
    const direction = newtonStep(halves, n, width, weights, residual);
    const decrement = dot(direction, residual);
    if (decrement <= TOLERANCE * Math.max(1, value)) return w;
    const along = multiply(halves, direction, new Float64Array(n), { m: n, n: 1, k: width });
    let length = 1;
    for (;;) {
      const nextW = w.map((entry, i) => entry + length * direction[i]);
      const nextMargins = margins.map((m, i) => m + length * along[i]);
      const nextValue = objective(nextW, nextMargins);
      if (nextValue <= value - 1e-4 * length * decrement || length < 1e-10) {
        w = nextW;
        margins = nextMargins;
        value = nextValue;
        break;
      }
      length /= 2;
    }
  }
  return w;
}

/** Logistic probe without intercept on rows centred by their pair, of length 1 (steering-vectors). */
export const LOGISTIC: ContrastMethod = {
  name: 'logistic',
  aliases: ['probe'],
  summary: 'logistic probe without intercept on rows minus the midpoint of their pair, of length 1',
  direction(rows) {
    checkPairs(rows);
    const halves = pairDifferences(rows).map((value) => value / 2);
    if (norm(halves) === 0)
      throw new InputError('logistic: the members of all pairs are equal, so there is no direction');
    const w = fitPairedLogistic(halves, rows.pairs, rows.width);
    return { vector: unit(w, 'logistic'), explainedVarianceRatio: null };
  },
};
