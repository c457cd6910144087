import type { ActivationRow } from './activation-file.js';
import type { ActivationStore } from './activation-store.js';
import { contrastVector } from './contrast-vectors.js';
import { type Centring, checkEntropies, EQUAL_ENTROPIES } from './east-sums.js';
import { contrastOfSteps, eastLayer, type StepTable } from './entropy-vectors.js';
import type { LayerVector, VectorSettings } from './layer-figures.js';
import type { ContrastMethod, SignRule } from './methods/contrast.js';
import { cosine } from './vector-measures.js';

/** How vectors are computed. */
export interface ComputeSettings extends VectorSettings {
  readonly method: ContrastMethod | 'east';
  readonly centring: Centring;
  readonly permutations: number;
  readonly sign: SignRule;
  readonly threads?: number;
}

/** Rows of a store by run, runs in the order in which they begin. */
export function stepTable(rows: readonly ActivationRow[]): StepTable {
  const runs = new Map<string, number[]>();
  rows.forEach(({ run = 'all' }, row) => {
    const own = runs.get(run);
    if (own) own.push(row);
    else runs.set(run, [row]);
  });
  return {
    names: [...runs.keys()],
    runs: [...runs.values()].map((own) => Int32Array.from(own)),
    entropyNats: Float64Array.from(rows, ({ entropyNats = Number.NaN }) => entropyNats),
  };
}

/**
 * Refuses entropies from which no direction follows; activations need not be known.
 * @throws InputError as `checkEntropies`
 */
export function checkSteps({ runs, entropyNats }: StepTable, centring: Centring): void {
  const ranges = runs.map((rows) => {
    const own = Array.from(rows, (row) => entropyNats[row]);
    return { low: Math.min(...own), high: Math.max(...own), steps: own.length };
  });
  checkEntropies(
    {
      runs: runs.length,
      steps: entropyNats.length,
      entropy: entropyNats.reduce((sum, h) => sum + h, 0),
      lowest: Math.min(...ranges.map(({ low }) => low)),
      highest: Math.max(...ranges.map(({ high }) => high)),
      changing: ranges.some(({ low, high }) => high - low > EQUAL_ENTROPIES),
      longest: Math.max(0, ...ranges.map(({ steps }) => steps)),
    },
    centring,
  );
}

/** The vector of one layer: of runs by `east` or by a contrast of entropy quartiles, of pairs by a contrast method. */
export function computeLayer(
  store: ActivationStore,
  place: number,
  table: StepTable | undefined,
  settings: ComputeSettings,
): LayerVector {
  const { method } = settings;
  if (method === 'east') {
    if (!table) throw new RangeError('east takes steps');
    return eastLayer(store, place, table, settings);
  }
  return table
    ? contrastOfSteps(store, place, table, { ...settings, method })
    : contrastVector(store, place, { ...settings, method });
}

/** Cosine of each vector with that of the next layer. */
export function neighbourCosines(layers: readonly LayerVector[]): number[] {
  return layers.slice(1).map(({ vector }, i) => cosine(layers[i].vector, vector));
}

/** Mean and population deviation. */
export function moments(values: Float64Array): { mean: number; sd: number } {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return { mean, sd: Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length) };
}
