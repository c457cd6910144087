import { filterTokens, type LogitRow } from '../kernels/token-filter.js';
import { addToSketch, createQuantileSketch, type QuantileSketch } from '../linalg/quantile-sketch.js';
import { entropyConstrainedMass } from './entropy-constrained-mass.js';
import { planFilters } from './sampler.js';
import { entropyHeld, type TopHDiagnostics, topHRules, truncationDivergence } from './top-h.js';
import { type SamplerStep, type SamplingPlan, TOP_H_RULES } from './types.js';

/** A sampler as the user wrote it. */
export interface NamedPlan {
  readonly name: string;
  readonly plan: SamplingPlan;
}

export interface ComparisonSettings {
  readonly samplers: readonly NamedPlan[];
  /** Shares for which the three rules of top-H stand side by side; none when empty. */
  readonly alphas: readonly number[];
  /** Temperature at which the rules are compared. */
  readonly temperature: number;
  /** Candidates of the exact search beside top-H by the paper's rule; no search when absent. */
  readonly exactCandidates?: number;
  readonly threads?: number;
}

/** Mean and spread of what was counted, by Welford's update. */
export interface Moments {
  count: number;
  mean: number;
  squares: number;
}

export const emptyMoments = (): Moments => ({ count: 0, mean: 0, squares: 0 });

export function addMoment(moments: Moments, value: number): void {
  moments.count++;
  const step = value - moments.mean;
  moments.mean += step / moments.count;
  moments.squares += step * (value - moments.mean);
}

/** Standard error of the mean of independent values; NaN below two. */
export function standardError({ count, squares }: Moments): number {
  return count < 2 ? Number.NaN : Math.sqrt(squares / (count - 1) / count);
}

/** What a sampler does to rows, [rows] each. Entropies in nats. */
export interface PlanRows {
  readonly entropyNats: Float64Array;
  readonly temperedEntropyNats: Float64Array;
  readonly entropyAfterNats: Float64Array;
  readonly keptMass: Float64Array;
  readonly keptCount: Float64Array;
  /** alpha H(p) of a plan with top-H; NaN for others. */
  readonly boundNats: Float64Array;
  /** Largest mass within the bound among the candidates, and the greedy share of it; NaN where it was not searched. */
  readonly exactMass: Float64Array;
  readonly optimalityRatio: Float64Array;
}

/** Figures of one sampler, or one rule, over all rows. */
export interface RowFigures {
  readonly entropyAfterNats: Moments;
  readonly temperedEntropyNats: Moments;
  readonly keptMass: Moments;
  readonly keptCount: Moments;
  readonly keptCounts: QuantileSketch;
  readonly divergenceNats: Moments;
  readonly perplexity: Moments;
  readonly entropyRatio: Moments;
  /** Rows whose H(q) is within alpha H(p); rows with a bound. */
  held: number;
  bounded: number;
}

export interface ExactFigures {
  readonly ratio: Moments;
  least: number;
  optimal: number;
  /** Rows whose greedy set is larger than the candidates, so that the search says nothing. */
  beyond: number;
}

/** Accumulated over rows; structured-cloneable. */
export interface RowComparison {
  readonly settings: ComparisonSettings;
  rows: number;
  readonly entropyNats: Moments;
  readonly plans: readonly RowFigures[];
  /** Sums over rows of |A and B| / |A or B|, [samplers, samplers]. */
  readonly overlap: Float64Array;
  readonly rules: readonly {
    readonly alpha: number;
    readonly figures: readonly RowFigures[];
    readonly overlap: Float64Array;
  }[];
  /** By sampler; undefined where the problem is not that of its plan. */
  readonly exact: readonly (ExactFigures | undefined)[];
}

const emptyFigures = (): RowFigures => ({
  entropyAfterNats: emptyMoments(),
  temperedEntropyNats: emptyMoments(),
  keptMass: emptyMoments(),
  keptCount: emptyMoments(),
  keptCounts: createQuantileSketch(),
  divergenceNats: emptyMoments(),
  perplexity: emptyMoments(),
  entropyRatio: emptyMoments(),
  held: 0,
  bounded: 0,
});

