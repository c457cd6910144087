import type { ModelDescription } from '../models/description.js';
import type { GraphComposer } from '../models/graph.js';
import type { AttentionExtension, ExtendedAttention, ScoresContext } from './attention-composition.js';
import type { ExtraParameter } from './decoder-weights.js';

/** Temperatures stay above this: a head at 0 would have no gradient (Jha & Reagen 2025 start at 1e-2). */
export const LEAST_TEMPERATURE = 1e-4;

/**
 * - `code`: rows are penalised one by one, summed over batch and queries, divided by heads and layers, as the released
 *   module does.
 * - `algorithm1`: the entropy is averaged over batch and queries first, then penalised, averaged over heads and layers.
 */
export type RegulariserReduction = 'code' | 'algorithm1';

/** Name of the penalty among the terms of a loss. */
export const ENTROPY_PENALTY = 'attention-entropy';

/** Temperatures of heads that are trained. */
export interface LearntTemperatures {
  /** `[layers, heads, positions]`. */
  readonly start: Float64Array;
  /** 1: one a head; else one a head and position of the query, at least as many as a window has. */
  readonly positions: number;
}

/** The entropy regulariser of a training run: thresholds theta as shares of log(contextSize). */
export interface LearntRegulariser {
  readonly reduction: RegulariserReduction;
  /** Tolerance as a share of log(contextSize); deviations up to it are free. */
  readonly gamma: number;
  /** Multiplies the penalty. */
  readonly lambda: number;
  /** T of `E_max = log T`. */
  readonly contextSize: number;
  /** `[layers, heads]`, to begin with. */
  readonly thresholds: Float64Array;
  /** Thresholds are trained, within [0, 1]. */
  readonly learn: boolean;
}

export interface EntropyAttentionSettings {
  readonly temperatures?: LearntTemperatures;
  readonly regulariser?: LearntRegulariser;
}

/** Mean entropies of heads over the queries of the text that have passed since. */
export interface ObservedEntropies {
  readonly queries: number;
  /** Nats, `[layers, heads]`; NaN before any query. */
  readonly means: Float64Array;
}

/** Attention with temperatures and a penalty on its entropies, which also tells the entropies. */
export interface EntropyAttention extends AttentionExtension {
  /** What was observed since the last call. */
  take(): ObservedEntropies;
}

const AXIS_LAST = { axis: { int: -1 } } as const;

/**
 * Probabilities a = softmax(z / t) of scores z [B, heads, S, S] with temperatures t, and the entropy of every row in nats,
 * e = -sum a log a, [B, heads, S] (Jha & Reagen 2025, section 3).
 * @param temperatures [heads, S, 1] or [heads, 1, 1]; none: t = 1
 */
export function composeTemperedAttention(
  g: GraphComposer,
  { scores, mask }: Pick<ScoresContext, 'scores' | 'mask'>,
  temperatures?: string,
): { readonly probabilities: string; readonly entropies: string } {
  const tempered = temperatures === undefined ? scores : g.node('Div', [scores, temperatures]);
  // A hidden key has the probability 0 and a finite logarithm, so that neither value nor gradient is NaN.
  const logs = g.node('LogSoftmax', [g.node('Add', [tempered, mask])], { attributes: AXIS_LAST });
  const probabilities = g.node('Exp', [logs]);
  const sums = g.node('ReduceSum', [g.node('Mul', [probabilities, logs]), g.integers([-1])], {
    attributes: { keepdims: { int: 0 } },
  });
  return { probabilities, entropies: g.node('Neg', [sums]) };
}

/**
 * Penalty of one layer as a scalar: with `delta = e - theta E_max` the sum of `delta^2` where `|delta| > gamma E_max`,
 * strictly, divided by heads and `layers`, times lambda. Added up over the layers it is `entropyRegulariser` of
 * `src/entropy/attention-regulariser.ts`.
 * @param entropies [B, heads, S]
 * @param thresholds [heads, 1]
 * @param counted [B, 1, S], 1 for the queries that count
 */
