import { benjaminiHochberg, holm } from '../linalg/multiple-tests.js';
import type { Cell } from '../report/csv.js';
import { coverageOf } from './count-profile.js';
import type { Convergence, IntervalResult, TestResult } from './discrete-analysis.js';
import { type EntropyUnit, type EstimateWithError, inUnit, samplingAdvice } from './entropy-estimators.js';
import type { Interval } from './intervals.js';
import type { AnalysisResult, MeasureResult } from './measure-bench.js';

/** Name of the report's schema. */
export const DEPENDENCE_SCHEMA = 'dependence';

/** Figures of the report: keys end in the unit, `_nats` or `_bits`. */
export type UnitFigures = Readonly<Record<string, unknown>>;

/** `{ value: x }` as `{ value_bits: x in bits }`. */
function withUnit(unit: EntropyUnit, figures: Readonly<Record<string, number | null>>): Record<string, number | null> {
  return Object.fromEntries(
    Object.entries(figures).map(([key, nats]) => [`${key}_${unit}`, nats === null ? null : inUnit(nats, unit)]),
  );
}

const interval = (unit: EntropyUnit, name: string, { low, high }: Interval) =>
  withUnit(unit, { [`${name}_low`]: low, [`${name}_high`]: high });

function estimateBody(unit: EntropyUnit, estimate: EstimateWithError): UnitFigures {
  return {
    estimator: estimate.estimator,
    ...withUnit(unit, { value: estimate.valueNats, se: estimate.seNats }),
    se_method: estimate.seMethod,
    negative: estimate.valueNats < 0,
    note: estimate.reason ?? null,
  };
}

function testBody(
  unit: EntropyUnit,
  test: TestResult,
  adjusted: { holm: number; bh: number } | undefined,
): UnitFigures {
  const { asymptotic } = test;
  return {
    method: test.method,
    exact: test.exact,
    replicates: test.replicates,
    p_value: test.pValue,
    ...(adjusted && { p_holm: adjusted.holm, p_benjamini_hochberg: adjusted.bh }),
    ...withUnit(unit, { null_mean: test.nullMean, null_sd: test.nullSd, excess: test.excess }),
    z: test.z,
    single_row_strata: test.singleStrata,
    asymptotic: asymptotic && {
      g_statistic: asymptotic.statistic,
      degrees_of_freedom: asymptotic.degreesOfFreedom,
      p_value: asymptotic.pValue,
      least_expected_count: Number.isFinite(asymptotic.leastExpected) ? asymptotic.leastExpected : null,
      small_cells: asymptotic.smallCells,
    },
  };
}

/** Above this share of the spread, what resampling adds to the bias moves all four intervals off their level. */
const LARGE_BIAS = 0.5;

/** What stands beside intervals that cannot be trusted; null for none. */
export function intervalNote(found: IntervalResult, unit: EntropyUnit): string | null {
  if (Math.abs(found.bias) <= LARGE_BIAS * found.se) return null;
  return (
    `Resampling moves the estimate by ${inUnit(found.bias, unit).toPrecision(2)} ${unit}, against a spread of ${inUnit(found.se, unit).toPrecision(2)}: ` +
    'these intervals miss their level; take the estimate and its standard error.'
  );
}

function intervalBody(unit: EntropyUnit, found: IntervalResult, level: number): UnitFigures {
  return {
    method: found.method,
    level,
    replicates: found.replicates,
    ...withUnit(unit, { bias: found.bias, corrected: found.corrected, se: found.se }),
    ...interval(unit, 'bca', found.bca),
    ...interval(unit, 'normal', found.normal),
    ...interval(unit, 'basic', found.basic),
    ...interval(unit, 'percentile', found.percentile),
    note: intervalNote(found, unit),
    z0: found.z0,
    acceleration: found.acceleration,
  };
}

function convergenceBody(unit: EntropyUnit, { sizes, subsamples, lines }: Convergence): UnitFigures {
  const convert = (values: Float64Array): Float64Array => values.map((value) => inUnit(value, unit));
  return {
    sizes,
    subsamples,
    lines: lines.map(({ estimator, mean, se }) => ({
      estimator,
      [`mean_${unit}`]: convert(mean),
      [`se_${unit}`]: convert(se),
    })),
  };
}

function measureBody(
  unit: EntropyUnit,
  result: MeasureResult,
  level: number,
  adjusted: { holm: number; bh: number } | undefined,
): UnitFigures {
  const { profile } = result;
  return {
    measure: result.measure,
    of: result.of,
    samples: result.samples,
    observed_symbols: profile?.observed ?? null,
    singles: profile?.singles ?? null,
    doubles: profile?.doubles ?? null,
    coverage: profile && coverageOf(profile),
    support: result.support,
    advice: profile && (samplingAdvice(profile, unit) ?? null),
    ...estimateBody(unit, result.chosen),
    estimates: result.estimates.map((estimate) => estimateBody(unit, estimate)),
    test: result.test && testBody(unit, result.test, adjusted),
    interval: result.interval && intervalBody(unit, result.interval, level),
    convergence: result.convergence && convergenceBody(unit, result.convergence),
  };
}

