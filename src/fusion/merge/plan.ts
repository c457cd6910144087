import { InputError } from '../../errors.js';
import type { Config } from '../../models/config-reader.js';
import { aliasIn, inferArchitecture } from './architecture.js';
import { type MergeDocument, referencedModels } from './document.js';
import { mergedConfig } from './merged-config.js';
import { type ModulePlan, type PlanModel, resolveModules, type Slice } from './plan-slices.js';
import { createTensorNotes, namesOutside, planTensor, type TensorPlanning } from './plan-tensor.js';
import { gradientPosition } from './setting.js';
import type { MergePlan, MergeSource, PlannedTensor } from './types.js';

export interface PlanOptions {
  /** Models of different architectures are merged as far as their tensors go together. */
  readonly allowCrimes?: boolean;
}

function readModels(document: MergeDocument, sources: readonly MergeSource[], configs: readonly Config[]): PlanModel[] {
  return referencedModels(document).map((reference, index) => {
    const at = sources.findIndex((source) => source.reference.text === reference.text);
    if (at === -1) throw new RangeError(`no source for model ${reference.text}`);
    const config = configs[at] ?? {};
    const architecture = inferArchitecture(sources[at].tensors.keys(), config, reference.text);
    return { index, reference, source: sources[at], config, architecture };
  });
}

function checkArchitectures(document: MergeDocument, models: readonly PlanModel[]): void {
  const nameOf = ({ reference, architecture }: PlanModel): string => reference.architecture ?? architecture.name;
  const [first, ...others] = models;
  const other = others.find((model) => nameOf(model) !== nameOf(first));
  if (other !== undefined) {
    const is = (model: PlanModel): string =>
      nameOf(model) === 'unknown'
        ? `${model.reference.text} names no architecture in its config.json`
        : `${model.reference.text} is a ${nameOf(model)}`;
    throw new InputError(
      `${document.place}: ${is(first)} and ${is(other)}; ` +
        '--allow-crimes merges different architectures as far as their tensors go together',
    );
  }
}

/** Names in the order of the first model that has them, the base first. */
function unionOfNames(slice: Slice, namesIn: (source: Slice['sources'][number]) => Iterable<string>): string[] {
  const sources = [...slice.sources].sort((a, b) => Number(b.model === slice.base) - Number(a.model === slice.base));
  const names = new Set<string>();
  for (const source of sources)
    for (const name of namesIn(source)) if (aliasIn(name, (other) => names.has(other)) === undefined) names.add(name);
  return [...names];
}

function planOutside(of: ModulePlan, part: 'before' | 'after', planning: TensorPlanning): PlannedTensor[] {
  const slice = of.slices[part === 'before' ? 0 : of.slices.length - 1];
  return unionOfNames(slice, ({ module }) => module[part]).flatMap(
    (name) => planTensor({ name, module: name, slice, of, t: 0, names: namesOutside(slice, name) }, planning) ?? [],
  );
}

/** Layer `index` of a slice as layer `layer` of the output. */
function planLayer(
  of: ModulePlan,
  slice: Slice,
  index: number,
  layer: number,
  planning: TensorPlanning,
): PlannedTensor[] {
  const layers = slice.sources.map(({ module, from }) => module.layers[from + index]);
  const names = unionOfNames(slice, (source) => layers[slice.sources.indexOf(source)].keys());
  const { prefix = '' } = of.module;
  return names.flatMap((module) => {
    const request = {
      name: `${prefix === '' ? '' : `${prefix}.`}${layer}.${module}`,
      layer,
      module,
      slice,
      of,
      t: gradientPosition(index, slice.layers),
      names: layers.map((tensors) => {
        const own = aliasIn(module, (candidate) => tensors.has(candidate));
        return own === undefined ? undefined : tensors.get(own);
      }),
    };
    return planTensor(request, planning) ?? [];
  });
}

const layersOf = ({ slices }: ModulePlan): number => slices.reduce((sum, { layers }) => sum + layers, 0);

function planModule(of: ModulePlan, planning: TensorPlanning): PlannedTensor[] {
  const tensors = planOutside(of, 'before', planning);
  let layer = 0;
  for (const slice of of.slices)
    for (let index = 0; index < slice.layers; index++) tensors.push(...planLayer(of, slice, index, layer++, planning));
  tensors.push(...planOutside(of, 'after', planning));
  return tensors;
}

