import type { Cell } from '../../report/csv.js';
import { findIntervention } from '../interventions/registry.js';
import { completeSettings } from '../interventions/settings.js';
import { type Direction, directionsOf } from './directions.js';
import type { LabResult } from './lab-job.js';
import type { FittedLaw, RunLaws } from './laws.js';
import { byMethod, type MethodRuns, type SeedMean, seedMean, tableCells } from './summary.js';
import type { LabCurves, LabEngine, LabTask } from './types.js';

/** Name of the report's schema. */
export const LAB_SCHEMA = 'policy-lab';

/** Columns of `--out` that every engine fills, and the curves behind them. */
const CURVE_COLUMNS = [
  ['entropy_nats', 'entropy'],
  ['success', 'success'],
  ['reward', 'reward'],
  ['length_tokens', 'length'],
  ['covariance', 'covariance'],
  ['touched_share', 'touched'],
  ['generated_groups', 'generatedGroups'],
  ['used_groups', 'usedGroups'],
  ['zero_advantage_group_share', 'zeroAdvantageGroups'],
] as const satisfies readonly (readonly [string, keyof LabCurves])[];

export const curveColumns = (measures: readonly string[]): string[] => [
  'method',
  'seed',
  'step',
  ...CURVE_COLUMNS.map(([column]) => column),
  ...measures,
];

export const TABLE_COLUMNS = [
  'method',
  'step',
  'seeds',
  'entropy_nats',
  'entropy_nats_standard_error',
  'success',
  'success_standard_error',
  'entropy_times_plain',
  'entropy_times_plain_standard_error',
  'success_less_plain',
  'success_less_plain_standard_error',
];

const DEFAULT_TABLE_STEPS = [0, 50, 100, 200, 499];

/** The steps of the published table that a run reaches, and its last step. */
export const tableStepsOf = (steps: number): number[] => [
  ...new Set([...DEFAULT_TABLE_STEPS.filter((step) => step < steps), steps - 1]),
];

/** What the runs were asked for, beside their methods. */
export interface LabSetting {
  readonly engine: Pick<LabEngine, 'name' | 'title' | 'measures'>;
  readonly task: LabTask;
  readonly steps: number;
  readonly seeds: readonly number[];
  readonly tableSteps: readonly number[];
  readonly early: number;
  readonly level: number;
  readonly draws: number;
}

/** All runs, by method; the plain rule is the first method that intervenes in nothing. */
export interface LabOutcome {
  readonly setting: LabSetting;
  readonly methods: readonly MethodRuns<LabResult>[];
  readonly plain: MethodRuns<LabResult> | undefined;
  readonly directions: readonly Direction[];
}

export const PLAIN_RULE = 'grpo';

/** Puts the runs of all threads together. */
export function labOutcome(setting: LabSetting, runs: readonly LabResult[]): LabOutcome {
  const methods = byMethod(runs);
  const plain = methods.find(({ runs: [run] }) => run.method.intervention === PLAIN_RULE);
  const last = setting.steps - 1;
  const known = setting.engine.name === 'tabular' && plain !== undefined;
  return { setting, methods, plain, directions: known ? directionsOf(methods, plain, last) : [] };
}

const EARLY_CAUTION =
  'A ceiling is a property of the stretch that was fitted, not of the task: the early part of a run under an intervention ' +
  'gives nearly the ceiling of the plain rule, and the run then rises above it.';
const FITTED_CAUTION =
  'Steps of one run are not independent: intervals from single points are too narrow where neighbouring residuals are ' +
  'correlated; those from blocks of neighbours are wider, and the spread over seeds is the honest one.';

const numberOrNull = (value: number | undefined): number | null =>
  value === undefined || Number.isNaN(value) ? null : value;
const meanBody = ({ mean, standardError }: SeedMean) => ({
  mean: numberOrNull(mean),
  standard_error: numberOrNull(standardError),
});

function lawBody({ fit, alone, blocks, residualAutocorrelation }: FittedLaw) {
  const interval = (found: FittedLaw['alone']) =>
    found === undefined ? null : [found.ceiling.low, found.ceiling.high];
  return {
    points: fit.points,
    a: fit.a,
    a_standard_error: numberOrNull(fit.aError),
    b: fit.b,
    b_standard_error: numberOrNull(fit.bError),
    ceiling: fit.ceiling,
    ceiling_standard_error: numberOrNull(fit.ceilingError),
    ceiling_interval_points: interval(alone),
    ceiling_interval_blocks: interval(blocks),
    block_points: blocks?.block ?? null,
    rmse: fit.rmse,
    r2: numberOrNull(fit.r2),
    residual_autocorrelation: numberOrNull(residualAutocorrelation),
    applicable: fit.a >= 0,
  };
}

function lawsBody(seed: number, laws: RunLaws | string) {
  if (typeof laws === 'string') return { seed, full: null, early: null, reason: laws };
  const { full, early } = laws;
  return {
    seed,
    full: lawBody(full),
    early:
      early === undefined
        ? null
        : {
            ...lawBody(early),
            rmse_of_rest: early.rmseOfRest,
            final_absolute_error: early.finalError,
            coverage_of_rest: early.coverage,
          },
    reason: null,
  };
}

