import type { ActiveCounts } from '../../../kernels/merge-sparse.js';
import type { MergeMethod } from '../types.js';
import { taskNumber } from './method-inputs.js';
import { ACTIVE_EPSILON, mergeActive } from './ram.js';

/**
 * lambda_i = 1 + r clamp(rho_i, 0, alpha), rho_i = shared over unique active elements; no unique ones clamp to alpha.
 * `rounded` forms them in f32, as mergekit does: its counts are integers, whose quotient torch makes a float.
 */
export function uniqueFactors(
  counts: Pick<ActiveCounts, 'shared' | 'unique'>,
  settings: { readonly r: number; readonly alpha: number; readonly epsilon: number },
  rounded = false,
): Float64Array {
  const round = rounded ? Math.fround : (value: number): number => value;
  const [r, alpha] = [round(settings.r), round(settings.alpha)];
  return counts.shared.map((shared, j) => {
    const rho = round(shared / Math.max(counts.unique[j], settings.epsilon));
    return round(1 + round(r * Math.min(Math.max(rho, 0), alpha)));
  });
}

export const ramplusTl: MergeMethod = {
  name: 'ramplus_tl',
  summary: 'As ram; what one model alone has changed is amplified the more, the more it shares with others.',
  reference: 'Reinforced Agent Merging Plus, tensor-local (arXiv 2601.13572, 2026)',
  base: 'required',
  models: { least: 1 },
  perModel: [],
  global: [
    { name: 'r', kind: 'number', default: 0.1, summary: 'How much the overlap amplifies.' },
    { name: 'alpha', kind: 'number', default: 0.2, minimum: 0, summary: 'Most that an overlap counts.' },
    ACTIVE_EPSILON,
  ],
  taskVectors: true,
  span: () => 'tensor',
  workBytes: () => 0,
  merge: (task) => {
    const [r, alpha, epsilon] = ['r', 'alpha', 'epsilon'].map((name) => taskNumber(task, name));
    return mergeActive(task, (counts) => uniqueFactors(counts, { r, alpha, epsilon }, task.variant === 'mergekit'));
  },
};
