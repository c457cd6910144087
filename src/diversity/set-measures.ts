import { largestOf } from '../linalg/feature-map.js';
import { fourierScores } from '../linalg/random-features.js';
import { sampledInternalDiversity } from './internal-diversity.js';
import type { OpenedKernel, OpenedSets } from './kernel-opening.js';
import { kernelOrigin } from './kernel-opening.js';
import type { KernelSource, SpectrumPath } from './kernel-source.js';
import { leaveOneOut } from './leave-one-out.js';
import { type ScoreOptions, type SpectralMeasure, scoresOf, spectralMeasures } from './measures.js';
import { type CurvePoint, curveSizes, halfSampleErrors, partsOf, subsamplingCurve } from './resampling.js';
import { rkeGains, rkeScore } from './rke.js';
import type { DiversitySet, DiversitySettings } from './settings.js';
import { kernelSpectrum, withUnitTrace } from './vendi-score.js';

/** Pairs that stand for all where they are too many. */
const SAMPLED_PAIRS = 100_000;
/** Eigenvalues that a report lists. */
const LISTED_EIGENVALUES = 2048;
/** Subsamples of a kernel that is known by its products stay below this. */
const MOST_QUADRATURE_SUBSET = 2048;

/** One figure of the spectrum. Errors are null where there is none. */
export interface SpectralFigure extends SpectralMeasure {
  readonly value: number;
  /** Over samples of items: half-samples. */
  readonly standardError: number | null;
  /**
   * Of the method: a standard error over probes (slq), the change from half the landmarks, the larger of that from half
   * the frequencies and the standard error over them (fkea).
   */
  readonly methodError: number | null;
  /** What half of the frequencies or landmarks give. */
  readonly halfValue: number | null;
  readonly path: SpectrumPath | 'norm';
}

export interface InternalFigure {
  readonly q: number;
  readonly value: number;
  /** Null where all pairs were taken. */
  readonly standardError: number | null;
  readonly pairs: number | null;
}

export interface SpectrumSummary {
  /** The largest of those above the cut, divided by their sum; descending. */
  readonly eigenvalues: Float64Array;
  readonly rank: number;
  readonly cut: number;
  readonly dropped: number;
  readonly smallest: number;
  readonly negativeMass: number;
}

export interface GroupMeasures {
  readonly name: string;
  readonly items: number;
  readonly share: number;
  /** One a spectral measure. */
  readonly scores: Float64Array;
}

export interface ModeItems {
  readonly eigenvalue: number;
  readonly items: Int32Array;
  readonly scores: Float64Array;
}

/** Everything that is known of one set. */
export interface SetMeasures {
  readonly name: string;
  readonly items: number;
  readonly duplicates: number;
  readonly weighted: boolean;
  readonly path: SpectrumPath;
  readonly order: number;
  readonly reason: string;
  readonly figures: readonly SpectralFigure[];
  readonly internal: readonly InternalFigure[];
  /** Null where quadrature gave the scores. */
  readonly spectrum: SpectrumSummary | null;
  readonly curve: readonly CurvePoint[];
  readonly groups: readonly GroupMeasures[];
  readonly leftOut: { readonly items: Int32Array; readonly gains: Float64Array } | null;
  /** `[items]`; null under weights, where it costs a kernel matrix, and where no output shows it. */
  readonly rkeGains: Float64Array | null;
  readonly modes: readonly ModeItems[];
  /** `[items]`: mode in which each item scores highest; empty without modes. */
  readonly modeOf: Int32Array;
}

export interface Steps {
  /** Told after every decomposition. */
  readonly onStep: () => void;
}

export function scoreOptions(settings: DiversitySettings, name: string): ScoreOptions {
  return {
    negative: settings.negative,
    referenceFloor: settings.referenceFloor,
    origin: kernelOrigin(settings, name),
    ...(settings.relativeCut !== null && { relativeCut: settings.relativeCut }),
  };
}

