import { didYouMean, InputError } from '../errors.js';

export const SCHEDULES = ['constant', 'cosine', 'linear'] as const;
export type ScheduleName = (typeof SCHEDULES)[number];

/** How the learning rate goes over the steps of a run. */
export interface ScheduleSettings {
  /** Default `constant`. */
  readonly schedule?: ScheduleName;
  /** The greatest learning rate. */
  readonly learningRate: number;
  /** Steps of linear warm-up from learningRate / warmupSteps; default 0. */
  readonly warmupSteps?: number;
  /** Steps of the whole run, warm-up included; `constant` needs none. */
  readonly totalSteps?: number;
  /** Share of `learningRate` at which `cosine` and `linear` end; default 0. */
  readonly finalShare?: number;
}

/** Learning rate of step s, 0-based. */
export type Schedule = (step: number) => number;

function checkSettings(settings: ScheduleSettings): void {
  const { schedule = 'constant', learningRate, warmupSteps = 0, totalSteps, finalShare = 0 } = settings;
  if (!(SCHEDULES as readonly string[]).includes(schedule))
    throw new InputError(
      `unknown schedule "${schedule}"${didYouMean(schedule, SCHEDULES)}; known: ${SCHEDULES.join(' ')}`,
    );
  if (!(learningRate >= 0 && Number.isFinite(learningRate)))
    throw new InputError(`learning rate ${learningRate}: must be a finite number from 0 on`);
  if (!(Number.isInteger(warmupSteps) && warmupSteps >= 0))
    throw new InputError(`warm-up of ${warmupSteps} steps: must be a whole number from 0 on`);
  if (!(finalShare >= 0 && finalShare <= 1)) throw new InputError(`final share ${finalShare}: must lie in [0, 1]`);
  if (schedule === 'constant') return;
  if (totalSteps === undefined || !(Number.isInteger(totalSteps) && totalSteps >= 1))
    throw new InputError(`schedule ${schedule}: needs the number of steps of the run, a whole number from 1 on`);
  if (warmupSteps > totalSteps)
    throw new InputError(`warm-up of ${warmupSteps} steps in a run of ${totalSteps}: shorten it`);
}

/**
 * lr (s + 1) / warmup during warm-up; behind it, with x = (s - warmup) / (total - warmup), lr for `constant`,
 * lr (1 + cos(pi x)) / 2 for `cosine` and lr (1 - x) for `linear`, the last two stretched to end at the final share.
 * @throws InputError for an unknown name or numbers out of range
 */
export function createSchedule(settings: ScheduleSettings): Schedule {
  checkSettings(settings);
  const { schedule = 'constant', learningRate, warmupSteps = 0, totalSteps = 0, finalShare = 0 } = settings;
  return (step) => {
    if (step < warmupSteps) return (learningRate * (step + 1)) / warmupSteps;
    if (schedule === 'constant') return learningRate;
    const x = Math.min(1, (step - warmupSteps) / Math.max(1, totalSteps - warmupSteps));
    const share = schedule === 'linear' ? 1 - x : 0.5 * (1 + Math.cos(Math.PI * x));
    return learningRate * (finalShare + (1 - finalShare) * share);
  };
}
