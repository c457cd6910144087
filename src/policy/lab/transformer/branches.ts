import type { Random } from '../../../random.js';
import { forkPoints } from '../../ares/fork-points.js';
import { batchThreshold } from '../../ares/threshold.js';
import { percentile, windowMeans } from '../../ares/window-entropy.js';
import { branchPrefix, criticalTokens, drawPosition, isCriticalText, randomTokens } from '../../cure.js';
import type { Sample } from './sampling.js';
import type { PolicyTask } from './task.js';

/** Where a response is taken up again: at `position`, `count` times. */
export interface Branch {
  /** Number of the response among those given. */
  readonly response: number;
  readonly position: number;
  readonly count: number;
}

/** A response and what the policy had read before it. */
export interface ContextSample extends Sample {
  readonly context: Int32Array;
}

/** Decides from finished responses where further ones begin. */
export type Branching = (responses: readonly ContextSample[], random: Random) => Branch[];

export interface CriticalBranching {
  /** Tokens of highest entropy of which one is drawn. */
  readonly topK: number;
  /** Continuations of every response. */
  readonly branches: number;
  /** Tokens that prompt and prefix may have; a longer prefix loses its end, and with it the critical point. */
  readonly promptBudget: number;
  /** Ablation: a position at random in place of one of high entropy. */
  readonly randomOrder: boolean;
}

/** CURE, stage 1 (spec 6): every response is cut at one of its critical tokens, which is drawn anew. */
export function criticalBranching(
  task: PolicyTask,
  { topK, branches, promptBudget, randomOrder }: CriticalBranching,
): Branching {
  const special = new Set(task.specialTokens);
  return (responses, random) =>
    responses.map(({ context, tokens, mask, entropy }, response) => {
      const span = {
        from: 0,
        to: tokens.length,
        entropy,
        mask,
        eligible: (i: number) => !special.has(tokens[i]) && isCriticalText(task.vocabulary[tokens[i]]),
      };
      const own = random.fork(response);
      const critical = randomOrder ? randomTokens(span, topK, own) : criticalTokens(span, topK);
      const { prefix } = branchPrefix(context, tokens, drawPosition(critical, own), promptBudget);
      return { response, position: Math.max(0, prefix.length - context.length), count: branches };
    });
}

export interface WindowBranching {
  readonly width: number;
  /** Most forks of a response. */
  readonly budget: number;
}

const THRESHOLD_PERCENT = 95;

/**
 * ARES, paper (spec 4, branching): one more continuation at every region of windows whose mean entropy exceeds the threshold, the
 * mean over responses of the 95th percentile of token entropies.
 */
export function windowBranching({ width, budget }: WindowBranching): Branching {
  return (responses) => {
    const threshold = batchThreshold(
      Float64Array.from(responses, ({ entropy, mask }) =>
        percentile(
          entropy.filter((_, i) => mask[i] === 1),
          THRESHOLD_PERCENT,
        ),
      ),
      'mean',
    );
    return responses.flatMap(({ entropy, mask }, response) =>
      forkPoints(windowMeans(entropy, width), threshold, width, budget)
        .filter(({ position }) => mask[position] === 1)
        .map(({ position }) => ({ response, position, count: 1 })),
    );
  };
}
