import { InputError } from '../../errors.js';
import { createRandom } from '../../random.js';
import {
  type LoggedAdvantages,
  type Replay,
  type ReplayOptions,
  replayAdvantages,
  replayMultipliers,
} from './multiplier-replay.js';
import { UNSQUASHED_START } from './multipliers.js';
import { boxOf, type ProxyOptions, type ProxyPoints, proxyPoints } from './proxy-points.js';
import {
  drawSimplex,
  nearestScore,
  searchThresholds,
  type ThresholdSearch,
  type ThresholdSearchOptions,
  tableScore,
} from './threshold-search.js';
import type { DataBox, ScoredRuns } from './types.js';

export interface ReplayRequest {
  /** [updates, n] row-major. */
  readonly rewards: Float64Array;
  /** `individual`, `joint`, or one a reward. */
  readonly thresholds: 'individual' | 'joint' | Float64Array;
  readonly options: Omit<ReplayOptions, 'start'>;
  /** Raw multiplier of all rewards at the start, or one each; drawn (one draw for all) when absent. */
  readonly start?: Float64Array;
  readonly advantages?: LoggedAdvantages;
}

export interface SearchRequest {
  readonly options: Omit<ThresholdSearchOptions, 'range' | 'cacheTolerance'>;
  /** Of every reward; the box of the data when absent. */
  readonly range?: DataBox;
  /** Tolerance of the cache: a number in the units of the rewards, or a share of each range. */
  readonly cache: { readonly absolute: number } | { readonly share: number };
  readonly simplex?: readonly Float64Array[];
  /** Scores of points of thresholds, for the objective `table`. */
  readonly table?: ScoredRuns;
}

export interface RewardArguments {
  readonly names: readonly string[];
  readonly runs?: ScoredRuns;
  readonly proxy?: ProxyOptions;
  readonly replay?: ReplayRequest;
  readonly search?: SearchRequest;
  readonly seed: number;
}

/** The fitted surface where a plot needs it: on a grid over two rewards, the others held at the joint point. */
export interface SurfaceGrid {
  readonly columns: number;
  readonly rows: number;
  /** [rows, columns], rows from low to high y, at the centres of cells. */
  readonly values: Float64Array;
  readonly rewards: readonly [number, number];
}

export interface RewardResult {
  readonly proxy?: PlainProxy;
  readonly grid?: SurfaceGrid;
  /** [rows]: score of each run by the joint surface, and by a surface without it. */
  readonly predicted?: Float64Array;
  readonly leftOut?: Float64Array;
  readonly replay?: Replay & {
    readonly thresholds: Float64Array;
    readonly start: Float64Array;
    readonly mixed?: Float64Array;
  };
  readonly search?: ThresholdSearch & { readonly range: DataBox; readonly cacheTolerance: Float64Array };
  readonly warnings: readonly string[];
}

/** Proxy points without functions, which a thread cannot hand over. */
export interface PlainProxy extends Omit<ProxyPoints, 'individual' | 'joint'> {
  readonly individual: readonly PlainPoint[];
  readonly joint: PlainPoint;
}

export interface PlainPoint extends Omit<ProxyPoints['joint'], 'fitted'> {
  readonly quadratic?: {
    readonly coefficients: Float64Array;
    readonly eigenvalues: Float64Array;
    readonly negativeDefinite: boolean;
    readonly stationary?: Float64Array;
  };
  readonly process?: NonNullable<ProxyPoints['joint']['fitted']['process']>;
}

const GRID = 64;
/** A surface whose left-out R2 is below it says little about where it is highest. */
const POOR_R2 = 0.25;

/** Proxy points, multipliers and thresholds: a job in a thread of its own. */
export function analyseReward(args: RewardArguments, progress: (draws: number) => void): RewardResult {
  const { names, runs, proxy: proxyOptions, seed } = args;
  const n = names.length;
  const points = runs && proxyOptions && proxyPoints(runs, proxyOptions, progress);
  const surface = points?.joint.fitted.surface;
  const warnings = points === undefined ? [] : proxyWarnings(points, names);
  const replay = args.replay && replayOf(args.replay, points, seed, n);
  const search = args.search && searchOf(args.search, runs, points, seed);
  if (search?.next !== undefined) {
    const at = names.map((name, i) => `${name}=${search.next?.[i].toPrecision(6)}`).join(', ');
    warnings.push(`the table has no score at ${at}: evaluate there, add the row and run again`);
  }
  return {
    ...(points && { proxy: plainProxy(points) }),
    ...(runs &&
      surface && {
        predicted: runs.score.map((_, r) => surface.predict(runs.rewards.subarray(r * n, (r + 1) * n))),
        leftOut: points.joint.fitted.leftOut,
      }),
    ...(points && n > 1 && { grid: gridOf(points) }),
    ...(replay && { replay }),
    ...(search && { search }),
    warnings,
  };
}

