import { combineElements, type ElementGroups, gramOfElements, groupCount } from '../../../kernels/merge-dense.js';
import type { MergeMethod, MergeOutcome, MergeTask, MergeVariant, TensorBytes } from '../types.js';
import { requireBase, taskBoolean } from './method-inputs.js';
import { vectorGroups } from './nuslerp.js';
import { copyTensor } from './passthrough.js';
import { clampedCosine, pairIndex } from './spherical-interpolation.js';

/** Products of norms count as no less. */
const LEAST_PRODUCT = 1e-6;
/** 1 + (N - 1) cos below this: task vectors that cancel, and no finite factor. */
const SINGULAR = 1e-6;

/** Mean over pairs of the cosines of n task vectors, from their Gram matrix. */
export function meanCosine(gram: ArrayLike<number>, n: number): number {
  let sum = 0;
  for (let i = 0; i < n; i++) {
    for (let j = i + 1; j < n; j++) {
      const product = Math.sqrt(gram[pairIndex(n, i, i)]) * Math.sqrt(gram[pairIndex(n, j, j)]);
      sum += clampedCosine(gram[pairIndex(n, i, j)] / Math.max(product, LEAST_PRODUCT));
    }
  }
  return sum / ((n * (n - 1)) / 2);
}

/**
 * t = N cos / (1 + (N - 1) cos); 0, the base, where the task vectors cancel and the divisor is not positive (mergekit:
 * only where it is nearly 0). (Jang et al. 2024, equation 6.)
 */
export function stockFactor(cosine: number, n: number, variant: MergeVariant): number {
  const divisor = 1 + (n - 1) * cosine;
  const singular = variant === 'mergekit' ? Math.abs(divisor) < SINGULAR : divisor < SINGULAR;
  return singular ? 0 : (n * cosine) / divisor;
}

export interface StockAngles {
  /** Mean pairwise cosine of the task vectors of every group: the tensor, or each of its rows. */
  readonly cosines: Float64Array;
  readonly factors: Float64Array;
  readonly groups: ElementGroups;
}

/** Cosines and factors of a tensor, or of each of its rows. */
export function stockAngles(
  base: TensorBytes,
  models: readonly TensorBytes[],
  options: { readonly filterWise: boolean; readonly variant: MergeVariant; readonly threads?: number },
): StockAngles {
  const groups = vectorGroups(base.shape, !options.filterWise, false);
  const gram = gramOfElements([base, ...models], groups, { relative: true, threads: options.threads });
  const count = groupCount(groups);
  const pairs = gram.length / count;
  const cosines = new Float64Array(count);
  for (let group = 0; group < count; group++) {
    cosines[group] = meanCosine(gram.subarray(group * pairs, (group + 1) * pairs), models.length);
  }
  return { cosines, factors: cosines.map((c) => stockFactor(c, models.length, options.variant)), groups };
}

/** t mean(theta_i) + (1 - t) theta_0, with one t for a tensor or for each of its rows. */
function mergeModelStock(task: MergeTask): MergeOutcome {
  const { base, others } = requireBase(task);
  const n = others.length;
  if (n < 2) {
    copyTensor(base.tensor, task.output, task.threads);
    return { warnings: ['fewer than two models have it beside the base; the base is copied'] };
  }
  const inputs = [base, ...others].map((input) => input.tensor);
  const { cosines, factors, groups } = stockAngles(base.tensor, inputs.slice(1), {
    filterWise: taskBoolean(task, 'filter_wise'),
    variant: task.variant,
    threads: task.threads,
  });
  const count = cosines.length;
  const coefficients = new Float64Array((n + 1) * count);
  for (let group = 0; group < count; group++) {
    coefficients[group] = 1 - factors[group];
    for (let i = 1; i <= n; i++) coefficients[i * count + group] = factors[group] / n;
  }
  combineElements(inputs, coefficients, task.output, groups, { threads: task.threads });
  const t = mean(factors);
  const singular = cosines.some((cosine) => 1 + (n - 1) * cosine < SINGULAR);
  return {
    weights: task.inputs.map((input) => (input.isBase ? 1 - t : t / n)),
    figures: { t, mean_cosine: mean(cosines) },
    warnings: singular ? ['task vectors cancel each other (1 + (N - 1) cos is 0); the base is kept there'] : [],
  };
}

function mean(values: Float64Array): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

export const modelStock: MergeMethod = {
  name: 'model_stock',
  summary: 'Average of the models drawn towards the base by the angle between their task vectors.',
  reference: 'Jang, Yun and Han, Model Stock (ECCV 2024)',
  base: 'required',
  models: { least: 2 },
  perModel: [],
  global: [{ name: 'filter_wise', kind: 'boolean', default: false, summary: 'An angle for every row.' }],
  taskVectors: false,
  span: (parameters) => (parameters.filter_wise === true ? 'row' : 'tensor'),
  // Dot products and coefficients of rows of a thousand elements or more.
  workBytes: (elements, inputs) => (inputs * (inputs + 2) * elements) / 128,
  merge: mergeModelStock,
};
