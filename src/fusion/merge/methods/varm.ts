import { InputError } from '../../../errors.js';
import { elementCount } from '../../../formats/tensor.js';
import { allElements, combineElements } from '../../../kernels/merge-dense.js';
import { measureTaskVector, mixByVariation } from '../../../kernels/merge-sparse.js';
import type { MergeMethod, MergeOutcome, MergeTask, ParameterValue } from '../types.js';
import { taskString } from './method-inputs.js';
import { keepBase, nanWarnings, perInput, taskVectorsOf } from './task-vectors.js';

export const VARM_LEVELS = ['param', 'module', 'layer', 'model', 'item'] as const;
export type VarmLevel = (typeof VARM_LEVELS)[number];

/** What is averaged over the elements of a matrix: delta^2, |delta|, or delta with its sign. */
export type VarmMeasure = 'square' | 'abs' | 'default';

/** `formula`: a model that has not moved gets weight 0. `uniform`: where one has not moved, all weights are equal. */
export type ZeroRule = 'formula' | 'uniform';

/** Sum of variations to which the authors' code raises that of an element. */
const ITEM_FLOOR = 1e-13;

/** Names of numbered blocks of layers in checkpoints. */
const LAYER = /^(.*?\b(?:layers|layer|blocks|block|h)\.(\d+))\.([^.]+)/;

/**
 * The group whose tensors share one vector of weights: a layer (its number), a module (`model.layers.0.self_attn`, each
 * norm by itself), the whole `model`. A tensor outside layers is a group of its own, but for the level `model`.
 * Undefined where a tensor or an element needs only itself.
 */
export function varmGroup(level: VarmLevel, tensor: string): string | undefined {
  if (level === 'param' || level === 'item') return undefined;
  if (level === 'model') return 'model';
  const found = LAYER.exec(tensor);
  if (found === null) return tensor;
  const [, layer, number, module] = found;
  return level === 'layer' ? number : `${layer}.${module}`;
}

/** v_j of one tensor: the mean over its elements. `default` keeps the sign, which is dropped after sums over groups. */
function variations(task: MergeTask, measure: VarmMeasure): { readonly means: number[]; readonly nans: number[] } {
  const { models, base, wide } = taskVectorsOf(task);
  const count = elementCount(task.output.shape);
  const figures = models.map((model) => measureTaskVector({ base, model, wide }, count, {}, task.threads));
  const sums = figures.map((found) =>
    measure === 'square' ? found.squares : measure === 'abs' ? found.absolute : found.sum,
  );
  return { means: sums.map((sum) => (count === 0 ? 0 : sum / count)), nans: figures.map((found) => found.nans) };
}

/**
 * w_j = v_j / sum of v from the models' variations, or softmax(v / temperature). All zero: equal weights; one zero: by
 * the rule. (Wan et al. 2024, FuseChat, eq. of VaRM; the uniform rule is its code's.)
 * @throws InputError for a temperature that is not positive
 */
export function varmWeights(variation: ArrayLike<number>, zeroRule: ZeroRule, temperature?: number): number[] {
  const sizes = Array.from(variation, Math.abs);
  if (temperature !== undefined) {
    if (!(temperature > 0)) throw new InputError(`varm: temperature ${temperature}; it must be above 0`);
    const most = Math.max(...sizes);
    const powers = sizes.map((size) => Math.exp((size - most) / temperature));
    const sum = powers.reduce((total, power) => total + power, 0);
    return powers.map((power) => power / sum);
  }
  const total = sizes.reduce((sum, size) => sum + size, 0);
  if (total === 0 || (zeroRule === 'uniform' && sizes.some((size) => size === 0))) {
    return sizes.map(() => 1 / sizes.length);
  }
  return sizes.map((size) => size / total);
}

const levelOf = (parameters: Readonly<Record<string, ParameterValue | undefined>>): VarmLevel =>
  VARM_LEVELS.find((level) => level === parameters.level) ?? 'param';

