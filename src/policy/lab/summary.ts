import type { LabRun } from './types.js';

/** A mean over seeds with its standard error, NaN for one seed. */
export interface SeedMean {
  readonly mean: number;
  readonly standardError: number;
}

/** Mean over seeds and its standard error, s / sqrt(n). */
export function seedMean(values: readonly number[]): SeedMean {
  const n = values.length;
  const mean = values.reduce((sum, value) => sum + value, 0) / n;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, standardError: n > 1 ? Math.sqrt(squares / (n - 1) / n) : Number.NaN };
}

/** All runs of one method, one a seed, in the order of the seeds. */
export interface MethodRuns<R extends LabRun = LabRun> {
  readonly label: string;
  readonly runs: readonly R[];
}

/** Runs by method, in the order in which methods appear. */
export function byMethod<R extends LabRun>(runs: readonly R[]): MethodRuns<R>[] {
  const methods = new Map<string, R[]>();
  for (const run of runs) {
    const members = methods.get(run.method.label) ?? [];
    methods.set(run.method.label, members);
    members.push(run);
  }
  return [...methods].map(([label, members]) => ({
    label,
    runs: members.sort((one, other) => one.seed - other.seed),
  }));
}

/** One cell of the table: entropy and success at a step, also against the plain rule on the same seeds. */
export interface TableCell {
  readonly step: number;
  /** Nats. */
  readonly entropy: SeedMean;
  readonly success: SeedMean;
  /** Mean entropy as a multiple of the plain rule's. */
  readonly entropyRatio?: SeedMean;
  /** Success less the plain rule's, seed by seed. */
  readonly successGain?: SeedMean;
}

/** Ratio of two means over paired seeds, its error by the delta method on the pairs. */
export function ratioOfMeans(numerator: readonly number[], denominator: readonly number[]): SeedMean {
  const below = seedMean(denominator).mean;
  const ratio = seedMean(numerator).mean / below;
  const residuals = numerator.map((value, i) => (value - ratio * denominator[i]) / below);
  return { mean: ratio, standardError: seedMean(residuals).standardError };
}

/** A method at some steps. */
export function tableCells(method: MethodRuns, plain: MethodRuns | undefined, steps: readonly number[]): TableCell[] {
  const at = ({ runs }: MethodRuns, name: 'entropy' | 'success', step: number) =>
    runs.map(({ curves }) => curves[name][step]);
  return steps.map((step) => {
    const entropies = at(method, 'entropy', step);
    const successes = at(method, 'success', step);
    const cell = { step, entropy: seedMean(entropies), success: seedMean(successes) };
    if (plain === undefined || plain === method) return cell;
    const plainSuccess = at(plain, 'success', step);
    return {
      ...cell,
      entropyRatio: ratioOfMeans(entropies, at(plain, 'entropy', step)),
      successGain: seedMean(successes.map((value, i) => value - plainSuccess[i])),
    };
  });
}

/** A curve averaged over seeds, step by step. */
export function meanCurve(curves: readonly Float64Array[]): { mean: Float64Array; standardError: Float64Array } {
  const steps = curves[0].length;
  const mean = new Float64Array(steps);
  const standardError = new Float64Array(steps);
  for (let s = 0; s < steps; s++) {
    const found = seedMean(curves.map((curve) => curve[s]));
    mean[s] = found.mean;
    standardError[s] = found.standardError;
  }
  return { mean, standardError };
}
