import { alignByActivations, createCorrelation } from '../../src/moe/activation-matching.js';
import { type Alignment, alignGroup } from '../../src/moe/alignment.js';
import { createCombination } from '../../src/moe/combine.js';
import { runInner } from '../../src/moe/expert-function.js';
import { mixtureError } from '../../src/moe/mixture-error.js';
import type { ExpertMatrices, ExpertShape } from '../../src/moe/types.js';
import { zipByActivations, zipByWeights } from '../../src/moe/zip-merge.js';
import type { Json } from './harness.js';
import { float64, keysOf, number, shapeOf, tensor } from './tensors.js';

type Named = { [key: string]: Json };

function named(value: Json, name: string): Named {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) throw new TypeError(`${name} is no object`);
  return value;
}

function expertOf(value: Json): ExpertMatrices {
  const expert = named(value, 'expert');
  if ('wi' in expert) return { up: float64(expert.wi, 'wi'), down: float64(expert.wo, 'wo') };
  return {
    gate: float64(expert.gate, 'gate'),
    up: float64(expert.up, 'up'),
    down: float64(expert.down, 'down'),
  };
}

function asGolden({ gate, up, down }: ExpertMatrices, { hidden: H, width: I }: ExpertShape): unknown {
  if (gate === undefined) return { wi: tensor([I, H], up), wo: tensor([H, I], down) };
  return { gate: tensor([I, H], gate), up: tensor([I, H], up), down: tensor([H, I], down) };
}

export function run(inputs: Named, wanted: Json): unknown {
  const list = inputs.experts;
  if (!Array.isArray(list)) throw new TypeError('experts is not a list');
  const experts = list.map(expertOf);
  const gated = experts[0].gate !== undefined;
  const first = named(list[0], 'expert');
  const [width, hidden] = shapeOf(gated ? first.up : first.wi, 'up');
  const shape: ExpertShape = { hidden, width, gated, activation: gated ? 'silu' : 'relu' };
  const tokens = float64(inputs.tokens, 'tokens');
  const [rows] = shapeOf(inputs.tokens, 'tokens');
  const usage = float64(inputs.usage_frequency, 'usage_frequency');
  const epsilon = number(inputs.eps, 'eps');
  const reference = number(gated ? inputs.dominant : inputs.reference_expert, 'reference');

  const inner = experts.map((expert) => {
    const activations = new Float64Array(rows * width);
    runInner(expert, shape, tokens, rows, activations);
    return activations;
  });
  const others = <T>(values: readonly T[]): T[] => values.filter((_, e) => e !== reference);
  const permutations = (alignments: readonly Pick<Alignment, 'permutation'>[]): number[][] =>
    alignments.map(({ permutation }) => Array.from(permutation));
  const aligned = alignGroup(experts, reference, shape);
  const merge = (placed: readonly Pick<Alignment, 'permutation'>[]): ExpertMatrices => {
    const sum = createCombination(shape);
    experts.forEach((expert, e) => {
      sum.add(expert, usage[e], placed[e]?.permutation);
    });
    return sum.finish(epsilon);
  };
  const byActivations = (target: number): Pick<Alignment, 'permutation'> => {
    const sums = createCorrelation(width);
    sums.add(inner[reference], inner[target], rows);
    return alignByActivations(sums.finish());
  };
  const zipped = (repeatedShare: number): ExpertMatrices => {
    const count = experts.length * width;
    const stacked = new Float64Array(rows * count);
    for (let t = 0; t < rows; t++) {
      inner.forEach((activations, e) => {
        stacked.set(activations.subarray(t * width, (t + 1) * width), t * count + e * width);
      });
    }
    const sums = createCorrelation(count);
    sums.add(stacked, stacked, rows);
    const coefficients = experts.map(() => 1);
    return zipByActivations(experts, shape, sums.finish(), { coefficients, epsilon, repeatedShare });
  };
  const errorOf = (merged: ExpertMatrices): number =>
    mixtureError(experts, usage, merged, shape, tokens, rows).relative;

  const answers: Record<string, () => unknown> = {
    permutations: () => permutations(aligned),
    assignment_gain: () => aligned.map(({ gain }) => gain),
    squared_distance_before: () => aligned.map(({ distanceBefore }) => distanceBefore),
    squared_distance_after: () => aligned.map(({ distanceAfter }) => distanceAfter),
    weight_matching_include_wo: () => permutations(others(aligned)),
    weight_matching_wi_only: () => permutations(others(alignGroup(experts, reference, shape, { includeDown: false }))),
    assignment_gain_include_wo: () => others(aligned).map(({ gain }) => gain),
    activation_matching: () => permutations(others(experts.map((_, e) => e)).map(byActivations)),
    merged_aligned: () => asGolden(merge(aligned), shape),
    merged_unaligned: () => asGolden(merge([]), shape),
    output_rel_error_aligned: () => errorOf(merge(aligned)),
    output_rel_error_unaligned: () => errorOf(merge([])),
    zip_weight_matching: () => asGolden(zipByWeights(experts, shape, { coefficients: usage, epsilon }), shape),
    zip_activation_matching: () => asGolden(zipped(0.1), shape),
  };
  const result: Record<string, unknown> = {};
  for (const key of keysOf(wanted)) {
    const share = /^zip_activation_matching_alpha(.+)$/.exec(key);
    if (share !== null) result[key] = asGolden(zipped(Number(share[1])), shape);
    else if (key in answers) result[key] = answers[key]();
  }
  return result;
}
