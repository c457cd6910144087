import type { Random } from '../random.js';
import { type ExpertGradients, fisherInformation } from './expert-gradients.js';
import type { ExpertModel } from './expert-model.js';
import { inFloats, inPrecision } from './expert-precision.js';
import { readExpert } from './expert-reader.js';
import { readFiniteExpert } from './finite-expert.js';
import { alignPairsByActivations, correlateMembers, type MemberAlignment } from './group-permutations.js';
import { CHEAP_RANK_SIDE, expertRanks } from './group-ranks.js';
import { refitGroups } from './group-refits.js';
import { membersOf } from './grouping.js';
import { dispatch, route, routerLogits } from './layer-function.js';
import { refitLayer } from './layer-refit.js';
import { type MergedGroupResult, mergeGroup } from './merge-group.js';
import type { GroupRecord, LayerRecord } from './merge-record.js';
import { type ReducedRouter, reduceRouter } from './merge-router.js';
import type { MergeSettings } from './merge-settings.js';
import type { MergedModel } from './merged-writer.js';
import { groupedLoad, massEntropy } from './routing-measures.js';
import { present, type StreamCursor } from './stream-cursor.js';
import type { LayerGrouping, LayerStatistics } from './types.js';

/** What the layers of a run share. */
export interface MergeRun {
  readonly model: ExpertModel;
  readonly writer: MergedModel;
  readonly settings: MergeSettings;
  readonly threads: number;
  /** Bytes that gains, correlations and merged experts may take. */
  readonly memoryBytes: number;
  /** Gradients of the experts, where they are combined by their Fisher information. */
  readonly gradients?: ExpertGradients;
  /** The text, where settings need it. */
  readonly cursor?: StreamCursor;
  /** Arithmetic of the engine; experts are read in it for what runs on text. */
  readonly precision: 'f32' | 'f64';
  readonly random: Random;
}

export interface LayerTask {
  /** Place in the model's list of layers with experts. */
  readonly index: number;
  readonly grouping: LayerGrouping;
  readonly usage: Float64Array;
  readonly statistics?: LayerStatistics;
  readonly similarity?: Float64Array;
  readonly silhouette?: number;
}

/** Merges the experts of one layer and writes them, and the router that goes with them. */
export async function mergeLayer(run: MergeRun, task: LayerTask): Promise<LayerRecord> {
  const { model, writer, settings } = run;
  const place = model.layers[task.index];
  if (task.grouping.dominants.length === place.experts) {
    writer.keepLayer(place.layer);
    const groups = Array.from({ length: place.experts }, (_, e) => singleRecord(e, e, task.usage));
    return { ...layerRecord(run, task, groups), router_fit_explained: null, warnings: [] };
  }
  const router = settings.router === 'reduced' ? await reduceRouter(run, task) : undefined;
  if (router) writer.writeRouter(place.layer, router.stored);
  const aligned = await activationAlignments(run, task);
  const groups: GroupRecord[] = [];
  const warnings: string[] = [];
  for (const chunk of groupChunks(run, task)) {
    const merged = await mergeChunk(run, task, chunk, aligned);
    for (const result of merged.values()) warnings.push(...result.warnings);
    const fitted = await fitDowns(run, task, merged, router);
    for (const g of chunk) groups.push(writeGroup(run, task, g, merged.get(g), fitted.get(g)));
  }
  return { ...layerRecord(run, task, groups), router_fit_explained: router?.explained ?? null, warnings };
}

/** Alignments of all members of the layer to their dominants, by member; none where weights are matched. */
async function activationAlignments(run: MergeRun, task: LayerTask): Promise<ReadonlyMap<number, MemberAlignment>> {
  const { model, settings, memoryBytes } = run;
  if (settings.align !== 'activations' || settings.combine === 'zip') return new Map();
  const { layer, shape, rule, experts } = model.layers[task.index];
  const pairs = membersOf(task.grouping).flatMap((group, g) =>
    Array.from(group)
      .filter((member) => member !== task.grouping.dominants[g])
      .map((member) => ({ dominant: task.grouping.dominants[g], member })),
  );
  const alignments = await alignPairsByActivations({
    layer,
    shape,
    rule,
    experts,
    pairs,
    read: (expert) => inPrecision(readFiniteExpert(model, task.index, expert, run.threads), run.precision),
    cursor: present(run.cursor),
    settings: alignmentSettings(run),
    memoryBytes,
  });
  return new Map(pairs.map(({ member }, p) => [member, alignments[p]]));
}

const alignmentSettings = ({ settings, threads, memoryBytes }: MergeRun) => ({
  mode: settings.assignment,
  includeDown: settings.alignDown,
  balance: settings.balance,
  threads,
  maxBytes: memoryBytes,
});

