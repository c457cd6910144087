import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import type { FeatureLayer } from '../src/features/model-features.js';
import { POOLINGS, type Pooling } from '../src/features/pooling.js';
import type { FeatureSource } from '../src/formats/feature-matrix.js';
import { expandSources, type InputDigest } from '../src/formats/inputs.js';
import { type LabelKind, type Labels, readLabels } from '../src/formats/labels.js';
import { isTensorFile } from '../src/formats/tensor-file.js';
import type { ReportValue } from '../src/report/values.js';
import type { AnalysisContext } from './analysis-run.js';
import { flagOf, parseChoice, parseInteger } from './edge-values.js';
import { PRECISION_OPTION } from './model-session.js';
import type { SharedOptions } from './shared-options.js';

/** Shared options that a view of features has beside `ANALYSIS_OPTIONS`. */
export const FEATURE_OPTIONS = [
  'model',
  'data',
  'dataFormat',
  'textSplit',
  'textField',
  'limit',
  'device',
  'context',
] as const;

export type FeatureSharedOptions = Pick<
  SharedOptions,
  (typeof FEATURE_OPTIONS)[number] | 'threads' | 'maxMemory' | 'quiet' | 'seed'
>;

/** Options of a view of features, as commander gives them. */
export interface FeatureOwnOptions {
  tensor?: string;
  columns?: string;
  labels?: string;
  labelColumn?: string;
  labelKind?: string;
  idColumn?: string;
  layer?: string;
  pool?: string;
  precision?: string;
  chatTemplate?: boolean;
  idField?: string;
}

/** Declares where features come from: files of features, or a model and a text. */
export function addFeatureOptions(command: Command): Command {
  return command
    .option('--tensor <name>', 'array of an .npz or .safetensors file')
    .option('--columns <names>', 'columns of a table that are features, separated by commas (default all)')
    .option('--labels <file>', 'labels of the rows: .npy .npz .safetensors, .txt by line, or a table')
    .option('--label-column <name>', 'column or field that holds the labels')
    .option('--label-kind <kind>', 'auto, classes or numbers (default auto: text and whole numbers are classes)')
    .option('--id-column <name>', 'column of a table that names the rows')
    .option('--layer <list>', 'layers of the model: 0 (embeddings) to L, -1 for L, final (after the last norm), all')
    .option('--pool <how>', `positions of a text: ${POOLINGS.join(', ')} (default mean)`)
    .option('--chat-template', "render the field messages by the model's chat template")
    .option('--id-field <name>', 'field that names a document (default id)')
    .option(...PRECISION_OPTION);
}

/** One matrix of features: a file, or a layer of the model. */
export interface FeatureSet {
  /** The path, or `model, layer l`. */
  readonly name: string;
  readonly layer: FeatureLayer | null;
  /** Arrays are handed to a job by structured clone. */
  readonly source: FeatureSource;
  readonly labels?: Labels;
  /** Names of the rows, where they have any. */
  readonly ids?: readonly string[];
}

export interface FeatureInputs {
  readonly sets: readonly FeatureSet[];
  /** Digests of the model's files. */
  digests(): Promise<readonly InputDigest[]>;
  /** Tokens that went through the model; 0 for files. */
  readonly tokens: number;
}

const list = (text: string | undefined): string[] | undefined =>
  text === undefined
    ? undefined
    : text
        .split(',')
        .map((part) => part.trim())
        .filter((part) => part !== '');

/** What decides the features, for a report's parameters. */
export function featureParameters(options: FeatureSharedOptions, own: FeatureOwnOptions): Record<string, ReportValue> {
  return {
    model: options.model ?? null,
    data: [...options.data],
    data_format: options.dataFormat ?? null,
    text_split: options.textSplit,
    text_field: options.textField,
    limit: options.limit ?? null,
    tensor: own.tensor ?? null,
    columns: list(own.columns) ?? null,
    labels: own.labels ?? null,
    label_column: own.labelColumn ?? null,
    label_kind: own.labelKind ?? 'auto',
    id_column: own.idColumn ?? null,
    layer: own.layer ?? null,
    pool: own.pool ?? null,
    context: options.context ?? null,
    chat_template: own.chatTemplate === true,
    precision: own.precision ?? null,
    device: options.device,
    seed: options.seed,
  };
}

/**
 * Layers from `0,4,-1`, `2-5`, `final` or `all` (0 to `depth`).
 * @throws InputError for a layer that the model does not have
 */
