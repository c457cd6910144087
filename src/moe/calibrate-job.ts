import { InputError } from '../errors.js';
import { type MoeMlpDescription, routerOutputs } from '../models/description.js';
import type { Engine } from '../models/engine.js';
import type { JobReference } from '../models/engine-host.js';
import type { LanguageModel } from '../models/language-model.js';
import type { LayerTap } from '../models/layer-parts.js';
import type { ExpertRows, Floats, TapEvent } from '../models/layer-runner.js';
import { engineOf, type LayerStreamOptions, type LayerStreams, openLayerStreams } from '../models/layer-streams.js';
import { runExpert } from './expert-function.js';
import { createExpertSums, type ExpertSums } from './expert-statistics.js';
import { createRoutingSums, type TokenRouting } from './routing-statistics.js';
import type { WatchedOutputs } from './statistics-file.js';
import type { ExpertMatrices, ExpertShape, LayerStatistics, RouterRule } from './types.js';

/** Outputs of all experts on a block of tokens; a block has a few tokens however wide and many the experts are. */
export const OUTPUT_BYTES = 128 << 20;
const LEAST_BLOCK_ROWS = 16;
/** Streams of a run of calibration, which lie with the engine between the passes. */
const streams = new WeakMap<Engine, LayerStreams>();

export interface StartArguments extends LayerStreamOptions {
  readonly windows: readonly Int32Array[];
}

export interface PassArguments {
  /** 0-based decoder layer. */
  readonly layer: number;
  /** Absent: the streams go on, nothing is watched. */
  readonly outputs?: WatchedOutputs;
}

/**
 * Embeds the windows. Their residual streams stay with the engine until `endStatistics`.
 * @throws InputError for an ONNX export, and for tokens outside of the vocabulary
 */
export async function startStatistics(model: LanguageModel, args: StartArguments): Promise<void> {
  const engine = engineOf(model);
  streams.get(engine)?.close();
  streams.set(engine, await openLayerStreams(engine, args.windows, args));
}

/** Forgets the streams. */
export async function endStatistics(model: LanguageModel): Promise<void> {
  const engine = engineOf(model);
  streams.get(engine)?.close();
  streams.delete(engine);
}

/** How the router of a layer of a model that this tool runs makes weights of logits. */
export function routerRule(mlp: MoeMlpDescription): RouterRule {
  return { score: 'softmax', topK: mlp.expertsPerToken, normalizeTopK: mlp.normalizeTopK };
}

/**
 * Runs all windows through one layer and sums what its router and experts did.
 * @returns undefined where nothing is watched
 * @throws InputError for logits or outputs that are not finite, and for outputs of a model that was merged already
 */
export async function statisticsPass(
  model: LanguageModel,
  { layer, outputs }: PassArguments,
  progress: (tokens: unknown) => void,
): Promise<LayerStatistics | undefined> {
  const engine = engineOf(model);
  const own = streams.get(engine);
  if (!own) throw new RangeError('a pass of calibration before its start');
  const { mlp } = engine.model.layers[layer];
  if (outputs === undefined || mlp.kind !== 'moe') {
    await own.pass({ layer, taps: [], last: true, onTap: () => undefined, progress });
    return undefined;
  }
  const watch = createWatch(engine, layer, mlp, outputs);
  const { taps, onTap, onWeight } = watch;
  await own.pass({ layer, taps, last: true, onTap, onWeight, progress });
  return watch.finish();
}

/** What a layer does while the text goes through it, as sums. */
interface Watch {
  readonly taps: readonly LayerTap[];
  onTap(event: TapEvent): void;
  onWeight(role: string, data: Floats): void;
  finish(): LayerStatistics;
}

/** Chosen experts of the rows of a batch, [rows, k], with p and p divided by the sum of the chosen. */
interface ChosenExperts {
  readonly experts: Int32Array;
  readonly weights: Float64Array;
  readonly shares: Float64Array;
}