/** The step of top-H whose bound a plan obeys: at most temperatures stand before it. */
export function topHStep({ steps }: SamplingPlan): Extract<SamplerStep, { kind: 'top-h' }> | undefined {
  const first = steps.find(({ kind }) => kind !== 'temperature');
  return first?.kind === 'top-h' ? first : undefined;
}

export function createRowComparison(settings: ComparisonSettings): RowComparison {
  const { samplers, alphas, exactCandidates } = settings;
  return {
    settings,
    rows: 0,
    entropyNats: emptyMoments(),
    plans: samplers.map(emptyFigures),
    overlap: new Float64Array(samplers.length ** 2),
    rules: alphas.map((alpha) => ({
      alpha,
      figures: TOP_H_RULES.map(emptyFigures),
      overlap: new Float64Array(TOP_H_RULES.length ** 2),
    })),
    exact: samplers.map(({ plan }) =>
      exactCandidates !== undefined && topHStep(plan)?.rule === 'paper'
        ? { ratio: emptyMoments(), least: Number.POSITIVE_INFINITY, optimal: 0, beyond: 0 }
        : undefined,
    ),
  };
}

/**
 * Runs every sampler, without drawing, on the same rows and adds what it keeps to the comparison. Samplers with a state
 * (Mirostat) or chance (XTC) act as on a first token, and as when chance lets them.
 * @param logits [rows, vocabulary]
 * @param place what error messages call the logits, and the number of the first row there
 * @returns the figures of every sampler
 * @throws InputError naming the row with NaN, +Infinity or no finite logit
 */
export function compareRows(
  comparison: RowComparison,
  logits: LogitRow,
  rows: number,
  vocabulary: number,
  place: { readonly name?: string; readonly firstRow?: number } = {},
): PlanRows[] {
  const { settings, exact } = comparison;
  const shared = { ...place, ...(settings.threads !== undefined && { threads: settings.threads }) };
  const kept: (readonly Int32Array[])[] = [];
  const results = settings.samplers.map(({ plan }, s): PlanRows => {
    const filtered = filterTokens({
      ...shared,
      logits,
      rows,
      vocabulary,
      pipelines: [planFilters(plan)],
      greedy: plan.greedy === true,
      keep: settings.samplers.length > 1,
    });
    kept.push(filtered.kept);
    const { entropyNats, temperedEntropyNats, entropyAfterNats, keptMass, keptCount, temperature } = filtered.figures;
    const step = topHStep(plan);
    const nothing = (): Float64Array => new Float64Array(rows).fill(Number.NaN);
    const found: PlanRows = {
      entropyNats,
      temperedEntropyNats,
      entropyAfterNats,
      keptMass,
      keptCount,
      boundNats: step ? temperedEntropyNats.map((entropy) => step.alpha * entropy) : nothing(),
      exactMass: nothing(),
      optimalityRatio: nothing(),
    };
    addFigures(comparison.plans[s], found);
    const sums = exact[s];
    if (sums && step) {
      for (let row = 0; row < rows; row++) {
        const own = logits.subarray(row * vocabulary, (row + 1) * vocabulary);
        addExact(comparison, sums, step.alpha, own, temperature[row], found, row);
      }
    }
    return found;
  });
  for (let row = 0; row < rows; row++) addMoment(comparison.entropyNats, results[0]?.entropyNats[row] ?? Number.NaN);
  if (settings.samplers.length > 1) addOverlap(comparison.overlap, kept, rows);
  for (const { alpha, figures, overlap } of comparison.rules) {
    const rules = topHRules(logits, rows, vocabulary, {
      ...shared,
      alpha,
      temperature: settings.temperature,
      keep: true,
    });
    rules.forEach((rule, r) => {
      addFigures(figures[r], asPlanRows(rule));
    });
    addOverlap(
      overlap,
      rules.map((rule) => rule.kept),
      rows,
    );
  }
  comparison.rows += rows;
  return results;
}

