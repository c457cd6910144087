import { InputError } from '../src/errors.js';
import { openFeatures } from '../src/features/open-features.js';
import type { FeatureSource } from '../src/formats/feature-matrix.js';
import type { InputDigest } from '../src/formats/inputs.js';
import { checkLabelCount, type Labels, readLabels } from '../src/formats/labels.js';
import { carveRows } from '../src/linalg/carve-rows.js';
import { alignClasses, checkAligned, trainingClasses } from '../src/probes/alignment.js';
import { readHead } from '../src/probes/heads-file.js';
import type { ProbeMember, ProbeSplit, ProbeTask, SplitRole } from '../src/probes/settings.js';
import type { AnalysisContext } from './analysis-run.js';
import {
  type FeatureInputs,
  type FeatureOwnOptions,
  type FeatureSet,
  type FeatureSharedOptions,
  openFeatureInputs,
} from './feature-inputs.js';

/** A split as the options name it. */
export interface SplitFiles {
  readonly name: string;
  readonly role: SplitRole;
  /** One file a member, or texts for the models. */
  readonly files: readonly string[];
  readonly labels: string | undefined;
}

export interface SplitChoices {
  /** How many of the last members are wide networks. */
  readonly wide: number;
  readonly validationShare: number;
  readonly testShare: number;
}

export interface OpenedSplits {
  readonly members: readonly ProbeMember[];
  readonly tasks: readonly ProbeTask[];
  /** Training, validation, then the others. */
  readonly splits: readonly ProbeSplit[];
  /** Splits that were taken from the training rows. */
  readonly carved: readonly string[];
  readonly features: number;
  readonly warnings: readonly string[];
  digests(): Promise<readonly InputDigest[]>;
}

type OwnOptions = FeatureOwnOptions & { readonly alsoModel?: string[]; readonly heads?: string[] };

/** A split whose files are open to the eye: sources, labels of every task, ids. */
interface ReadSplit {
  readonly name: string;
  readonly role: SplitRole;
  readonly sets: readonly FeatureSet[];
  readonly labels: readonly Labels[];
  readonly rows: number;
  readonly columns: readonly number[];
}

const columnsOf = (own: OwnOptions): string[] =>
  (own.labelColumn ?? '')
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '');

/** The source without further label columns among its features. */
function withoutLabels(source: FeatureSource, columns: readonly string[]): FeatureSource {
  if (source.kind !== 'file' || source.except === undefined) return source;
  return { ...source, except: [...new Set([...source.except, ...columns])] };
}

async function readSplit(
  split: SplitFiles,
  options: FeatureSharedOptions,
  own: OwnOptions,
  context: AnalysisContext,
): Promise<ReadSplit & { digests: FeatureInputs['digests'] }> {
  const columns = columnsOf(own);
  const models = options.model === undefined ? [undefined] : [options.model, ...(own.alsoModel ?? [])];
  if (columns.length > 1 && options.model !== undefined) {
    throw new InputError('--label-column: several columns need files of features, without --model');
  }
  const { labels: _, labelColumn: __, ...rest } = own;
  const sets: FeatureSet[] = [];
  const digests: FeatureInputs['digests'][] = [];
  for (const model of models) {
    const opened = await openFeatureInputs(
      { ...options, ...(model !== undefined && { model }), data: [...split.files] },
      {
        ...rest,
        ...(split.labels !== undefined && { labels: split.labels }),
        ...(columns.length > 0 && { labelColumn: columns[0] }),
      },
      context,
    );
    sets.push(...opened.sets.map((set) => ({ ...set, source: withoutLabels(set.source, columns) })));
    digests.push(opened.digests);
  }
  const [first] = sets;
  if (first.labels === undefined) {
    const flag =
      split.role === 'ood'
        ? `--ood-labels ${split.name}=`
        : `--${split.name === 'train' ? '' : `${split.name}-`}labels`;
    throw new InputError(`split "${split.name}" has no labels; give ${flag} or --label-column`);
  }
  const kind = own.labelKind === 'classes' || own.labelKind === 'numbers' ? own.labelKind : 'auto';
  const labels = [first.labels];
  for (const column of columns.slice(1)) {
    const limit = options.limit === undefined ? {} : { limit: options.limit };
    labels.push(await readLabels(split.labels ?? split.files[0], { column, kind, ...limit }));
  }
  const shapes: { rows: number; columns: number }[] = [];
  for (const { source } of sets) {
    const matrix = await openFeatures(source);
    shapes.push({ rows: matrix.rows, columns: matrix.columns });
    matrix.close();
  }
  checkAligned(sets.map((set, m) => ({ name: set.name, rows: shapes[m].rows, ...(set.ids && { ids: set.ids }) })));
  const { rows } = shapes[0];
  for (const own of labels) checkLabelCount(own, rows, split.labels ?? split.files[0], first.name);
  return {
    ...split,
    sets,
    labels,
    rows,
    columns: shapes.map((shape) => shape.columns),
    digests: async () => (await Promise.all(digests.map((digest) => digest()))).flat(),
  };
}

