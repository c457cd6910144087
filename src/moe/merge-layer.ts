import type { Floats } from '../models/layer-runner.js';
import type { Random } from '../random.js';
import type { ExpertLayer, ExpertModel } from './expert-model.js';
import { inPrecision } from './expert-precision.js';
import { type ReadExpert, readExpert, readRouter } from './expert-reader.js';
import { alignPairsByActivations, correlateMembers, type MemberAlignment } from './group-permutations.js';
import { CHEAP_RANK_SIDE, expertRanks } from './group-ranks.js';
import { refitGroups } from './group-refits.js';
import { membersOf } from './grouping.js';
import { type MergedGroupResult, mergeGroup } from './merge-group.js';
import type { GroupRecord, LayerRecord } from './merge-record.js';
import type { MergeSettings } from './merge-settings.js';
import type { MergedModel } from './merged-writer.js';
import type { Refit } from './refit.js';
import { createRouterRowFit, dominantRows, meanRows } from './router-rows.js';
import { groupedLoad, massEntropy } from './routing-measures.js';
import type { StreamCursor } from './stream-cursor.js';
import type { LayerGrouping, LayerStatistics } from './types.js';

/** What the layers of a run share. */
export interface MergeRun {
  readonly model: ExpertModel;
  readonly writer: MergedModel;
  readonly settings: MergeSettings;
  readonly threads: number;
  /** Bytes that gains, correlations and merged experts may take. */
  readonly memoryBytes: number;
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
}

/** Merges the experts of one layer and writes them. */
export async function mergeLayer(run: MergeRun, task: LayerTask): Promise<LayerRecord> {
  const { model, writer, settings } = run;
  const place = model.layers[task.index];
  const { grouping } = task;
  const members = membersOf(grouping);
  const warnings: string[] = [];
  const groups: GroupRecord[] = [];
  if (grouping.dominants.length === place.experts) {
    writer.keepLayer(place.layer);
    for (let e = 0; e < place.experts; e++) groups.push(singleRecord(e, e, task.usage));
  } else {
    const aligned = await activationAlignments(run, task, members);
    for (const chunk of groupChunks(run, place, members)) {
      groups.push(...(await mergeChunk(run, task, members, chunk, aligned, warnings)));
    }
  }
  let explained: readonly number[] | null = null;
  if (settings.router === 'reduced' && grouping.dominants.length < place.experts) {
    explained = await writeRouter(run, task);
  }
  return { ...layerRecord(run, task, groups), router_fit_explained: explained, warnings };
}

function cursorOf({ cursor }: MergeRun): StreamCursor {
  if (cursor) return cursor;
  throw new RangeError('a merge that needs text has none');
}

/** Alignments of all members of the layer to their dominants, by member; none where weights are matched. */
async function activationAlignments(
  run: MergeRun,
  task: LayerTask,
  members: readonly Int32Array[],
): Promise<ReadonlyMap<number, MemberAlignment>> {
  const { model, settings, memoryBytes } = run;
  if (settings.align !== 'activations' || settings.combine === 'zip') return new Map();
  const { layer, shape, rule, experts } = model.layers[task.index];
  const pairs = members.flatMap((group, g) =>
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
    read: (expert) => inPrecision(readExpert(model, task.index, expert, run.threads), run.precision),
    cursor: cursorOf(run),
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

/** Groups whose merged experts are held together while the text passes: one at a time where nothing is refitted. */
function groupChunks({ settings, memoryBytes }: MergeRun, place: ExpertLayer, members: readonly Int32Array[]) {
  const { width, hidden, gated } = place.shape;
  const each = 4 * (gated ? 3 : 2) * width * hidden + 8 * width * (width + hidden);
  const together = settings.refit ? Math.max(1, Math.floor(memoryBytes / each)) : 1;
  const chunks: number[][] = [];
  for (let g = 0; g < members.length; g += together) {
    chunks.push(Array.from({ length: Math.min(together, members.length - g) }, (_, i) => g + i));
  }
  return chunks;
}

async function mergeChunk(
  run: MergeRun,
  task: LayerTask,
  members: readonly Int32Array[],
  chunk: readonly number[],
  aligned: ReadonlyMap<number, MemberAlignment>,
  warnings: string[],
): Promise<GroupRecord[]> {
  const { model, writer, settings, threads } = run;
  const place = model.layers[task.index];
  const { dominants } = task.grouping;
  const merged = new Map<number, MergedGroupResult>();
  for (const g of chunk) {
    if (members[g].length === 1) continue;
    const read = (expert: number): ReadExpert => readExpert(model, task.index, expert, threads);
    const result = mergeGroup({
      layer: place.layer,
      members: members[g],
      dominant: dominants[g],
      shape: place.shape,
      usage: task.usage,
      ...(task.similarity && { similarity: task.similarity }),
      settings,
      alignment: alignmentSettings(run),
      byActivations: aligned,
      ...(await zipCorrelation(run, task, members[g])),
      random: run.random.fork(place.layer).fork(g),
      read,
    });
    warnings.push(...result.warnings);
    merged.set(g, result);
  }
  const refitted = settings.refit ? await refit(run, task, members, merged) : new Map();
  return chunk.map((g) => {
    const result = merged.get(g);
    const dominant = dominants[g];
    if (!result) {
      const [only] = members[g];
      for (const copy of placesOf(settings, g, members[g])) writer.writeExpert(place.layer, copy, { copyOf: only });
      return singleRecord(g, only, task.usage);
    }
    const fit = refitted.get(g);
    const expert = fit ? { ...result.expert, down: Float32Array.from(fit.down) } : result.expert;
    for (const copy of placesOf(settings, g, members[g])) writer.writeExpert(place.layer, copy, expert);
    const ranked = Math.min(place.shape.width, place.shape.hidden) <= CHEAP_RANK_SIDE;
    return {
      group: g,
      dominant,
      members: result.members,
      unchanged: false,
      refit: fit ? { tokens: fit.tokens, lambda: fit.lambda, path: fit.path, residual: fit.residual } : null,
      dominant_ranks: ranked
        ? expertRanks(readExpert(model, task.index, dominant, threads), place.shape, threads)
        : null,
      merged_ranks: ranked ? expertRanks(expert, place.shape, threads) : null,
      joint_energy: result.jointEnergy ?? null,
    };
  });
}

/** Where the expert of a group is stored: at its number, or at the place of every member. */
function placesOf({ router }: MergeSettings, group: number, members: Int32Array): Iterable<number> {
  return router === 'expanded' ? members : [group];
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
    read: (expert) => inPrecision(readExpert(model, task.index, expert, threads), run.precision),
    cursor: cursorOf(run),
    threads,
  });
  return { correlation };
}

