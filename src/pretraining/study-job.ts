import type { ComputeReference } from '../kernels/compute-thread.js';
import { configureKernels } from '../kernels/native.js';
import { bootstrapSeeds, crossover, type Estimate, logSlope, nonNegativePair, type SeedRisks } from './rates.js';
import type { StudySettings } from './settings.js';
import { type Method, type Run, runSeed } from './simulate.js';

export interface CurveRate {
  readonly method: Method;
  /** 0 for estimators without unlabelled rows. */
  readonly m: number;
  /** Labelled rows from which on the slope is taken: twice the parameters of the head. */
  readonly fromN: number;
  readonly slope: Estimate;
}

/** `risk = a / m^p + b / n^p` over the grid of the pretrained estimator. */
export interface TwoTermFit {
  readonly form: 'inverse' | 'root';
  readonly a: Estimate;
  readonly b: Estimate;
  /** Root mean square of relative residuals. */
  readonly relativeResidual: number;
}

export interface Crossing {
  readonly m: number;
  /** Labelled rows from which supervised learning is better; NaN when it never is within the grid. */
  readonly n: Estimate;
}

/** Mean over seeds at one cell of the grid. */
export interface CellMean {
  readonly method: Method;
  readonly m: number;
  readonly n: number;
  readonly risk: number;
  readonly riskSe: number;
  readonly excess: number;
  readonly excessSe: number;
}

export interface SignalPoint {
  readonly signal: number;
  readonly pretrained: number;
  readonly supervised: number;
  readonly oracle: number;
  readonly trivial: number;
  /**
   * Share of the trivial risk that pretraining saves beyond supervised learning, where both may fall back on the trivial
   * prediction.
   */
  readonly gain: Estimate;
}

export interface StudyResult {
  readonly runs: readonly Run[];
  readonly cells: readonly CellMean[];
  readonly rates: readonly CurveRate[];
  readonly twoTerm: readonly TwoTermFit[];
  readonly crossings: readonly Crossing[];
  readonly sweep: readonly SignalPoint[];
}

/** Excess risks of one method at (m, n), by seed. */
function excessTable(
  runs: readonly Run[],
  method: Method,
  m: number,
  labelled: readonly number[],
  seeds: number,
): SeedRisks {
  const risks = new Float64Array(seeds * labelled.length);
  for (const run of runs) {
    if (run.method !== method || run.m !== m) continue;
    risks[run.seed * labelled.length + labelled.indexOf(run.n)] = run.excess;
  }
  return { seeds, points: labelled.length, risks };
}

function sideBySide(first: SeedRisks, second: SeedRisks): SeedRisks {
  const points = first.points + second.points;
  const risks = new Float64Array(first.seeds * points);
  for (let s = 0; s < first.seeds; s++) {
    risks.set(first.risks.subarray(s * first.points, (s + 1) * first.points), s * points);
    risks.set(second.risks.subarray(s * second.points, (s + 1) * second.points), s * points + first.points);
  }
  return { seeds: first.seeds, points, risks };
}

function cellMeans(runs: readonly Run[], settings: StudySettings): CellMean[] {
  const cells = new Map<string, Run[]>();
  for (const run of runs) {
    const key = `${run.method} ${run.m} ${run.n}`;
    const own = cells.get(key) ?? [];
    own.push(run);
    cells.set(key, own);
  }
  const moments = (values: readonly number[]): [number, number] => {
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
    return [mean, values.length > 1 ? Math.sqrt(squares / (values.length - 1) / values.length) : Number.NaN];
  };
  const order: Method[] = ['supervised', 'oracle', 'pretrained'];
  return order.flatMap((method) =>
    [0, ...settings.unlabelled].flatMap((m) =>
      settings.labelled.flatMap((n): CellMean[] => {
        const own = cells.get(`${method} ${m} ${n}`);
        if (own === undefined) return [];
        const [risk, riskSe] = moments(own.map((run) => run.risk));
        const [excess, excessSe] = moments(own.map((run) => run.excess));
        return [{ method, m, n, risk, riskSe, excess, excessSe }];
      }),
    ),
  );
}

/** Parameters of a head: what n must exceed before its risk can fall as 1/n. */
function headParameters(settings: StudySettings, method: Method): number {
  const columns = method === 'supervised' ? settings.dimension : settings.latent;
  return settings.case === 'contrastive' && method === 'pretrained' ? columns + 1 : columns;
}

function ratesOf(runs: readonly Run[], settings: StudySettings): CurveRate[] {
  const { labelled, seeds, resamples, seed } = settings;
  const rate = (method: Method, m: number): CurveRate => {
    const least = 2 * headParameters(settings, method);
    const kept = labelled.flatMap((n, i) => (n >= least ? [i] : []));
    const table = excessTable(runs, method, m, labelled, seeds);
    const sizes = kept.map((i) => labelled[i]);
    const statistic = (means: Float64Array): number =>
      logSlope(
        sizes,
        kept.map((i) => means[i]),
      );
    return { method, m, fromN: sizes[0] ?? least, slope: bootstrapSeeds(table, statistic, resamples, seed) };
  };
  return [rate('supervised', 0), rate('oracle', 0), ...settings.unlabelled.map((m) => rate('pretrained', m))];
}

