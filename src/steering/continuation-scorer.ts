import { interventionsOf, type SteeringPlan } from '../decoding/steering-plan.js';
import { InputError } from '../errors.js';
import { gatherRows } from '../models/gather-rows.js';
import type { LanguageModel, PositionRange } from '../models/language-model.js';
import type { ContinuationScorer } from './forced-choice.js';

/** Scores continuations of a prompt by whole passes, without a cache. */
export function fullPassScorer(model: LanguageModel, prompt: Int32Array): ContinuationScorer {
  const { engine } = model;
  if (!engine)
    throw new InputError(`${model.info.path}: its layers cannot be reached; use a model directory or a .gguf`);
  return {
    async logProbabilities(continuations, steering, temperature = 1) {
      const windows = continuations.map((tokens) => {
        const window = new Int32Array(prompt.length + tokens.length - 1);
        window.set(prompt);
        window.set(tokens.subarray(0, -1), prompt.length);
        return window;
      });
      const interventions = steering && interventionsOf(planWindows(steering), windowsOf(windows, prompt.length));
      const groups = await engine.forward({ windows, ...(interventions && { interventions }) });
      const { hiddenSize, vocabularySize } = engine.model;
      const ranges = windows.map((window): PositionRange => [prompt.length - 1, window.length]);
      const rows = gatherRows(groups, hiddenSize, ranges);
      await engine.normalize(rows);
      const logits = await engine.logits(rows);
      let row = 0;
      return continuations.map((tokens) =>
        Float64Array.from(tokens, (token) => {
          const own = logits.subarray(row * vocabularySize, (row + 1) * vocabularySize);
          row++;
          return logProbability(own, token, temperature);
        }),
      );
    },
  };
}

const planWindows = (plan: SteeringPlan): SteeringPlan => plan;

const windowsOf = (windows: readonly Int32Array[], promptLength: number) =>
  windows.map(() => ({ prompt: 0, promptLength }));

function logProbability(logits: ArrayLike<number>, token: number, temperature: number): number {
  let max = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < logits.length; i++) if (logits[i] > max) max = logits[i];
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += Math.exp((logits[i] - max) / temperature);
  return (logits[token] - max) / temperature - Math.log(sum);
}
