import { InputError } from '../errors.js';
import { openFeatures } from '../features/open-features.js';
import type { FeatureMatrix, FeatureSource } from '../formats/feature-matrix.js';
import type { ComputeReference } from '../kernels/compute-thread.js';
import { configureKernels } from '../kernels/native.js';
import type { RankMeasures } from '../linalg/rank-measures.js';
import { createRandom } from '../random.js';
import { averagedHeads, thetaOfHead } from './cat-heads.js';
import { amountMetrics, classMetrics, nllOfLogits, softmaxRows } from './class-metrics.js';
import { type FittedSet, fitNewtonSet, fitRidgeSet, fitSgdSet, outputsOf } from './fit-set.js';
import { type ConditionalGain, conditionalGain, resampleScores, scoreInterval } from './gain.js';
import { type MemberRows, type MemberScale, memberRows, scanMember } from './member-rows.js';
import { ckaOfMembers, type HeldMember, rankOfMembers } from './redundancy.js';
import type { ProbeArguments, ProbeSettings, ProbeSplit, SetKind, SetResult, SetScores } from './settings.js';

export interface SetRankResult extends RankMeasures {
  readonly name: string;
  readonly kind: SetKind;
  readonly size: number;
  readonly features: number;
}

export interface GainResult extends ConditionalGain {
  readonly task: string;
  readonly split: string;
  readonly role: 'id' | 'ood';
  readonly size: number;
}

export interface ProbeMeasures {
  readonly sets: readonly SetResult[];
  readonly gains: readonly GainResult[];
  readonly ranks: readonly SetRankResult[];
  /** `[members, members]`, wide networks last. */
  readonly cka: Float64Array;
  readonly rankRows: number;
  readonly members: readonly { name: string; kind: string; features: number; constantFeatures: number }[];
  readonly warnings: readonly string[];
}

export interface ProbeProgress {
  readonly done: number;
  readonly label: string;
}

interface OpenSplit {
  readonly split: ProbeSplit;
  readonly members: readonly MemberRows[];
}

/** Passes between two messages to the main thread. */
const PASSES_A_MESSAGE = 25;

/** Cross-entropy below which an unpenalised fit has separated the classes. */
const SEPARATED = 1e-6;

/** Sources that are one object are opened once. */
async function openAll(splits: readonly ProbeSplit[]): Promise<Map<FeatureSource, FeatureMatrix>> {
  const opened = new Map<FeatureSource, FeatureMatrix>();
  for (const { sources } of splits) {
    for (const source of sources) if (!opened.has(source)) opened.set(source, await openFeatures(source));
  }
  return opened;
}

function matrixOf(opened: Map<FeatureSource, FeatureMatrix>, source: FeatureSource): FeatureMatrix {
  const matrix = opened.get(source);
  if (matrix === undefined) throw new Error('a feature source was not opened');
  return matrix;
}

/** @throws InputError when a member has other columns in another split */
function checkColumns(train: readonly FeatureMatrix[], split: string, matrices: readonly FeatureMatrix[]): void {
  matrices.forEach((matrix, m) => {
    if (matrix.columns === train[m].columns) return;
    throw new InputError(
      `${matrix.name}: ${matrix.columns} features in split "${split}", but ${train[m].name} has ${train[m].columns}; ` +
        'give the members of every split in the same order',
    );
  });
}

interface Prepared {
  readonly splits: readonly OpenSplit[];
  readonly scales: readonly MemberScale[];
}

async function prepare(args: ProbeArguments, opened: Map<FeatureSource, FeatureMatrix>): Promise<Prepared> {
  const { splits, settings } = args;
  const train = splits[0].sources.map((source) => matrixOf(opened, source));
  const scales: MemberScale[] = [];
  for (const matrix of train) scales.push(await scanMember(matrix, splits[0].rows));
  const scanned = new Set<FeatureSource>(splits[0].sources);
  const standard = settings.probe === 'newton' || settings.probe === 'ridge';
  let room = settings.maxMemoryBytes / 2;
  const prepared: OpenSplit[] = [];
  for (const split of splits) {
    const matrices = split.sources.map((source) => matrixOf(opened, source));
    checkColumns(train, split.name, matrices);
    for (const [m, source] of split.sources.entries()) {
      if (!scanned.has(source)) await scanMember(matrices[m]);
      scanned.add(source);
    }
    const bytes = matrices.reduce((sum, { rows, columns }) => sum + 8 * (split.rows?.length ?? rows) * columns, 0);
    const hold = bytes <= room;
    if (hold) room -= bytes;
    const members = matrices.map((matrix, m) => memberRows(matrix, split.rows, standard ? scales[m] : undefined, hold));
    prepared.push({ split, members });
  }
  return { splits: prepared, scales };
}