export function composeEntropyPenalty(
  g: GraphComposer,
  { entropies, thresholds, counted }: { readonly [name in 'entropies' | 'thresholds' | 'counted']: string },
  settings: Omit<LearntRegulariser, 'thresholds' | 'learn'> & { readonly layers: number; readonly heads: number },
): string {
  const { reduction, gamma, lambda, contextSize, layers, heads } = settings;
  const maximum = Math.log(contextSize);
  const total = (value: string): string => g.node('ReduceSum', [value], { attributes: { keepdims: { int: 0 } } });
  const wanted = g.node('Mul', [thresholds, g.scalar(maximum)]);
  const costs = (deviation: string): string => {
    const isPenalised = g.node('Greater', [g.node('Abs', [deviation]), g.scalar(gamma * maximum)]);
    return g.node('Where', [isPenalised, g.node('Mul', [deviation, deviation]), g.scalar(0)]);
  };
  const scaled = (sum: string): string => g.node('Mul', [sum, g.scalar(lambda / (layers * heads))]);
  if (reduction === 'code') {
    return scaled(total(g.node('Mul', [costs(g.node('Sub', [entropies, wanted])), counted])));
  }
  const sums = g.node('ReduceSum', [g.node('Mul', [entropies, counted]), g.integers([0, 2])], {
    attributes: { keepdims: { int: 0 } },
  });
  const means = g.node('Unsqueeze', [g.node('Div', [sums, total(counted)]), g.integers([1])]);
  return scaled(total(costs(g.node('Sub', [means, wanted]))));
}

/** Roles of the extra inputs of attention: temperatures [heads, positions, 1], thresholds [heads, 1]. */
export const TEMPERATURE = 'temperature';
export const THRESHOLD = 'threshold';

/** `[heads, positions]` of layer `l` at the first `kept` positions. */
function startOf({ start, positions }: LearntTemperatures, l: number, heads: number, kept: number): Float64Array {
  const values = new Float64Array(heads * kept);
  for (let h = 0; h < heads; h++) {
    const at = (l * heads + h) * positions;
    values.set(start.subarray(at, at + kept), h * kept);
  }
  return values;
}

/**
 * Learnable temperatures and thresholds of a decoder, with the entropy regulariser in its graph (Jha & Reagen 2025).
 * @param windowLength longest window, for temperatures by position
 */
export function createEntropyAttention(
  { layers }: ModelDescription,
  { temperatures, regulariser }: EntropyAttentionSettings,
  windowLength: number,
): EntropyAttention {
  const heads = layers[0].attention.heads;
  const positions = temperatures && (temperatures.positions === 1 ? 1 : windowLength);
  const sums = new Float64Array(layers.length * heads);
  const queries = new Float64Array(layers.length);
  return {
    ...(regulariser && { penalty: ENTROPY_PENALTY }),

    inputs(layer) {
      const inputs: ExtraParameter[] = [];
      if (temperatures && positions !== undefined) {
        inputs.push({
          role: TEMPERATURE,
          name: `attention.${layer}.temperature`,
          dims: [heads, positions, 1],
          initial: startOf(temperatures, layer, heads, positions),
          range: { least: LEAST_TEMPERATURE, greatest: 1 / LEAST_TEMPERATURE },
        });
      }
      if (regulariser) {
        inputs.push({
          role: THRESHOLD,
          name: `attention.${layer}.threshold`,
          dims: [heads, 1],
          initial: regulariser.thresholds.subarray(layer * heads, (layer + 1) * heads),
          range: { least: 0, greatest: 1 },
          ...(!regulariser.learn && { frozen: true }),
        });
      }
      return inputs;
    },

    compose(context): ExtendedAttention {
      const { g, length, input } = context;
      const shown = (): string => g.node('Slice', [input(TEMPERATURE), g.integers([0]), length, g.integers([1])]);
      const ofQueries = positions === undefined ? undefined : positions === 1 ? input(TEMPERATURE) : shown();
      const { probabilities, entropies } = composeTemperedAttention(g, context, ofQueries);
      const counted = context.counted();
      const observed = g.node('Mul', [entropies, counted]);
      if (!regulariser) return { probabilities, observed };
      const settings = { ...regulariser, layers: layers.length, heads };
      const penalty = composeEntropyPenalty(g, { entropies, thresholds: input(THRESHOLD), counted }, settings);
      return { probabilities, observed, penalty };
    },

    observe(layer, entropies, { length, counted }) {
      queries[layer] += counted;
      for (let row = 0; row < entropies.length; row++) {
        sums[layer * heads + (Math.floor(row / length) % heads)] += entropies[row];
      }
    },

    scoreFactors(extras) {
      if (positions !== 1) return undefined;
      return Float64Array.from(extras.get(TEMPERATURE)?.values ?? [], (t) => 1 / t);
    },

    take() {
      const means = sums.map((sum, at) => sum / queries[Math.floor(at / heads)]);
      const taken = { queries: queries[0], means };
      sums.fill(0);
      queries.fill(0);
      return taken;
    },
  };
}
