import { topKEntropyBounds } from '../../src/policy/topk-bounds.js';
import type { Json } from './harness.js';
import { float64, number, shapeOf } from './tensors.js';

type Inputs = { [key: string]: Json };

function bounds(inputs: Inputs): Record<string, unknown> {
  const [rows, k] = shapeOf(inputs.topk_logprob, 'topk_logprob');
  const logProbs = float64(inputs.topk_logprob, 'topk_logprob');
  const found = topKEntropyBounds(logProbs, rows, k, number(inputs.vocab, 'vocab'));
  return {
    truncated_sum: [...found.truncatedSum],
    lower_lump: [...found.lowerLump],
    lower_tight: [...found.lower],
    upper: [...(found.upper ?? [])],
    tail_mass: [...found.tailMass],
  };
}

/** The entropy itself follows from the whole distribution, of which the case gives the top alone. */
export const undetermined = (inputs: Inputs): readonly string[] => ('topk_logprob' in inputs ? ['true_entropy'] : []);

export function run(inputs: Inputs, wanted: Json): unknown {
  if ('topk_logprob' in inputs) return bounds(inputs);
  throw new TypeError(`no part for ${Object.keys(inputs)} (${JSON.stringify(wanted)})`);
}
