import { InputError } from '../errors.js';
import { createRandom } from '../random.js';

/** A bandit with Gaussian rewards. */
export interface GaussianBandit {
  /** Mean reward of each arm. */
  readonly means: readonly number[];
  /** Standard deviation of every arm's reward. */
  readonly sigma: number;
  /** Steps of a run, T. */
  readonly horizon: number;
}

/** One press of an arm. */
export interface Pull {
  readonly action: number;
  readonly reward: number;
}

/** Throws InputError for fewer than two arms, a deviation that is not positive, a horizon below 1. */
export function checkBandit({ means, sigma, horizon }: GaussianBandit): void {
  if (means.length < 2) {
    throw new InputError(
      `a bandit of ${means.length} arm: the entropy of its one action is zero; name two means or more`,
    );
  }
  if (means.some((mean) => !Number.isFinite(mean))) throw new InputError('--means: every mean must be a number');
  if (!(sigma >= 0 && Number.isFinite(sigma))) throw new InputError(`--sigma ${sigma}: expected a number, 0 or more`);
  if (!Number.isInteger(horizon) || horizon < 1) throw new InputError(`--horizon ${horizon}: expected 1 or more`);
}

/** Streams of a step: the agent's choice, then one reward an arm. */
const CHOICE = 0;
const REWARD = 1;

/** Random numbers of a run, each of its own stream: a run that is steered meets the same luck as one that is not. */
export interface BanditLuck {
  /** Uniform on [0, 1): decides which action is carried out. */
  choice(step: number): number;
  /** Reward of an arm at a step, N(mean, sigma). */
  reward(step: number, action: number): number;
}

/** Luck of run `run`, which depends on seed, run, step and arm alone. */
export function banditLuck(bandit: GaussianBandit, seed: number, run: number): BanditLuck {
  const root = createRandom(seed).fork(run);
  return {
    choice: (step) => root.fork(step).fork(CHOICE).uniform(),
    reward: (step, action) =>
      bandit.means[action] +
      bandit.sigma *
        root
          .fork(step)
          .fork(REWARD + action)
          .normal(),
  };
}

/** Index that a uniform number draws from weights that need not sum to 1. Throws RangeError when all are zero. */
export function drawIndex(weights: ArrayLike<number>, uniform: number): number {
  let total = 0;
  for (let i = 0; i < weights.length; i++) total += weights[i];
  if (!(total > 0)) throw new RangeError('nothing to draw from');
  let left = uniform * total;
  let last = 0;
  for (let i = 0; i < weights.length; i++) {
    if (weights[i] === 0) continue;
    last = i;
    left -= weights[i];
    if (left < 0) return i;
  }
  return last;
}

/** How well and how variously a run was played. */
export interface RunFigures {
  readonly steps: number;
  readonly meanReward: number;
  /** `Σ (best mean - mean of the arm)`: the regret in expectation, without the luck of the draws. */
  readonly regret: number;
  /** Share of steps that took an arm of the best mean. */
  readonly bestArmShare: number;
  /** Share of steps, from the second on, whose arm is another than the step's before; NaN for a run of one step. */
  readonly switchRate: number;
}

/** Figures of one run; NaN where it has no steps. */
export function runFigures(bandit: GaussianBandit, pulls: readonly Pull[]): RunFigures {
  const best = Math.max(...bandit.means);
  const steps = pulls.length;
  const switches = pulls.filter(({ action }, t) => t > 0 && action !== pulls[t - 1].action).length;
  return {
    steps,
    meanReward: pulls.reduce((sum, { reward }) => sum + reward, 0) / steps,
    regret: pulls.reduce((sum, { action }) => sum + best - bandit.means[action], 0),
    bestArmShare: pulls.filter(({ action }) => bandit.means[action] === best).length / steps,
    switchRate: switches / (steps - 1),
  };
}
