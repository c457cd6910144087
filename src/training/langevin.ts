import { InputError } from '../errors.js';
import type { Objective } from './objective.js';
import { type TrainHooks, type TrainResult, train } from './trainer.js';
import type { BatchSource, Student } from './types.js';

export interface LangevinSettings {
  /** eta of theta <- theta - (eta / 2) grad U + N(0, eta temperature). */
  readonly stepSize: number;
  /** Rows of the data that count: the mean gradient of a step stands for the sum over so many. */
  readonly dataCount: number;
  /** Steps before the first snapshot. */
  readonly burnIn: number;
  /** Steps between two snapshots; default 1. */
  readonly thinning?: number;
  readonly snapshots: number;
  /** Precision of the normal prior of every parameter; default 0, a flat one. */
  readonly priorPrecision?: number;
  /** The posterior to the power 1 / temperature is sampled; default 1. */
  readonly temperature?: number;
  /** Micro-batches of a step; default 1. */
  readonly accumulate?: number;
  readonly seed: number;
  readonly threads?: number;
}

export interface LangevinHooks extends Pick<TrainHooks, 'onStep' | 'warn' | 'stop' | 'checkpoints'> {
  /** While the student holds the values of snapshot `index`, 0-based, behind step `step`. */
  onSnapshot(index: number, step: number): void | Promise<void>;
}

/** What a report says beside figures of snapshots. */
export const LANGEVIN_BIAS =
  'Snapshots of unadjusted Langevin steps: none is rejected, so that their law differs from the posterior by an error ' +
  'that grows with the step size and with the noise of mini-batches.';

function checkSettings({ stepSize, burnIn, thinning = 1, snapshots }: LangevinSettings): void {
  if (!(stepSize > 0 && Number.isFinite(stepSize)))
    throw new InputError(`Langevin step size ${stepSize}: must be above 0`);
  if (!(Number.isInteger(burnIn) && burnIn >= 0))
    throw new InputError(`burn-in of ${burnIn} steps: must be a whole number from 0 on`);
  for (const [name, value] of [
    ['thinning', thinning],
    ['snapshots', snapshots],
  ] as const) {
    if (!(Number.isInteger(value) && value >= 1))
      throw new InputError(`${name} ${value}: must be a whole number from 1 on`);
  }
}

/**
 * Stochastic gradient Langevin dynamics from the values that the student has: an approximate sample of the posterior
 * exp(-U), U = -log prior + sum of the losses of all rows, each snapshot of equal weight (Welling & Teh 2011; see
 * `LANGEVIN_BIAS`). The noise of step k is that of stream k of the seed.
 * @returns of the run of burnIn + snapshots * thinning steps; the student keeps the values of the last
 * @throws InputError for settings out of range; what `train` throws
 */
export async function sampleLangevin<Batch>(
  student: Student<Batch>,
  source: BatchSource<Batch>,
  objective: Objective<Batch>,
  settings: LangevinSettings,
  hooks: LangevinHooks,
): Promise<TrainResult> {
  checkSettings(settings);
  const { stepSize, burnIn, thinning = 1, snapshots, dataCount, priorPrecision, temperature, seed } = settings;
  const { onSnapshot, onStep, ...others } = hooks;
  return await train(
    student,
    source,
    objective,
    {
      steps: burnIn + snapshots * thinning,
      accumulate: settings.accumulate,
      optimizer: { method: 'sgld', dataCount, priorPrecision, temperature, seed },
      schedule: { learningRate: stepSize },
      threads: settings.threads,
    },
    {
      ...others,
      async onStep(record) {
        await onStep?.(record);
        const since = record.step - burnIn;
        if (since > 0 && since % thinning === 0) await onSnapshot(since / thinning - 1, record.step);
      },
    },
  );
}
