import { InputError } from '../errors.js';
import { multiply } from '../kernels/gemm.js';
import { createRandom } from '../random.js';
import type { ActivationStore } from './activation-store.js';
import type { ContrastSettings } from './contrast-vectors.js';
import {
  addRun,
  addStep,
  type Centring,
  createEastSums,
  createRunSums,
  type EastSums,
  EQUAL_ENTROPIES,
  eastDirection,
} from './east-sums.js';
import { entropyQuartiles } from './entropy-quartiles.js';
import { areaUnderCurve, clusteredCorrelation, correlation, randomFolds } from './held-out.js';
import { type LayerVector, scaled, type VectorSettings } from './layer-figures.js';
import type { Direction, PairRows } from './methods/contrast.js';
import { cosine, meanRow, norm, projections } from './vector-measures.js';

/** Steps with a known entropy, by run. Rows are those of a store. */
export interface StepTable {
  readonly names: readonly string[];
  /** Rows of each run, in the order of its steps. */
  readonly runs: readonly Int32Array[];
  /** Action entropy of each row, nats. */
  readonly entropyNats: Float64Array;
}

export interface EastSettings extends VectorSettings {
  readonly centring: Centring;
  /** Permutations of the entropies inside their runs that the held-out correlation is set against. */
  readonly permutations: number;
  readonly threads?: number;
}

const PERMUTATION_STREAM = 0x7065726d;

/** Rows of a run minus their mean, in f64. */
function centredRun(
  store: ActivationStore,
  place: number,
  rows: Int32Array,
): { rows: Float64Array; mean: Float64Array } {
  const data = store.read(place, rows);
  const mean = meanRow(data, store.width);
  return { rows: Float64Array.from(data, (value, at) => value - mean[at % store.width]), mean };
}

/** Row 0 the entropies of a run, the others permuted: `[1 + permutations, steps]`. */
function entropyRows(table: StepTable, run: number, { permutations, seed }: EastSettings): Float64Array {
  const own = Float64Array.from(table.runs[run], (row) => table.entropyNats[row]);
  const all = new Float64Array((1 + permutations) * own.length);
  all.set(own);
  const random = createRandom(seed).fork(PERMUTATION_STREAM).fork(run);
  for (let p = 1; p <= permutations; p++) {
    const order = random.permutation(own.length);
    for (let t = 0; t < own.length; t++) all[p * own.length + t] = own[order[t]];
  }
  return all;
}

/** What one pass over a layer leaves. */
interface FirstPass {
  readonly sums: EastSums;
  /** `sum h (z - zbar)` with own and with permuted entropies, `[1 + permutations, width]`. */
  readonly numerators: Float64Array;
  /** Upper minus lower entropy quartile, means of z - zbar; undefined where the quartiles are equal. */
  readonly quartileDifference: Float64Array | undefined;
  readonly meanNorm: number;
  readonly meanCentredNorm: number;
}

function firstPass(store: ActivationStore, place: number, table: StepTable, settings: EastSettings): FirstPass {
  const { width } = store;
  const sums = createEastSums(width);
  const numerators = new Float64Array((1 + settings.permutations) * width);
  const steps = allSteps(table);
  const quartiles = entropyQuartiles(table.entropyNats, steps);
  const weight = new Float64Array(table.entropyNats.length);
  for (const step of quartiles?.upper ?? []) weight[step] += 1 / (quartiles?.upper.length ?? 1);
  for (const step of quartiles?.lower ?? []) weight[step] -= 1 / (quartiles?.lower.length ?? 1);
  const difference = new Float64Array(width);
  let [meanNorm, meanCentredNorm] = [0, 0];
  table.runs.forEach((rows, run) => {
    const data = store.read(place, rows);
    const own = createRunSums(table.names[run], width);
    rows.forEach((row, t) => {
      const z = data.subarray(t * width, (t + 1) * width);
      addStep(own, z, table.entropyNats[row]);
      meanNorm += norm(z) / steps.length;
    });
    addRun(sums, own);
    const { rows: centred } = centredRun(store, place, rows);
    weigh(entropyRows(table, run, settings), centred, width, numerators, settings);
    rows.forEach((row, t) => {
      const z = centred.subarray(t * width, (t + 1) * width);
      meanCentredNorm += norm(z) / steps.length;
      if (weight[row] !== 0) for (let i = 0; i < width; i++) difference[i] += weight[row] * z[i];
    });
  });
  return { sums, numerators, quartileDifference: quartiles && difference, meanNorm, meanCentredNorm };
}

