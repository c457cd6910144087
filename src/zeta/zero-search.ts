import { InputError } from '../errors.js';
import {
  boxLaw,
  type CrossEntropyOptions,
  type CrossEntropyRound,
  crossEntropyMethod,
} from '../optimization/cross-entropy-method.js';
import { createRandom } from '../random.js';
import { gramTiles, zerosOnLine } from './zeros.js';
import { absoluteZeta, polishZero } from './zeta-function.js';

/** A box of the complex plane. */
export interface ZetaBox {
  readonly sigma: readonly [low: number, high: number];
  readonly t: readonly [low: number, high: number];
}

/** How the cross-entropy method is run, but for what the box gives. */
export type ZetaSearchSettings = Omit<CrossEntropyOptions, 'law' | 'box' | 'target'> & { readonly seed: number };

export interface FoundZero {
  readonly sigma: number;
  readonly t: number;
  readonly absoluteValue: number;
  /** |zeta'| at the zero. */
  readonly slope: number;
  /** Pass and tile of the search that found it. */
  readonly pass: number;
  readonly tile: number;
  /** |zeta| where the search ended, before Newton's steps. */
  readonly absoluteBeforeNewton: number;
}

/** A round of the search of one tile. */
export interface TileRound {
  readonly pass: number;
  readonly tile: number;
  readonly round: CrossEntropyRound;
}

export interface ZeroSearchResult {
  /** By ordinate. */
  readonly zeros: readonly FoundZero[];
  /** Zeros that the box holds by the argument principle, N(b) - N(a). */
  readonly expected: number;
  /** Ordinates of zeros on the line, from sign changes of Z: what the search is compared with. */
  readonly known: Float64Array;
  /** Known ordinates that the search has not found. */
  readonly missed: Float64Array;
  /** Whether found = expected: nothing was missed. */
  readonly complete: boolean;
  /** max |sigma - 1/2| and max |t - nearest known|; NaN without zeros. */
  readonly largestOffLine: number;
  readonly largestDifference: number;
  readonly tiles: number;
  readonly passes: number;
  readonly evaluations: number;
  readonly rounds: readonly TileRound[];
}

/** Zeros nearer than this are one. */
const SAME_ZERO = 1e-6;
/** Passes over the gaps that are left before the search admits what it missed. */
const MOST_PASSES = 8;
/** Found zeros on each side of a gap that are divided out. */
const DEFLATED = 4;

/** Throws InputError for a box without width, with the pole in it, or outside what the method of a mode may see. */
export function checkZetaBox({ sigma, t }: ZetaBox, withinStrip: boolean): void {
  if (!(sigma[0] < sigma[1] && t[0] < t[1])) throw new InputError('the box has no width: sigma and t need low < high');
  if (sigma[0] <= 1 && sigma[1] >= 1 && t[0] <= 0 && t[1] >= 0) {
    throw new InputError('the box contains s = 1, where zeta has its pole; begin above t = 0');
  }
  if (withinStrip && (sigma[0] < 0 || sigma[1] > 1 || t[0] < 0)) {
    throw new InputError('zeros are counted in the critical strip: sigma must lie within 0,1 and t be positive');
  }
}

/**
 * All zeros of a box by the cross-entropy method on S = -ln |zeta|: one Gaussian finds one zero, so the box is divided at
 * the Gram points, every piece is searched by itself, and Newton's steps finish. Where the count of the argument principle is not
 * reached, the longest gaps between found zeros are searched again with these divided out of zeta.
 */
