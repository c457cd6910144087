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

/** What activations are taken relative to: the mean of their run (the paper), the mean of all, or nothing. */
export type Centring = 'run' | 'global' | 'none';

export const CENTRINGS: readonly Centring[] = ['run', 'global', 'none'];

/** What is kept of all runs of a layer, whatever their number: vectors `[width]` about the first activation of all. */
export interface EastSums {
  runs: number;
  steps: number;
  /** Z, nats. */
  entropy: number;
  lowest: number;
  highest: number;
  /** Whether entropies change within some run. */
  changing: boolean;
  /** Steps of the longest run. */
  longest: number;
  readonly origin: Float64Array;
  /** `sum_k sum_t h (z - zbar^k)` */
  readonly numerator: Float64Array;
  /** `sum (z - origin)` */
  readonly activation: Float64Array;
  /** `sum h (z - origin)` */
  readonly weighted: Float64Array;
}

export function createEastSums(width: number): EastSums {
  return {
    runs: 0,
    steps: 0,
    entropy: 0,
    lowest: Number.POSITIVE_INFINITY,
    highest: Number.NEGATIVE_INFINITY,
    changing: false,
    longest: 0,
    origin: new Float64Array(width),
    numerator: new Float64Array(width),
    activation: new Float64Array(width),
    weighted: new Float64Array(width),
  };
}

/** Entropies closer than this are one entropy: what is left of their differences is rounding. */
export const EQUAL_ENTROPIES = 1e-12;

/** `sum_t h_t (z_t - zbar)` of one run `[width]`, from its four sums; zero for a run of one step. */
export function runNumerator({ steps, entropy, activation, weighted }: RunSums): Float64Array {
  return weighted.map((value, i) => (steps === 0 ? 0 : value - (entropy * activation[i]) / steps));
}

/** Adds a complete run. */
export function addRun(sums: EastSums, run: RunSums): void {
  if (run.steps === 0) return;
  if (sums.runs === 0) sums.origin.set(run.origin);
  const numerator = runNumerator(run);
  for (let i = 0; i < numerator.length; i++) {
    const apart = run.origin[i] - sums.origin[i];
    sums.numerator[i] += numerator[i];
    sums.activation[i] += run.activation[i] + run.steps * apart;
    sums.weighted[i] += run.weighted[i] + run.entropy * apart;
  }
  sums.runs++;
  sums.steps += run.steps;
  sums.entropy += run.entropy;
  sums.lowest = Math.min(sums.lowest, run.lowest);
  sums.highest = Math.max(sums.highest, run.highest);
  sums.changing ||= run.highest - run.lowest > EQUAL_ENTROPIES;
  sums.longest = Math.max(sums.longest, run.steps);
}

/**
 * Refuses a log from which no direction follows.
 * @throws InputError where no step is left, no action was ever in doubt, no run has two steps, or entropies do not change
 */
export function checkEntropies(
  sums: Omit<EastSums, 'origin' | 'numerator' | 'activation' | 'weighted'>,
  centring: Centring,
): void {
  if (sums.steps === 0) throw new InputError('no logged step has a parsed action: there is nothing to learn from');
  if (sums.entropy === 0) {
    throw new InputError(
      'every logged step chose one action: no entropy to weight; collect with more completions, a harder bandit, or a ' +
        'higher temperature',
    );
  }
  if (centring === 'none') return;
  if (centring === 'run' && sums.longest === 1) {
    throw new InputError(
      `each of the ${sums.runs} runs has one step, so activations minus the mean of their run are zero and there is no ` +
        'direction; log runs of several steps, or give rows without a run, which are taken as one run',
    );
  }
  if (centring === 'run' ? !sums.changing : sums.highest - sums.lowest <= EQUAL_ENTROPIES) {
    const which = sums.highest - sums.lowest > EQUAL_ENTROPIES ? 'all prompts of a run have' : 'all prompts have';
    throw new InputError(
      `${which} the same entropy (${sums.lowest} nats where it is lowest): nothing of the activations goes with it, so ` +
        'there is no direction; log prompts of unequal difficulty',
    );
  }
}

/**
 * The entropic direction `u = (1/Z) sum_k sum_t h_t^k (z_t^k - zbar^k)`, `Z = sum h`, `[width]`, not normalised.
 * Source: Rahn, D'Oro & Bellemare 2024, equation 1.
 * @param centring `run` as in the paper; the others for comparison
 * @throws InputError as `checkEntropies`, and where all activations of each run are equal
 */
export function eastDirection(sums: EastSums, centring: Centring = 'run'): Float64Array {
  checkEntropies(sums, centring);
  const { numerator, weighted, activation, origin, entropy, steps } = sums;
  const vector = numerator.map((value, i) => {
    if (centring === 'run') return value / entropy;
    if (centring === 'global') return weighted[i] / entropy - activation[i] / steps;
    return weighted[i] / entropy + origin[i];
  });
  if (norm(vector) === 0) {
    throw new InputError(
      'the activations that are weighed are all equal at this layer, so there is no direction; look at the prompts',
    );
  }
  return vector;
}

/** {@link eastDirection} of runs that are held. */
export function eastVector(
  runs: readonly RunSums[],
  centring: Centring = 'run',
): { vector: Float64Array; totalEntropyNats: number } {
  const sums = createEastSums(runs[0]?.origin.length ?? 0);
  for (const run of runs) addRun(sums, run);
  return { vector: eastDirection(sums, centring), totalEntropyNats: sums.entropy };
}