const allSteps = (table: StepTable): number[] => table.runs.flatMap((rows) => [...rows]);

/** Adds the products of rows of weights `[m, steps]` with rows `[steps, width]` to `target [m, width]`. */
function weigh(
  weights: Float64Array,
  rows: Float64Array,
  width: number,
  target: Float64Array,
  { threads }: { readonly threads?: number },
): void {
  const steps = rows.length / width;
  const sizes = { m: weights.length / steps, n: width, k: steps };
  multiply(weights, rows, target, sizes, { beta: 1, ...(threads !== undefined && { threads }) });
}

/** Mean activation of all runs but one, relative to the origin of the sums. */
function meanWithout(sums: EastSums, mean: Float64Array, steps: number): Float64Array {
  const rest = sums.steps - steps;
  return sums.activation.map((value, i) => (value - steps * (mean[i] - sums.origin[i])) / rest);
}

/** What is added to `sum h (z - zbar) / Z` of the other runs where activations are not centred by run. */
function offsetWithout(
  sums: EastSums,
  own: { readonly mean: Float64Array; readonly steps: number; readonly entropy: number },
  centring: Centring,
  between: Float64Array,
): Float64Array | undefined {
  if (centring === 'run') return undefined;
  const rest = sums.entropy - own.entropy;
  const weightedMeans = between.map((value, i) => (value - own.entropy * (own.mean[i] - sums.origin[i])) / rest);
  if (centring === 'none') return weightedMeans.map((value, i) => value + sums.origin[i]);
  const mean = meanWithout(sums, own.mean, own.steps);
  return weightedMeans.map((value, i) => value - mean[i]);
}

/**
 * Projections of the steps of every run on the vectors of all other runs, with own and with permuted entropies:
 * `[1 + permutations, steps]`, NaN for a run without which nothing is left.
 */
function heldOut(
  store: ActivationStore,
  place: number,
  table: StepTable,
  { sums, numerators }: FirstPass,
  settings: EastSettings,
): Float64Array {
  const { width } = store;
  const count = 1 + settings.permutations;
  const steps = table.entropyNats.length;
  const result = new Float64Array(count * steps).fill(Number.NaN);
  if (table.runs.length < 2) return result;
  // Weighted sum of the means of runs: what centring by run takes out.
  const between = sums.weighted.map((value, i) => value - sums.numerator[i]);
  table.runs.forEach((rows, run) => {
    const { rows: centred, mean } = centredRun(store, place, rows);
    const entropies = entropyRows(table, run, settings);
    const entropy = entropies.subarray(0, rows.length).reduce((sum, value) => sum + value, 0);
    const rest = sums.entropy - entropy;
    if (!(rest > EQUAL_ENTROPIES)) return;
    const vectors = new Float64Array(count * width);
    weigh(entropies, centred, width, vectors, settings);
    const offset = offsetWithout(sums, { mean, steps: rows.length, entropy }, settings.centring, between);
    for (let at = 0; at < vectors.length; at++) {
      vectors[at] = (numerators[at] - vectors[at]) / rest + (offset?.[at % width] ?? 0);
    }
    const projected = multiply(
      vectors,
      centred,
      new Float64Array(count * rows.length),
      { m: count, n: rows.length, k: width },
      { transposeB: true, ...(settings.threads !== undefined && { threads: settings.threads }) },
    );
    for (let p = 0; p < count; p++) {
      rows.forEach((row, t) => {
        result[p * steps + row] = projected[p * rows.length + t];
      });
    }
  });
  return result;
}

