import type { ComputeReference } from '../kernels/compute-thread.js';
import { boxLaw, type CrossEntropyResult, crossEntropyMethod } from '../optimization/cross-entropy-method.js';
import { type RareEventResult, rareEventProbability } from '../optimization/rare-event.js';
import { gaussianLaw, mixtureLaw, type SamplingLaw } from '../optimization/sampling-law.js';
import { createRandom } from '../random.js';
import {
  type Basin,
  basinProposal,
  type ExactProbability,
  exactLineProbability,
  exactStripProbability,
  firstOrderProbability,
  type RareRegion,
  regionLaw,
} from './rare-zeros.js';
import {
  checkZetaBox,
  searchZeros,
  type ZeroSearchResult,
  type ZetaBox,
  type ZetaSearchSettings,
} from './zero-search.js';
import { gramTiles } from './zeros.js';
import { absoluteZeta, type PolishedZero, polishZero } from './zeta-function.js';

/** Where proposals of a rare event come from: basins of the zeros that were found, or levels without knowing them. */
export type ProposalKind = 'basins' | 'levels';

export const PROPOSAL_KINDS: readonly ProposalKind[] = ['basins', 'levels'];

export interface RareEventSettings {
  readonly eps: readonly number[];
  readonly proposal: ProposalKind;
  readonly regions: readonly RareRegion['kind'][];
  /** Points a level, for the estimate, and the elite share and smoothing of levels. */
  readonly samples: number;
  readonly finalSamples: number;
  readonly eliteShare: number;
  readonly smoothing: number;
  readonly maxLevels: number;
  readonly defensive: number;
}

export interface ZetaArguments {
  readonly mode: 'zeros' | 'optimize' | 'rare-event';
  readonly box: ZetaBox;
  readonly search: ZetaSearchSettings;
  readonly rareEvent?: RareEventSettings;
  /** Points of the landscape along t and sigma; 0 for none. */
  readonly grid: readonly [t: number, sigma: number];
}

/** One estimate of P(|zeta| < eps) beside what it should be. */
export interface ZetaEstimate {
  readonly region: RareRegion['kind'];
  readonly eps: number;
  readonly found: RareEventResult;
  /** Share of as many uniform draws, and its standard error by the exact or first-order probability. */
  readonly crude: number;
  readonly crudeRelativeError: number;
  /** Zeros within three deviations of a component of the proposal: what is left is seen by the defensive part alone. */
  readonly basinsCovered: number;
  readonly basins: number;
  readonly exact: ExactProbability;
  readonly firstOrder: number;
}

/** log10 |zeta| on a grid of the box: [t, sigma] row-major, at the centres of cells. */
export interface Landscape {
  readonly values: Float64Array;
  readonly columns: number;
  readonly rows: number;
}

export interface ZetaResult {
  readonly zeros?: ZeroSearchResult;
  readonly optimum?: CrossEntropyResult & { readonly polished: PolishedZero };
  readonly estimates: readonly ZetaEstimate[];
  readonly landscape?: Landscape;
}

/** Runs one mode of the zeta experiment; progress is a share of the work. Throws InputError for a box out of range. */
export function exploreZeta(args: ZetaArguments, progress: (value: unknown) => void): ZetaResult {
  const { mode, box, search } = args;
  checkZetaBox(box, mode !== 'optimize');
  const landscape = args.grid[0] > 0 ? landscapeOf(box, args.grid) : undefined;
  const shown = landscape && { landscape };
  if (mode === 'optimize') return { ...shown, optimum: optimum(box, search), estimates: [] };
  const zeros = searchZeros(box, search, progress);
  if (mode === 'zeros' || args.rareEvent === undefined) return { ...shown, zeros, estimates: [] };
  const settings = args.rareEvent;
  const estimates = settings.regions.flatMap((kind, r) =>
    settings.eps.map((eps, i) => {
      const region: RareRegion = kind === 'line' ? { kind, t: box.t } : { kind, sigma: box.sigma, t: box.t };
      return estimate(region, zeros, eps, settings, search.seed + 1 + r * settings.eps.length + i);
    }),
  );
  return { ...shown, zeros, estimates };
}

export const EXPLORE_ZETA: ComputeReference<ZetaArguments, ZetaResult> = {
  module: import.meta.url,
  job: exploreZeta,
};

