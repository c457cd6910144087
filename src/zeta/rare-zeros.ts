import { brentRoot } from '../linalg/brent.js';
import { gaussianLaw, mixtureLaw, type SamplingLaw, uniformLaw } from '../optimization/sampling-law.js';
import { hardyZ } from './riemann-siegel.js';
import { zerosOnLine } from './zeros.js';
import { zetaWithDerivative } from './zeta-function.js';

/** P(|zeta(s)| < eps) with s uniform on a segment of the critical line, or on a rectangle. */
export type RareRegion =
  | { readonly kind: 'line'; readonly t: readonly [low: number, high: number] }
  | {
      readonly kind: 'strip';
      readonly sigma: readonly [low: number, high: number];
      readonly t: readonly [low: number, high: number];
    };

/** A simple zero of the region and the modulus of zeta' there. */
export interface Basin {
  readonly sigma: number;
  readonly t: number;
  readonly slope: number;
}

/** The law that the probability is meant under. */
export function regionLaw(region: RareRegion): SamplingLaw {
  const { t } = region;
  return region.kind === 'line'
    ? uniformLaw([t[0]], [t[1]])
    : uniformLaw([region.sigma[0], t[0]], [region.sigma[1], t[1]]);
}

const sizeOf = (region: RareRegion): number =>
  (region.t[1] - region.t[0]) * (region.kind === 'line' ? 1 : region.sigma[1] - region.sigma[0]);

/** Leading order in eps: sum of 2 eps / |zeta'| (line) or of pi eps^2 / |zeta'|^2 (strip) over the size of the region. */
export function firstOrderProbability(region: RareRegion, basins: readonly Basin[], eps: number): number {
  const sum = basins.reduce(
    (total, { slope }) => total + (region.kind === 'line' ? (2 * eps) / slope : Math.PI * (eps / slope) ** 2),
    0,
  );
  return sum / sizeOf(region);
}

/** Points of the grid on which crossings of |Z| = eps are bracketed, a unit of t. */
const GRID = 32;

/**
 * P(|zeta(1/2 + it)| < eps), t uniform on (a, b): the length of the set, from crossings of |Z| = eps bracketed between the
 * zeros and the points of a grid, each refined by Brent's method.
 */
export function exactLineProbability(t: readonly [number, number], eps: number): number {
  const [a, b] = t;
  // The zeros are points of the grid: a basin narrower than the grid is not missed.
  const { ordinates } = zerosOnLine(a, b);
  const edges = Array.from({ length: Math.ceil(GRID * (b - a)) + 1 }, (_, i) => Math.min(b, a + i / GRID));
  const points = Float64Array.from([...edges, b, ...ordinates]).sort();
  const excess = (x: number): number => Math.abs(hardyZ(x)) - eps;
  let length = 0;
  let left = points[0];
  let atLeft = excess(left);
  for (let i = 1; i < points.length; i++) {
    const right = points[i];
    if (right === left) continue;
    const atRight = excess(right);
    if (atLeft < 0 && atRight < 0) length += right - left;
    else if (atLeft < 0 !== atRight < 0) {
      const crossing = brentRoot(excess, left, right, 1e-15, atLeft, atRight)?.x ?? right;
      length += atLeft < 0 ? crossing - left : right - crossing;
    }
    left = right;
    atLeft = atRight;
  }
  return length / (b - a);
}

interface BasinShape {
  readonly area: number;
  readonly reach: { readonly sigma: readonly [number, number]; readonly t: readonly [number, number] };
}

/** Points of the circle |w| = eps that are drawn back. */
const CIRCLE = 128;

/**
 * The preimage of |w| < eps around a zero, from the inverse power series h(w) = sum a_n w^n: its boundary h(eps e^(i phi))
 * followed by Newton, the coefficients by a discrete Fourier transform, the area pi sum n |a_n|^2 eps^2n. Undefined where
 * the series does not converge: the basin has met another one or a critical point.
 */