/** Correlations of held-out projections with the entropies they were learnt from. */
function permutedCorrelations(
  held: Float64Array,
  table: StepTable,
  settings: EastSettings,
): { mean: number; sd: number; p: number } {
  const steps = table.entropyNats.length;
  const rows = allSteps(table).filter((row) => Number.isFinite(held[row]));
  const permuted = new Float64Array(settings.permutations * steps);
  table.runs.forEach((own, run) => {
    const entropies = entropyRows(table, run, settings);
    for (let p = 0; p < settings.permutations; p++) {
      own.forEach((row, t) => {
        permuted[p * steps + row] = entropies[(p + 1) * own.length + t];
      });
    }
  });
  const of = (p: number, entropies: (row: number) => number): number =>
    correlation(
      Float64Array.from(rows, (row) => held[p * steps + row]),
      Float64Array.from(rows, entropies),
    );
  const own = of(0, (row) => table.entropyNats[row]);
  const found = Float64Array.from({ length: settings.permutations }, (_, p) =>
    of(p + 1, (row) => permuted[p * steps + row]),
  );
  if (settings.permutations === 0 || Number.isNaN(own)) return { mean: Number.NaN, sd: Number.NaN, p: Number.NaN };
  const mean = found.reduce((sum, r) => sum + r, 0) / found.length;
  const sd = Math.sqrt(found.reduce((sum, r) => sum + (r - mean) ** 2, 0) / Math.max(1, found.length - 1));
  return { mean, sd, p: (1 + found.filter((r) => r >= own).length) / (1 + found.length) };
}

/** Sizes that a direction is measured by once it is known. */
interface ProjectedSteps {
  readonly projections: Float64Array;
  /** Mean of |<z, v/|v|>|, z not centred. */
  readonly meanProjection: number;
}

function projectSteps(store: ActivationStore, place: number, table: StepTable, vector: Float64Array): ProjectedSteps {
  const result = new Float64Array(table.entropyNats.length);
  const length = norm(vector);
  let meanProjection = 0;
  for (const rows of table.runs) {
    const projected = projections(store.read(place, rows), store.width, vector);
    const mean = projected.reduce((sum, value) => sum + value, 0) / rows.length;
    rows.forEach((row, t) => {
      result[row] = projected[t] - mean;
      meanProjection += Math.abs(projected[t]) / length / result.length;
    });
  }
  return { projections: result, meanProjection };
}

/** Correlations and separation of held-out projections (NaN entries are left out). */
function heldOutFigures(held: Float64Array, table: StepTable, seed: number) {
  const clusters = table.runs.map((rows) => rows.filter((row) => Number.isFinite(held[row])));
  const rows = clusters.flatMap((own) => [...own]);
  const none = { value: Number.NaN, se: Number.NaN, low: Number.NaN, high: Number.NaN };
  if (rows.length < 2) return { correlated: none, auc: { value: Number.NaN, se: Number.NaN } };
  const places = new Map(rows.map((row, i) => [row, i] as const));
  const correlated = clusteredCorrelation(
    Float64Array.from(rows, (row) => held[row]),
    Float64Array.from(rows, (row) => table.entropyNats[row]),
    clusters.filter((own) => own.length > 0).map((own) => own.map((row) => places.get(row) ?? 0)),
    seed,
  );
  const runOf = new Map(table.runs.flatMap((own, run) => [...own].map((row) => [row, run] as const)));
  const quartiles = entropyQuartiles(table.entropyNats, rows);
  const side = (steps: readonly number[]) => ({
    scores: steps.map((step) => held[step]),
    clusterOf: steps.map((step) => runOf.get(step) ?? 0),
  });
  const auc = quartiles
    ? areaUnderCurve(side(quartiles.upper), side(quartiles.lower), table.runs.length)
    : { value: Number.NaN, se: Number.NaN };
  return { correlated, auc };
}

function stepVector(
  store: ActivationStore,
  place: number,
  table: StepTable,
  found: Direction,
  more: {
    readonly pass: Pick<FirstPass, 'meanNorm' | 'meanCentredNorm' | 'quartileDifference'>;
    readonly held: Float64Array;
    readonly permuted: { readonly mean: number; readonly sd: number; readonly p: number };
  },
  settings: VectorSettings,
): LayerVector {
  const { pass, held, permuted } = more;
  const measured = projectSteps(store, place, table, found.vector);
  const norms = { meanNorm: pass.meanNorm, meanProjection: measured.meanProjection };
  const { vector, figures } = scaled(found.vector, norms, settings);
  const ratio = figures.vector_norm / figures.method_norm;
  const { correlated, auc } = heldOutFigures(held, table, settings.seed);
  const own = correlation(measured.projections, table.entropyNats);
  const layer = store.layers[place];
  return {
    layer,
    vector,
    projections: measured.projections.map((value) => value * ratio),
    heldOutProjections: held,
    figures: {
      layer,
      ...figures,
      mean_centred_norm: pass.meanCentredNorm,
      separation_auc: auc.value,
      separation_auc_se: auc.se,
      pair_accuracy: Number.NaN,
      pair_accuracy_se: Number.NaN,
      correlation: own,
      explained_entropy_share: own ** 2,
      held_out_correlation: correlated.value,
      held_out_correlation_se: correlated.se,
      held_out_correlation_low: correlated.low,
      held_out_correlation_high: correlated.high,
      permuted_correlation_mean: permuted.mean,
      permuted_correlation_sd: permuted.sd,
      permutation_p: permuted.p,
      explained_variance_ratio: found.explainedVarianceRatio ?? Number.NaN,
      cosine_mean_difference: pass.quartileDifference ? cosine(found.vector, pass.quartileDifference) : Number.NaN,
    },
  };
}

