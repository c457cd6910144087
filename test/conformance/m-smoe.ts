import { layerBudget, usageFrequencies } from '../../src/moe/budget.js';
import { createCombination, memberWeights } from '../../src/moe/combine.js';
import { groupAroundDominants, membersOf, singletonGroups } from '../../src/moe/grouping.js';
import { createRoutingSums } from '../../src/moe/routing-statistics.js';
import { expertSimilarity, parseSimilarityBasis } from '../../src/moe/similarity.js';
import type { ExpertMatrices, ExpertShape, LayerGrouping } from '../../src/moe/types.js';
import type { Json } from './harness.js';
import { float64, number, numbers, shapeOf, tensor } from './tensors.js';

type Inputs = { [key: string]: Json };

interface GoldenExpert {
  readonly matrices: ExpertMatrices;
  readonly shape: ExpertShape;
}

function expertOf(value: Json): GoldenExpert {
  if (value === null || typeof value !== 'object' || Array.isArray(value))
    throw new TypeError('an expert is no object');
  const [width, hidden] = shapeOf(value.w1, 'w1');
  const matrices = { gate: float64(value.w1, 'w1'), down: float64(value.w2, 'w2'), up: float64(value.w3, 'w3') };
  return { matrices, shape: { hidden, width, gated: true, activation: 'silu' } };
}

function list(value: Json, name: string): Json[] {
  if (!Array.isArray(value)) throw new TypeError(`${name} is not a list`);
  return value;
}

const writtenExpert = ({ gate, up, down }: ExpertMatrices, { hidden, width }: ExpertShape): unknown => ({
  w1: gate && tensor([width, hidden], gate),
  w2: tensor([hidden, width], down),
  w3: tensor([width, hidden], up),
});

function mergedExperts(
  experts: readonly GoldenExpert[],
  grouping: LayerGrouping,
  usage: Float64Array,
  epsilon: number | undefined,
): unknown[] {
  const { shape } = experts[0];
  return membersOf(grouping).map((members) => {
    if (epsilon === undefined) return writtenExpert(experts[members[0]].matrices, shape);
    const combination = createCombination(shape);
    const { weights } = memberWeights('usage', usage, members);
    members.forEach((member, i) => {
      combination.add(experts[member].matrices, weights[i]);
    });
    return writtenExpert(combination.finish(epsilon), shape);
  });
}

function rowsOf(value: Json, name: string): Float64Array[] {
  const [rows] = shapeOf(value, name);
  const entries = float64(value, name);
  const length = entries.length / rows;
  return Array.from({ length: rows }, (_, row) => entries.subarray(row * length, (row + 1) * length));
}

/** The variant with an exact budget: nearest dominant by distance, groups in the order of the dominants' index. */
function runExactBudget(inputs: Inputs): unknown {
  const usage = rowsOf(inputs.expert_probability, 'expert_probability');
  const distances = rowsOf(inputs.distances, 'distances');
  const groupsPerLayer = number(inputs.total_clusters, 'total_clusters') / usage.length;
  const { groups } = layerBudget('exact', usage, { groupsPerLayer });
  const groupings = usage.map((frequencies, layer) =>
    groupAroundDominants(
      layer,
      frequencies,
      distances[layer].map((distance) => -distance),
      groups[layer],
      { order: 'index' },
    ),
  );
  return {
    labels: groupings.map(({ labels }) => labels),
    clusters_per_layer: groups,
    dominants_per_layer: groupings.map(({ dominants }) => dominants),
    label_order: 'ascending index of the dominant expert',
  };
}

export function run(inputs: Inputs): unknown {
  if (inputs.distances !== undefined) return runExactBudget(inputs);
  const [layers, tokens, experts] = shapeOf(inputs.router_logits, 'router_logits');
  const logits = rowsOf(inputs.router_logits, 'router_logits');
  const topK = number(inputs.top_k, 'top_k');
  const basis = parseSimilarityBasis(String(inputs.similarity));
  const weights = list(inputs.experts, 'experts').map((layer) => list(layer, 'experts').map(expertOf));
  const inside = numbers(inputs.merging_layers, 'merging_layers');
  const merged = Array.from({ length: layers }, (_, layer) => inside.includes(layer));
  const epsilon = number(inputs.eps, 'eps');

  const routing = logits.map((rows, layer) => {
    const sums = createRoutingSums(layer, experts, { score: 'softmax', topK, normalizeTopK: true });
    sums.add(rows, tokens);
    return sums.finish();
  });
  const usage = routing.map(usageFrequencies);
  const groupsPerLayer = number(inputs.num_average_groups, 'num_average_groups');
  const budget = layerBudget('reference', usage, { groupsPerLayer, merged });
  const similarity = routing.map((statistics, layer) => {
    const held = weights[layer];
    const read = (expert: number): ExpertMatrices => held[expert].matrices;
    return expertSimilarity(basis, { layer, experts, routing: statistics, weights: { read } });
  });
  const groupings = usage.map((frequencies, layer) =>
    merged[layer]
      ? groupAroundDominants(layer, frequencies, similarity[layer], budget.groups[layer])
      : singletonGroups(layer, frequencies),
  );
  return {
    usage_frequency: tensor(
      [layers, experts],
      usage.flatMap((frequencies) => [...frequencies]),
    ),
    similarity: tensor(
      [layers, experts, experts],
      similarity.flatMap((matrix) => [...matrix]),
    ),
    frequency_threshold: budget.threshold,
    num_groups_per_layer: budget.groups,
    dominant_experts: groupings.map(({ dominants }) => dominants),
    group_labels: groupings.map(({ labels }) => labels),
    merged_by_layer_and_group: groupings.map((grouping, layer) =>
      mergedExperts(weights[layer], grouping, usage[layer], merged[layer] ? epsilon : undefined),
    ),
  };
}
