import type { HeldTokens } from '../../kernels/policy-tokens.js';

/** The tokens of a step that count, one behind another. */
export interface HeldStep {
  readonly logProb?: Float64Array;
  readonly entropy?: Float64Array;
  readonly advantage?: Float64Array;
  /** What `Rollouts.textOf` takes. */
  readonly ids?: Int32Array;
}

/** Which columns of a block are held. */
export interface HeldWishes {
  readonly logProb: boolean;
  readonly entropy: boolean;
  readonly advantage: boolean;
  readonly ids: Int32Array | undefined;
}

/** Memory for the tokens of one step, which the next step uses again: fresh memory costs more than what is done with it. */
export interface StepMemory {
  /** Where a block puts its tokens that count. */
  room(tokens: number, at: number, wishes: HeldWishes): HeldTokens;
  /** What was put there: `tokens` of each. */
  hold(tokens: number, wishes: HeldWishes): HeldStep;
  /** Nothing is held any more. */
  release(): void;
  /** What `hold` gave last; the summands of covariances stand in place of log-probabilities once they were made. */
  readonly latest: HeldStep | undefined;
}

type Numbers = 'logProb' | 'entropy' | 'advantage';

export function createStepMemory(): StepMemory {
  const numbers: Record<Numbers, Float64Array> = {
    logProb: new Float64Array(0),
    entropy: new Float64Array(0),
    advantage: new Float64Array(0),
  };
  let ids = new Int32Array(0);
  let latest: HeldStep | undefined;
  const column = (name: Numbers, tokens: number): Float64Array => {
    if (numbers[name].length < tokens) numbers[name] = new Float64Array(tokens);
    return numbers[name].subarray(0, tokens);
  };
  const columns = (tokens: number, { logProb, entropy, advantage }: HeldWishes): Omit<HeldStep, 'ids'> => ({
    ...(logProb && { logProb: column('logProb', tokens) }),
    ...(entropy && { entropy: column('entropy', tokens) }),
    ...(advantage && { advantage: column('advantage', tokens) }),
  });
  const idsOf = (tokens: number): Int32Array => {
    if (ids.length < tokens) ids = new Int32Array(tokens);
    return ids.subarray(0, tokens);
  };
  return {
    room: (tokens, at, wishes) => ({
      at,
      ...columns(tokens, wishes),
      ...(wishes.ids && { ids: { from: wishes.ids, into: idsOf(tokens) } }),
    }),
    hold(tokens, wishes) {
      latest = { ...columns(tokens, wishes), ...(wishes.ids && { ids: idsOf(tokens) }) };
      return latest;
    },
    release() {
      latest = undefined;
    },
    get latest() {
      return latest;
    },
  };
}
