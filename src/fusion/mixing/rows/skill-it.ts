import { InputError } from '../../../errors.js';
import { checkLosses } from '../checked-losses.js';
import { columnSums } from '../group-matrix.js';
import type { MixingMethod } from '../types.js';
import { evidenceOf } from './evidence.js';
import { createWeights } from './weights.js';

/**
 * The graph of Skill-It from one short run a group: entry (j, i) is (start_i - end_ji) / start_i, the share of its loss that
 * group i lost while j was trained.
 * @param start losses [k] before the runs
 * @param ends losses [k, k] behind them, row = trained group
 * @returns [k, k], row = trained group, column = evaluated group
 */
export function learnedGraph(start: Float64Array, ends: Float64Array): Float64Array {
  const k = start.length;
  return prunedGraph(
    ends.map((end, e) => (start[e % k] - end) / start[e % k]),
    k,
  );
}

/** A graph as the method reads it: edges of exactly 1 between two groups count one half. */
export function prunedGraph(graph: Float64Array, k: number): Float64Array {
  return graph.map((entry, e) => (entry === 1 && Math.floor(e / k) !== e % k ? 0.5 : entry));
}

/**
 * Skill-It (Chen et al. 2023): A_ij = graph_ji L_i, L the sum of the last `window` loss vectors, so that groups are trained
 * that help those which are still bad; p from uniform in every update, first with a loss of 1 for every group.
 */
export const skillIt: MixingMethod = {
  name: 'skill-it',
  summary: 'a learned graph of what helps what, times the losses of the last evaluations',
  law: 'linear-dynamic',
  evidence: 'losses',
  parameters: () => ({ eta: 0.2, window: 3, floor: 0 }),
  create(start) {
    const { groups, parameters, graph } = start;
    const { eta, window } = parameters;
    const k = groups.length;
    if (graph === undefined)
      throw new InputError('skill-it needs a graph: losses of one short run a group, or a matrix');
    if (graph.length !== k * k) {
      throw new InputError(`a graph of ${graph.length} entries for ${k} groups: ${k * k} are needed`);
    }
    const weights = createWeights(start);
    const past: Float64Array[] = [];
    const matrixOf = (losses: Float64Array): Float64Array => {
      const matrix = new Float64Array(k * k);
      for (let i = 0; i < k; i++) for (let j = 0; j < k; j++) matrix[i * k + j] = graph[j * k + i] * losses[i];
      return matrix;
    };
    weights.restart(columnSums(matrixOf(new Float64Array(k).fill(1)), k).map((sum) => eta * sum));
    return {
      get proportions() {
        return weights.proportions;
      },
      update(evidence) {
        const { losses } = evidenceOf(evidence, 'losses');
        checkLosses(losses, groups, 'losses');
        past.push(losses);
        if (past.length > window) past.shift();
        const sums = new Float64Array(k);
        for (const one of past) for (let i = 0; i < k; i++) sums[i] += one[i];
        const matrix = matrixOf(sums);
        const exponent = columnSums(matrix, k).map((sum) => eta * sum);
        const proportions = weights.restart(exponent);
        return { matrix, used: matrix, exponent, proportions, condition: null, signalToNoise: null };
      },
      result: () => weights.proportions,
    };
  },
};
