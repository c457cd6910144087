import type { CrossEntropyResult, CrossEntropyRound } from '../optimization/cross-entropy-method.js';
import { lawSummary } from '../optimization/law-summary.js';
import type { RareEventLevel, RareEventResult } from '../optimization/rare-event.js';
import type { SearchAssignment } from '../optimization/search-space.js';
import type { Cell } from '../report/csv.js';
import type { FoundZero, ZetaBox } from './zero-search.js';
import type { ZetaEstimate, ZetaResult } from './zeta-job.js';

export const ZETA_SCHEMA = 'steer-zeta';

/** What a reader must not take the figures for. */
export const ZETA_NOTICE =
  'numerical exploration of the box that was searched; no evidence about the Riemann hypothesis outside it';

/** Columns of `--out` before those of the coordinates: one row a round of a search or a level of an estimate. */
const ROUND_COLUMNS = [
  'search',
  'run',
  'round',
  'gamma',
  'round_best',
  'best',
  'scored',
  'elite',
  'law_entropy_nats',
  'kl_to_previous_nats',
] as const;

export const roundColumns = (names: readonly string[]): string[] => [
  ...ROUND_COLUMNS,
  ...names.flatMap((name) => [`${name}_centre`, `${name}_spread`]),
];

/** Columns of `--table` of zeros. */
export const ZERO_COLUMNS = [
  'number_in_box',
  'sigma',
  't',
  'absolute_zeta',
  'absolute_derivative',
  'absolute_zeta_before_newton',
  'pass',
  'tile',
] as const;

/** Columns of `--table` of estimates. */
export const ESTIMATE_COLUMNS = [
  'region',
  'eps',
  'level',
  'estimate',
  'standard_error',
  'relative_error',
  'draws',
  'hits',
  'effective_sample_size',
  'event_effective_sample_size',
  'largest_weight_share',
  'exact',
  'first_order',
  'crude_estimate',
  'crude_relative_error',
] as const;

/** @param places coordinates of the table that the law's own coordinates stand in */
function coordinateCells(law: CrossEntropyRound['law'], names: readonly string[], places: readonly string[]): Cell[] {
  const summary = lawSummary(law);
  return names.flatMap((name): Cell[] => {
    const own = summary[places.indexOf(name)];
    return own ? [own.centre, own.spread] : ['', ''];
  });
}

export function roundRow(search: string, round: CrossEntropyRound, names: readonly string[]): Cell[] {
  const { run, threshold, roundBest, best, scored, elite, entropyNats, divergenceNats, law } = round;
  const own = [search, run, round.round, threshold, roundBest, best, scored, elite, entropyNats, divergenceNats];
  return [...own, ...coordinateCells(law, names, names)];
}

export function levelRow(
  search: string,
  index: number,
  level: RareEventLevel,
  names: readonly string[],
  places = names,
): Cell[] {
  const { best, elite, entropyNats, divergenceNats, law } = level;
  const own = [search, 0, index, level.level, best, best, '', elite, entropyNats, divergenceNats];
  return [...own, ...coordinateCells(law, names, places)];
}

/** Rounds of every search of a run on zeta. */
export function* zetaRoundRows(result: ZetaResult): Generator<Cell[]> {
  const names = ['sigma', 't'];
  for (const round of result.optimum?.rounds ?? []) yield roundRow('optimize', round, names);
  for (const { pass, tile, round } of result.zeros?.rounds ?? []) {
    yield roundRow(`pass ${pass} tile ${tile}`, round, names);
  }
  for (const { region, eps, found } of result.estimates) {
    const places = region === 'line' ? ['t'] : names;
    for (const [i, level] of found.levels.entries()) yield levelRow(`${region} eps ${eps}`, i, level, names, places);
  }
}

export const zeroRows = (zeros: readonly FoundZero[]): Cell[][] =>
  zeros.map((zero, i) => [
    i + 1,
    zero.sigma,
    zero.t,
    zero.absoluteValue,
    zero.slope,
    zero.absoluteBeforeNewton,
    zero.pass,
    zero.tile,
  ]);

