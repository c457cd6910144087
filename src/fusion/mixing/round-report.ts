import type { Cell } from '../../report/csv.js';
import { divergenceFromUniform, entropyNats } from './exponentiated-gradient.js';
import type { CourseRound, LossLine } from './training/course.js';

/** Columns of the table of rounds. */
export const MIX_COLUMNS = [
  'round',
  'step',
  'group',
  'loss_nats',
  'p',
  'eta_colsum',
  'entropy_p_nats',
  'kl_p_uniform_nats',
  'cond_w',
] as const;

/** Columns of a log of losses. */
export const LOG_COLUMNS = ['round', 'probe', 'probe_group', 'group', 'val_loss'] as const;

/** A round of a report. */
export interface RoundBody {
  readonly round: number;
  /** Steps before it; null in logged losses, which do not say. */
  readonly step: number | null;
  /** Losses of the groups before the update, nats. */
  readonly losses_nats: ArrayLike<number>;
  /** Proportions behind it. */
  readonly proportions: ArrayLike<number>;
  readonly entropy_p_nats: number;
  readonly kl_p_uniform_nats: number;
  /** eta times the column sums of A: what was added to the logarithms of the weights; null without an update. */
  readonly exponent: ArrayLike<number> | null;
  /** Row = evaluated group, column = trained group; as measured, and as used. */
  readonly A: readonly ArrayLike<number>[] | null;
  readonly A_used: readonly ArrayLike<number>[] | null;
  readonly cond_w: number | null;
  readonly signal_to_noise: number | null;
}

const rowsOf = (matrix: Float64Array | null | undefined, k: number): Float64Array[] | null =>
  matrix ? Array.from({ length: k }, (_, i) => matrix.slice(i * k, (i + 1) * k)) : null;

/** Rounds as a report tells them. */
export function roundBodies(k: number, rounds: readonly CourseRound[], withSteps = true): RoundBody[] {
  return rounds.map(({ step, losses, update, proportions }, round) => ({
    round,
    step: withSteps ? step : null,
    losses_nats: losses,
    proportions,
    entropy_p_nats: entropyNats(proportions),
    kl_p_uniform_nats: divergenceFromUniform(proportions),
    exponent: update?.exponent ?? null,
    A: rowsOf(update?.matrix, k),
    A_used: rowsOf(update?.used, k),
    cond_w: update?.condition ?? null,
    signal_to_noise: update?.signalToNoise ?? null,
  }));
}

/** Rows of the table, one a round and group. */
export function* mixRows(
  groups: readonly string[],
  rounds: readonly CourseRound[],
  withSteps = true,
): Generator<readonly Cell[]> {
  for (const body of roundBodies(groups.length, rounds, withSteps)) {
    for (let i = 0; i < groups.length; i++) {
      yield [
        body.round,
        body.step,
        groups[i],
        body.losses_nats[i],
        body.proportions[i],
        body.exponent?.[i],
        body.entropy_p_nats,
        body.kl_p_uniform_nats,
        body.cond_w,
      ];
    }
  }
}

/** Rows of a log of losses, in the form that `readLossLog` takes. */
export function* logRows(groups: readonly string[], log: readonly LossLine[]): Generator<readonly Cell[]> {
  for (const { round, probe, probed, losses } of log) {
    for (let i = 0; i < groups.length; i++) {
      yield [round, probe < 0 ? 'start' : probe, probed < 0 ? null : groups[probed], groups[i], losses[i]];
    }
  }
}
