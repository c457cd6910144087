import type { Cell } from '../../report/csv.js';
import type { Variant } from './multiplier-replay.js';
import type { Interval } from './proxy-points.js';
import type { PlainPoint, PlainProxy, RewardArguments, RewardResult } from './reward-job.js';

/** Schema of the report. */
export const REWARD_SCHEMA = 'policy-reward';

/** Columns of the files. */
export const RUN_COLUMNS = (names: readonly string[]): string[] => [
  'row',
  ...names,
  'score',
  'predicted',
  'left_out',
  'residual',
];
export const MULTIPLIER_COLUMNS = [
  'update',
  'reward',
  'raw',
  'lam',
  'weight',
  'R',
  'theta',
  'violation',
  'divergence_weight',
  'gradient_norm',
  'clip',
] as const;
export const SIMPLEX_COLUMNS = (names: readonly string[]): string[] => [
  'pass',
  'vertex',
  ...names,
  'score',
  'step',
  'evaluations',
];
export const MIXED_COLUMNS = ['row', 'update', 'mixed_advantage'] as const;

/** What not to read into a search on logged evaluations. */
const SEARCH_CAUTION =
  'In training, the score of a point depends on the path to it: one policy goes on from threshold to threshold. Logged scores do not know that path.';
const REPLAY_CAUTION =
  'An open loop: the rewards are those that were logged, and do not answer the multipliers as a policy would.';

const pair = (interval: Interval | undefined) => (interval === undefined ? null : [interval.low, interval.high]);

function pointBody(point: PlainPoint) {
  const { quadratic, process } = point;
  return {
    point: point.point,
    intervals: point.intervals?.map(pair) ?? null,
    score: point.score,
    interior: point.interior,
    status: point.status,
    hull_distance: point.hullDistance,
    interior_share: point.interiorShare ?? null,
    rmse: point.rmse,
    r2: point.r2,
    left_out_rmse: point.leftOutRmse,
    left_out_r2: point.leftOutR2,
    quadratic:
      quadratic === undefined
        ? null
        : {
            coefficients: quadratic.coefficients,
            hessian_eigenvalues: quadratic.eigenvalues,
            negative_definite: quadratic.negativeDefinite,
            stationary: quadratic.stationary ?? null,
          },
    process:
      process === undefined
        ? null
        : {
            signal_variance: process.settings.signalVariance,
            lengths: process.settings.lengths,
            noise_variance: process.settings.noiseVariance,
            log_likelihood: process.logLikelihood,
          },
  };
}

function proxyBody(proxy: PlainProxy, names: readonly string[], rows: number, smoother: string, level: number) {
  const n = names.length;
  return {
    rows,
    smoother,
    level,
    draws: proxy.draws,
    redrawn: proxy.redrawn,
    box: names.map((_, i) => [proxy.box.low[i], proxy.box.high[i]]),
    individual: names.map((name, i) => ({ reward: name, ...pointBody(proxy.individual[i]) })),
    joint: pointBody(proxy.joint),
    shift: names.map((name, i) => ({ reward: name, shift: proxy.shift[i], interval: pair(proxy.shiftIntervals?.[i]) })),
    correlation: names.flatMap((first, i) =>
      names.slice(0, i).map((second, j) => ({
        rewards: [second, first],
        pearson: proxy.correlation[i * n + j],
        interval: pair(proxy.correlationIntervals?.[i * n + j]),
      })),
    ),
  };
}

function replayBody(
  replay: NonNullable<RewardResult['replay']>,
  names: readonly string[],
  variant: Variant,
  squash: string,
) {
  const { updates, thresholds, start } = replay;
  const n = names.length;
  const tail = Math.max(1, Math.floor(updates / 10));
  return {
    variant,
    squash,
    updates,
    final_divergence_weight: replay.divergence[updates - 1],
    clipped_updates: replay.clip.filter((clip) => clip < 1).length,
    rewards: names.map((reward, i) => {
      const column = (matrix: Float64Array): Float64Array => matrix.filter((_, at) => at % n === i);
      const violation = column(replay.violation);
      const last = violation.subarray(updates - tail);
      return {
        reward,
        threshold: thresholds[i],
        raw_start: start[i],
        final_raw: column(replay.raw)[updates - 1],
        final_multiplier: column(replay.multiplier)[updates - 1],
        final_weight: column(replay.weight)[updates - 1],
        final_violation: violation[updates - 1],
        mean_violation_last_tenth: last.reduce((sum, value) => sum + value, 0) / last.length,
        share_above: violation.filter((value) => value > 0).length / updates,
      };
    }),
    caution: REPLAY_CAUTION,
  };
}

