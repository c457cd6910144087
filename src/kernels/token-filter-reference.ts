import {
  CUTS,
  createEntropySum,
  dynamicTemperature,
  type FilterMethod,
  type SortedDistribution,
  WEIGHT_DEPTH,
  type WholeRow,
} from './token-cuts.js';

export type LogitRow = Float32Array | Float64Array;

/** One filter with its values, in the order that `FILTER_METHODS` says. */
export interface FilterStep {
  readonly method: FilterMethod;
  readonly values: readonly number[];
}

/** Figures of a filtered row, in the order in which the addon writes them. Entropies in nats. */
export const FILTER_FIGURES = [
  /** Largest logit. */
  'max',
  /** ln sum e^x over the vocabulary. */
  'logSumExp',
  /** Of softmax(x) over the vocabulary. */
  'entropyNats',
  /** All temperatures multiplied. */
  'temperature',
  /** Of softmax(x/T) over the vocabulary. */
  'temperedEntropyNats',
  /** Mass of the kept tokens in softmax(x/T) over the vocabulary. */
  'keptMass',
  'keptCount',
  /** Of softmax(x/T) over the kept tokens. */
  'entropyAfterNats',
  /** ln of the chosen token's probability among the kept ones; NaN without a choice. */
  'logProbabilityAfter',
  /** -ln softmax(x) of the chosen token; NaN without a choice. */
  'surprisalNats',
] as const;
export type FilterFigure = (typeof FILTER_FIGURES)[number];

/** A row's outcome. `kept`: ids, ascending. */
export interface FilteredRow {
  readonly token: number;
  readonly figures: Readonly<Record<FilterFigure, number>>;
  readonly kept: Int32Array;
}

/** The finite logits of a row, falling, with their ids. */
interface SortedRow {
  readonly logits: Float64Array;
  readonly ids: Int32Array;
}

/** Undefined for a row that holds NaN or +Infinity, or nothing finite. */
function sortedRow(row: LogitRow): SortedRow | undefined {
  let finite = 0;
  for (const x of row) {
    if (!(x < Number.POSITIVE_INFINITY)) return undefined;
    if (x > Number.NEGATIVE_INFINITY) finite++;
  }
  if (finite === 0) return undefined;
  const ids = new Int32Array(finite);
  let at = 0;
  for (let i = 0; i < row.length; i++) if (row[i] > Number.NEGATIVE_INFINITY) ids[at++] = i;
  ids.sort((a, b) => row[b] - row[a] || a - b);
  return { ids, logits: Float64Array.from(ids, (id) => row[id]) };
}

/** softmax(x/T) over logits in falling order, T > 0. */
export function sortedDistribution(logits: Float64Array, temperature: number): SortedDistribution {
  const weights = new Float64Array(logits.length);
  const sum = createEntropySum();
  for (let i = logits.length - 1; i >= 0; i--) {
    const d = (logits[i] - logits[0]) / temperature;
    weights[i] = d > -WEIGHT_DEPTH ? Math.exp(d) : 0;
    sum.add(weights[i], d);
  }
  return { logits, weights, temperature, total: sum.total(), entropyNats: sum.entropyNats() };
}

function populationDeviation(logits: Float64Array): number {
  let mean = 0;
  for (const x of logits) mean += x - logits[0];
  mean = mean / logits.length + logits[0];
  let squares = 0;
  for (const x of logits) squares += (x - mean) ** 2;
  return Math.sqrt(squares / logits.length);
}

/**
 * The meaning of the native `filterTokens` for one row: filters in their order, each on the distribution renormalised over
 * what the earlier ones kept; then the token at which the cumulative mass, in falling order, passes `uniform`.
 * @param uniform in [0, 1); undefined draws nothing
 * @returns undefined for a row that holds NaN or +Infinity, or nothing finite
 */
export function filterRowReference(
  row: LogitRow,
  steps: readonly FilterStep[],
  options: { readonly uniform?: number; readonly greedy?: boolean },
): FilteredRow | undefined {
  const sorted = sortedRow(row);
  if (sorted === undefined) return undefined;
  const whole: WholeRow = { vocabulary: row.length, deviation: populationDeviation(sorted.logits) };
  let [from, to, temperature] = [0, sorted.ids.length, 1];
  for (const { method, values } of steps) {
    const live = sorted.logits.subarray(from, to);
    const cut = CUTS[method];
    if (cut !== undefined) {
      const kept = cut(sortedDistribution(live, temperature), values, whole);
      [from, to] = [from + kept.from, from + kept.to];
      continue;
    }
    const factor =
      method === 'temperature'
        ? values[0]
        : dynamicTemperature(sortedDistribution(live, temperature).entropyNats, to - from, values);
    // At temperature 0 the most probable token alone is left, with its mass at the temperature before.
    if (factor === 0) to = from + 1;
    else temperature *= factor;
  }
  if (options.greedy) to = from + 1;
  return outcome(sorted, { from, to, temperature }, options.uniform);
}

function outcome(
  { logits, ids }: SortedRow,
  { from, to, temperature }: { readonly from: number; readonly to: number; readonly temperature: number },
  uniform: number | undefined,
): FilteredRow {
  const plain = sortedDistribution(logits, 1);
  const tempered = temperature === 1 ? plain : sortedDistribution(logits, temperature);
  const left = sortedDistribution(logits.subarray(from, to), temperature);
  let chosen = -1;
  if (uniform !== undefined) {
    const threshold = uniform * left.total;
    let mass = 0;
    // Rounding may leave the threshold unpassed; then it is the last token of any weight.
    for (let i = 0; i < left.weights.length && mass <= threshold; i++) {
      if (left.weights[i] > 0) chosen = i;
      mass += left.weights[i];
    }
  }
  const logTotal = Math.log(plain.total);
  const below = (logits[from] - logits[0]) / temperature;
  return {
    token: chosen < 0 ? -1 : ids[from + chosen],
    kept: ids.slice(from, to).sort(),
    figures: {
      max: logits[0],
      logSumExp: logits[0] + logTotal,
      entropyNats: plain.entropyNats,
      temperature,
      temperedEntropyNats: tempered.entropyNats,
      keptMass: Math.min(1, (Math.exp(below) * left.total) / tempered.total),
      keptCount: to - from,
      entropyAfterNats: left.entropyNats,
      logProbabilityAfter:
        chosen < 0 ? Number.NaN : (left.logits[chosen] - left.logits[0]) / temperature - Math.log(left.total),
      surprisalNats: chosen < 0 ? Number.NaN : Math.max(0, logits[0] - left.logits[chosen] + logTotal),
    },
  };
}