const measureOf = (task: MergeTask): VarmMeasure => {
  const measure = taskString(task, 'measure');
  return measure === 'abs' || measure === 'default' ? measure : 'square';
};

/**
 * What one tensor adds to the variations of its group: means over its elements, but sums where the group is the model, all
 * of whose elements count alike.
 */
export function varmMeasure(task: MergeTask): Float64Array {
  const { means } = variations(task, measureOf(task));
  const elements = levelOf(task.parameters) === 'model' ? elementCount(task.output.shape) : 1;
  return Float64Array.from(means, (mean) => mean * elements);
}

function mergeItems(task: MergeTask): MergeOutcome {
  const { others, ...vectors } = taskVectorsOf(task);
  const uniform = taskString(task, 'zero_rule') === 'uniform';
  const nans = mixByVariation(
    vectors,
    elementCount(task.output.shape),
    { measure: measureOf(task) === 'square' ? 'square' : 'absolute', ...(uniform ? { floor: ITEM_FLOOR } : {}) },
    task.output,
    task.threads,
  );
  return { warnings: nanWarnings(others, nans) };
}

/** theta = sum of w_j theta_j, the weights of a tensor, of its group or of each element. */
function mergeVarm(task: MergeTask): MergeOutcome {
  const kept = keepBase(task);
  if (kept) return kept;
  const level = levelOf(task.parameters);
  if (level === 'item') return mergeItems(task);
  const { others, models } = taskVectorsOf(task);
  const grouped = varmGroup(level, task.name) !== undefined;
  if (grouped && task.surveyed === undefined) throw new RangeError(`tensor ${task.name}: its group was not measured`);
  const own = variations(task, measureOf(task));
  const zeroRule = taskString(task, 'zero_rule') === 'uniform' ? 'uniform' : 'formula';
  const { temperature } = task.parameters;
  const weights = varmWeights(
    task.surveyed ?? own.means,
    zeroRule,
    typeof temperature === 'number' ? temperature : undefined,
  );
  const groups = allElements(elementCount(task.output.shape));
  combineElements(models, Float64Array.from(weights), task.output, groups, { threads: task.threads });
  const measured = others.map((_, j): [string, number] => [`variation_${j}`, Math.abs(own.means[j])]);
  return {
    weights: perInput(task, weights, 0),
    figures: Object.fromEntries(measured),
    warnings: nanWarnings(others, own.nans),
  };
}

export const varm: MergeMethod = {
  name: 'varm',
  summary: 'Weighted average of the models, each matrix by how far a model has moved it from the pivot.',
  reference: 'Wan et al., FuseChat (2024), variation ratio merging',
  base: 'required',
  models: { least: 1 },
  perModel: [],
  global: [
    {
      name: 'level',
      kind: 'string',
      default: 'param',
      choices: VARM_LEVELS,
      summary: 'What shares one set of weights: a tensor, a module, a layer, the model, or a single element.',
    },
    {
      name: 'measure',
      kind: 'string',
      default: 'square',
      choices: ['square', 'abs', 'default'],
      summary: 'Mean of delta^2, of |delta|, or the magnitude of the mean of delta.',
    },
    {
      name: 'zero_rule',
      kind: 'string',
      default: 'formula',
      choices: ['formula', 'uniform'],
      summary: "A model that has not moved gets no weight, or (the authors' code) makes all weights equal.",
    },
    { name: 'temperature', kind: 'number', summary: 'Weights are softmax(variation / temperature) instead.' },
  ],
  taskVectors: true,
  span: (parameters) => (levelOf(parameters) === 'item' ? 'element' : 'tensor'),
  workBytes: () => 0,
  survey: {
    group: ({ name }, parameters) => varmGroup(levelOf(parameters), name),
    measure: varmMeasure,
  },
  merge: mergeVarm,
};