/** The measure that the run is about: the last of those that are not differences or parts. */
export function primaryMeasure(result: AnalysisResult): MeasureResult {
  const order = [
    'transfer_entropy',
    'conditional_mutual_information',
    'mutual_information',
    'entropy',
    'differential_entropy',
  ];
  for (const name of order) {
    const found = result.measures.find(({ measure }) => measure === name);
    if (found) return found;
  }
  return result.measures[0];
}

export interface ReportSettings {
  readonly unit: EntropyUnit;
  readonly alpha: number;
  /** Whether the measures are all pairs, whose p values are adjusted for their number. */
  readonly pairs: boolean;
}

/** Adjusted p values of all measures; NaN for those without a test. */
export function adjustedPValues(result: AnalysisResult): { holm: Float64Array; bh: Float64Array } {
  const pValues = result.measures.map(({ test }) => test?.pValue ?? Number.NaN);
  return { holm: holm(pValues), bh: benjaminiHochberg(pValues) };
}

/** Pairs that stand out when one in twenty of those that do may be false. */
export const DISCOVERY_RATE = 0.05;

/** The body of the report, in the unit of the run. */
export function dependenceBody(result: AnalysisResult, settings: ReportSettings): UnitFigures {
  const { unit, alpha, pairs } = settings;
  const primary = primaryMeasure(result);
  const adjusted = adjustedPValues(result);
  const level = 1 - alpha;
  return {
    unit,
    rows: result.rows,
    segments: result.segments,
    measure: primary.measure,
    of: primary.of,
    estimator: primary.chosen.estimator,
    ...withUnit(unit, { value: primary.chosen.valueNats, se: primary.chosen.seNats }),
    p_value: primary.test?.pValue ?? null,
    tests: result.measures.filter(({ test }) => test !== null).length,
    discoveries: pairs ? adjusted.bh.filter((p) => p <= DISCOVERY_RATE).length : null,
    variables: result.variables.map((variable) => ({
      name: variable.name,
      columns: variable.columns,
      kind: variable.kind,
      symbols: variable.symbols,
      bins: variable.bins,
      lag1: variable.serial && {
        statistic: variable.serial.statistic,
        z: variable.serial.z,
        p_value: variable.serial.pValue,
      },
    })),
    measures: result.measures.map((measure, m) =>
      measureBody(unit, measure, level, pairs ? { holm: adjusted.holm[m], bh: adjusted.bh[m] } : undefined),
    ),
    warnings: result.warnings,
  };
}

/** Columns of the table of estimates: one row for every estimator of every measure. */
export function estimateColumns(unit: EntropyUnit): string[] {
  return [
    'measure',
    'of',
    'estimator',
    'chosen',
    `value_${unit}`,
    `se_${unit}`,
    'se_method',
    'negative',
    'samples',
    'observed_symbols',
    'support',
    'singles',
    'doubles',
    'coverage',
    'p_value',
    'advice',
  ];
}

export function* estimateRows(result: AnalysisResult, unit: EntropyUnit): Generator<Cell[]> {
  for (const measure of result.measures) {
    const { profile, chosen, test } = measure;
    for (const estimate of measure.estimates) {
      const isChosen = estimate.estimator === chosen.estimator;
      yield [
        measure.measure,
        measure.of,
        estimate.estimator,
        isChosen,
        inUnit(estimate.valueNats, unit),
        estimate.seNats === null ? null : inUnit(estimate.seNats, unit),
        estimate.seMethod,
        estimate.valueNats < 0,
        measure.samples,
        profile?.observed ?? null,
        measure.support,
        profile?.singles ?? null,
        profile?.doubles ?? null,
        profile && coverageOf(profile),
        isChosen ? (test?.pValue ?? null) : null,
        estimate.reason ?? (profile && samplingAdvice(profile, unit)) ?? null,
      ];
    }
  }
}

/** Columns of the table of pairs: one row a pair. */
export function pairColumns(unit: EntropyUnit): string[] {
  return [
    'x',
    'y',
    'estimator',
    `value_${unit}`,
    `se_${unit}`,
    `null_mean_${unit}`,
    `excess_${unit}`,
    'z',
    'p_value',
    'p_holm',
    'p_benjamini_hochberg',
    'p_asymptotic',
    'small_cells',
    'test',
    'samples',
  ];
}

/** The two variables of each pair, in the order of the measures. */
export function pairNames(result: AnalysisResult): [string, string][] {
  const names = result.variables.map(({ name }) => name);
  return names.flatMap((first, a) => names.slice(a + 1).map((second): [string, string] => [first, second]));
}

export function* pairRows(result: AnalysisResult, unit: EntropyUnit): Generator<Cell[]> {
  const adjusted = adjustedPValues(result);
  const names = pairNames(result);
  for (const [m, { chosen, test, samples }] of result.measures.entries()) {
    yield [
      ...names[m],
      chosen.estimator,
      inUnit(chosen.valueNats, unit),
      chosen.seNats === null ? null : inUnit(chosen.seNats, unit),
      test && inUnit(test.nullMean, unit),
      test && inUnit(test.excess, unit),
      test?.z ?? null,
      test?.pValue ?? null,
      test && adjusted.holm[m],
      test && adjusted.bh[m],
      test?.asymptotic?.pValue ?? null,
      test?.asymptotic?.smallCells ?? null,
      test?.method ?? null,
      samples,
    ];
  }
}
