import type { ExpertRows, Floats } from '../models/layer-runner.js';
import { runInner } from './expert-function.js';
import { gatherRows } from './layer-function.js';
import { createDownRefit, type Refit, type RefitOptions } from './refit.js';
import type { StreamCursor } from './stream-cursor.js';
import type { ExpertMatrices, ExpertShape } from './types.js';

/** A merged expert whose down projection is fitted anew. */
export interface RefitTask {
  readonly members: Int32Array;
  readonly merged: ExpertMatrices;
}

/**
 * Down projections of several groups of a layer, refitted in one pass over the text to what the members gave: the outputs of
 * the original experts come from the model's own forward pass.
 * @throws InputError where a group's tokens do not determine the fit, see `createDownRefit`
 */
export async function refitGroups(
  cursor: StreamCursor,
  layer: number,
  shape: ExpertShape,
  tasks: readonly RefitTask[],
  options: RefitOptions,
): Promise<Refit[]> {
  const fits = tasks.map(() => createDownRefit(shape, options));
  await cursor.visit(layer, ['mlp_input', 'expert_output'], ({ taps, experts }) => {
    if (!experts) return;
    const x = taps.get('mlp_input') as Floats;
    const outputs = taps.get('expert_output') as Floats;
    tasks.forEach(({ members, merged }, t) => {
      const { rows, weights, shares } = sharesOf(members, experts, outputs, x.length / shape.hidden, shape.hidden);
      if (rows.length === 0) return;
      const inputs = gatherRows(x, shape.hidden, rows);
      const inner = x instanceof Float32Array ? new Float32Array(rows.length * shape.width) : undefined;
      const hidden = inner ?? new Float64Array(rows.length * shape.width);
      runInner(merged, shape, inputs, rows.length, hidden, options);
      fits[t].add(hidden, x instanceof Float32Array ? Float32Array.from(shares) : shares, weights, rows.length);
    });
  });
  return fits.map((fit, t) => fit.solve(tasks[t].merged.down));
}

/** What the members of a group gave together, row by row: s(x) y(x) = sum over the chosen members of p_i E_i(x). */
function sharesOf(
  members: Int32Array,
  experts: ExpertRows,
  outputs: Floats,
  count: number,
  hidden: number,
): { rows: Int32Array; weights: Float64Array; shares: Float64Array } {
  const mass = new Float64Array(count);
  const starts = new Int32Array(experts.counts.length + 1);
  experts.counts.forEach((rows, e) => {
    starts[e + 1] = starts[e] + rows;
  });
  for (const e of members) {
    for (let i = starts[e]; i < starts[e + 1]; i++) mass[experts.rows[i]] += experts.weights[i];
  }
  const rows = Int32Array.from(mass.keys()).filter((row) => mass[row] > 0);
  const place = new Int32Array(count).fill(-1);
  rows.forEach((row, i) => {
    place[row] = i;
  });
  const shares = new Float64Array(rows.length * hidden);
  for (const e of members) {
    for (let i = starts[e]; i < starts[e + 1]; i++) {
      const at = place[experts.rows[i]] * hidden;
      const weight = experts.weights[i];
      for (let h = 0; h < hidden; h++) shares[at + h] += weight * outputs[i * hidden + h];
    }
  }
  return { rows, weights: Float64Array.from(rows, (row) => mass[row]), shares };
}
