import { InputError } from '../errors.js';
import { EXPERT_MAP, type ModelDescription, type MoeMlpDescription, routerOutputs } from '../models/description.js';
import type { JobReference } from '../models/engine-host.js';
import type { LanguageModel } from '../models/language-model.js';
import type { TapEvent } from '../models/layer-runner.js';
import type { ModelFiles } from '../models/model-files.js';
import { createWeightReader } from '../models/weights.js';
import type { RouterHead } from './routing-run.js';
import { createRoutingSums, type RoutingSums, type TokenRouting } from './routing-statistics.js';
import { createRoutedTokens, logToken, type RoutedTokens } from './token-log.js';
import type { RoutingStatistics } from './types.js';

/** Windows of token ids and the positions of each that count. */
export interface RoutingArguments {
  readonly windows: readonly Int32Array[];
  readonly wanted: readonly (readonly [from: number, to: number])[];
  /** Experts a token; the model's own number when absent. */
  readonly topK?: number;
  /** Whether every token is shown, for a table of tokens. */
  readonly tokens: boolean;
}

/** Of every window its statistics by layer with experts, and where asked for its tokens (the wanted positions). */
export interface RoutingBatch {
  readonly statistics: readonly (readonly RoutingStatistics[])[];
  /** Of all windows together, by layer, [E, E]: short windows would have more of it than all else. */
  readonly coActivation: readonly Float64Array[];
  readonly tokens?: readonly (readonly RoutedTokens[])[];
}

/**
 * The routers of a model, first layer first. Those of a merged model that still choose among the experts of before are
 * measured over these.
 * @throws InputError for a model without experts, or `topK` beyond their number
 */
export function routerHeads(model: ModelDescription, name: string, topK?: number): RouterHead[] {
  const heads = model.layers.flatMap(({ mlp }, layer): RouterHead[] => {
    return mlp.kind === 'moe' ? [headOf(layer, mlp, topK)] : [];
  });
  if (heads.length === 0) {
    throw new InputError(
      `${name}: a dense model (${model.modelType}): none of its ${model.layers.length} layers has a router with experts`,
    );
  }
  const short = heads.find((head) => head.topK > head.experts);
  if (short) {
    throw new InputError(`--top-k ${short.topK}: layer ${short.layer} of ${name} has ${short.experts} experts`);
  }
  return heads;
}

function headOf(layer: number, mlp: MoeMlpDescription, topK: number | undefined): RouterHead {
  return { layer, experts: routerOutputs(mlp), topK: topK ?? mlp.expertsPerToken, score: 'softmax' };
}

interface WindowRouting {
  readonly sums: RoutingSums;
  readonly tokens?: RoutedTokens;
}

function openWindow(head: RouterHead, length: number, coActivation: Float64Array, withTokens: boolean): WindowRouting {
  const { topK } = head;
  const rule = { score: head.score, topK, normalizeTopK: true };
  const shared = { grams: false, coActivation };
  if (!withTokens) return { sums: createRoutingSums(head.layer, head.experts, rule, shared) };
  const tokens = createRoutedTokens(length, topK);
  const onToken = (routing: TokenRouting): void => logToken(tokens, routing);
  return { sums: createRoutingSums(head.layer, head.experts, rule, { ...shared, onToken }), tokens };
}

/** The heads with the maps of a merged model that has such. */
export function withExpertMaps(heads: readonly RouterHead[], { weights }: Pick<ModelFiles, 'weights'>): RouterHead[] {
  const reader = createWeightReader(1);
  return heads.map((head) => {
    const weight = weights.layers[head.layer].get(EXPERT_MAP);
    if (!weight) return head;
    const map = new Float64Array(head.experts);
    reader.read(weight, map);
    return { ...head, expertMap: [...map] };
  });
}

/** Runs beside the engine: one pass over a batch of windows that looks at the router logits alone. */
export async function measureRouting(
  { engine, info }: LanguageModel,
  { windows, wanted, topK, tokens }: RoutingArguments,
): Promise<RoutingBatch> {
  if (!engine) throw new InputError(`${info.path}: routers are not reachable in an ONNX export; pass the model itself`);
  const heads = routerHeads(engine.model, info.path, topK);
  const places = new Map(heads.map(({ layer }, place) => [layer, place]));
  const coActivation = heads.map(({ experts }) => new Float64Array(experts * experts));
  const routed = windows.map((_, w) => {
    const length = wanted[w][1] - wanted[w][0];
    return heads.map((head, place) => openWindow(head, length, coActivation[place], tokens));
  });
  const onTap = ({ layer, group, from, count, taps }: TapEvent): void => {
    const place = places.get(layer);
    const logits = taps.get('router_logits');
    if (place === undefined || logits === undefined) return;
    const { experts } = heads[place];
    group.windows.forEach((window, i) => {
      const first = Math.max(from, wanted[window][0]);
      const end = Math.min(from + count, wanted[window][1]);
      if (first >= end) return;
      const at = i * count - from;
      routed[window][place].sums.add(logits.subarray((at + first) * experts, (at + end) * experts), end - first);
    });
  };
  await engine.forward({ windows, taps: ['router_logits'], tapLayers: [...places.keys()], onTap });
  return {
    statistics: routed.map((layers) => layers.map(({ sums }) => sums.finish())),
    coActivation,
    ...(tokens && {
      tokens: routed.map((layers) => layers.flatMap((layer) => (layer.tokens ? [layer.tokens] : []))),
    }),
  };
}

export const MEASURE_ROUTING: JobReference<RoutingArguments, RoutingBatch> = {
  module: import.meta.url,
  job: measureRouting,
};