/** Refits of the merged groups, by group. */
async function refit(
  run: MergeRun,
  task: LayerTask,
  members: readonly Int32Array[],
  merged: ReadonlyMap<number, MergedGroupResult>,
): Promise<ReadonlyMap<number, Refit>> {
  const { model, settings, threads, memoryBytes, precision } = run;
  const { layer, shape } = model.layers[task.index];
  const groups = [...merged.keys()];
  const tasks = groups.map((g) => {
    const { expert } = merged.get(g) as MergedGroupResult;
    return { members: members[g], merged: inPrecision(expert, precision) };
  });
  const fits = await refitGroups(cursorOf(run), layer, shape, tasks, {
    threads,
    maxBytes: memoryBytes,
    ...(settings.refitLambda !== undefined && { lambda: settings.refitLambda }),
  });
  return new Map(groups.map((g, i) => [g, fits[i]]));
}

/** The router of a layer with fewer experts. @returns of fitted rows, the share of the variance that each explains */
async function writeRouter(run: MergeRun, task: LayerTask): Promise<readonly number[] | null> {
  const { model, writer, settings, threads } = run;
  const { layer, shape, experts } = model.layers[task.index];
  const { grouping, usage } = task;
  if (settings.routerRows === 'dominant') {
    writer.writeRouter(layer, { rows: grouping.dominants });
    return null;
  }
  const router = readRouter(model, task.index, threads);
  const { hidden } = shape;
  const mean = (values: Float32Array, columns: number): Float32Array =>
    Float32Array.from(meanRows(values, columns, grouping, usage));
  const biases = {
    ...(router.bias && { bias: mean(router.bias, 1) }),
    ...(router.correctionBias && { correctionBias: mean(router.correctionBias, 1) }),
  };
  if (settings.routerRows === 'mean') {
    writer.writeRouter(layer, { rows: mean(router.rows, hidden), ...biases });
    return null;
  }
  const fit = createRouterRowFit(hidden, grouping, { threads });
  await cursorOf(run).visit(layer, ['mlp_input', 'router_logits'], ({ taps }) => {
    const logits = taps.get('router_logits') as Floats;
    fit.add(taps.get('mlp_input') as Floats, logits, logits.length / experts);
  });
  const { rows, explained } = fit.solve(dominantRows(router.rows, hidden, grouping), settings.routerLambda);
  writer.writeRouter(layer, { rows: Float32Array.from(rows), ...biases });
  return Array.from(explained);
}

function layerRecord(
  { model }: MergeRun,
  { index, grouping, usage, statistics }: LayerTask,
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
    parameters_before: experts * parameters,
    parameters_after: dominants.length * parameters,
    usage_entropy_before_nats: before,
    usage_entropy_after_nats: after,
    entropy_lost_nats: before === null || after === null ? null : before - after,
    effective_experts_before: before === null ? null : Math.exp(before),
    effective_experts_after: after === null ? null : Math.exp(after),
  };
}
