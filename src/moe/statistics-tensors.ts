import { InputError } from '../errors.js';
import type { PlannedTensor } from '../formats/safetensors-writer.js';
import { ENTROPY_BINS, type ExpertStatistics, type LayerStatistics, type RoutingStatistics } from './types.js';

/** Extents of the stored tensors: E experts, B bins, H hidden size, I expert width. */
type Extent = 'E' | 'B' | 'H' | 'I';

/** Numbers of a layer that stand in the header, as JSON (which keeps a double to the last bit). */
export interface LayerRecord {
  readonly layer: number;
  readonly experts: number;
  readonly topK: number;
  readonly score: RoutingStatistics['score'];
  readonly tokens: number;
  readonly tiedTokens: number;
  readonly entropySum: number;
  readonly entropyDeviationSum: number;
  readonly chosenEntropySum: number;
  readonly squaredLogNormalizerSum: number;
  /** Where outputs of experts were watched. */
  readonly outputs?: {
    readonly hidden: number;
    readonly width: number;
    /** Tokens on which every expert ran; absent where experts ran on their own tokens alone. */
    readonly everywhereTokens?: number;
  };
}

export type StoredTensor = PlannedTensor & { readonly data: Float64Array };

type RoutingArray = {
  [K in keyof RoutingStatistics]-?: RoutingStatistics[K] extends Float64Array ? K : never;
}[keyof RoutingStatistics];
type ExpertArray = {
  [K in keyof ExpertStatistics]-?: ExpertStatistics[K] extends Float64Array ? K : never;
}[keyof ExpertStatistics];

const ROUTING: Readonly<Record<RoutingArray, readonly [string, ...Extent[]]>> = {
  counts: ['counts', 'E'],
  entropyHistogram: ['entropy_histogram', 'B'],
  probabilitySum: ['probability_sum', 'E'],
  gateMass: ['gate_mass', 'E'],
  logitSum: ['logit_sum', 'E'],
  logitGram: ['logit_gram', 'E', 'E'],
  centredLogitGram: ['centred_logit_gram', 'E', 'E'],
  coActivation: ['co_activation', 'E', 'E'],
};

const EXPERTS: Readonly<Record<ExpertArray, readonly [string, ...Extent[]]>> = {
  inputSum: ['input_sum', 'E', 'H'],
  inputAbsoluteSum: ['input_absolute_sum', 'E', 'H'],
  inputSquareSum: ['input_square_sum', 'E', 'H'],
  hiddenSquareSum: ['hidden_square_sum', 'E', 'I'],
  outputNormSum: ['output_norm_sum', 'E'],
  weightedNormSum: ['weighted_norm_sum', 'E'],
  renormalizedNormSum: ['renormalized_norm_sum', 'E'],
  weightSum: ['weight_sum', 'E'],
  largestOutput: ['largest_output', 'E'],
  largestMagnitude: ['largest_magnitude', 'E'],
  allInputSquareSum: ['all_input_square_sum', 'H'],
};

const EVERYWHERE = {
  outputSum: ['output_sum', 'E', 'H'],
  outputGram: ['output_gram', 'E', 'E'],
} as const;

function shapeOf(record: LayerRecord, extents: readonly Extent[]): number[] {
  const sizes = { E: record.experts, B: ENTROPY_BINS, H: record.outputs?.hidden ?? 0, I: record.outputs?.width ?? 0 };
  return extents.map((extent) => sizes[extent]);
}

/** Names and shapes of a layer's tensors: `layers.<l>.routing.<name>` and `layers.<l>.experts.<name>`, all F64. */
export function plannedTensors(record: LayerRecord): PlannedTensor[] {
  const plan = (part: string, table: Readonly<Record<string, readonly [string, ...Extent[]]>>): PlannedTensor[] =>
    Object.values(table).map(([name, ...extents]) => ({
      name: tensorName(record, part, name),
      dtype: 'F64',
      shape: shapeOf(record, extents),
    }));
  return [
    ...plan('routing', ROUTING),
    ...(record.outputs ? plan('experts', EXPERTS) : []),
    ...(record.outputs?.everywhereTokens !== undefined ? plan('experts', EVERYWHERE) : []),
  ];
}

function tensorName(record: LayerRecord, part: string, name: string): string {
  return `layers.${record.layer}.${part}.${name}`;
}

