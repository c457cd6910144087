import { InputError } from '../errors.js';
import { norm } from './vector-measures.js';

/**
 * What EAST needs to know of one run at one layer: T, sum h, sum (z - z0) and sum h (z - z0), in f64. z0 is the run's
 * first activation; the vector does not depend on it, but sums of large activations that differ little would lose digits.
 */
export interface RunSums {
  readonly run: string;
  steps: number;
  /** Sum of the action entropies, nats. */
  entropy: number;
  /** Smallest and largest entropy: a run where they are equal has no direction. */
  lowest: number;
  highest: number;
  /** z0 `[width]` */
  readonly origin: Float64Array;
  /** `[width]` */
  readonly activation: Float64Array;
  /** `[width]` */
  readonly weighted: Float64Array;
}

export function createRunSums(run: string, width: number): RunSums {
  return {
    run,
    steps: 0,
    entropy: 0,
    lowest: Number.POSITIVE_INFINITY,
    highest: Number.NEGATIVE_INFINITY,
    origin: new Float64Array(width),
    activation: new Float64Array(width),
    weighted: new Float64Array(width),
  };
}

/**
 * Adds one step.
 * @param z activation `[width]` at the last token of the step's prompt
 * @param entropyNats entropy of the step's actions
 * @throws InputError naming run and step when a value is not finite, or the entropy is negative
 */
export function addStep(sums: RunSums, z: ArrayLike<number>, entropyNats: number): void {
  const place = `run ${sums.run}, step ${sums.steps + 1} of those counted`;
  const { origin, activation, weighted } = sums;
  if (z.length !== origin.length) {
    throw new InputError(`${place}: an activation of ${z.length} entries where ${origin.length} are expected`);
  }
  if (!(entropyNats >= 0) || !Number.isFinite(entropyNats)) {
    throw new InputError(`${place}: the action entropy is ${entropyNats}; expected a finite number of nats, 0 or more`);
  }
  for (let i = 0; i < z.length; i++) {
    if (!Number.isFinite(z[i])) throw new InputError(`${place}: entry ${i} of the activation is ${z[i]}`);
  }
  if (sums.steps === 0) origin.set(z);
  for (let i = 0; i < origin.length; i++) {
    const moved = z[i] - origin[i];
    activation[i] += moved;
    weighted[i] += entropyNats * moved;
  }
  sums.steps++;
  sums.entropy += entropyNats;
  sums.lowest = Math.min(sums.lowest, entropyNats);
  sums.highest = Math.max(sums.highest, entropyNats);
}

/** Adds what another part of the same run summed, about its own origin. */
export function mergeRunSums(into: RunSums, other: RunSums): void {
  if (other.steps === 0) return;
  if (into.steps === 0) into.origin.set(other.origin);
  for (let i = 0; i < into.origin.length; i++) {
    const apart = other.origin[i] - into.origin[i];
    into.activation[i] += other.activation[i] + other.steps * apart;
    into.weighted[i] += other.weighted[i] + other.entropy * apart;
  }
  into.steps += other.steps;
  into.entropy += other.entropy;
  into.lowest = Math.min(into.lowest, other.lowest);
  into.highest = Math.max(into.highest, other.highest);
}

/** What activations are taken relative to: the mean of their run (the paper), the mean of all, or nothing. */
export type Centring = 'run' | 'global' | 'none';

export const CENTRINGS: readonly Centring[] = ['run', 'global', 'none'];

export interface EastVector {
  /** u `[width]`: not normalised. */
  readonly vector: Float64Array;
  /** Z: sum of all entropies, nats. */
  readonly totalEntropyNats: number;
  readonly runs: number;
  readonly steps: number;
}

/** `sum_t h_t (z_t - c)` of one run `[width]`, c the mean of the run, the mean that is given, or zero. */
export function runNumerator(sums: RunSums, centring: Centring, globalMean?: Float64Array): Float64Array {
  const { steps, entropy, origin, activation, weighted } = sums;
  if (steps === 0) return new Float64Array(origin.length);
  return weighted.map((value, i) => {
    if (centring === 'run') return value - (entropy * activation[i]) / steps;
    return value + entropy * (origin[i] - (globalMean?.[i] ?? 0));
  });
}