type AddedRows = Pick<PlanRows, 'temperedEntropyNats' | 'entropyAfterNats' | 'keptMass' | 'keptCount' | 'boundNats'>;

const asPlanRows = (rule: TopHDiagnostics): AddedRows => ({
  temperedEntropyNats: rule.entropyNats,
  entropyAfterNats: rule.entropyAfterNats,
  keptMass: rule.keptMass,
  keptCount: Float64Array.from(rule.keptCount),
  boundNats: rule.boundNats,
});

function addFigures(figures: RowFigures, rows: AddedRows): void {
  rows.keptMass.forEach((mass, r) => {
    const before = rows.temperedEntropyNats[r];
    const after = rows.entropyAfterNats[r];
    addMoment(figures.temperedEntropyNats, before);
    addMoment(figures.entropyAfterNats, after);
    addMoment(figures.keptMass, mass);
    addMoment(figures.keptCount, rows.keptCount[r]);
    addToSketch(figures.keptCounts, rows.keptCount[r]);
    addMoment(figures.divergenceNats, truncationDivergence(mass));
    addMoment(figures.perplexity, Math.exp(after));
    addMoment(figures.entropyRatio, before > 0 ? after / before : 0);
    const bound = rows.boundNats[r];
    if (Number.isNaN(bound)) return;
    figures.bounded++;
    if (entropyHeld(after, bound)) figures.held++;
  });
}

/** Share of mass that tokens may have together that the search does not look at. */
const NEGLIGIBLE_MASS = 1e-7;

function addExact(
  { settings }: RowComparison,
  sums: ExactFigures,
  alpha: number,
  logits: LogitRow,
  temperature: number,
  rows: PlanRows,
  row: number,
): void {
  if (!(temperature > 0)) return;
  let largest = Number.NEGATIVE_INFINITY;
  for (const x of logits) if (x > largest) largest = x;
  const weights = Float64Array.from(logits, (x) => Math.exp((x - largest) / temperature));
  let total = 0;
  for (const weight of weights) total += weight;
  // The long tail would only be sorted to be cut off: H(p) is known from the whole row.
  const least = (NEGLIGIBLE_MASS * total) / weights.length;
  const found = entropyConstrainedMass(
    weights.filter((weight) => weight >= least).map((weight) => weight / total),
    {
      alpha,
      entropyNats: rows.temperedEntropyNats[row],
      ...(settings.exactCandidates !== undefined && { candidates: settings.exactCandidates }),
    },
  );
  if (rows.keptCount[row] > found.candidates) {
    sums.beyond++;
    return;
  }
  rows.exactMass[row] = found.optimalMass;
  rows.optimalityRatio[row] = found.ratio;
  addMoment(sums.ratio, found.ratio);
  sums.least = Math.min(sums.least, found.ratio);
  if (found.ratio >= 1) sums.optimal++;
}

/** Adds the Jaccard index of every pair of kept sets (ascending ids) of every row. */
function addOverlap(sums: Float64Array, kept: readonly (readonly Int32Array[])[], rows: number): void {
  const n = kept.length;
  for (let row = 0; row < rows; row++) {
    for (let a = 0; a < n; a++) {
      sums[a * n + a]++;
      for (let b = 0; b < a; b++) {
        const index = jaccard(kept[a][row], kept[b][row]);
        sums[a * n + b] += index;
        sums[b * n + a] += index;
      }
    }
  }
}

/** |A and B| / |A or B| of two sets of ascending ids; 1 for two empty ones. */
export function jaccard(a: Int32Array, b: Int32Array): number {
  let common = 0;
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    if (a[i] === b[j]) {
      common++;
      i++;
      j++;
    } else if (a[i] < b[j]) i++;
    else j++;
  }
  const union = a.length + b.length - common;
  return union === 0 ? 1 : common / union;
}
