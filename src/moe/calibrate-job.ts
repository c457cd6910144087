import { InputError } from '../errors.js';
import { type MoeMlpDescription, routerOutputs } from '../models/description.js';
import type { Engine } from '../models/engine.js';
import type { JobReference } from '../models/engine-host.js';
import type { LanguageModel } from '../models/language-model.js';
import type { LayerTap } from '../models/layer-parts.js';
import type { ExpertRows, Floats, TapEvent } from '../models/layer-runner.js';
import { engineOf, type LayerStreamOptions, type LayerStreams, openLayerStreams } from '../models/layer-streams.js';
import { createExpertSums, type ExpertSums } from './expert-statistics.js';
import { createRoutingSums, type TokenRouting } from './routing-statistics.js';
import type { WatchedOutputs } from './statistics-file.js';
import type { ExpertMatrices, ExpertShape, LayerStatistics, RouterRule } from './types.js';
import { type ChosenExperts, chosenExperts, createExpertRun, keepChoice, valuesAt } from './watch-experts.js';

/** Outputs of all experts on a block of tokens. */
export const OUTPUT_BYTES = 128 << 20;
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
  let chosen = chosenExperts(0, topK);
  let first = 0;
  const onToken = (token: TokenRouting): void => keepChoice(chosen, token.token - first, token);
  const routing = createRoutingSums(layer, rows, routerRule(mlp), { threads, ...(sums && { onToken }) });
  const matrices = new Map<string, Floats>();
  const shape: ExpertShape = { hidden: hiddenSize, width, gated: true, activation: mlp.activation };
  const everywhere =
    sums && outputs === 'all'
      ? createExpertRun({
          ...{ shape, experts: mlp.experts, everywhere: true, blockBytes: OUTPUT_BYTES, threads, sums },
          expert: (e) => expertOf(matrices, e),
        })
      : undefined;

  const onTap = ({ taps, experts }: TapEvent): void => {
    const logits = tapOf(taps, 'router_logits');
    const count = logits.length / rows;
    first = routing.tokens;
    chosen = chosenExperts(sums ? count : 0, topK);
    routing.add(logits, count, experts && { chosen: chosenOf(experts, count, topK) });
    if (!sums) return;
    const x = tapOf(taps, 'mlp_input');
    if (everywhere) everywhere(x, count, chosen);
    else if (experts) addRouted(sums, x, taps, experts, chosen);
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

/** Adds what the experts did on their own rows of x, from the taps of experts. */
function addRouted(
  sums: ExpertSums,
  x: Floats,
  taps: TapEvent['taps'],
  experts: ExpertRows,
  chosen: ChosenExperts,
): void {
  const [hidden, output] = [tapOf(taps, 'expert_hidden'), tapOf(taps, 'expert_output')];
  sums.addInputs(x, chosen.experts.length / chosen.topK);
  let first = 0;
  experts.counts.forEach((count, expert) => {
    const rows = experts.rows.subarray(first, first + count);
    const at = Int32Array.from(rows, (_, i) => first + i);
    sums.addChosen(expert, { inputs: { x, rows }, hidden, output, at, ...valuesAt(chosen, expert, rows) });
    first += count;
  });
}

function expertOf(matrices: ReadonlyMap<string, Floats>, expert: number): ExpertMatrices {
  const matrix = (part: string): Floats => {
    const data = matrices.get(`expert.${expert}.${part}`);
    if (!data) throw new RangeError(`the layer has no matrix ${part} of expert ${expert}`);
    return data;
  };
  return { gate: matrix('gate'), up: matrix('up'), down: matrix('down') };
}

const module = import.meta.url;
export const START_STATISTICS: JobReference<StartArguments, void> = { module, job: startStatistics };
export const STATISTICS_PASS: JobReference<PassArguments, LayerStatistics | undefined> = {
  module,
  job: statisticsPass,
};
export const END_STATISTICS: JobReference<undefined, void> = { module, job: endStatistics };
