import type { Floats } from '../models/layer-runner.js';
import { readRouter } from './expert-reader.js';
import type { LayerTask, MergeRun } from './merge-layer.js';
import type { NewRouter } from './merged-writer.js';
import { createRouterRowFit, dominantRows, meanRows } from './router-rows.js';
import { present } from './stream-cursor.js';

/** A router with a row for every group. */
export interface ReducedRouter {
  /** What is written: rows of the source by number, so that they stay bit for bit, or new ones. */
  readonly stored: NewRouter;
  /** [G, H], as the new layer multiplies them. */
  readonly rows: Float32Array;
  /** Of fitted rows: share of the variance of its target that each explains. */
  readonly explained?: readonly number[];
}

/** Rows of a reduced router by the rule of the settings; biases go with them. */
export async function reduceRouter(run: MergeRun, task: LayerTask): Promise<ReducedRouter> {
  const { model, settings, threads, cursor } = run;
  const { layer, shape, experts } = model.layers[task.index];
  const { grouping, usage } = task;
  const router = readRouter(model, task.index, threads);
  const { hidden } = shape;
  const lead = (): Float32Array => Float32Array.from(dominantRows(router.rows, hidden, grouping));
  const mean = (values: Float32Array, columns: number): Float32Array =>
    Float32Array.from(meanRows(values, columns, grouping, usage));
  const withBiases = (rows: Float32Array): NewRouter => ({
    rows,
    ...(router.bias && { bias: mean(router.bias, 1) }),
    ...(router.correctionBias && { correctionBias: mean(router.correctionBias, 1) }),
  });
  switch (settings.routerRows) {
    case 'dominant':
      return { stored: { rows: grouping.dominants }, rows: lead() };
    case 'mean': {
      const rows = mean(router.rows, hidden);
      return { stored: withBiases(rows), rows };
    }
    case 'fit': {
      const fit = createRouterRowFit(hidden, grouping, { threads });
      await present(cursor).visit(layer, ['mlp_input', 'router_logits'], ({ taps }) => {
        const logits = taps.get('router_logits') as Floats;
        fit.add(taps.get('mlp_input') as Floats, logits, logits.length / experts);
      });
      const solved = fit.solve(lead(), settings.routerLambda);
      const rows = Float32Array.from(solved.rows);
      return { stored: withBiases(rows), rows, explained: Array.from(solved.explained) };
    }
  }
}