/** A layer as it is stored. */
export function encodeLayer(statistics: LayerStatistics): { record: LayerRecord; tensors: StoredTensor[] } {
  const { routing, outputs } = statistics;
  const { layer, experts, topK, score, tokens, tiedTokens } = routing;
  const { entropySum, entropyDeviationSum, chosenEntropySum, squaredLogNormalizerSum } = routing;
  const everywhere = outputs?.everywhere;
  const record: LayerRecord = {
    ...{ layer, experts, topK, score, tokens, tiedTokens },
    ...{ entropySum, entropyDeviationSum, chosenEntropySum, squaredLogNormalizerSum },
    ...(outputs && {
      outputs: {
        hidden: outputs.inputSum.length / experts,
        width: outputs.hiddenSquareSum.length / experts,
        ...(everywhere && { everywhereTokens: everywhere.tokens }),
      },
    }),
  };
  const data = [
    ...keysOf(ROUTING).map((key) => routing[key]),
    ...(outputs ? keysOf(EXPERTS).map((key) => outputs[key]) : []),
    ...(everywhere ? keysOf(EVERYWHERE).map((key) => everywhere[key]) : []),
  ];
  return { record, tensors: plannedTensors(record).map((tensor, i) => ({ ...tensor, data: data[i] })) };
}

function keysOf<K extends string>(table: Readonly<Record<K, unknown>>): K[] {
  return Object.keys(table) as K[];
}

const COUNTS = ['layer', 'experts', 'topK', 'tokens', 'tiedTokens'] as const;
const SUMS = ['entropySum', 'entropyDeviationSum', 'chosenEntropySum', 'squaredLogNormalizerSum'] as const;

/** @throws InputError for a record that is not one */
export function readLayerRecord(file: string, value: unknown): LayerRecord {
  const bad = (): never => {
    throw new InputError(`${file}: the header of a layer is damaged: delete the folder and make it anew`);
  };
  const isCount = (count: unknown): boolean => Number.isSafeInteger(count) && Number(count) >= 0;
  if (typeof value !== 'object' || value === null) return bad();
  const record = value as LayerRecord;
  if (!COUNTS.every((key) => isCount(record[key])) || !SUMS.every((key) => Number.isFinite(record[key]))) return bad();
  if (record.score !== 'softmax' && record.score !== 'sigmoid') return bad();
  if (record.experts < 1 || record.topK < 1 || record.topK > record.experts) return bad();
  const { outputs } = record;
  if (outputs !== undefined) {
    if (!isCount(outputs.hidden) || !isCount(outputs.width)) return bad();
    if (outputs.everywhereTokens !== undefined && !isCount(outputs.everywhereTokens)) return bad();
  }
  return record;
}

/**
 * A layer from its record and tensors.
 * @param get the entries of a tensor, which must be as many as asked for
 * @throws InputError for entries that no run can have given
 */
export function decodeLayer(
  file: string,
  record: LayerRecord,
  get: (name: string, length: number) => Float64Array,
): LayerStatistics {
  const read = <K extends string>(part: string, table: Readonly<Record<K, readonly [string, ...Extent[]]>>) => {
    const entries = keysOf(table).map((key) => {
      const [name, ...extents] = table[key];
      const full = tensorName(record, part, name);
      const length = shapeOf(record, extents).reduce((a, b) => a * b, 1);
      const data = get(full, length);
      if (name !== 'largest_output' && !data.every(Number.isFinite)) {
        throw new InputError(`${file}: tensor "${full}" holds entries that are not finite: make the statistics anew`);
      }
      return [key, data] as const;
    });
    return Object.fromEntries(entries) as Record<K, Float64Array>;
  };
  const { outputs: sizes, ...scalars } = record;
  const routing: RoutingStatistics = { ...scalars, ...read('routing', ROUTING) };
  const slots = routing.counts.reduce((sum, count) => sum + count, 0);
  if (slots !== record.tokens * record.topK) {
    throw new InputError(
      `${file}: layer ${record.layer} counts ${slots} choices of experts for ${record.tokens} tokens: make the statistics anew`,
    );
  }
  if (!sizes) return { routing };
  const { everywhereTokens } = sizes;
  const outputs: ExpertStatistics = {
    layer: record.layer,
    ...read('experts', EXPERTS),
    ...(everywhereTokens !== undefined && {
      everywhere: { tokens: everywhereTokens, ...read('experts', EVERYWHERE) },
    }),
  };
  return { routing, outputs };
}