/** Ids that stand in a test split and in the training rows: what was learnt would be tested on itself. */
function sharedIds(train: ReadSplit, other: ReadSplit): string[] {
  const own = train.sets[0].ids;
  const theirs = other.sets[0].ids;
  if (!own || !theirs) return [];
  const known = new Set(own);
  const shared = theirs.filter((id) => known.has(id));
  if (shared.length === 0) return [];
  return [
    `split "${other.name}": ${shared.length} of ${theirs.length} ids are also training rows, the first is "${shared[0]}"`,
  ];
}

interface Part {
  readonly name: string;
  readonly role: SplitRole;
  readonly from: ReadSplit;
  readonly rows?: Int32Array;
}

/** Training rows, validation rows, test rows; what no option names is taken from the training rows. */
function partsOf(read: readonly ReadSplit[], choices: SplitChoices, seed: number): { parts: Part[]; carved: string[] } {
  const [train, ...others] = read;
  const validation = others.find(({ role }) => role === 'validation');
  const tests = others.filter(({ role }) => role !== 'validation');
  const carved = [...(validation ? [] : ['validation']), ...(tests.length > 0 ? [] : ['held-out'])];
  const [first] = train.labels;
  const shares = carved.map((name) => (name === 'validation' ? choices.validationShare : choices.testShare));
  const { rest, parts } = carveRows(train.rows, first.kind === 'classes' ? first.codes : null, shares, seed);
  const whole = (split: ReadSplit): Part => ({ name: split.name, role: split.role, from: split });
  const taken = carved.map((name, i): Part => {
    if (parts[i].length === 0) {
      throw new InputError(`${train.rows} training rows are too few to take ${name} rows from; give them by options`);
    }
    return { name, role: name === 'validation' ? 'validation' : 'id', from: train, rows: parts[i] };
  });
  const remaining: Part = carved.length === 0 ? whole(train) : { ...whole(train), rows: rest };
  const chosen = validation ? whole(validation) : taken[0];
  return {
    parts: [remaining, chosen, ...tests.map(whole), ...taken.filter((part) => part !== chosen)],
    carved,
  };
}

const pick = (codes: Int32Array, rows: Int32Array | undefined): Int32Array =>
  rows ? Int32Array.from(rows, (row) => codes[row]) : codes;

