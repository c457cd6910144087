import { didYouMean, InputError } from '../../errors.js';
import type { Config } from '../../models/config-reader.js';
import type { Architecture, ModelModule } from './architecture.js';
import type { DocumentContent, MergeDocument, ParameterSettings } from './document.js';
import type { MergeSource, ModelReference } from './types.js';

/** A model of a merge with what was read off its names. */
export interface PlanModel {
  /** Index into the plan's models. */
  readonly index: number;
  readonly reference: ModelReference;
  readonly source: MergeSource;
  readonly config: Config;
  readonly architecture: Architecture;
}

/** Layers [from, to) of a model in a slice of the output. */
export interface SliceSource {
  readonly model: PlanModel;
  readonly module: ModelModule;
  readonly from: number;
  readonly to: number;
  readonly parameters: ParameterSettings;
}

/** Layers of the output that are merged from as many layers of each source. */
export interface Slice {
  readonly sources: readonly SliceSource[];
  /** The base among the sources; absent for methods without one. */
  readonly base?: PlanModel;
  readonly layers: number;
  readonly parameters: ParameterSettings;
  readonly place: string;
}

/** A stack of the output. */
export interface ModulePlan {
  /** Of the model whose names and config the output takes. */
  readonly module: ModelModule;
  readonly slices: readonly Slice[];
  readonly parameters: ParameterSettings;
}

interface Resolving {
  readonly document: MergeDocument;
  readonly models: readonly PlanModel[];
  readonly donor: PlanModel;
}

const NO_PARAMETERS: ParameterSettings = new Map();

/** Other names of modules: those of mergekit's tables. */
const MODULE_NAMES: Readonly<Record<string, string>> = {
  vision_model: 'vision_tower',
  visual: 'vision_tower',
  language_model: 'text_decoder',
};

function findModule({ modules }: Architecture, name: string): ModelModule | undefined {
  const usual = MODULE_NAMES[name] ?? name;
  const found = modules.find((module) => module.name === usual || module.prefix === name);
  if (found !== undefined) return found;
  return modules.length === 1 && ['default', 'text_decoder'].includes(usual) ? modules[0] : undefined;
}

/** The module of another model that goes with one of the donor's. */
function counterpart(model: PlanModel, module: ModelModule, place: string): ModelModule {
  const found = findModule(model.architecture, module.name);
  if (found === undefined)
    throw new InputError(
      `${place}: ${model.reference.text} has no part "${module.name}" (${module.prefix ?? 'no layers'})`,
    );
  return found;
}

function modelOf({ models }: Resolving, reference: ModelReference): PlanModel {
  const model = models.find((candidate) => candidate.reference.text === reference.text);
  if (model === undefined) throw new RangeError(`no source for model ${reference.text}`);
  return model;
}

function checkCount({ document }: Resolving, others: number, place: string): void {
  const { method } = document;
  const { least, most } = method.models;
  if (others >= least && others <= (most ?? Number.POSITIVE_INFINITY)) return;
  const wanted = most === undefined ? `at least ${least}` : least === most ? `${least}` : `${least} to ${most}`;
  const beside = method.base === 'none' ? '' : ' besides the base';
  throw new InputError(
    `${place}: ${method.name} takes ${wanted} model${wanted === '1' ? '' : 's'}${beside}, and ${others} are given`,
  );
}

/** The base of a slice, after a check of everything that its method asks of its models. */
function baseOf(
  resolving: Resolving,
  sources: readonly SliceSource[],
  own: ModelReference | undefined,
  place: string,
): PlanModel | undefined {
  const { document } = resolving;
  const { method } = document;
  for (const [i, { model }] of sources.entries())
    if (sources.findIndex((source) => source.model === model) !== i)
      throw new InputError(`${place}: model ${model.reference.text} stands twice among the sources`);
  const reference = own ?? document.base;
  if (method.base === 'none' || (method.base === 'optional' && reference === undefined)) {
    checkCount(resolving, sources.length, place);
    return undefined;
  }
  if (reference === undefined) throw new InputError(`${place}: ${method.name} needs "base_model"`);
  const base = modelOf(resolving, reference);
  if (!sources.some(({ model }) => model === base))
    throw new InputError(`${place}: the base model ${reference.text} is not among the sources of the slice`);
  checkCount(resolving, sources.length - 1, place);
  return base;
}