/**
 * Groups whose merged experts are held together while the text passes: one at a time where nothing is refitted, all where
 * they are fitted together.
 */
function groupChunks({ model, settings, memoryBytes }: MergeRun, { index, grouping }: LayerTask): number[][] {
  const { width, hidden, gated } = model.layers[index].shape;
  const groups = grouping.dominants.length;
  const each = 4 * (gated ? 3 : 2) * width * hidden + 8 * width * (width + hidden);
  const together = {
    none: 1,
    group: Math.max(1, Math.floor(memoryBytes / each)),
    layer: groups,
  }[settings.refit];
  const chunks: number[][] = [];
  for (let g = 0; g < groups; g += together) {
    chunks.push(Array.from({ length: Math.min(together, groups - g) }, (_, i) => g + i));
  }
  return chunks;
}

/** Merges the groups of a chunk; those of one expert stay what they are. */
async function mergeChunk(
  run: MergeRun,
  task: LayerTask,
  chunk: readonly number[],
  aligned: ReadonlyMap<number, MemberAlignment>,
): Promise<Map<number, MergedGroupResult>> {
  const { model, settings, threads, gradients } = run;
  const place = model.layers[task.index];
  const members = membersOf(task.grouping);
  const merged = new Map<number, MergedGroupResult>();
  for (const g of chunk) {
    if (members[g].length === 1) continue;
    const result = mergeGroup({
      layer: place.layer,
      members: members[g],
      dominant: task.grouping.dominants[g],
      shape: place.shape,
      usage: task.usage,
      ...(task.similarity && { similarity: task.similarity }),
      settings,
      alignment: alignmentSettings(run),
      byActivations: aligned,
      ...(await zipCorrelation(run, task, members[g])),
      random: run.random.fork(place.layer).fork(g),
      ...(gradients && { fisher: (expert) => fisherInformation(gradients.read(task.index, expert, threads)) }),
      read: (expert) => readFiniteExpert(model, task.index, expert, threads),
    });
    merged.set(g, result);
  }
  return merged;
}

/** A down projection that was fitted anew, with what the record says of it. */
interface FittedDown {
  readonly down: Float64Array;
  readonly record: NonNullable<GroupRecord['refit']>;
}

/** Writes the expert of a group where it belongs. */
function writeGroup(
  run: MergeRun,
  task: LayerTask,
  g: number,
  result: MergedGroupResult | undefined,
  fit: FittedDown | undefined,
): GroupRecord {
  const { model, writer, settings, threads } = run;
  const place = model.layers[task.index];
  const members = membersOf(task.grouping)[g];
  const dominant = task.grouping.dominants[g];
  const write = (expert: Parameters<MergedModel['writeExpert']>[2]): void => {
    for (const copy of settings.router === 'expanded' ? members : [g]) writer.writeExpert(place.layer, copy, expert);
  };
  if (!result && !fit) {
    write({ copyOf: members[0] });
    return singleRecord(g, members[0], task.usage);
  }
  const source = result?.expert ?? readExpert(model, task.index, members[0], threads);
  const expert = fit ? { ...source, down: Float32Array.from(fit.down) } : source;
  write(expert);
  const ranked = Math.min(place.shape.width, place.shape.hidden) <= CHEAP_RANK_SIDE;
  const before = ranked ? readExpert(model, task.index, dominant, threads) : undefined;
  return {
    ...singleRecord(g, dominant, task.usage),
    ...(result && { members: result.members, joint_energy: result.jointEnergy ?? null }),
    unchanged: false,
    refit: fit?.record ?? null,
    dominant_ranks: before ? expertRanks(before, place.shape, threads) : null,
    merged_ranks: ranked ? expertRanks(expert, place.shape, threads) : null,
  };
}

function singleRecord(group: number, expert: number, usage: Float64Array): GroupRecord {
  return {
    group,
    dominant: expert,
    members: [{ expert, usage: usage[expert], weight: 1, similarity: null, alignment: null }],
    unchanged: true,
    refit: null,
    dominant_ranks: null,
    merged_ranks: null,
    joint_energy: null,
  };
}

async function zipCorrelation(run: MergeRun, task: LayerTask, members: Int32Array) {
  const { model, settings, threads } = run;
  if (settings.combine !== 'zip' || settings.align !== 'activations') return {};
  const { layer, shape, rule, experts } = model.layers[task.index];
  const correlation = await correlateMembers({
    layer,
    shape,
    rule,
    experts,
    members,
    read: (expert) => inPrecision(readFiniteExpert(model, task.index, expert, threads), run.precision),
    cursor: present(run.cursor),
    threads,
  });
  return { correlation };
}