export function searchZeros(
  box: ZetaBox,
  settings: ZetaSearchSettings,
  onProgress?: (share: number) => void,
): ZeroSearchResult {
  checkZetaBox(box, true);
  const [low, high] = box.t;
  const reference = zerosOnLine(low, high);
  const onLine = box.sigma[0] <= 0.5 && box.sigma[1] >= 0.5;
  const expected = reference.expected - (onLine ? 0 : reference.ordinates.length);
  const random = createRandom(settings.seed);
  const zeros: FoundZero[] = [];
  const rounds: TileRound[] = [];
  let evaluations = 0;
  let tiles = 0;
  let pass = 0;

  const searchTile = (from: number, to: number): void => {
    const tile = tiles++;
    const near = pass === 0 ? [] : neighbours(zeros, from, to);
    const tileBox = { low: [box.sigma[0], from], high: [box.sigma[1], to] };
    const score = (x: Float64Array): number => {
      let value = -Math.log(absoluteZeta(x[0], x[1]));
      for (const zero of near) value += Math.log(Math.hypot(x[0] - zero.sigma, x[1] - zero.t));
      return value;
    };
    const found = crossEntropyMethod(score, random.fork(tile), { ...settings, law: boxLaw(tileBox), box: tileBox });
    evaluations += found.evaluations;
    for (const round of found.rounds) rounds.push({ pass, tile, round });
    const polished = polishZero(found.point[0], found.point[1]);
    if (!polished.converged || !isWithin(box, polished.sigma, polished.t)) return;
    if (zeros.some((zero) => Math.hypot(zero.sigma - polished.sigma, zero.t - polished.t) < SAME_ZERO)) return;
    zeros.push({
      sigma: polished.sigma,
      t: polished.t,
      absoluteValue: polished.absoluteValue,
      slope: polished.absoluteDerivative,
      pass,
      tile,
      absoluteBeforeNewton: absoluteZeta(found.point[0], found.point[1]),
    });
  };

  const edges = gramTiles(low, high);
  for (let i = 0; i + 1 < edges.length; i++) {
    searchTile(edges[i], edges[i + 1]);
    onProgress?.((i + 1) / (edges.length - 1));
  }
  for (pass = 1; pass < MOST_PASSES && zeros.length < expected; pass++) {
    const missing = expected - zeros.length;
    const ordinates = [low, ...zeros.map(({ t }) => t).sort((a, b) => a - b), high];
    const gaps = ordinates.slice(1).map((to, i) => [ordinates[i], to] as const);
    // Zeros thin out slowly: within a window the longest gaps are the likeliest to hide one.
    gaps.sort((a, b) => b[1] - b[0] - (a[1] - a[0]) || a[0] - b[0]);
    for (const [from, to] of gaps.slice(0, 2 * missing + 2 * pass)) if (to > from) searchTile(from, to);
  }
  zeros.sort((a, b) => a.t - b.t);
  return {
    zeros,
    expected,
    known: onLine ? reference.ordinates : new Float64Array(0),
    ...comparison(zeros, onLine ? reference.ordinates : new Float64Array(0)),
    complete: zeros.length === expected,
    tiles,
    passes: pass,
    evaluations,
    rounds,
  };
}

const isWithin = ({ sigma, t }: ZetaBox, s: number, height: number): boolean =>
  s >= sigma[0] - SAME_ZERO && s <= sigma[1] + SAME_ZERO && height >= t[0] && height <= t[1];

function neighbours(zeros: readonly FoundZero[], from: number, to: number): FoundZero[] {
  const below = zeros.filter(({ t }) => t <= from).sort((a, b) => b.t - a.t);
  const above = zeros.filter(({ t }) => t >= to).sort((a, b) => a.t - b.t);
  const within = zeros.filter(({ t }) => t > from && t < to);
  return [...within, ...below.slice(0, DEFLATED), ...above.slice(0, DEFLATED)];
}

function comparison(
  zeros: readonly FoundZero[],
  known: Float64Array,
): Pick<ZeroSearchResult, 'missed' | 'largestOffLine' | 'largestDifference'> {
  const distance = (t: number): number =>
    known.reduce((least, other) => Math.min(least, Math.abs(other - t)), Infinity);
  const worst = (values: readonly number[]): number => (values.length === 0 ? Number.NaN : Math.max(...values));
  return {
    missed: known.filter((t) => !zeros.some((zero) => Math.abs(zero.t - t) < SAME_ZERO)),
    largestOffLine: worst(zeros.map(({ sigma }) => Math.abs(sigma - 0.5))),
    largestDifference: known.length === 0 ? Number.NaN : worst(zeros.map(({ t }) => distance(t))),
  };
}