/** A task's targets for all parts, classes in the order of those that have training rows. */
function targetsOf(
  parts: readonly Part[],
  task: number,
  name: string,
): { task: ProbeTask; targets: (Int32Array | Float64Array)[] } {
  const [train] = parts;
  const labels = train.from.labels[task];
  if (labels.kind === 'numbers') {
    const targets = parts.map(({ from, rows, name: split }) => {
      const own = from.labels[task];
      const values =
        own.kind === 'numbers' ? own.values : Float64Array.from(own.codes, (code) => Number(own.names[code]));
      if (values.some(Number.isNaN))
        throw new InputError(`split "${split}": labels are classes, those of training amounts`);
      return rows ? Float64Array.from(rows, (row) => values[row]) : values;
    });
    return { task: { name, classes: null }, targets };
  }
  const known = trainingClasses(pick(labels.codes, train.rows), labels.names);
  const targets = parts.map(({ from, rows, name: split }, p) => {
    if (p === 0) return known.codes;
    const own = from.labels[task];
    const chosen: Labels = own.kind === 'classes' ? { ...own, codes: pick(own.codes, rows) } : own;
    return alignClasses(chosen, known.names, `split "${split}"`);
  });
  return { task: { name, classes: known.names }, targets };
}

/** `layer 3 of a/b/model` and the like, made short: the shared directories of all names fall away. */
function shortNames(names: readonly string[]): string[] {
  if (names.length === 1) return [names[0].slice(names[0].lastIndexOf('/') + 1)];
  const directories = names.map((name) => name.split('/').slice(0, -1));
  let shared = 0;
  while (directories.every((d) => d.length > shared && d[shared] === directories[0][shared])) shared++;
  return names.map((name) => name.split('/').slice(shared).join('/'));
}

/**
 * Opens every split, holds members to one another by their ids, gives all splits the classes of the training rows, and
 * takes validation and test rows from the training rows where no option names them.
 * @throws InputError for files that do not fit together, classes without training rows, or too few rows
 */
export async function openProbeSplits(
  options: FeatureSharedOptions,
  own: OwnOptions,
  files: readonly SplitFiles[],
  context: AnalysisContext,
  choices: SplitChoices,
): Promise<OpenedSplits> {
  if (own.alsoModel !== undefined && options.model === undefined) throw new InputError('--also-model needs --model');
  const read: (ReadSplit & { digests: FeatureInputs['digests'] })[] = [];
  for (const split of files) read.push(await readSplit(split, options, own, context));
  const [train] = read;
  for (const other of read) {
    if (other.sets.length === train.sets.length) continue;
    throw new InputError(
      `split "${other.name}" has ${other.sets.length} members, training has ${train.sets.length}; give one file a member`,
    );
  }
  const plain = train.sets.length - choices.wide;
  if (plain < 1) throw new InputError(`--wide ${choices.wide}: leaves no member of ${train.sets.length}`);
  const { parts, carved } = partsOf(read, choices, options.seed);
  const names = columnsOf(own);
  const tasks = train.labels.map((_, task) => targetsOf(parts, task, names[task] ?? 'labels'));
  const heads = own.heads ?? [];
  if (heads.length > 0 && heads.length !== plain) {
    throw new InputError(`--heads: ${heads.length} files for ${plain} members; give one a member`);
  }
  for (const path of heads) context.ledger.note(path);
  const short = shortNames(train.sets.map(({ name }) => name));
  return {
    members: short.map((name, m): ProbeMember => {
      const head = heads[m] && readHead(heads[m], train.columns[m], tasks[0].task.classes?.length ?? 1);
      return { name, kind: m < plain ? 'member' : 'wide', ...(head && { head }) };
    }),
    tasks: tasks.map(({ task }) => task),
    splits: parts.map(
      (part, p): ProbeSplit => ({
        name: part.name,
        role: part.role,
        sources: part.from.sets.map(({ source }) => source),
        ...(part.rows && { rows: part.rows }),
        targets: tasks.map(({ targets }) => targets[p]),
      }),
    ),
    carved,
    features: train.columns.reduce((sum, columns) => sum + columns, 0),
    warnings: read.slice(1).flatMap((other) => sharedIds(train, other)),
    digests: async () => {
      // A model serves every split, and is one input.
      const all = (await Promise.all(read.map((split) => split.digests()))).flat();
      return [...new Map(all.map((digest) => [digest.path, digest])).values()];
    },
  };
}