function plainProxy(points: ProxyPoints): PlainProxy {
  const plain = ({ fitted, ...point }: ProxyPoints['joint']): PlainPoint => {
    const { quadratic, process } = fitted;
    return {
      ...point,
      ...(quadratic && {
        quadratic: {
          coefficients: quadratic.coefficients,
          eigenvalues: quadratic.eigenvalues,
          negativeDefinite: quadratic.negativeDefinite,
          ...(quadratic.stationary && { stationary: quadratic.stationary }),
        },
      }),
      ...(process && { process }),
    };
  };
  return { ...points, individual: points.individual.map(plain), joint: plain(points.joint) };
}

function proxyWarnings({ individual, joint }: ProxyPoints, names: readonly string[]): string[] {
  const warnings: string[] = [];
  individual.forEach((point, i) => {
    if (!point.interior) warnings.push(`${names[i]}: no interior optimum; the proxy point is ${point.status}`);
  });
  if (names.length > 1 && !joint.interior) {
    warnings.push(`no interior optimum of all rewards together; the joint proxy point is ${joint.status}`);
  }
  if (joint.leftOutR2 < POOR_R2) {
    warnings.push(
      `the surface explains ${(100 * Math.max(0, joint.leftOutR2)).toFixed(0)} % of the variance of runs left out: its proxy points say little`,
    );
  }
  return warnings;
}

function gridOf({ joint, box }: ProxyPoints): SurfaceGrid {
  const values = new Float64Array(GRID * GRID);
  const place = joint.point.slice();
  for (let r = 0; r < GRID; r++) {
    for (let c = 0; c < GRID; c++) {
      place[0] = box.low[0] + ((c + 0.5) / GRID) * (box.high[0] - box.low[0]);
      place[1] = box.low[1] + ((r + 0.5) / GRID) * (box.high[1] - box.low[1]);
      values[r * GRID + c] = joint.fitted.surface.predict(place);
    }
  }
  return { columns: GRID, rows: GRID, values, rewards: [0, 1] };
}

function replayOf(
  request: ReplayRequest,
  points: ProxyPoints | undefined,
  seed: number,
  n: number,
): RewardResult['replay'] {
  const thresholds =
    typeof request.thresholds !== 'string'
      ? request.thresholds
      : request.thresholds === 'joint'
        ? points?.joint.point
        : points && Float64Array.from(points.individual, ({ point }) => point[0]);
  if (thresholds === undefined)
    throw new InputError(`--thresholds ${String(request.thresholds)} needs a table of scored runs (--data)`);
  const { squash } = request.options;
  // The same draw for all constraints, as the released code has it.
  const drawn = squash === 'none' ? UNSQUASHED_START : 0.01 * createRandom(seed).fork(0x1a6).normal();
  const start = request.start ?? new Float64Array(n).fill(drawn);
  const replay = replayMultipliers(request.rewards, thresholds, { ...request.options, start });
  const mixed = request.advantages && replayAdvantages(request.advantages, replay);
  return { ...replay, thresholds, start, ...(mixed && { mixed }) };
}

function searchOf(
  { options, range: given, cache, simplex, table }: SearchRequest,
  runs: ScoredRuns | undefined,
  points: ProxyPoints | undefined,
  seed: number,
): RewardResult['search'] {
  const source = options.objective === 'table' ? table : runs;
  if (source === undefined) throw new InputError(`--search ${options.objective} needs a table of scored runs`);
  const range = given ?? boxOf(source.rewards, source.names.length);
  const cacheTolerance = range.low.map((low, i) =>
    'absolute' in cache ? cache.absolute : cache.share * (range.high[i] - low),
  );
  const surface = options.objective === 'nearest' ? nearestScore(source, range) : points?.joint.fitted.surface;
  if (options.objective === 'fit' && surface === undefined) throw new InputError('--search fit needs a fitted surface');
  const scoreOf =
    options.objective === 'table'
      ? tableScore(source, cacheTolerance)
      : (x: Float64Array): number | undefined => surface?.predict(x);
  const found = searchThresholds(scoreOf, simplex ?? drawSimplex(range, seed), { ...options, cacheTolerance });
  return { ...found, range, cacheTolerance };
}
