import { usageFrequencies } from '../../src/moe/budget.js';
import { createCombination, memberWeights } from '../../src/moe/combine.js';
import { membersOf, mostUsedMembers } from '../../src/moe/grouping.js';
import { type ExpertLayerFunction, gateMass, runLayer } from '../../src/moe/layer-function.js';
import { GATE_FLOOR, outputErrorSums, outputErrors } from '../../src/moe/output-error.js';
import { refitGroup } from '../../src/moe/refit.js';
import { dominantRows } from '../../src/moe/router-rows.js';
import { createRoutingSums } from '../../src/moe/routing-statistics.js';
import type { ExpertMatrices, ExpertShape, LayerGrouping, RouterRule } from '../../src/moe/types.js';
import type { Json } from './harness.js';
import { float64, keysOf, number, shapeOf, tensor } from './tensors.js';

interface Case {
  readonly x: Float64Array;
  readonly rows: number;
  readonly shape: ExpertShape;
  readonly rule: RouterRule;
  readonly router: Float64Array;
  readonly experts: readonly ExpertMatrices[];
  readonly labels: Int32Array;
}

function objectOf(value: Json, name: string): { [key: string]: Json } {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) throw new TypeError(`${name} is no object`);
  return value;
}

function readCase(inputs: { [key: string]: Json }): Case {
  const listed = inputs.experts;
  const labels = inputs.group_labels;
  if (!Array.isArray(listed) || !Array.isArray(labels)) throw new TypeError('experts and group_labels are lists');
  const experts = listed.map((entry, e) => {
    const matrices = objectOf(entry, `expert ${e}`);
    const gated = 'gate' in matrices && { gate: float64(matrices.gate, 'gate') };
    return { ...gated, up: float64(matrices.up, 'up'), down: float64(matrices.down, 'down') };
  });
  const [rows, hidden] = shapeOf(inputs.tokens, 'tokens');
  const gated = experts[0].gate !== undefined;
  const width = experts[0].up.length / hidden;
  return {
    x: float64(inputs.tokens, 'tokens'),
    rows,
    shape: { hidden, width, gated, activation: gated ? 'silu' : 'relu' },
    rule: {
      score: 'softmax',
      topK: number(inputs.top_k, 'top_k'),
      normalizeTopK: inputs.norm_topk_prob !== false,
    },
    router: float64(inputs.router_weight, 'router_weight'),
    experts,
    labels: Int32Array.from(labels, (label) => number(label, 'group_labels')),
  };
}

/** Rows that `..._first_rows` holds. */
const FIRST_ROWS = 5;

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const { x, rows, shape, rule, router, experts, labels } = readCase(inputs);
  const { hidden, width } = shape;
  const original: ExpertLayerFunction = {
    shape,
    rule,
    router,
    routerRows: experts.length,
    experts: experts.length,
    expert: (place) => experts[place],
  };
  const before = runLayer(original, x, rows);

  const statistics = createRoutingSums(0, experts.length, rule);
  statistics.add(before.logits, rows);
  const usage = usageFrequencies(statistics.finish());
  const groups = Math.max(...labels) + 1;
  const grouping: LayerGrouping = { layer: 0, labels, dominants: mostUsedMembers(labels, groups, usage) };
  const members = membersOf(grouping);
  const merged = members.map((own) => {
    const { weights } = memberWeights('usage', usage, own);
    const mean = createCombination(shape);
    own.forEach((expert, place) => {
      mean.add(experts[expert], weights[place]);
    });
    return mean.finish();
  });
  const remap = { ...original, experts: groups, expert: (place: number) => merged[place], map: labels };
  const remapped = runLayer(remap, x, rows);
  const rowsOfDominants = dominantRows(router, hidden, grouping);
  const reduce = { ...remap, router: rowsOfDominants, routerRows: groups, map: undefined };
  const reduced = runLayer(reduce, x, rows);
  const floor = inputs.kl_floor === undefined ? GATE_FLOOR : number(inputs.kl_floor, 'kl_floor');
  const outputs = { rows, hidden, original: before.output, remapped: remapped.output };
  const errors = outputErrors(
    outputErrorSums(
      { ...outputs, merged: reduced.output },
      { rows, remapped: remapped.dispatch, merged: reduced.dispatch },
      floor,
    ),
  );
  const refits = members.map((own, g) =>
    refitGroup(
      { shape, members: [...own], original: original.expert, merged: merged[g] },
      (use) => use({ x, rows, routing: before.routing }),
      { lambda: number(inputs.refit_lambda, 'refit_lambda') },
    ),
  );
  const fitted = runLayer({ ...remap, expert: (g) => ({ ...merged[g], down: refits[g].down }) }, x, rows);
  const fittedErrors = outputErrors(
    outputErrorSums(
      { ...outputs, merged: fitted.output },
      { rows, remapped: remapped.dispatch, merged: fitted.dispatch },
      floor,
    ),
  );

  const first = Math.min(FIRST_ROWS, rows);
  const firstRows = (values: Float64Array, columns: number) =>
    tensor([first, columns], values.subarray(0, first * columns));
  const named: Record<string, unknown> = {
    usage_frequency: tensor([experts.length], usage),
    dominants: Array.from(grouping.dominants),
    original_output_first_rows: firstRows(before.output, hidden),
    remap_output_first_rows: firstRows(remapped.output, hidden),
    reduced_output_first_rows: firstRows(reduced.output, hidden),
    remap_relative_error: errors.experts.value,
    reduced_relative_error: errors.total.value,
    refit_relative_error: fittedErrors.total.value,
    group_gate_mass_first_rows: firstRows(gateMass(remapped.dispatch, rows), groups),
    share_tokens_changed_groups: errors.changedShare.value,
    mean_kl_remap_to_reduced_nats: errors.divergenceNats.value,
  };
  const result: Record<string, unknown> = {};
  for (const key of keysOf(wanted)) {
    const group = /^refit_down_group(\d+)$/.exec(key);
    if (group !== null) result[key] = tensor([hidden, width], refits[Number(group[1])].down);
    else if (key in named) result[key] = named[key];
  }
  return result;
}