function createWatch(engine: Engine, layer: number, mlp: MoeMlpDescription, outputs: WatchedOutputs): Watch {
  const { threads, model } = engine;
  const { hiddenSize } = model;
  const { expertsPerToken: topK, width } = mlp;
  const rows = routerOutputs(mlp);
  if (outputs !== 'none' && mlp.routerOutputs !== undefined) {
    throw new InputError(
      `layer ${layer}: its experts were merged already (${rows} became ${mlp.experts}); only --outputs none goes with that`,
    );
  }
  const sizes = { experts: mlp.experts, hidden: hiddenSize, width };
  const sums =
    outputs === 'none' ? undefined : createExpertSums(layer, sizes, { everywhere: outputs === 'all', threads });
  let chosen: ChosenExperts = { experts: new Int32Array(0), weights: new Float64Array(0), shares: new Float64Array(0) };
  let next = 0;
  const onToken = (token: TokenRouting): void => {
    chosen.experts.set(token.chosen, next);
    chosen.weights.set(token.scores, next);
    chosen.shares.set(token.weights, next);
    next += topK;
  };
  const routing = createRoutingSums(layer, rows, routerRule(mlp), { threads, ...(sums && { onToken }) });
  const matrices = new Map<string, Floats>();
  const shape: ExpertShape = { hidden: hiddenSize, width, gated: true, activation: mlp.activation };
  const everywhere = sums && outputs === 'all' ? createEverywhere(engine, shape, mlp.experts, sums) : undefined;

  const onTap = ({ taps, experts }: TapEvent): void => {
    const logits = tapOf(taps, 'router_logits');
    const count = logits.length / rows;
    next = 0;
    const slots = sums ? count * topK : 0;
    chosen = { experts: new Int32Array(slots), weights: new Float64Array(slots), shares: new Float64Array(slots) };
    routing.add(logits, count, experts && { chosen: chosenOf(experts, count, topK) });
    if (!sums) return;
    const x = tapOf(taps, 'mlp_input');
    sums.addInputs(x, count);
    if (everywhere) everywhere.add(expertsOf(matrices, mlp.experts), x, count, chosen);
    else if (experts) addRouted(sums, taps, experts, chosen, topK);
  };
  return {
    taps: outputs === 'none' ? ['router_logits'] : tapsWith(outputs),
    onTap,
    onWeight(role, data) {
      if (outputs === 'all' && role.startsWith('expert.')) matrices.set(role, data);
    },
    finish: () => ({ routing: routing.finish(), ...(sums && { outputs: sums.finish() }) }),
  };
}

function tapsWith(outputs: 'routed' | 'all'): readonly LayerTap[] {
  const own: readonly LayerTap[] = outputs === 'routed' ? ['expert_hidden', 'expert_output'] : [];
  return ['router_logits', 'mlp_input', ...own];
}

function tapOf(taps: TapEvent['taps'], name: LayerTap): Floats {
  const data = taps.get(name);
  if (!data) throw new RangeError(`the layer gave no ${name}`);
  return data;
}

/** Experts of each row in ascending order, [rows, k], from the rows of each expert. */
function chosenOf(experts: ExpertRows, rows: number, topK: number): Int32Array {
  const chosen = new Int32Array(rows * topK);
  const filled = new Int32Array(rows);
  let at = 0;
  experts.counts.forEach((count, expert) => {
    for (const end = at + count; at < end; at++) {
      const row = experts.rows[at];
      chosen[row * topK + filled[row]++] = expert;
    }
  });
  return chosen;
}

/** Adds what the experts did on their own rows, from the taps of experts. */
function addRouted(
  sums: ExpertSums,
  taps: TapEvent['taps'],
  experts: ExpertRows,
  chosen: ChosenExperts,
  topK: number,
): void {
  const x = tapOf(taps, 'mlp_input');
  const [hidden, output] = [tapOf(taps, 'expert_hidden'), tapOf(taps, 'expert_output')];
  let first = 0;
  experts.counts.forEach((count, expert) => {
    const rows = experts.rows.subarray(first, first + count);
    const at = Int32Array.from(rows, (_, i) => first + i);
    sums.addChosen(expert, { inputs: { x, rows }, hidden, output, at, ...valuesAt(chosen, expert, rows, topK) });
    first += count;
  });
}

