import type { OpenedSets } from './kernel-opening.js';
import type { SpectrumPath } from './kernel-source.js';
import { type SpectralMeasure, scoresOf, spectralMeasures } from './measures.js';
import { halfSampleErrors, meanAtSize, partsOf, permutationTest } from './resampling.js';
import { figuresOf, type SpectralFigure, type Steps, scoreOptions } from './set-measures.js';
import type { DiversitySet, DiversitySettings } from './settings.js';

/** Draws of the larger set at the size of the smaller. */
const MATCHED_SUBSAMPLES = 20;
/** Two-sided 95 % of a normal distribution. */
const NORMAL_95 = 1.959963984540054;

/** One measure of two sets. Differences are first less second; null where the path gives none. */
export interface ComparedFigure extends SpectralMeasure {
  readonly value: number;
  readonly against: number;
  readonly union: number;
  readonly difference: number;
  readonly standardError: number | null;
  readonly low: number | null;
  readonly high: number | null;
  /** The larger set at the size of the smaller: scores grow with the number of items. */
  readonly matchedDifference: number | null;
  readonly permutationLow: number | null;
  readonly permutationHigh: number | null;
  readonly permutationP: number | null;
}

export interface SetComparison {
  readonly set: string;
  readonly against: string;
  readonly items: number;
  readonly againstItems: number;
  readonly againstDuplicates: number;
  /** Path of the union; each set has its own. */
  readonly unionPath: SpectrumPath;
  readonly permutations: number;
  /** What resampling draws: single items, or random parts of them. */
  readonly parts: number;
  readonly figures: readonly ComparedFigure[];
  /** Scores of the second set. */
  readonly againstFigures: readonly SpectralFigure[];
}

/**
 * Two sets under one kernel: the score of each and of the union, the difference with an interval from half-samples of each
 * set, and what exchanging items between the sets says about it.
 */
export async function compareSets(
  opened: OpenedSets,
  pair: readonly [number, number],
  sets: readonly DiversitySet[],
  first: readonly SpectralFigure[],
  settings: DiversitySettings,
  { onStep }: Steps,
): Promise<SetComparison> {
  const [a, b] = pair;
  const name = `${sets[a].name} + ${sets[b].name}`;
  const measures = spectralMeasures(settings.orders, settings.truncations);
  const other = await figuresOf(opened, b, await opened.open([b]), sets[b].name, settings);
  const { source } = await opened.open([a, b]);
  const union = source.quadrature
    ? (await source.quadrature(measures.map(({ q, t }) => (t === null ? q : 0)))).scores
    : scoresOf(await source.eigenvalues(), source.items, measures, scoreOptions(settings, name));
  onStep();
  const resampled = source.quadrature
    ? undefined
    : await resample(source, pair, opened, measures, settings, name, onStep);
  const kept = measures.flatMap((measure, k) => {
    const same = (figure: SpectralFigure): boolean =>
      figure.kind === measure.kind && figure.q === measure.q && figure.t === measure.t;
    const [left, right] = [first.find(same), other.figures.find(same)];
    return left && right ? [{ measure, k, left, right }] : [];
  });
  const figures = kept.map(({ measure, k, left, right }): ComparedFigure => {
    const difference = left.value - right.value;
    // Quadrature resamples nothing: the errors of its probes say nothing of other samples.
    const standardError = resampled?.errors?.[k] ?? null;
    const reach = standardError === null ? null : NORMAL_95 * standardError;
    return {
      kind: measure.kind,
      q: measure.q,
      t: measure.t,
      value: left.value,
      against: right.value,
      union: union[k],
      difference,
      standardError,
      low: reach === null ? null : difference - reach,
      high: reach === null ? null : difference + reach,
      matchedDifference: resampled?.matched[k] ?? null,
      permutationLow: resampled?.permuted?.low[k] ?? null,
      permutationHigh: resampled?.permuted?.high[k] ?? null,
      permutationP: resampled?.permuted?.p[k] ?? null,
    };
  });
  return {
    set: sets[a].name,
    against: sets[b].name,
    items: opened.items[a],
    againstItems: opened.items[b],
    againstDuplicates: opened.duplicates[b],
    unionPath: source.path,
    permutations: resampled?.permuted?.permutations ?? 0,
    parts: resampled?.parts ?? 0,
    figures,
    againstFigures: other.figures.map((figure, k) => ({
      ...figure,
      standardError: resampled?.againstErrors?.[k] ?? null,
    })),
  };
}

interface Resampled {
  readonly parts: number;
  /** Of the difference; undefined for sets too small to halve. */
  readonly errors: Float64Array | undefined;
  readonly againstErrors: Float64Array | undefined;
  readonly matched: Float64Array;
  readonly permuted: Awaited<ReturnType<typeof permutationTest>>;
}

async function resample(
  source: Awaited<ReturnType<OpenedSets['open']>>['source'],
  [a, b]: readonly [number, number],
  opened: OpenedSets,
  measures: readonly SpectralMeasure[],
  settings: DiversitySettings,
  name: string,
  onStep: () => void,
): Promise<Resampled> {
  const { seed, resamples, permutations } = settings;
  const scores = scoreOptions(settings, name);
  const sizes = [opened.items[a], opened.items[b]];
  const parts = await source.parts(sizes, seed);
  const among = [partsOf(parts, 0), partsOf(parts, 1)];
  const options = { seed, scores, onStep };
  const left = await halfSampleErrors(parts, among[0], measures, { ...options, resamples });
  const right = await halfSampleErrors(parts, among[1], measures, { ...options, seed: seed + 1, resamples });
  const whole: Float64Array[] = [];
  for (const [set, chosen] of among.entries())
    whole.push(scoresOf(await parts.eigenvalues(chosen), sizes[set], measures, scores));
  const difference = whole[0].map((value, k) => value - whole[1][k]);
  const larger = sizes[0] > sizes[1] ? 0 : 1;
  const matched =
    sizes[0] === sizes[1]
      ? difference
      : await meanAtSize(parts, larger, Math.min(...sizes), measures, {
          ...options,
          subsamples: MATCHED_SUBSAMPLES,
        }).then((mean) => mean.map((value, k) => (larger === 0 ? value - whole[1][k] : whole[0][k] - value)));
  return {
    parts: parts.sizes.length,
    errors: left && right ? left.map((value, k) => Math.hypot(value, right[k])) : undefined,
    againstErrors: right,
    matched,
    permuted: await permutationTest(parts, difference, measures, { ...options, permutations }),
  };
}