/** Scores of all items, and what the method's own error is. */
export async function figuresOf(
  opened: OpenedSets,
  set: number,
  kernel: OpenedKernel,
  name: string,
  settings: DiversitySettings,
): Promise<{ figures: SpectralFigure[]; eigenvalues: Float64Array | undefined }> {
  const measures = spectralMeasures(settings.orders, settings.truncations);
  const { source } = kernel;
  const options = scoreOptions(settings, name);
  if (source.quadrature) return { figures: await quadratureFigures(source, measures), eigenvalues: undefined };
  const eigenvalues = await source.eigenvalues();
  const values = scoresOf(eigenvalues, source.items, measures, options);
  const errors = await methodErrors(opened, set, kernel, values, measures, options, settings);
  const norm = source.path === 'nystrom' ? undefined : await source.squaredNorm();
  const figures = measures.map((measure, k): SpectralFigure => {
    const byNorm = measure.kind === 'rke' && norm !== undefined;
    return {
      ...measure,
      value: byNorm ? rkeScore(norm).score : values[k],
      standardError: null,
      methodError: errors?.[k].error ?? null,
      halfValue: errors?.[k].half ?? null,
      path: byNorm && source.path !== 'fkea' ? 'norm' : source.path,
    };
  });
  return { figures, eigenvalues };
}

/** What the approximation of a spectrum costs: by frequencies that are left out, by half of the landmarks. */
async function methodErrors(
  opened: OpenedSets,
  set: number,
  { source }: OpenedKernel,
  values: Float64Array,
  measures: readonly SpectralMeasure[],
  options: ScoreOptions,
  { frequencies, threads }: DiversitySettings,
): Promise<{ error: number; half: number }[] | undefined> {
  if (source.path === 'fkea' && source.moment && frequencies > 1) {
    const scores = measures.map(
      (measure) => (eigenvalues: Float64Array) => scoresOf(eigenvalues, source.items, [measure], options)[0],
    );
    const found = fourierScores(await source.moment(), frequencies, scores, threads);
    // Scores of few frequencies are low on all draws: what half of them lose stands for what these lose.
    return found.map(({ value, standardError, half }) => ({
      error: Math.max(standardError, Math.abs(value - half)),
      half,
    }));
  }
  if (source.path !== 'nystrom') return undefined;
  const coarse = await opened.open([set], true);
  const half = scoresOf(await coarse.source.eigenvalues(), source.items, measures, options);
  return Array.from(values, (value, k) => ({ error: Math.abs(value - half[k]), half: half[k] }));
}

async function quadratureFigures(
  source: KernelSource,
  measures: readonly SpectralMeasure[],
): Promise<SpectralFigure[]> {
  const kept = measures.filter(({ t, q }) => t === null && q > 0);
  const found = await source.quadrature?.(kept.map(({ q }) => q));
  return kept.map((measure, k) => ({
    ...measure,
    value: found?.scores[k] ?? Number.NaN,
    standardError: null,
    methodError: found === undefined || Number.isNaN(found.standardErrors[k]) ? null : found.standardErrors[k],
    halfValue: null,
    path: source.path,
  }));
}

/** Measures one set with all that the settings ask for. */
export async function measureSet(
  opened: OpenedSets,
  index: number,
  set: DiversitySet,
  settings: DiversitySettings,
  { onStep }: Steps,
): Promise<SetMeasures> {
  const kernel = await opened.open([index]);
  const { source, plan } = kernel;
  const { name } = set;
  const { seed } = settings;
  const scores = scoreOptions(settings, name);
  const measures = spectralMeasures(settings.orders, settings.truncations);
  const { figures, eigenvalues } = await figuresOf(opened, index, kernel, name, settings);
  onStep();
  const whole = Float64Array.from(figures, ({ value }) => value);
  const exact = eigenvalues !== undefined;
  const errors = exact && settings.resamples > 0 ? await resampledErrors(source, settings, scores, onStep) : undefined;
  const weighted = set.weights !== undefined;
  const modes =
    exact && settings.modes > 0 ? await modesOf(source, settings) : { modes: [], modeOf: new Int32Array(0) };
  const leftOut =
    exact && settings.leaveOneOut > 0 && source.items > 1
      ? await leaveOneOut(source, whole, measures, { count: settings.leaveOneOut, seed, scores, onStep })
      : null;
  return {
    name,
    items: source.items,
    duplicates: opened.duplicates[index],
    weighted,
    path: source.path,
    order: plan.order,
    reason: plan.reason,
    figures: figures.map((figure, k) => ({ ...figure, standardError: errors?.[k] ?? null })),
    internal: await internalFigures(source, settings, weighted),
    spectrum: exact ? spectrumSummary(eigenvalues, settings, name) : null,
    curve: await curveOf(source, measures, settings, scores, onStep),
    groups: await groupsOf(source, set, measures, settings, onStep),
    leftOut,
    rkeGains: exact && settings.itemGains && !weighted && source.items > 1 ? await gainsOf(source) : null,
    ...modes,
  };
}