/** p and shares of an expert at rows that chose it. */
function valuesAt(
  chosen: ChosenExperts,
  expert: number,
  rows: Int32Array,
  topK: number,
): { readonly weights: Float64Array; readonly shares: Float64Array } {
  const slots = Int32Array.from(rows, (row) => row * topK + slotOf(chosen.experts, row, expert, topK));
  return {
    weights: Float64Array.from(slots, (slot) => chosen.weights[slot]),
    shares: Float64Array.from(slots, (slot) => chosen.shares[slot]),
  };
}

/** Place of an expert among the chosen of a row; -1 where it is not. */
function slotOf(chosen: Int32Array, row: number, expert: number, topK: number): number {
  for (let slot = 0; slot < topK; slot++) if (chosen[row * topK + slot] === expert) return slot;
  return -1;
}

/** Runs every expert on every token, a block of tokens at a time. */
function createEverywhere(engine: Engine, shape: ExpertShape, experts: number, sums: ExpertSums) {
  const { hidden: size, width } = shape;
  const { threads, precision } = engine;
  const bytes = precision === 'f32' ? 4 : 8;
  const blockRows = Math.max(LEAST_BLOCK_ROWS, Math.floor(OUTPUT_BYTES / (experts * size * bytes)));
  const make = (length: number): Floats => (bytes === 4 ? new Float32Array(length) : new Float64Array(length));
  let [outputs, hidden] = [make(0), make(0)];
  return {
    add(matrices: readonly ExpertMatrices[], x: Floats, rows: number, chosen: ChosenExperts): void {
      const most = Math.min(blockRows, rows);
      if (hidden.length < most * width) [outputs, hidden] = [make(experts * most * size), make(most * width)];
      const topK = chosen.experts.length / rows;
      for (let from = 0; from < rows; from += blockRows) {
        const count = Math.min(blockRows, rows - from);
        const block = x.subarray(from * size, (from + count) * size);
        for (let expert = 0; expert < experts; expert++) {
          const output = outputs.subarray(expert * count * size, (expert + 1) * count * size);
          const inner = hidden.subarray(0, count * width);
          runExpert(matrices[expert], shape, block, count, { hidden: inner, out: output, threads });
          const at = rowsChoosing(chosen.experts, expert, from, count, topK);
          const values = valuesAt(
            chosen,
            expert,
            at.map((row) => row + from),
            topK,
          );
          sums.addChosen(expert, { inputs: { x: block, rows: at }, hidden: inner, output, at, ...values });
        }
        sums.addEverywhere(outputs, count);
      }
    },
  };
}

/** Rows of a block, counted from its first, that chose an expert. */
function rowsChoosing(chosen: Int32Array, expert: number, from: number, count: number, topK: number): Int32Array {
  const rows: number[] = [];
  for (let row = 0; row < count; row++) if (slotOf(chosen, from + row, expert, topK) >= 0) rows.push(row);
  return Int32Array.from(rows);
}

function expertsOf(matrices: ReadonlyMap<string, Floats>, experts: number): ExpertMatrices[] {
  const matrix = (role: string): Floats => {
    const data = matrices.get(role);
    if (!data) throw new RangeError(`the layer has no weight ${role}`);
    return data;
  };
  return Array.from({ length: experts }, (_, e) => ({
    gate: matrix(`expert.${e}.gate`),
    up: matrix(`expert.${e}.up`),
    down: matrix(`expert.${e}.down`),
  }));
}

const module = import.meta.url;
export const START_STATISTICS: JobReference<StartArguments, void> = { module, job: startStatistics };
export const STATISTICS_PASS: JobReference<PassArguments, LayerStatistics | undefined> = {
  module,
  job: statisticsPass,
};
export const END_STATISTICS: JobReference<undefined, void> = { module, job: endStatistics };