function twoTermFits(runs: readonly Run[], settings: StudySettings): TwoTermFit[] {
  const { labelled, unlabelled, seeds, resamples, seed } = settings;
  const least = 2 * headParameters(settings, 'pretrained');
  const cells = unlabelled.flatMap((m) => labelled.filter((n) => n >= least).map((n) => ({ m, n })));
  if (cells.length < 2) return [];
  const risks = new Float64Array(seeds * cells.length);
  cells.forEach(({ m, n }, c) => {
    for (const run of runs) {
      if (run.method === 'pretrained' && run.m === m && run.n === n) risks[run.seed * cells.length + c] = run.excess;
    }
  });
  const table: SeedRisks = { seeds, points: cells.length, risks };
  return (['inverse', 'root'] as const).map((form): TwoTermFit => {
    const power = form === 'inverse' ? 1 : 0.5;
    const u = cells.map(({ m }) => m ** -power);
    const v = cells.map(({ n }) => n ** -power);
    // Weights 1/risk^2: what counts is the relative error, over risks of many sizes.
    const solve = (means: Float64Array): { a: number; b: number } =>
      nonNegativePair(
        u,
        v,
        [...means],
        [...means].map((mean) => (mean > 0 ? 1 / (mean * mean) : 0)),
      );
    const whole = Float64Array.from(cells, (_, c) => {
      let sum = 0;
      for (let s = 0; s < seeds; s++) sum += risks[s * cells.length + c] / seeds;
      return sum;
    });
    const { a, b } = solve(whole);
    const positive = cells.flatMap((_, c) => (whole[c] > 0 ? [((a * u[c] + b * v[c]) / whole[c] - 1) ** 2] : []));
    return {
      form,
      a: bootstrapSeeds(table, (means) => solve(means).a, resamples, seed),
      b: bootstrapSeeds(table, (means) => solve(means).b, resamples, seed),
      relativeResidual: Math.sqrt(positive.reduce((sum, value) => sum + value, 0) / positive.length),
    };
  });
}

function crossingsOf(runs: readonly Run[], settings: StudySettings): Crossing[] {
  const { labelled, seeds, resamples, seed } = settings;
  const supervised = excessTable(runs, 'supervised', 0, labelled, seeds);
  return settings.unlabelled.map((m) => {
    const both = sideBySide(excessTable(runs, 'pretrained', m, labelled, seeds), supervised);
    const at = (means: Float64Array): number =>
      crossover(labelled, means.subarray(0, labelled.length), means.subarray(labelled.length));
    return { m, n: bootstrapSeeds(both, at, resamples, seed) };
  });
}

function signalPoint(runs: readonly Run[], settings: StudySettings, signal: number): SignalPoint {
  const { seeds } = settings;
  const order = ['pretrained', 'supervised', 'oracle'] as const;
  const risks = new Float64Array(seeds * 4);
  for (const run of runs) {
    risks[run.seed * 4 + order.indexOf(run.method)] = run.risk;
    risks[run.seed * 4 + 3] = run.trivialRisk;
  }
  const gain = (means: Float64Array): number =>
    (Math.min(means[3], means[1]) - Math.min(means[3], means[0])) / means[3];
  const table: SeedRisks = { seeds, points: 4, risks };
  const mean = (point: number): number => bootstrapSeeds(table, (means) => means[point], 0, settings.seed).value;
  return {
    signal,
    pretrained: mean(0),
    supervised: mean(1),
    oracle: mean(2),
    trivial: mean(3),
    gain: bootstrapSeeds(table, gain, settings.resamples, settings.seed),
  };
}

/**
 * Draws and fits everything: for every seed the grid of (m, n), then for every signal of the sweep one m and one n. Rates, crossings and intervals follow from the runs.
 */
export function runStudy(
  settings: StudySettings,
  progress: (value: { done: number; label: string }) => void,
): StudyResult {
  configureKernels({ threads: settings.threads });
  let done = 0;
  const collect = (own: StudySettings, signal: number, label: string): Run[] => {
    const runs: Run[] = [];
    for (let seed = 0; seed < own.seeds; seed++) {
      runs.push(...runSeed(own, seed, signal));
      progress({ done: ++done, label });
    }
    return runs;
  };
  const runs = collect(settings, settings.signal, 'grid');
  const small = {
    ...settings,
    unlabelled: [settings.sweepUnlabelled],
    labelled: [settings.sweepLabelled],
  };
  const swept = settings.signals.map((signal) => ({ signal, own: collect(small, signal, `signal ${signal}`) }));
  return {
    runs: [...runs, ...swept.flatMap(({ own }) => own)],
    cells: cellMeans(runs, settings),
    rates: ratesOf(runs, settings),
    twoTerm: twoTermFits(runs, settings),
    crossings: crossingsOf(runs, settings),
    sweep: swept.map(({ signal, own }) => signalPoint(own, small, signal)),
  };
}

export const RUN_STUDY: ComputeReference<StudySettings, StudyResult> = {
  module: import.meta.url,
  job: runStudy as (settings: StudySettings, progress: (value: unknown) => void) => StudyResult,
};
