import { createBufferPool } from './buffer-pool.js';
import { loadItem, shapeOfRows } from './load-item.js';
import { rowCount } from './source.js';
import type { MergePlan, MergeSource, MergeVariant, PlannedTensor } from './types.js';

/** What a survey takes. */
export interface SurveyOptions {
  readonly plan: MergePlan;
  /** In the order of the plan's models. */
  readonly sources: readonly MergeSource[];
  readonly seed: number;
  readonly threads: number;
  readonly variant: MergeVariant;
}

/** The tensor's group; undefined where the method needs no sums for it. */
function groupOf({ method }: MergePlan, tensor: PlannedTensor): string | undefined {
  return tensor.copied ? undefined : method.survey?.group(tensor, tensor.parameters);
}

/**
 * The pass of a method that must know other tensors before it merges one: every tensor of a group is read once and measured.
 * @returns the sums of a tensor's group, in the order of the plan whatever the order of the files
 */
export async function surveyModels(
  options: SurveyOptions,
): Promise<(tensor: PlannedTensor) => Float64Array | undefined> {
  const { plan } = options;
  const { survey } = plan.method;
  const sums = new Map<string, Float64Array>();
  if (survey === undefined) return () => undefined;
  const pool = createBufferPool();
  for (const [index, tensor] of plan.tensors.entries()) {
    const group = groupOf(plan, tensor);
    if (group === undefined) continue;
    const item = { tensor: index, from: 0, to: rowCount(tensor.shape) };
    const { inputs, buffers } = await loadItem(options, pool, item);
    const measured = survey.measure({
      ...{ name: tensor.name, inputs, parameters: tensor.parameters, firstElement: 0 },
      ...{ seed: options.seed, threads: options.threads, variant: options.variant },
      output: { dtype: tensor.dtype, shape: shapeOfRows(tensor.shape, item), bytes: new Uint8Array(0) },
    });
    for (const buffer of buffers) pool.give(buffer);
    const sum = sums.get(group) ?? new Float64Array(measured.length);
    sums.set(group, sum);
    for (const [i, value] of measured.entries()) sum[i] += value;
  }
  return (tensor) => {
    const group = groupOf(plan, tensor);
    return group === undefined ? undefined : sums.get(group);
  };
}
