import type { Floats } from '../models/layer-runner.js';
import { addGroupRows, createDownRefit, groupShares, type Refit, type RefitOptions } from './refit.js';
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
  const { hidden } = shape;
  // All groups of the layer are summed in one pass, and share the memory.
  const { maxBytes } = options;
  const shared = maxBytes === undefined ? options : { ...options, maxBytes: maxBytes / tasks.length };
  const fits = tasks.map(() => createDownRefit(shape, shared));
  await cursor.visit(layer, ['mlp_input', 'expert_output'], ({ taps, experts }) => {
    if (!experts) return;
    const x = taps.get('mlp_input') as Floats;
    const outputs = taps.get('expert_output') as Floats;
    const chosen = { ...experts, starts: startsOf(experts.counts) };
    const output = (e: number): Floats => outputs.subarray(chosen.starts[e] * hidden, chosen.starts[e + 1] * hidden);
    tasks.forEach(({ members, merged }, t) => {
      const shares = groupShares(members, chosen, output, x.length / hidden, hidden);
      addGroupRows(fits[t], merged, shape, x, shares, options);
    });
  });
  return fits.map((fit, t) => fit.solve(tasks[t].merged.down));
}

/** Place of the first row of each expert, and the number of all, from the numbers of rows. */
function startsOf(counts: Int32Array): Int32Array {
  const starts = new Int32Array(counts.length + 1);
  counts.forEach((rows, e) => {
    starts[e + 1] = starts[e] + rows;
  });
  return starts;
}