/** Mean activation of all steps `[width]`. */
export function meanActivation(runs: readonly RunSums[]): Float64Array {
  const steps = runs.reduce((sum, run) => sum + run.steps, 0);
  const mean = new Float64Array(runs[0]?.origin.length ?? 0);
  for (const { origin, activation, steps: own } of runs) {
    for (let i = 0; i < mean.length; i++) mean[i] += (activation[i] + own * origin[i]) / steps;
  }
  return mean;
}

/** Entropies closer than this are one entropy: what is left of their differences is rounding. */
const EQUAL_ENTROPIES = 1e-12;

/**
 * Refuses a log from which no direction follows.
 * @throws InputError where no step is left, no action was ever in doubt, no run has two steps, or entropies do not change
 */
export function checkEntropies(runs: readonly RunSums[], centring: Centring): void {
  const counted = runs.filter(({ steps }) => steps > 0);
  if (counted.length === 0) throw new InputError('no logged step has a parsed action: there is nothing to learn from');
  if (counted.every(({ entropy }) => entropy === 0)) {
    throw new InputError(
      'every logged step chose one action: no entropy to weight; collect with more completions, a harder bandit, or a higher temperature',
    );
  }
  if (centring === 'none') return;
  if (centring === 'run' && counted.every(({ steps }) => steps === 1)) {
    throw new InputError(
      `each of the ${counted.length} runs has one step, so activations minus the mean of their run are zero and there is no direction; log runs of several steps, or leave the run column out to take all steps as one run`,
    );
  }
  const constant = ({ lowest, highest }: RunSums): boolean => highest - lowest <= EQUAL_ENTROPIES;
  const lowest = Math.min(...counted.map((run) => run.lowest));
  const highest = Math.max(...counted.map((run) => run.highest));
  if (centring === 'run' ? counted.every(constant) : highest - lowest <= EQUAL_ENTROPIES) {
    throw new InputError(
      `all prompts${centring === 'run' && highest > lowest ? ' of a run' : ''} have the same entropy (${lowest} nats in the first place): nothing of the activations goes with it, so there is no direction`,
    );
  }
}

/**
 * The entropic direction `u = (1/Z) sum_k sum_t h_t^k (z_t^k - zbar^k)`, `Z = sum h`, from the sums of runs; runs are
 * added in their order. Source: Rahn, D'Oro & Bellemare 2024, equation 1.
 * @param centring `run` as in the paper; the others for comparison
 * @throws InputError as `checkEntropies`
 */
export function eastVector(runs: readonly RunSums[], centring: Centring = 'run'): EastVector {
  checkEntropies(runs, centring);
  const mean = centring === 'global' ? meanActivation(runs) : undefined;
  const vector = new Float64Array(runs[0].origin.length);
  let totalEntropyNats = 0;
  let steps = 0;
  for (const run of runs) {
    const numerator = runNumerator(run, centring, mean);
    for (let i = 0; i < vector.length; i++) vector[i] += numerator[i];
    totalEntropyNats += run.entropy;
    steps += run.steps;
  }
  for (let i = 0; i < vector.length; i++) vector[i] /= totalEntropyNats;
  if (norm(vector) === 0) {
    throw new InputError(
      'the activations of each run are all equal at this layer: there is no direction; look at the prompts',
    );
  }
  return { vector, totalEntropyNats, runs: runs.filter((run) => run.steps > 0).length, steps };
}

/** The vector without run `left`, from the sums of all; undefined where nothing is left to learn from. */
export function eastVectorWithout(runs: readonly RunSums[], left: number, whole: EastVector): Float64Array | undefined {
  const own = runNumerator(runs[left], 'run');
  const rest = whole.totalEntropyNats - runs[left].entropy;
  if (!(rest > 0)) return undefined;
  return whole.vector.map((value, i) => (value * whole.totalEntropyNats - own[i]) / rest);
}