function searchBody(search: NonNullable<RewardResult['search']>, names: readonly string[], objective: string) {
  const byName = (x: ArrayLike<number>) => Object.fromEntries(names.map((name, i) => [name, x[i]]));
  const { best, next, range } = search;
  const inside =
    best && names.every((_, i) => best.thresholds[i] >= range.low[i] && best.thresholds[i] <= range.high[i]);
  return {
    objective,
    range: names.map((reward, i) => ({
      reward,
      low: range.low[i],
      high: range.high[i],
      cache_tolerance: search.cacheTolerance[i],
    })),
    evaluations: search.evaluated.length,
    passes: search.passes.length,
    cache_answers: search.nearAnswers,
    converged: search.converged,
    best:
      best === undefined
        ? null
        : { thresholds: byName(best.thresholds), score: best.score, inside_range: inside === true },
    next: next === undefined ? null : byName(next),
    evaluated: search.evaluated.map(({ thresholds, score }) => ({ thresholds: byName(thresholds), score })),
    caution: SEARCH_CAUTION,
  };
}

/** Body of the report; parts that were not asked for are null. */
export function rewardBody(args: RewardArguments, result: RewardResult, warnings: readonly string[]) {
  const { names, runs, proxy, replay, search } = args;
  return {
    rewards: [...names],
    proxy:
      result.proxy && runs && proxy ? proxyBody(result.proxy, names, runs.rows, proxy.smoother, proxy.level) : null,
    multipliers:
      result.replay && replay ? replayBody(result.replay, names, replay.options.variant, replay.options.squash) : null,
    search: result.search && search ? searchBody(result.search, names, search.options.objective) : null,
    warnings: [...warnings],
  };
}

/** Rows of the table of runs. */
export function* runRows(
  { names, runs }: RewardArguments,
  { predicted, leftOut }: RewardResult,
): Generator<readonly Cell[]> {
  if (runs === undefined) return;
  const n = names.length;
  for (let r = 0; r < runs.rows; r++) {
    const said = predicted?.[r];
    yield [
      ...[r + 1, ...runs.rewards.subarray(r * n, (r + 1) * n), runs.score[r], said, leftOut?.[r]],
      said === undefined ? undefined : runs.score[r] - said,
    ];
  }
}

/** Rows of multipliers.csv: one an update and reward. `updates` names the updates as the log does. */
export function* multiplierRows(
  { names, replay: request }: RewardArguments,
  { replay }: RewardResult,
  updates: ArrayLike<number>,
): Generator<readonly Cell[]> {
  if (replay === undefined || request === undefined) return;
  const n = names.length;
  for (let u = 0; u < replay.updates; u++) {
    for (let i = 0; i < n; i++) {
      const at = u * n + i;
      yield [
        ...[updates[u], names[i], replay.raw[at], replay.multiplier[at], replay.weight[at], request.rewards[at]],
        ...[replay.thresholds[i], replay.violation[at], replay.divergence[u], replay.gradientNorm[u], replay.clip[u]],
      ];
    }
  }
}

/** Rows of simplex.csv: the vertices of every pass, best first. */
export function* simplexRows({ search }: RewardResult): Generator<readonly Cell[]> {
  for (const [pass, { vertices, step, evaluations }] of (search?.passes ?? []).entries()) {
    for (const [k, { x, value }] of vertices.entries()) yield [pass + 1, k + 1, ...x, -value, step, evaluations];
  }
}

/** Rows of the mixed advantages. */
export function* mixedRows({ replay }: RewardResult, updates: ArrayLike<number>): Generator<readonly Cell[]> {
  for (const [row, value] of (replay?.mixed ?? new Float64Array(0)).entries()) yield [row + 1, updates[row], value];
}