/** Scores of predictions on all splits, and what the gains need of them. */
interface Scored {
  readonly scores: SetScores[];
  /** For every split one score an item, of which more is better. */
  readonly items: ArrayLike<number>[];
  /** For every split the predictions: probabilities `[rows, classes]` or amounts `[rows]`. */
  readonly predictions: Float64Array[];
}

interface TaskContext {
  readonly task: number;
  readonly classes: number | null;
  readonly splits: readonly OpenSplit[];
  readonly settings: ProbeSettings;
}

function scoreSplit(
  context: TaskContext,
  { split }: OpenSplit,
  prediction: Float64Array,
  nll: Float64Array | undefined,
): { scores: SetScores; items: ArrayLike<number> } {
  const targets = split.targets[context.task];
  const base = { split: split.name, role: split.role, rows: targets.length, low: Number.NaN, high: Number.NaN };
  const none = { accuracy: null, nllNats: null, nllNatsSe: null, ece: null, mse: null, mseSe: null, r2: null };
  if (context.classes !== null) {
    const { correct, ...metrics } = classMetrics(prediction, targets, context.classes, nll);
    return { scores: { ...base, ...none, ...metrics }, items: correct };
  }
  const { squaredErrors, ...metrics } = amountMetrics(prediction, Float64Array.from(targets));
  const items = squaredErrors.map((value) => -value);
  return { scores: { ...base, ...none, ...metrics }, items };
}

function scorePredictions(
  context: TaskContext,
  predictions: readonly Float64Array[],
  nlls: readonly (Float64Array | undefined)[],
): Scored {
  const scored = context.splits.map((split, s) => scoreSplit(context, split, predictions[s], nlls[s]));
  return {
    scores: scored.map(({ scores }) => scores),
    items: scored.map(({ items }) => items),
    predictions: [...predictions],
  };
}

/** Predictions and scores of a linear map over the chosen members. */
function scoreTheta(context: TaskContext, chosen: readonly number[], theta: Float64Array): Scored {
  const { classes, settings, task } = context;
  const nlls: (Float64Array | undefined)[] = [];
  const predictions = context.splits.map(({ split, members }) => {
    const own = chosen.map((m) => members[m]);
    const outputs = outputsOf(own, theta, classes ?? 1, settings.threads);
    nlls.push(classes === null ? undefined : nllOfLogits(outputs, split.targets[task], classes));
    return classes === null ? outputs : softmaxRows(outputs, split.targets[task].length, classes);
  });
  return scorePredictions(context, predictions, nlls);
}

function fitSet(context: TaskContext, chosen: readonly number[], args: ProbeArguments, onPass: () => void): FittedSet {
  const { splits, classes, settings, task } = context;
  const [train, validation] = splits;
  const rows = {
    train: chosen.map((m) => train.members[m]),
    validation: chosen.map((m) => validation.members[m]),
  };
  const targets = { train: train.split.targets[task], validation: validation.split.targets[task] };
  if (classes === null) {
    return fitRidgeSet(
      rows,
      { train: Float64Array.from(targets.train), validation: Float64Array.from(targets.validation) },
      settings,
    );
  }
  const codes = { train: Int32Array.from(targets.train), validation: Int32Array.from(targets.validation) };
  if (settings.probe === 'newton') return fitNewtonSet(rows, codes, classes, settings, onPass);
  const heads = settings.probe === 'two-stage' ? chosen.flatMap((m) => args.members[m].head ?? []) : undefined;
  return fitSgdSet(rows, codes, classes, settings, heads, onPass);
}

interface Collected {
  readonly sets: SetResult[];
  readonly gains: GainResult[];
  readonly warnings: string[];
}

/** A set's result and, for every split, one score an item of which more is better. */
interface SetRecord {
  readonly result: SetResult;
  readonly items: readonly ArrayLike<number>[];
}

const plainMembers = ({ members }: ProbeArguments): number[] =>
  members.flatMap(({ kind }, m) => (kind === 'member' ? [m] : []));

/** What the grids of one set give to say. */
function gridWarnings({ task, name, grid }: SetResult, newton: boolean): string[] {
  return grid.flatMap((point) => {
    const where = `${task}, ${name}, decay ${point.decay}`;
    const warnings: string[] = [];
    if (!point.converged) {
      warnings.push(`${where}: the gradient ended at ${point.gradientNorm?.toExponential(1)}, not below 1e-8`);
    }
    if (point.decay === 0 && newton && point.trainLoss < SEPARATED) {
      warnings.push(`${where}: the classes are separable, so no finite optimum exists; use a decay above 0`);
    }
    return warnings;
  });
}