function optimum(box: ZetaBox, search: ZetaSearchSettings): ZetaResult['optimum'] {
  const sides = { low: [box.sigma[0], box.t[0]], high: [box.sigma[1], box.t[1]] };
  const found = crossEntropyMethod((x) => -Math.log(absoluteZeta(x[0], x[1])), createRandom(search.seed), {
    ...search,
    law: boxLaw(sides),
    box: sides,
  });
  return { ...found, polished: polishZero(found.point[0], found.point[1]) };
}

/**
 * Proposals that know nothing of the zeros: a Gaussian over each Gram interval. Weights stay equal: free ones drift from
 * level to level, and a basin that has lost its component is lost silently.
 */
function tiledProposal(region: RareRegion): SamplingLaw {
  const edges = gramTiles(region.t[0], region.t[1]);
  const components = Array.from({ length: edges.length - 1 }, (_, i) => {
    const [centre, width] = [(edges[i] + edges[i + 1]) / 2, (edges[i + 1] - edges[i]) / 2];
    if (region.kind === 'line') return gaussianLaw([centre], [width]);
    const [low, high] = region.sigma;
    return gaussianLaw([(low + high) / 2, centre], [(high - low) / 2, width]);
  });
  return mixtureLaw(new Float64Array(components.length).fill(1), components, true);
}

function estimate(
  region: RareRegion,
  search: ZeroSearchResult,
  eps: number,
  settings: RareEventSettings,
  seed: number,
): ZetaEstimate {
  const line = region.kind === 'line';
  const size = (x: Float64Array): number => (line ? absoluteZeta(0.5, x[0]) : absoluteZeta(x[0], x[1]));
  const random = createRandom(seed);
  const nominal = regionLaw(region);
  const basins: Basin[] = search.zeros.map(({ sigma, t, slope }) => ({ sigma, t, slope }));
  const known = settings.proposal === 'basins' && basins.length > 0;
  const found = rareEventProbability((x) => -Math.log(size(x)), random.fork(0), {
    nominal,
    level: -Math.log(eps),
    proposal: known ? basinProposal(region, basins, eps) : tiledProposal(region),
    samples: settings.samples,
    finalSamples: settings.finalSamples,
    eliteShare: settings.eliteShare,
    smoothing: settings.smoothing,
    maxLevels: known ? 0 : settings.maxLevels,
    defensive: settings.defensive,
  });
  const crude = rareEventProbability((x) => -Math.log(size(x)), random.fork(1), {
    nominal,
    level: -Math.log(eps),
    finalSamples: found.draws,
    maxLevels: 0,
  });
  const exact: ExactProbability =
    region.kind === 'line'
      ? { value: exactLineProbability(region.t, eps) }
      : exactStripProbability(region, basins, eps);
  const firstOrder = firstOrderProbability(region, basins, eps);
  const p = exact.value ?? firstOrder;
  return {
    region: region.kind,
    eps,
    found,
    crude: crude.estimate,
    crudeRelativeError: Math.sqrt((1 - p) / (p * found.draws)),
    basinsCovered: basins.filter((basin) => isCovered(found.proposal, basin, line)).length,
    basins: basins.length,
    exact,
    firstOrder,
  };
}

/** Whether a zero lies within three deviations, in every coordinate, of a Gaussian of the proposal. */
function isCovered(law: SamplingLaw, { sigma, t }: Basin, line: boolean): boolean {
  if (law.kind === 'mixture')
    return law.components.some((component) => isCovered(component, { sigma, t, slope: 1 }, line));
  if (law.kind !== 'gaussian') return false;
  const point = line ? [t] : [sigma, t];
  return point.every((value, i) => Math.abs(value - law.mean[i]) <= 3 * law.deviation[i]);
}

function landscapeOf({ sigma, t }: ZetaBox, [columns, rows]: readonly [number, number]): Landscape {
  const values = new Float64Array(columns * rows);
  for (let row = 0; row < rows; row++) {
    const s = sigma[0] + ((sigma[1] - sigma[0]) * (row + 0.5)) / rows;
    for (let column = 0; column < columns; column++) {
      const height = t[0] + ((t[1] - t[0]) * (column + 0.5)) / columns;
      values[row * columns + column] = Math.log10(absoluteZeta(s, height));
    }
  }
  return { values, columns, rows };
}