export function parseLayers(text: string, depth: number): FeatureLayer[] {
  const layers: FeatureLayer[] = [];
  const add = (layer: FeatureLayer): void => {
    if (!layers.includes(layer)) layers.push(layer);
  };
  const checked = (part: string): number => {
    const number = Number(part);
    const layer = number < 0 || Object.is(number, -0) ? depth + 1 + number : number;
    if (!Number.isInteger(number) || layer < 0 || layer > depth) {
      throw new InputError(`--layer ${part}: the model has layers 0 to ${depth} (-1 is ${depth}), and final`);
    }
    return layer;
  };
  for (const part of list(text) ?? []) {
    const range = /^(\d+)-(\d+)$/.exec(part);
    if (part === 'all') for (let layer = 0; layer <= depth; layer++) add(layer);
    else if (part === 'final') add('final');
    else if (range) for (let layer = checked(range[1]); layer <= checked(range[2]); layer++) add(layer);
    else add(checked(part));
  }
  if (layers.length === 0) throw new InputError('--layer names no layer');
  return layers;
}

/** Refuses options that the kind of input has no use for. */
function checkOptions(options: FeatureSharedOptions, own: FeatureOwnOptions): void {
  const unused = options.model === undefined ? ['layer', 'pool', 'chatTemplate', 'precision'] : ['tensor', 'columns'];
  for (const name of unused) {
    if (own[name as keyof FeatureOwnOptions] === undefined) continue;
    const flag = flagOf(name);
    throw new InputError(
      options.model === undefined
        ? `${flag} needs --model and a text`
        : `${flag} is for files of features, without --model`,
    );
  }
}

/**
 * Opens what `--data` (and `--model`) name: one set a file, or one a layer of the model.
 * @param fallback layers and pooling when the options do not say
 * @throws InputError for files, columns, labels or layers that are not there or do not fit
 */
export async function openFeatureInputs(
  options: FeatureSharedOptions,
  own: FeatureOwnOptions,
  context: AnalysisContext,
  fallback: { readonly layer: string; readonly pool: Pooling } = { layer: 'final', pool: 'mean' },
): Promise<FeatureInputs> {
  checkOptions(options, own);
  if (options.model === undefined) return fromFiles(options, own, context);
  const { featuresOfTexts } = await import('./text-features.js');
  return featuresOfTexts(options.model, options, own, context, fallback);
}

export const labelKind = (own: FeatureOwnOptions): LabelKind =>
  parseChoice('--label-kind', own.labelKind ?? 'auto', ['auto', 'classes', 'numbers'] as const);

async function fromFiles(
  options: FeatureSharedOptions,
  own: FeatureOwnOptions,
  context: AnalysisContext,
): Promise<FeatureInputs> {
  const { limit } = options;
  const kind = labelKind(own);
  const except = [own.labels === undefined ? own.labelColumn : undefined, own.idColumn].filter(
    (name): name is string => name !== undefined,
  );
  const columns = list(own.columns);
  const sets: FeatureSet[] = [];
  const limited = limit === undefined ? {} : { limit };
  const shared =
    own.labels === undefined
      ? undefined
      : await readLabels(own.labels, {
          kind,
          ...limited,
          ...(own.labelColumn !== undefined && { column: own.labelColumn }),
        });
  for (const path of await expandSources(options.data)) {
    context.ledger.note(path);
    const stored = isTensorFile(path);
    const inColumn = own.labels === undefined && own.labelColumn !== undefined;
    const labels =
      shared ??
      (inColumn ? await readLabels(path, { kind, ...limited, column: own.labelColumn as string }) : undefined);
    const idLabels =
      own.idColumn === undefined
        ? undefined
        : await readLabels(path, { kind: 'classes', ...limited, column: own.idColumn });
    const ids = idLabels?.kind === 'classes' ? Array.from(idLabels.codes, (code) => idLabels.names[code]) : undefined;
    const source: FeatureSource = {
      kind: 'file',
      path,
      ...(own.tensor !== undefined && { tensor: own.tensor }),
      ...(columns && !stored && { columns }),
      ...(except.length > 0 && !stored && { except }),
      ...limited,
    };
    sets.push({ name: path, layer: null, source, ...(labels && { labels }), ...(ids && { ids }) });
  }
  if (own.labels !== undefined) context.ledger.note(own.labels);
  return { sets, digests: async () => [], tokens: 0 };
}

/** A whole number of an option, or undefined. */
export function optionalCount(flag: string, text: string | undefined, least = 1): number | undefined {
  return text === undefined ? undefined : parseInteger(flag, text, least);
}