function wholeModels(resolving: Resolving, content: DocumentContent & { kind: 'models' }, module: ModelModule): Slice {
  const { document } = resolving;
  const sources = content.models.map(({ reference, parameters, place }): SliceSource => {
    const model = modelOf(resolving, reference);
    const own = counterpart(model, module, place);
    return { model, module: own, from: 0, to: own.layers.length, parameters };
  });
  const { base } = document;
  if (base !== undefined && !sources.some(({ model }) => model.reference.text === base.text)) {
    const model = modelOf(resolving, base);
    const own = counterpart(model, module, document.place);
    sources.push({ model, module: own, from: 0, to: own.layers.length, parameters: NO_PARAMETERS });
  }
  const [first] = sources;
  const other = sources.find(({ to }) => to !== first.to);
  if (other !== undefined) {
    throw new InputError(
      `${document.place}: ${first.model.reference.text} has ${first.to} layers and ${other.model.reference.text} has ${other.to}; ` +
        'models are merged whole when they have equally many: choose layers with "slices"',
    );
  }
  const { place } = document;
  const root = baseOf(resolving, sources, undefined, place);
  return { sources, layers: first.to, parameters: NO_PARAMETERS, place, ...(root === undefined ? {} : { base: root }) };
}

function slicesOf(resolving: Resolving, content: DocumentContent, module: ModelModule): Slice[] {
  if (content.kind === 'models') return [wholeModels(resolving, content, module)];
  return content.slices.map(({ sources, base, parameters, place }) => {
    const resolved = sources.map(({ reference, layerRange: [from, to], parameters: own, place: at }): SliceSource => {
      const model = modelOf(resolving, reference);
      const part = counterpart(model, module, at);
      if (to > part.layers.length)
        throw new InputError(`${at}: layers [${from}, ${to}) of ${reference.text}, which has ${part.layers.length}`);
      return { model, module: part, from, to, parameters: own };
    });
    const [first] = resolved;
    const other = resolved.find((source) => source.to - source.from !== first.to - first.from);
    if (other !== undefined) {
      const text = ({ model, from, to }: SliceSource): string =>
        `${model.reference.text} gives ${to - from} layers [${from}, ${to})`;
      throw new InputError(`${place}: ${text(first)} and ${text(other)}; the sources of a slice give equally many`);
    }
    const root = baseOf(resolving, resolved, base, place);
    return {
      sources: resolved,
      layers: first.to - first.from,
      parameters,
      place,
      ...(root === undefined ? {} : { base: root }),
    };
  });
}

/**
 * Finds the layers that the document names in the models.
 * @param warn takes a sentence on parts of the model that the document leaves out
 * @throws InputError for layers and parts that models do not have, unequal numbers of layers, and models that the method cannot take
 */
export function resolveModules(resolving: Resolving, warn: (sentence: string) => void): ModulePlan[] {
  const { document, donor } = resolving;
  const { modules } = donor.architecture;
  const { content } = document;
  if (content.kind === 'models')
    return modules.map((module) => ({
      module,
      slices: slicesOf(resolving, content, module),
      parameters: NO_PARAMETERS,
    }));
  if (content.kind === 'slices') {
    if (modules.length !== 1) {
      const names = modules.map(({ name }) => `"${name}"`).join(', ');
      throw new InputError(
        `${document.place}: ${donor.reference.text} has several parts, ${names}; write "modules" with the slices of each`,
      );
    }
    return [{ module: modules[0], slices: slicesOf(resolving, content, modules[0]), parameters: NO_PARAMETERS }];
  }
  const planned = content.modules.map(({ name, content: part, parameters, place }) => {
    const module = findModule(donor.architecture, name);
    if (module === undefined) {
      const names = modules.map((candidate) => candidate.name);
      throw new InputError(
        `${place}: ${donor.reference.text} has no part "${name}"${didYouMean(name, names)}; its parts: ${names.join(', ')}`,
      );
    }
    return { module, slices: slicesOf(resolving, part, module), parameters };
  });
  for (const { name } of modules)
    if (!planned.some(({ module }) => module.name === name))
      warn(`"modules" does not name "${name}" of ${donor.reference.text}: its tensors are not in the output`);
  return planned;
}