export const estimateRows = (rows: readonly EstimateBody[]): Cell[][] =>
  rows.map((row) => ESTIMATE_COLUMNS.map((column): Cell => row[column] ?? ''));

export type EstimateBody = ReturnType<typeof estimateBody>;

/** The figures of one estimate; what a score other than zeta has no value for is null. */
export function estimateBody(found: RareEventResult, level: number, zeta?: ZetaEstimate) {
  return {
    region: zeta?.region ?? 'space',
    eps: zeta?.eps ?? null,
    level,
    estimate: found.estimate,
    standard_error: found.standardError,
    relative_error: found.relativeError,
    draws: found.draws,
    hits: found.hits,
    effective_sample_size: found.effectiveSampleSize,
    event_effective_sample_size: found.eventEffectiveSampleSize,
    largest_weight_share: found.largestWeightShare,
    levels: found.levels.length,
    reached: found.reached,
    basins: zeta?.basins ?? null,
    basins_covered: zeta?.basinsCovered ?? null,
    exact: zeta?.exact.value ?? null,
    no_exact_because: zeta && zeta.exact.value === undefined ? zeta.exact.reason : null,
    first_order: zeta?.firstOrder ?? null,
    crude_estimate: zeta?.crude ?? null,
    crude_relative_error: zeta?.crudeRelativeError ?? null,
  };
}

export function optimumBody(found: CrossEntropyResult, point: SearchAssignment): object {
  return {
    score: found.score,
    point,
    evaluations: found.evaluations,
    rounds: found.rounds.length,
    runs: found.runs,
    converged: found.converged,
  };
}

/** Sentences about what did not go as hoped. */
export function zetaWarnings({ zeros, optimum, estimates }: ZetaResult): string[] {
  const warnings: string[] = [];
  if (zeros && !zeros.complete) {
    warnings.push(`${zeros.zeros.length} zeros were found where the count is ${zeros.expected}`);
  }
  if (optimum && !optimum.polished.converged) {
    warnings.push('Newton did not reach a zero from the best point: the box may hold none');
  }
  for (const { region, eps, found, basins, basinsCovered } of estimates) {
    const where = `${region}, eps ${eps}`;
    if (!found.reached) warnings.push(`${where}: the levels ran out before |zeta| < eps`);
    if (found.hits === 0) warnings.push(`${where}: no draw fell in the event`);
    if (basinsCovered < basins) {
      warnings.push(
        `${where}: the proposal covers ${basinsCovered} of ${basins} basins; its standard error does not see the others`,
      );
    }
  }
  return warnings;
}

/** Body of the report of a run on zeta. */
export function zetaBody(result: ZetaResult, mode: string, box: ZetaBox): object {
  const { zeros, optimum, estimates } = result;
  return {
    mode,
    score: 'zeta',
    notice: ZETA_NOTICE,
    box: { sigma: [...box.sigma], t: [...box.t] },
    zeros: zeros
      ? {
          found: zeros.zeros.length,
          expected: zeros.expected,
          missed: zeros.missed.length,
          complete: zeros.complete,
          largest_distance_from_line: zeros.largestOffLine,
          largest_distance_from_known: zeros.largestDifference,
          tiles: zeros.tiles,
          passes: zeros.passes,
          evaluations: zeros.evaluations,
          missed_t: zeros.missed,
          rows: zeros.zeros.map((zero, i) => ({
            number_in_box: i + 1,
            sigma: zero.sigma,
            t: zero.t,
            absolute_zeta: zero.absoluteValue,
            absolute_derivative: zero.slope,
            absolute_zeta_before_newton: zero.absoluteBeforeNewton,
            pass: zero.pass,
            tile: zero.tile,
          })),
        }
      : null,
    optimum: optimum
      ? {
          ...optimumBody(optimum, { sigma: optimum.point[0], t: optimum.point[1] }),
          polished: {
            sigma: optimum.polished.sigma,
            t: optimum.polished.t,
            absolute_zeta: optimum.polished.absoluteValue,
            steps: optimum.polished.steps,
            converged: optimum.polished.converged,
          },
        }
      : null,
    estimates: estimates.map((row) => estimateBody(row.found, -Math.log(row.eps), row)),
    warnings: zetaWarnings(result),
  };
}