/**
 * The entropic direction at the block `store.layers[place]` with its diagnostics: two passes over the activations, a run
 * at a time.
 * @throws InputError as `checkEntropies`
 */
export function eastLayer(
  store: ActivationStore,
  place: number,
  table: StepTable,
  settings: EastSettings,
): LayerVector {
  const pass = firstPass(store, place, table, settings);
  const vector = eastDirection(pass.sums, settings.centring);
  const held = heldOut(store, place, table, pass, settings);
  const permuted = permutedCorrelations(held, table, settings);
  const own = held.slice(0, table.entropyNats.length);
  return stepVector(
    store,
    place,
    table,
    { vector, explainedVarianceRatio: null },
    { pass, held: own, permuted },
    settings,
  );
}

const FOLDS = 10;

/** Pairs of steps: the highest entropy with the lowest, the next with the next, activations relative to their run. */
function quartilePairs(
  store: ActivationStore,
  place: number,
  table: StepTable,
  runs: readonly number[],
): PairRows | undefined {
  const steps = runs.flatMap((run) => [...table.runs[run]]);
  const quartiles = entropyQuartiles(table.entropyNats, steps);
  if (!quartiles) return undefined;
  const pairs = Math.min(quartiles.upper.length, quartiles.lower.length);
  const { width } = store;
  const placeOf = new Map<number, number>();
  for (let p = 0; p < pairs; p++) {
    placeOf.set(quartiles.upper[p], 2 * p);
    placeOf.set(quartiles.lower[p], 2 * p + 1);
  }
  const data = new Float64Array(2 * pairs * width);
  for (const run of runs) {
    const { rows } = centredRun(store, place, table.runs[run]);
    table.runs[run].forEach((row, t) => {
      const target = placeOf.get(row);
      if (target !== undefined) data.set(rows.subarray(t * width, (t + 1) * width), target * width);
    });
  }
  return { data, pairs, width };
}

/**
 * A contrast method on logged steps: steps of the upper entropy quartile against those of the lower, both relative to the
 * mean of their run. This reading is the project's own; the held-out projections leave out a tenth of the runs.
 * @throws InputError where the quartiles are equal, or the method finds no direction
 */
export function contrastOfSteps(
  store: ActivationStore,
  place: number,
  table: StepTable,
  settings: ContrastSettings,
): LayerVector {
  const everyRun = table.runs.map((_, run) => run);
  const pass = firstPass(store, place, table, { ...settings, centring: 'run', permutations: 0 });
  const rows = quartilePairs(store, place, table, everyRun);
  if (!rows) {
    throw new InputError(
      `--method ${settings.method.name}: the upper and the lower quartile of the entropies are equal, so steps cannot be set against each other; use --method east`,
    );
  }
  const found = settings.method.direction(rows, settings);
  const held = new Float64Array(table.entropyNats.length).fill(Number.NaN);
  if (table.runs.length > 1) {
    for (const fold of randomFolds(table.runs.length, FOLDS, settings.seed)) {
      const others = everyRun.filter((run) => !fold.includes(run));
      const train = quartilePairs(store, place, table, others);
      if (!train) continue;
      const { vector } = settings.method.direction(train, settings);
      const length = norm(vector);
      for (const run of fold) {
        const { rows: centred } = centredRun(store, place, table.runs[run]);
        const projected = projections(centred, store.width, vector);
        table.runs[run].forEach((row, t) => {
          held[row] = projected[t] / length;
        });
      }
    }
  }
  const permuted = { mean: Number.NaN, sd: Number.NaN, p: Number.NaN };
  return stepVector(store, place, table, found, { pass, held, permuted }, settings);
}
