import { logSoftmax } from '../decoding/log-softmax.js';
import { interventionsOf, type SteeringPlan } from '../decoding/steering-plan.js';
import { InputError } from '../errors.js';
import { gatherRows } from '../models/gather-rows.js';
import type { LanguageModel, PositionRange } from '../models/language-model.js';

/** What a model says of continuations of a prompt. */
export interface ScoredContinuations {
  /** ln p of every token of each continuation, given the prompt and the tokens before it. */
  readonly logs: readonly Float64Array[];
  /** Log-softmax of the first token after the prompt [vocabulary]. */
  readonly first: Float64Array;
}

/** A prompt whose continuations are scored, with any steering. */
export interface ContinuationScorer {
  /** @param temperature divides all logits (default 1) */
  score(
    continuations: readonly Int32Array[],
    steering?: SteeringPlan,
    temperature?: number,
  ): Promise<ScoredContinuations>;
}

/** Opens a prompt for scoring. Throws InputError for a model whose layers cannot be reached. */
export function openScorer(model: LanguageModel, prompt: Int32Array): ContinuationScorer {
  const { engine } = model;
  if (!engine) {
    throw new InputError(`${model.info.path}: its layers cannot be reached; use a model directory or a .gguf`);
  }
  return {
    async score(continuations, steering, temperature = 1) {
      const windows = continuations.map((tokens) => {
        const window = new Int32Array(prompt.length + tokens.length - 1);
        window.set(prompt);
        window.set(tokens.subarray(0, -1), prompt.length);
        return window;
      });
      const steered = windows.map(() => ({ prompt: 0, promptLength: prompt.length }));
      const groups = await engine.forward({
        windows,
        ...(steering && { interventions: interventionsOf(steering, steered) }),
      });
      const { hiddenSize, vocabularySize } = engine.model;
      const ranges = windows.map((window): PositionRange => [prompt.length - 1, window.length]);
      const rows = gatherRows(groups, hiddenSize, ranges);
      await engine.normalize(rows);
      const logits = await engine.logits(rows);
      let row = 0;
      let first: Float64Array | undefined;
      const logs = continuations.map((tokens) =>
        Float64Array.from(tokens, (token) => {
          const own = logits.subarray(row * vocabularySize, (row + 1) * vocabularySize);
          row++;
          const distribution = logSoftmax(own.map((logit) => logit / temperature));
          first ??= distribution;
          return distribution[token];
        }),
      );
      return { logs, first: first ?? new Float64Array(0) };
    },
  };
}