async function resampledErrors(
  source: KernelSource,
  settings: DiversitySettings,
  scores: ScoreOptions,
  onStep: () => void,
): Promise<Float64Array | undefined> {
  const { seed, resamples } = settings;
  const parts = await source.parts([source.items], seed);
  const measures = spectralMeasures(settings.orders, settings.truncations);
  return halfSampleErrors(parts, partsOf(parts, 0), measures, { seed, resamples, scores, onStep });
}

async function internalFigures(
  source: KernelSource,
  settings: DiversitySettings,
  weighted: boolean,
): Promise<InternalFigure[]> {
  const figures: InternalFigure[] = [];
  for (const q of settings.internalOrders) {
    const mean = await source.meanPower(q);
    if (mean !== undefined) figures.push({ q, value: 1 - mean, standardError: null, pairs: null });
    else if (!weighted && source.items > 1) {
      const { value, standardError, pairs } = sampledInternalDiversity(source.similarity, source.items, q, {
        pairs: SAMPLED_PAIRS,
        seed: settings.seed,
      });
      figures.push({ q, value, standardError, pairs });
    }
  }
  return figures;
}

function spectrumSummary(eigenvalues: Float64Array, settings: DiversitySettings, name: string): SpectrumSummary {
  const found = withUnitTrace(kernelSpectrum(eigenvalues, scoreOptions(settings, name)));
  const { cut, dropped, smallest, negativeMass } = found;
  return {
    eigenvalues: found.eigenvalues.slice(0, LISTED_EIGENVALUES),
    rank: found.eigenvalues.length,
    cut,
    dropped,
    smallest,
    negativeMass,
  };
}

async function curveOf(
  source: KernelSource,
  measures: readonly SpectralMeasure[],
  settings: DiversitySettings,
  scores: ScoreOptions,
  onStep: () => void,
): Promise<CurvePoint[]> {
  const { items } = source;
  const most = source.quadrature ? Math.min(items - 1, MOST_QUADRATURE_SUBSET) : items;
  const sizes = settings.curve === 'auto' ? curveSizes(most) : settings.curve.filter((size) => size <= most);
  const { seed, subsamples } = settings;
  return subsamplingCurve(source, measures, { sizes, subsamples, seed, scores, onStep });
}

/** Scores of the items of each group by themselves, in the order of the names. */
async function groupsOf(
  source: KernelSource,
  set: DiversitySet,
  measures: readonly SpectralMeasure[],
  settings: DiversitySettings,
  onStep: () => void,
): Promise<GroupMeasures[]> {
  if (!set.groups) return [];
  const { codes, names } = set.groups;
  const groups: GroupMeasures[] = [];
  for (let code = 0; code < names.length; code++) {
    const rows: number[] = [];
    codes.forEach((found, row) => {
      if (found === code) rows.push(row);
    });
    if (rows.length === 0) continue;
    const share = set.weights
      ? rows.reduce((sum, row) => sum + (set.weights?.[row] ?? 0), 0)
      : rows.length / source.items;
    const empty = set.weights !== undefined && share === 0;
    groups.push({
      name: names[code],
      items: rows.length,
      share,
      scores: empty
        ? new Float64Array(measures.length).fill(Number.NaN)
        : scoresOf(
            await source.eigenvalues(Int32Array.from(rows)),
            rows.length,
            measures,
            scoreOptions(settings, `${set.name}, group ${names[code]}`),
          ),
    });
    onStep();
  }
  return groups;
}

async function gainsOf(source: KernelSource): Promise<Float64Array> {
  return rkeGains(source.items, await source.squaredNorm(), await source.rowSquares());
}

async function modesOf(
  source: KernelSource,
  settings: DiversitySettings,
): Promise<{ modes: ModeItems[]; modeOf: Int32Array }> {
  const found = await source.leading(settings.modes);
  if (!found) return { modes: [], modeOf: new Int32Array(0) };
  const n = source.items;
  const { eigenvalues, scores } = found;
  const modeOf = new Int32Array(n);
  for (let i = 0; i < n; i++) {
    for (let m = 1; m < eigenvalues.length; m++) {
      if (scores[m * n + i] > scores[modeOf[i] * n + i]) modeOf[i] = m;
    }
  }
  const modes = Array.from(eigenvalues, (eigenvalue, m): ModeItems => {
    const row = scores.subarray(m * n, (m + 1) * n);
    const items = largestOf(row, settings.modeItems);
    return { eigenvalue, items, scores: Float64Array.from(items, (item) => row[item]) };
  });
  return { modes, modeOf };
}
