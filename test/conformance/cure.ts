import {
  branchPrefix,
  criticalTokens,
  drawPosition,
  isCriticalText,
  regenerationGroupSize,
} from '../../src/policy/cure.js';
import type { Json } from './harness.js';
import { float64, int32, number, numbers, shapeOf } from './tensors.js';

function list(value: Json, name: string): Json[] {
  if (!Array.isArray(value)) throw new TypeError(`${name} is not a list`);
  return value;
}

function criticalCase(inputs: { [key: string]: Json }): unknown {
  const [rows, length] = shapeOf(inputs.response_ids, 'response_ids');
  const ids = int32(inputs.response_ids, 'response_ids');
  const entropy = float64(inputs.entropy, 'entropy');
  const vocabulary = list(inputs.vocab, 'vocab').map(String);
  const special = new Set(numbers(inputs.special_ids, 'special_ids'));
  const eligible = (index: number): boolean => !special.has(ids[index]) && isCriticalText(vocabulary[ids[index]]);
  const critical = Array.from({ length: rows }, (_, r) =>
    criticalTokens({ from: r * length, to: (r + 1) * length, entropy, eligible }, number(inputs.top_k, 'top_k')),
  );
  return {
    eligible: critical.map((positions) => [...positions]),
    pick_first: critical.map((positions) => drawPosition(positions, { drawn: 0 })),
  };
}

export function run(inputs: { [key: string]: Json }): unknown {
  if (inputs.response_ids !== undefined) return criticalCase(inputs);
  const budget = number(inputs.prompt_budget, 'prompt_budget');
  const [originals, branches] = [number(inputs.n1, 'n1'), number(inputs.n2, 'n2')];
  const positions = list(inputs.positions, 'positions').map((row) => numbers(row, 'positions'));
  const responses = list(inputs.responses, 'responses').map((row) => list(row, 'responses'));
  const prefixes = list(inputs.prompts, 'prompts').flatMap((prompt, p) =>
    responses[p].map((response, r) => {
      const cut = branchPrefix(numbers(prompt, 'prompt'), numbers(response, 'response'), positions[p][r], budget);
      return { prefix: [...cut.prefix], truncated: cut.truncated, copies: branches };
    }),
  );
  return { prefixes, group_size: regenerationGroupSize(originals, branches) };
}
