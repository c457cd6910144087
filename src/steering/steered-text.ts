import { interventionsOf, type SteeringPlan } from '../decoding/steering-plan.js';
import { compareRows, createRowComparison } from '../kernels/compare-rows.js';
import type { Engine } from '../models/engine.js';
import { gatherRows } from '../models/gather-rows.js';

/** What steering did to the tokens of one continuation, one entry a token. */
export interface TextDrift {
  /** -ln p of the token under the model as it is, nats. */
  readonly unsteeredSurprisalNats: Float64Array;
  /** KL of the steered prediction from the unsteered one, nats. */
  readonly klNats: Float64Array;
}

/** Rows of logits that are held at once. */
const ROWS = 32;

/**
 * Reads prompt and continuation once as the model is and once steered, with full passes.
 * @param prompt its index in the masks of the plan
 */
export async function textDrift(
  engine: Engine,
  tokens: { readonly prompt: Int32Array; readonly continuation: Int32Array },
  steering: SteeringPlan,
  prompt: number,
): Promise<TextDrift> {
  const { hiddenSize: hidden, vocabularySize: vocabulary } = engine.model;
  const { length } = tokens.continuation;
  const start = tokens.prompt.length;
  const window = new Int32Array(start + length - 1);
  window.set(tokens.prompt);
  window.set(tokens.continuation.subarray(0, -1), start);
  const interventions = interventionsOf(steering, [{ prompt, promptLength: start }]);
  const rowsOf = async (steered: boolean) => {
    const groups = await engine.forward({ windows: [window], ...(steered && { interventions }) });
    const rows = gatherRows(groups, hidden, [[start - 1, window.length]]);
    await engine.normalize(rows);
    return rows;
  };
  const steered = await rowsOf(true);
  const plain = await rowsOf(false);
  const unsteeredSurprisalNats = new Float64Array(length);
  const klNats = new Float64Array(length);
  for (let from = 0; from < length; from += ROWS) {
    const to = Math.min(length, from + ROWS);
    const part = createRowComparison(to - from);
    const base = await engine.logits(steered.subarray(from * hidden, to * hidden));
    const candidate = await engine.logits(plain.subarray(from * hidden, to * hidden));
    compareRows(base, candidate, vocabulary, tokens.continuation.subarray(from, to), part, {
      base: 'steered logits',
      candidate: 'unsteered logits',
    });
    unsteeredSurprisalNats.set(part.candidateSurprisalNats, from);
    klNats.set(part.klNats, from);
  }
  return { unsteeredSurprisalNats, klNats };
}