/** Down projections that the settings want fitted to the text, by group. */
async function fitDowns(
  run: MergeRun,
  task: LayerTask,
  merged: ReadonlyMap<number, MergedGroupResult>,
  router: ReducedRouter | undefined,
): Promise<ReadonlyMap<number, FittedDown>> {
  const { settings } = run;
  if (settings.refit === 'none') return new Map();
  return settings.refit === 'group' ? fitGroups(run, task, merged) : fitLayer(run, task, merged, router);
}

async function fitGroups(
  { model, settings, threads, memoryBytes, precision, cursor }: MergeRun,
  { index, grouping }: LayerTask,
  merged: ReadonlyMap<number, MergedGroupResult>,
): Promise<ReadonlyMap<number, FittedDown>> {
  const { layer, shape } = model.layers[index];
  const members = membersOf(grouping);
  const tasks = Array.from(merged, ([g, { expert }]) => ({
    members: members[g],
    merged: inPrecision(expert, precision),
  }));
  if (tasks.length === 0) return new Map();
  const { refitLambda: lambda } = settings;
  const options = { threads, maxBytes: memoryBytes, ...(lambda !== undefined && { lambda }) };
  const fits = await refitGroups(present(cursor), layer, shape, tasks, options);
  const fitted = fits.map(({ down, ...record }): FittedDown => {
    const { tokens, lambda: damping, path, residual } = record;
    return { down, record: { tokens, lambda: damping, path, residual } };
  });
  return new Map([...merged.keys()].map((g, i) => [g, fitted[i]]));
}

/** All experts of the layer together, merged ones and those that stay, under the routing that will be stored. */
async function fitLayer(
  run: MergeRun,
  task: LayerTask,
  merged: ReadonlyMap<number, MergedGroupResult>,
  router: ReducedRouter | undefined,
): Promise<ReadonlyMap<number, FittedDown>> {
  const { model, settings, threads, memoryBytes, precision, cursor } = run;
  const { layer, shape, rule, experts: routerRows } = model.layers[task.index];
  const { dominants, labels } = task.grouping;
  const experts = Array.from(dominants, (dominant, g) =>
    inPrecision(merged.get(g)?.expert ?? readFiniteExpert(model, task.index, dominant, threads), precision),
  );
  const { refitLambda: lambda, topK = rule.topK } = settings;
  const rows = router && inFloats(router.rows, precision);
  const fit = await refitLayer(
    present(cursor),
    {
      layer,
      shape,
      experts,
      routerRows,
      dispatch(x, logits, count) {
        if (!rows) return dispatch(route(logits, count, routerRows, rule), labels, experts.length);
        const reduced = routerLogits(rows, experts.length, x, count, { threads });
        return dispatch(route(reduced, count, experts.length, { ...rule, topK }));
      },
    },
    { threads, maxBytes: memoryBytes / 2, ...(lambda !== undefined && { lambda }) },
  );
  const record = { tokens: fit.tokens, lambda: fit.lambda, path: 'cholesky', residual: 0 } as const;
  return new Map(fit.downs.map((down, g) => [g, { down, record }]));
}

function layerRecord(
  { model }: MergeRun,
  { index, grouping, usage, statistics, silhouette }: LayerTask,
  groups: readonly GroupRecord[],
): Omit<LayerRecord, 'router_fit_explained' | 'warnings'> {
  const { layer, experts, shape } = model.layers[index];
  const { labels, dominants } = grouping;
  const parameters = (shape.gated ? 3 : 2) * shape.hidden * shape.width;
  const before = statistics ? massEntropy(usage) : null;
  const after = statistics ? massEntropy(groupedLoad(usage, labels, dominants.length)) : null;
  const counts = statistics?.routing.counts;
  return {
    layer,
    experts_before: experts,
    experts_after: dominants.length,
    groups,
    dropped: [...labels.keys()]
      .filter((expert) => labels[expert] < 0)
      .map((expert) => ({ expert, usage: usage[expert] })),
    never_used: counts ? [...counts.keys()].filter((expert) => counts[expert] === 0) : null,
    silhouette: silhouette ?? null,
    fewest_tokens: counts ? Math.min(...counts.filter((count) => count > 0)) : null,
    parameters_before: experts * parameters,
    parameters_after: dominants.length * parameters,
    usage_entropy_before_nats: before,
    usage_entropy_after_nats: after,
    entropy_lost_nats: before === null || after === null ? null : before - after,
    effective_experts_before: before === null ? null : Math.exp(before),
    effective_experts_after: after === null ? null : Math.exp(after),
  };
}