/** Fits and scores every set of one task: members, ensembles, concatenations, wide networks. */
function fitSets(args: ProbeArguments, context: TaskContext, report: (label: string) => () => void): SetRecord[] {
  const { members, settings } = args;
  const { name: task } = args.tasks[context.task];
  const plain = plainMembers(args);
  const columns = context.splits[0].members.map((member) => member.columns);
  const outputs = context.classes ?? 1;
  const records: SetRecord[] = [];
  const add = (name: string, kind: SetKind, chosen: readonly number[], scored: Scored, fitted?: FittedSet): void => {
    const features = chosen.reduce((sum, m) => sum + columns[m], 0);
    const heads = kind === 'ensemble' ? chosen.length : 1;
    const result: SetResult = {
      task,
      name,
      kind,
      size: chosen.length,
      features,
      parameters: fitted?.parameters ?? outputs * (features + heads),
      decay: fitted?.decay ?? null,
      path: fitted?.path ?? 'none',
      trainLoss: fitted?.trainLoss ?? Number.NaN,
      scores: scored.scores,
      grid: fitted?.grid ?? [],
    };
    records.push({ result, items: scored.items });
  };
  const fitAndScore = (name: string, kind: SetKind, chosen: readonly number[]): Scored => {
    const fitted = fitSet(context, chosen, args, report(`${task}: ${name}`));
    const scored = scoreTheta(context, chosen, fitted.theta);
    add(name, kind, chosen, scored, fitted);
    return scored;
  };
  const sums = context.splits.map(({ split }) => new Float64Array(split.targets[context.task].length * outputs));
  plain.forEach((m, at) => {
    const { predictions } = fitAndScore(members[m].name, 'single', [m]);
    for (const [s, prediction] of predictions.entries()) {
      for (let i = 0; i < prediction.length; i++) sums[s][i] += prediction[i];
    }
    const size = at + 1;
    if (!settings.sizes.includes(size)) return;
    const means = sums.map((sum) => sum.map((value) => value / size));
    const none = sums.map(() => undefined);
    add(`ensemble of ${size}`, 'ensemble', plain.slice(0, size), scorePredictions(context, means, none));
  });
  for (const size of settings.sizes) {
    const chosen = plain.slice(0, size);
    const heads = chosen.flatMap((m) => members[m].head ?? []);
    // Heads are over raw features, which only the stochastic probes read.
    if (heads.length === size && settings.probe === 'two-stage') {
      const widths = chosen.map((m) => columns[m]);
      const theta = thetaOfHead(averagedHeads(heads), widths);
      add(`${size} averaged heads`, 'averaged-heads', chosen, scoreTheta(context, chosen, theta));
    }
    fitAndScore(`concatenation of ${size}`, 'concatenation', chosen);
  }
  members.forEach(({ kind, name }, m) => {
    if (kind === 'wide') fitAndScore(name, 'wide', [m]);
  });
  return records;
}

/** Intervals and gains on the splits that nothing was fitted or chosen on, all from the same resampled items. */
function resampleTask(args: ProbeArguments, context: TaskContext, records: readonly SetRecord[]): Collected {
  const { settings } = args;
  const amounts = context.classes === null;
  const scores = records.map(({ result }) => [...result.scores]);
  const gains: GainResult[] = [];
  const at = (kind: SetKind, size?: number): number[] =>
    records.flatMap(({ result }, i) =>
      result.kind === kind && (size === undefined || result.size === size) ? [i] : [],
    );
  context.splits.forEach(({ split }, s) => {
    if (split.role !== 'id' && split.role !== 'ood') return;
    const { name, role } = split;
    const items = records.map((record) => record.items[s]);
    const resampled = resampleScores(items, settings.resamples, settings.seed);
    scores.forEach((own, i) => {
      const { low, high } = scoreInterval(resampled, i);
      // Items of amounts are squared errors with their sign turned.
      own[s] = { ...own[s], ...(amounts ? { low: -high, high: -low } : { low, high }) };
    });
    for (const size of settings.sizes) {
      const [cat] = at('concatenation', size);
      const [ensemble] = at('ensemble', size);
      const gain = conditionalGain(resampled, cat, at('single').slice(0, size), ensemble ?? null);
      gains.push({ task: args.tasks[context.task].name, split: name, role, size, ...gain });
    }
  });
  const sets = records.map(({ result }, i) => ({ ...result, scores: scores[i] }));
  return { sets, gains, warnings: sets.flatMap((set) => gridWarnings(set, settings.probe === 'newton')) };
}