function basinArea(basin: Basin, eps: number): BasinShape | undefined {
  const re = new Float64Array(CIRCLE);
  const im = new Float64Array(CIRCLE);
  const first = zetaWithDerivative(basin.sigma, basin.t).derivative;
  const norm = first.re ** 2 + first.im ** 2;
  let sigma = basin.sigma + (eps * first.re) / norm;
  let t = basin.t - (eps * first.im) / norm;
  for (let j = 0; j <= CIRCLE; j++) {
    const angle = (2 * Math.PI * j) / CIRCLE;
    let converged = false;
    for (let step = 0; step < 30 && !converged; step++) {
      const { value, derivative } = zetaWithDerivative(sigma, t);
      const [dr, di] = [value.re - eps * Math.cos(angle), value.im - eps * Math.sin(angle)];
      const size = derivative.re ** 2 + derivative.im ** 2;
      sigma -= (dr * derivative.re + di * derivative.im) / size;
      t -= (di * derivative.re - dr * derivative.im) / size;
      converged = Math.hypot(dr, di) < 1e-12 * eps + 2e-14;
    }
    if (!converged) return undefined;
    if (j === CIRCLE) {
      // The boundary must close; where it does not, another sheet was reached.
      if (Math.hypot(sigma - basin.sigma - re[0], t - basin.t - im[0]) > 1e-6 * Math.hypot(re[0], im[0]))
        return undefined;
      break;
    }
    re[j] = sigma - basin.sigma;
    im[j] = t - basin.t;
  }
  let area = 0;
  let last = 0;
  for (let n = -CIRCLE / 2; n < CIRCLE / 2; n++) {
    let sumRe = 0;
    let sumIm = 0;
    for (let j = 0; j < CIRCLE; j++) {
      const phase = (-2 * Math.PI * ((n * j) % CIRCLE)) / CIRCLE;
      sumRe += re[j] * Math.cos(phase) - im[j] * Math.sin(phase);
      sumIm += re[j] * Math.sin(phase) + im[j] * Math.cos(phase);
    }
    const weight = (n * (sumRe ** 2 + sumIm ** 2)) / CIRCLE ** 2;
    area += weight;
    if (n === CIRCLE / 2 - 1 || n === -CIRCLE / 2) last = Math.max(last, Math.abs(weight));
  }
  area *= Math.PI;
  if (last * Math.PI > 1e-10 * area) return undefined;
  const reach = (values: Float64Array, centre: number): [number, number] => [
    centre + Math.min(...values),
    centre + Math.max(...values),
  ];
  return { area, reach: { sigma: reach(re, basin.sigma), t: reach(im, basin.t) } };
}

/** Half-widths below which the next term of the area, of relative order eps^2, is lost in rounding. */
const NEGLIGIBLE_BEND = 1e-6;

function discOf({ sigma, t, slope }: Basin, eps: number): BasinShape {
  const radius = eps / slope;
  return {
    area: Math.PI * radius ** 2,
    reach: { sigma: [sigma - radius, sigma + radius], t: [t - radius, t + radius] },
  };
}

/** An exact value, or why there is none. */
export type ExactProbability = { readonly value: number } | { readonly value: undefined; readonly reason: string };

/** P(|zeta(s)| < eps) on a rectangle, where every basin is whole and apart from the others. */
export function exactStripProbability(
  region: Extract<RareRegion, { kind: 'strip' }>,
  basins: readonly Basin[],
  eps: number,
): ExactProbability {
  let total = 0;
  for (const basin of basins) {
    const found = eps / basin.slope < NEGLIGIBLE_BEND ? discOf(basin, eps) : basinArea(basin, eps);
    const where = `the basin of the zero at t = ${basin.t.toFixed(6)}`;
    if (!found) return { value: undefined, reason: `${where} has merged with another` };
    const { sigma, t } = found.reach;
    const cut = sigma[0] < region.sigma[0] || sigma[1] > region.sigma[1] || t[0] < region.t[0] || t[1] > region.t[1];
    if (cut) return { value: undefined, reason: `${where} is cut by the edge of the box` };
    total += found.area;
  }
  return { value: total / sizeOf(region) };
}

/** Deviation of a basin's Gaussian over its half-width eps / |zeta'|: near the least variance of the weights. */
const BASIN_WIDTH = 0.6;

/**
 * Proposal with one Gaussian a basin, as wide as the basin and weighted by its first-order share of the probability. The
 * estimator mixes in a defensive uniform part.
 */
export function basinProposal(region: RareRegion, basins: readonly Basin[], eps: number): SamplingLaw {
  const line = region.kind === 'line';
  const components = basins.map(({ sigma, t, slope }) => {
    const width = (BASIN_WIDTH * eps) / slope;
    return line ? gaussianLaw([t], [width]) : gaussianLaw([sigma, t], [width, width]);
  });
  const weights = basins.map(({ slope }) => (line ? 1 / slope : 1 / slope ** 2));
  return mixtureLaw(weights, components);
}