/** The layers beyond those that the config counts go along with whole models alone. */
function planBeyond(donor: PlanModel, modules: readonly ModulePlan[], planning: TensorPlanning): PlannedTensor[] {
  const { beyond } = donor.architecture;
  if (beyond.length === 0) return [];
  if (planning.document.content.kind !== 'models') {
    for (const name of beyond)
      planning.notes.add('layers beyond those that config.json counts are not in the output', name, '');
    return [];
  }
  const [of] = modules;
  const [slice] = of.slices;
  return beyond.flatMap(
    (name) => planTensor({ name, module: name, slice, of, t: 0, names: namesOutside(slice, name) }, planning) ?? [],
  );
}

/** Sentences on layers of a model that stand in the output several times. */
function repetitions(modules: readonly ModulePlan[]): string[] {
  return modules.flatMap(({ module, slices }) => {
    const uses = new Map<PlanModel, Map<number, number>>();
    for (const { sources } of slices) {
      for (const { model, from, to } of sources) {
        const counts = uses.get(model) ?? new Map<number, number>();
        uses.set(model, counts);
        for (let layer = from; layer < to; layer++) counts.set(layer, (counts.get(layer) ?? 0) + 1);
      }
    }
    return [...uses].flatMap(([{ reference }, counts]) => {
      const repeated = [...counts].flatMap(([layer, count]) => (count > 1 ? [layer] : [])).sort((a, b) => a - b);
      const where = module.name === 'default' ? '' : ` of ${module.name}`;
      return repeated.length === 0
        ? []
        : [`${reference.text}: in the output more than once: layers ${ranges(repeated)}${where}`];
    });
  });
}

/** `0-3, 7` of ascending integers. */
function ranges(values: readonly number[]): string {
  const parts: [number, number][] = [];
  for (const value of values) {
    const last = parts.at(-1);
    if (last !== undefined && last[1] === value - 1) last[1] = value;
    else parts.push([value, value]);
  }
  return parts.map(([from, to]) => (from === to ? `${from}` : `${from}-${to}`)).join(', ');
}

/** The part whose layers a plan counts: the decoder where there are several. */
function mainModule(modules: readonly ModulePlan[]): ModulePlan {
  const named = (name: string): ModulePlan | undefined => modules.find(({ module }) => module.name === name);
  return (
    named('text_decoder') ??
    named('decoder') ??
    modules.reduce((best, of) => (layersOf(of) > layersOf(best) ? of : best))
  );
}

/**
 * Resolves a document against the models that it names: every tensor of the output with its inputs, parameters, shape and type.
 * No weight is read.
 * @param sources one for each of {@link referencedModels}, in any order, found by the text of their reference
 * @param configs config.json of each source
 * @throws InputError for models, layers, shapes and parameters that do not go together; it names the place in the
 * configuration, the models and the tensor
 */
export function planMerge(
  document: MergeDocument,
  sources: readonly MergeSource[],
  configs: readonly Config[],
  options: PlanOptions = {},
): MergePlan {
  const models = readModels(document, sources, configs);
  const allowCrimes = options.allowCrimes ?? false;
  if (!allowCrimes) checkArchitectures(document, models);
  const donor = models.find(({ reference }) => reference.text === document.base?.text) ?? models[0];
  const notes = createTensorNotes();
  const warnings: string[] = [];
  const modules = resolveModules({ document, models, donor }, (sentence) => warnings.push(sentence));
  const planning: TensorPlanning = { document, allowCrimes, notes };
  for (const { architecture, reference } of models)
    for (const name of architecture.buffers)
      notes.add(`${reference.text}: buffers that loaders compute anew are left out`, name, '');
  const tensors = [
    ...modules.flatMap((module) => planModule(module, planning)),
    ...planBeyond(donor, modules, planning),
  ];
  if (tensors.length === 0) throw new InputError(`${document.place}: ${donor.reference.text} has no tensors to merge`);
  const base = models.find(({ reference }) => reference.text === document.base?.text);
  const config = mergedConfig({ document, donor, models, modules, tensors });
  const outDtype = document.outDtype ?? document.dtype;
  return {
    method: document.method,
    models: models.map(({ reference }) => reference),
    tensors,
    layers: layersOf(mainModule(modules)),
    configChanges: config.changes,
    configFrom: donor.index,
    warnings: [...warnings, ...notes.sentences(), ...repetitions(modules), ...config.warnings],
    ...(document.name === undefined ? {} : { name: document.name }),
    ...(base === undefined || document.method.base === 'none' ? {} : { base: base.index }),
    ...(outDtype === undefined ? {} : { outDtype }),
    ...(document.chatTemplate === undefined ? {} : { chatTemplate: document.chatTemplate }),
  };
}
