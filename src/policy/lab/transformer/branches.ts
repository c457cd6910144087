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

/** Decides from finished responses where further ones begin. */
export type Branching = (responses: readonly Sample[], random: Random) => Branch[];

export interface CriticalBranching {
  /** Tokens of highest entropy of which one is drawn. */
  readonly topK: number;
  /** Continuations of every response. */
  readonly branches: number;
  /** Ablation: a position at random in place of one of high entropy. */
  readonly randomOrder: boolean;
}

/** CURE, stage 1 (spec 6): every response is cut at one of its critical tokens, which is drawn anew. */
export function criticalBranching(task: PolicyTask, { topK, branches, randomOrder }: CriticalBranching): Branching {
  const special = new Set(task.specialTokens);
  return (responses, random) =>
    responses.map(({ tokens, mask, entropy }, response) => {
      const span = {
        from: 0,
        to: tokens.length,
        entropy,
        mask,
        eligible: (i: number) => !special.has(tokens[i]) && isCriticalText(task.vocabulary[tokens[i]]),
      };
      const own = random.fork(response);
      const critical = randomOrder ? randomTokens(span, topK, own) : criticalTokens(span, topK);
      return { response, position: drawPosition(critical, own), count: branches };
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

/** The context of a branch: prompt and what of the response stays. */
export function branchContext(context: Int32Array, { tokens }: Sample, position: number): Int32Array {
  return branchPrefix(context, tokens, position, context.length + tokens.length).prefix;
}