/** Means over seeds of a law's figures, over the runs that have one. */
function lawMeans(runs: readonly LabResult[]) {
  const laws = runs.flatMap((run) => (typeof run.laws === 'string' ? [] : [run.laws]));
  const early = laws.flatMap((law) => (law.early === undefined ? [] : [law.early]));
  const means = <T>(from: readonly T[], value: (one: T) => number) =>
    from.length === 0 ? null : meanBody(seedMean(from.map(value)));
  return {
    runs: laws.length,
    a: means(laws, ({ full }) => full.fit.a),
    b: means(laws, ({ full }) => full.fit.b),
    ceiling: means(laws, ({ full }) => full.fit.ceiling),
    r2: means(laws, ({ full }) => full.fit.r2),
    rmse: means(laws, ({ full }) => full.fit.rmse),
    early_ceiling: means(early, ({ fit }) => fit.ceiling),
    early_r2: means(early, ({ fit }) => fit.r2),
    early_rmse_of_rest: means(early, ({ rmseOfRest }) => rmseOfRest),
  };
}

/** Sums over the steps of a curve; steps that were not measured count nothing. */
const total = (curve: Float64Array): number => curve.reduce((sum, value) => sum + (Number.isNaN(value) ? 0 : value), 0);

function groupsBody(runs: readonly LabResult[]) {
  const per = (value: (curves: LabCurves) => number) => meanBody(seedMean(runs.map(({ curves }) => value(curves))));
  return {
    generated: per(({ generatedGroups }) => total(generatedGroups)),
    used: per(({ usedGroups }) => total(usedGroups)),
    generated_per_used: per(({ generatedGroups, usedGroups }) => total(generatedGroups) / total(usedGroups)),
    steps_with_updates: per(({ usedGroups }) => usedGroups.filter((used) => used > 0).length),
  };
}

function methodBody(method: MethodRuns<LabResult>, { plain, setting }: LabOutcome) {
  const [{ method: rule }] = method.runs;
  const settings = completeSettings(findIntervention(rule.intervention), rule.settings);
  return {
    label: method.label,
    intervention: rule.intervention,
    settings,
    table: tableCells(method, plain, setting.tableSteps).map((cell) => ({
      step: cell.step,
      entropy_nats: meanBody(cell.entropy),
      success: meanBody(cell.success),
      entropy_times_plain: cell.entropyRatio === undefined ? null : meanBody(cell.entropyRatio),
      success_less_plain: cell.successGain === undefined ? null : meanBody(cell.successGain),
    })),
    groups: groupsBody(method.runs),
    law: lawMeans(method.runs),
    laws: method.runs.map(({ seed, laws }) => lawsBody(seed, laws)),
    warnings: method.runs.flatMap(({ seed, warnings }) => warnings.map((text) => `seed ${seed}: ${text}`)),
  };
}

/** Body of the report. */
export function labBody(outcome: LabOutcome) {
  const { setting, methods, plain, directions } = outcome;
  return {
    engine: setting.engine.name,
    title: setting.engine.title,
    task: setting.task,
    steps: setting.steps,
    seeds: [...setting.seeds],
    early_steps: setting.early,
    interval_level: setting.level,
    bootstrap_draws: setting.draws,
    plain: plain?.label ?? null,
    methods: methods.map((method) => methodBody(method, outcome)),
    directions: directions.map(({ method, claim, measured, relation, threshold, held }) => ({
      method,
      claim,
      measured: meanBody(measured),
      relation,
      threshold,
      held,
    })),
    directions_held: directions.filter(({ held }) => held).length,
    notes: [EARLY_CAUTION, FITTED_CAUTION],
  };
}

const cell = (value: number): Cell => (Number.isNaN(value) ? null : value);

/** Rows of `--out`: every run by step. */
export function* curveRows({ methods, setting }: LabOutcome): Generator<readonly Cell[], void, undefined> {
  for (const { label, runs } of methods) {
    for (const { seed, curves } of runs) {
      for (let step = 0; step < setting.steps; step++) {
        yield [
          label,
          seed,
          step,
          ...CURVE_COLUMNS.map(([, name]) => cell(curves[name][step])),
          ...setting.engine.measures.map((name) => cell(curves.extra[name]?.[step] ?? Number.NaN)),
        ];
      }
    }
  }
}

/** Rows of `--table`: means over seeds at the steps of the table. */
export function* tableRows({ methods, plain, setting }: LabOutcome): Generator<readonly Cell[], void, undefined> {
  const pair = (value: SeedMean | undefined): Cell[] =>
    value === undefined ? [null, null] : [cell(value.mean), cell(value.standardError)];
  for (const method of methods) {
    for (const { step, entropy, success, entropyRatio, successGain } of tableCells(method, plain, setting.tableSteps)) {
      yield [
        ...[method.label, step, method.runs.length],
        ...[entropy, success, entropyRatio, successGain].flatMap(pair),
      ];
    }
  }
}
