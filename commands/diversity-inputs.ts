import type { KernelName } from '../src/diversity/kernel-plan.js';
import type { DiversityItems, DiversitySet } from '../src/diversity/settings.js';
import { InputError } from '../src/errors.js';
import type { FeatureLayer } from '../src/features/model-features.js';
import { readDocuments } from '../src/formats/documents.js';
import { expandSources, type InputDigest } from '../src/formats/inputs.js';
import { checkLabelCount, type Labels, labelsFrom, readLabels } from '../src/formats/labels.js';
import { escapeToken } from '../src/report/escape.js';
import type { AnalysisContext } from './analysis-run.js';
import { type FeatureOwnOptions, type FeatureSharedOptions, openFeatureInputs } from './feature-inputs.js';

/** Characters of a text that a list of modes shows. */
const EXCERPT = 80;

export interface DiversityInputOptions extends FeatureOwnOptions {
  similarity?: string;
  weights?: string;
  groupColumn?: string;
}

/** A set as it was read, with the names of its items. */
export interface NamedSet {
  readonly set: DiversitySet;
  readonly layer: FeatureLayer | null;
  readonly ids?: readonly string[];
  readonly excerpts?: readonly string[];
  readonly groupOf?: readonly string[];
}

/** What is measured, each with the sets that it is compared with. */
export interface DiversityInputs {
  readonly sets: readonly { readonly main: NamedSet; readonly against: readonly NamedSet[] }[];
  digests(): Promise<readonly InputDigest[]>;
}

export const TEXT_KERNELS: readonly KernelName[] = ['ngram', 'edit', 'match'];

type Options = FeatureSharedOptions & { readonly against: string[] };

/** Reads a set, the sets it is compared with, weights and groups. Throws InputError for what does not fit. */
export async function openDiversityInputs(
  kernel: KernelName,
  options: Options,
  given: DiversityInputOptions,
  context: AnalysisContext,
): Promise<DiversityInputs> {
  const own: DiversityInputOptions = {
    ...given,
    ...(given.groupColumn !== undefined && { labelColumn: given.groupColumn, labelKind: 'classes' }),
  };
  const read = (data: readonly string[]): Promise<{ sets: NamedSet[]; digests: DiversityInputs['digests'] }> =>
    readSets(kernel, { ...options, data: [...data] }, own, context);
  const mains = await read(options.data);
  const digests = [mains.digests];
  const others: NamedSet[][] = [];
  for (const path of options.against.length > 0 ? await expandSources(options.against) : []) {
    const { sets } = await readSets(
      kernel,
      { ...options, data: [path] },
      { ...own, labels: undefined, labelColumn: undefined },
      context,
    );
    others.push(sets);
  }
  const weighted = await withWeights(mains.sets, own, options, context);
  return {
    // Layers of a model are compared with the same layer; files each with each.
    sets: weighted.map((main, index) => ({
      main,
      against: others.map((sets) => (options.model === undefined ? sets[0] : sets[index])),
    })),
    digests: async () => (await Promise.all(digests.map((digest) => digest()))).flat(),
  };
}

async function readSets(
  kernel: KernelName,
  options: FeatureSharedOptions,
  own: DiversityInputOptions,
  context: AnalysisContext,
): Promise<{ sets: NamedSet[]; digests: DiversityInputs['digests'] }> {
  if (TEXT_KERNELS.includes(kernel)) return { sets: [await readTexts(options, own, context)], digests: async () => [] };
  const inputs = await openFeatureInputs(options, own, context);
  const matrix = kernel === 'matrix';
  const sets = inputs.sets.map(({ name, layer, source, labels, ids }): NamedSet => {
    const items: DiversityItems = { kind: matrix ? 'matrix' : 'features', source };
    return {
      set: {
        name: options.model === undefined ? name : `${options.data.join(', ')} (${name})`,
        items,
        ...groups(labels),
      },
      layer,
      ...(ids && { ids }),
      ...(labels && { groupOf: groupNames(labels) }),
    };
  });
  return { sets, digests: inputs.digests };
}

function groups(labels: Labels | undefined): { groups?: DiversitySet['groups'] } {
  if (labels === undefined) return {};
  if (labels.kind === 'numbers') {
    throw new InputError('groups need classes, the labels are numbers; use --label-kind classes if they name groups');
  }
  return { groups: { codes: labels.codes, names: labels.names } };
}

const groupNames = (labels: Labels): string[] =>
  labels.kind === 'classes' ? Array.from(labels.codes, (code) => labels.names[code]) : [];

async function readTexts(
  options: FeatureSharedOptions,
  own: DiversityInputOptions,
  context: AnalysisContext,
): Promise<NamedSet> {
  const texts: string[] = [];
  const ids: string[] = [];
  const labelValues: unknown[] = [];
  const field = own.labels === undefined ? own.labelColumn : undefined;
  const read = readDocuments(options.data, {
    ledger: context.ledger,
    textField: options.textField,
    textSplit: options.textSplit,
    ...(options.dataFormat && { format: options.dataFormat }),
    ...(options.limit !== undefined && { limit: options.limit }),
    ...(own.idField !== undefined && { idField: own.idField }),
  });
  const name = options.data.join(', ');
  for await (const { text, id, record } of read) {
    if (text === undefined)
      throw new InputError(`${name}: item ${id} is token ids, not a text; this kernel compares texts`);
    texts.push(text);
    ids.push(id);
    if (field !== undefined) labelValues.push(record[field]);
  }
  if (texts.length === 0) throw new InputError(`${name}: holds no text; nothing to compare`);
  let labels: Labels | undefined;
  if (field !== undefined) labels = labelsFrom(labelValues, `${name}: field "${field}"`, 'classes');
  if (own.labels !== undefined) {
    context.ledger.note(own.labels);
    labels = await readLabels(own.labels, {
      kind: 'classes',
      ...(own.labelColumn !== undefined && { column: own.labelColumn }),
      ...(options.limit !== undefined && { limit: options.limit }),
    });
    checkLabelCount(labels, texts.length, own.labels, name);
  }
  return {
    set: { name, items: { kind: 'texts', texts }, ...groups(labels) },
    layer: null,
    ids,
    excerpts: texts.map((text) => {
      const characters = Array.from(text);
      return escapeToken(characters.length > EXCERPT ? `${characters.slice(0, EXCERPT).join('')}\u2026` : text);
    }),
    ...(labels && { groupOf: groupNames(labels) }),
  };
}

/** Weights of the items: a file of numbers, or a column of the data. Every set of the run shares them. */
async function withWeights(
  sets: readonly NamedSet[],
  own: DiversityInputOptions,
  options: Options,
  context: AnalysisContext,
): Promise<NamedSet[]> {
  if (own.weights === undefined) return [...sets];
  const asFile = await expandSources([own.weights]).then(
    () => true,
    () => false,
  );
  if (asFile) context.ledger.note(own.weights);
  else if (options.data.length > 1 || /\.(npy|npz|safetensors)$/i.test(options.data[0])) {
    throw new InputError(`--weights ${own.weights}: no such file; name a file of numbers, or a column of one table`);
  }
  const found = await readLabels(asFile ? own.weights : options.data[0], {
    kind: 'numbers',
    ...(!asFile && { column: own.weights }),
    ...(options.limit !== undefined && { limit: options.limit }),
  });
  const weights = found.kind === 'numbers' ? found.values : new Float64Array(0);
  return sets.map((named) => ({ ...named, set: { ...named.set, weights } }));
}