/** Raw training rows of all members, a seeded sample when there are more than `most`. */
function rankSample(
  args: ProbeArguments,
  opened: Map<FeatureSource, FeatureMatrix>,
): { members: HeldMember[]; rows: number } {
  const { settings, splits } = args;
  const [train] = splits;
  const all = train.rows ?? Int32Array.from({ length: matrixOf(opened, train.sources[0]).rows }, (_, r) => r);
  const rows = Math.min(all.length, settings.rankRows);
  const order = createRandom(settings.seed).fork(0x72616e6b).permutation(all.length);
  const chosen = rows === all.length ? all : Int32Array.from(order.subarray(0, rows), (i) => all[i]).sort();
  const members = train.sources.map((source): HeldMember => {
    const matrix = matrixOf(opened, source);
    const data = new Float64Array(rows * matrix.columns);
    chosen.forEach((row, r) => {
      matrix.readRows(row, 1, data.subarray(r * matrix.columns, (r + 1) * matrix.columns));
    });
    return { data, columns: matrix.columns };
  });
  return { members, rows };
}

function measureRedundancy(
  args: ProbeArguments,
  opened: Map<FeatureSource, FeatureMatrix>,
  report: (label: string) => () => void,
): { ranks: SetRankResult[]; cka: Float64Array; rankRows: number } {
  const { members, settings } = args;
  const sample = rankSample(args, opened);
  const plain = plainMembers(args);
  const ranks: SetRankResult[] = [];
  const add = (name: string, kind: SetKind, chosen: readonly number[]): void => {
    const held = chosen.map((m) => sample.members[m]);
    const { singularValues: _, ...measures } = rankOfMembers(held, sample.rows, { threads: settings.threads });
    ranks.push({ name, kind, size: chosen.length, features: held.reduce((sum, h) => sum + h.columns, 0), ...measures });
    report(`rank of ${name}`)();
  };
  members.forEach(({ name, kind }, m) => {
    add(name, kind === 'wide' ? 'wide' : 'single', [m]);
  });
  for (const size of settings.sizes) add(`concatenation of ${size}`, 'concatenation', plain.slice(0, size));
  const cka = ckaOfMembers(sample.members, sample.rows, report('CKA'));
  return { ranks, cka, rankRows: sample.rows };
}

/**
 * Fits and scores all feature sets of all tasks, then measures how redundant the members are.
 * @throws InputError for values that are not finite, other numbers of columns, or features that no decay makes regular
 */
export async function trainProbes(
  args: ProbeArguments,
  progress: (value: ProbeProgress) => void,
): Promise<ProbeMeasures> {
  configureKernels({ threads: args.settings.threads });
  let done = 0;
  const report = (label: string) => (): void => {
    if (++done % PASSES_A_MESSAGE === 0) progress({ done, label });
  };
  const opened = await openAll(args.splits);
  try {
    const { splits, scales } = await prepare(args, opened);
    const collected: Collected = { sets: [], gains: [], warnings: [] };
    args.tasks.forEach(({ classes }, task) => {
      const context = { task, classes: classes?.length ?? null, splits, settings: args.settings };
      const { sets, gains, warnings } = resampleTask(args, context, fitSets(args, context, report));
      collected.sets.push(...sets);
      collected.gains.push(...gains);
      collected.warnings.push(...warnings);
    });
    const redundancy = measureRedundancy(args, opened, report);
    scales.forEach(({ constantFeatures }, m) => {
      if (constantFeatures === 0) return;
      const { name } = args.members[m];
      collected.warnings.push(
        `${name}: ${constantFeatures} of ${splits[0].members[m].columns} features are constant over the training rows`,
      );
    });
    return {
      ...collected,
      ...redundancy,
      members: args.members.map(({ name, kind }, m) => ({
        name,
        kind,
        features: splits[0].members[m].columns,
        constantFeatures: scales[m].constantFeatures,
      })),
    };
  } finally {
    for (const matrix of opened.values()) matrix.close();
  }
}

export const TRAIN_PROBES: ComputeReference<ProbeArguments, ProbeMeasures> = {
  module: import.meta.url,
  job: trainProbes as (args: ProbeArguments, progress: (value: unknown) => void) => Promise<ProbeMeasures>,
};
