import type { Cell } from '../report/csv.js';
import type { DataResult } from './data-job.js';
import type { Estimate } from './rates.js';
import type { StudyResult } from './study-job.js';

/** Name of the view and of its schema. */
export const PRETRAINING_SCHEMA = 'pretraining';

const orNull = (value: number): number | null => (Number.isNaN(value) ? null : value);

export interface EstimateReport {
  value: number | null;
  /** Ends of the bootstrap interval of 95 %, over seeds or over test rows. */
  low: number | null;
  high: number | null;
}

const estimate = ({ value, low, high }: Estimate): EstimateReport => ({
  value: orNull(value),
  low: orNull(low),
  high: orNull(high),
});

export interface StudyBody {
  mode: 'study';
  case: string;
  measure: 'mse' | 'error';
  seeds: number;
  cells: {
    method: string;
    m: number;
    n: number;
    risk: number;
    risk_se: number | null;
    excess_risk: number;
    excess_risk_se: number | null;
  }[];
  rates: { method: string; m: number; from_n: number; slope: EstimateReport }[];
  two_term: { form: string; a: EstimateReport; b: EstimateReport; relative_residual: number }[];
  crossover: { m: number; n: EstimateReport }[];
  signal_sweep: {
    signal: number;
    risk_pretrained: number;
    risk_supervised: number;
    risk_oracle: number;
    risk_trivial: number;
    gain: EstimateReport;
  }[];
  warnings: string[];
}

export interface DataBody {
  mode: 'data';
  case: string;
  measure: 'mse' | 'error';
  unlabelled_rows: number;
  labelled_rows: number;
  test_rows: number;
  features: number;
  risk_pretrained: EstimateReport;
  risk_supervised: EstimateReport;
  risk_trivial: EstimateReport;
  /** Risk of supervised learning minus that of pretraining. */
  gain: EstimateReport;
  model: {
    path: string;
    latent: number;
    effective_latent: number;
    log_likelihood_per_row_nats: number;
    noise_variance: number | null;
    eigenvalues: number[];
    log_likelihood_trajectory_nats: number[];
    start_log_likelihoods_nats: number[];
    reseeds: { iteration: number; component: number; row: number }[];
    within_component_variance: number | null;
  };
  shared_test_rows: number;
  warnings: string[];
}

export type PretrainingBody = StudyBody | DataBody;

export function studyBody(study: string, seeds: number, result: StudyResult): StudyBody {
  const lost = result.runs.filter(({ method, effectiveLatent }) => method === 'pretrained' && effectiveLatent !== null);
  const most = Math.max(0, ...lost.map(({ effectiveLatent }) => effectiveLatent ?? 0));
  const fewer = lost.filter(({ effectiveLatent }) => (effectiveLatent ?? 0) < most).length;
  return {
    mode: 'study',
    case: study,
    measure: study === 'mixture' ? 'error' : 'mse',
    seeds,
    cells: result.cells.map((cell) => ({
      method: cell.method,
      m: cell.m,
      n: cell.n,
      risk: cell.risk,
      risk_se: orNull(cell.riskSe),
      excess_risk: cell.excess,
      excess_risk_se: orNull(cell.excessSe),
    })),
    rates: result.rates.map(({ method, m, fromN, slope }) => ({ method, m, from_n: fromN, slope: estimate(slope) })),
    two_term: result.twoTerm.map(({ form, a, b, relativeResidual }) => ({
      form,
      a: estimate(a),
      b: estimate(b),
      relative_residual: relativeResidual,
    })),
    crossover: result.crossings.map(({ m, n }) => ({ m, n: estimate(n) })),
    signal_sweep: result.sweep.map((point) => ({
      signal: point.signal,
      risk_pretrained: point.pretrained,
      risk_supervised: point.supervised,
      risk_oracle: point.oracle,
      risk_trivial: point.trivial,
      gain: estimate(point.gain),
    })),
    warnings:
      fewer === 0
        ? []
        : [
            `${fewer} of ${lost.length} pretrained fits had fewer effective factors, or a component that was empty once`,
          ],
  };
}

export function dataBody(study: string, result: DataResult): DataBody {
  const { model, rows } = result;
  return {
    mode: 'data',
    case: study,
    measure: result.measure,
    unlabelled_rows: rows.unlabelled,
    labelled_rows: rows.labelled,
    test_rows: rows.test,
    features: rows.features,
    risk_pretrained: estimate(result.pretrained),
    risk_supervised: estimate(result.supervised),
    risk_trivial: estimate(result.trivial),
    gain: estimate(result.gain),
    model: {
      path: model.path,
      latent: model.latent,
      effective_latent: model.effectiveLatent,
      log_likelihood_per_row_nats: model.logLikelihoodPerRow,
      noise_variance: model.noiseVariance,
      eigenvalues: [...(model.eigenvalues ?? [])],
      log_likelihood_trajectory_nats: [...model.logLikelihoods],
      start_log_likelihoods_nats: [...model.startLogLikelihoods],
      reseeds: model.reseeds.map((reseed) => ({ ...reseed })),
      within_component_variance: model.withinVariance,
    },
    shared_test_rows: result.sharedTestRows,
    warnings: [...result.warnings],
  };
}

/** Columns of `--out` of a study: one row a run. */
export const RUN_COLUMNS = [
  'case',
  'signal',
  'seed',
  'm',
  'n',
  'method',
  'risk',
  'excess_risk',
  'trivial_risk',
  'effective_latent',
  'principal_angle_rad',
] as const;

export function* runRows(study: string, result: StudyResult): Iterable<readonly Cell[]> {
  for (const run of result.runs) {
    yield [
      study,
      run.signal,
      run.seed,
      run.m,
      run.n,
      run.method,
      run.risk,
      run.excess,
      run.trivialRisk,
      run.effectiveLatent,
      run.angle,
    ];
  }
}

/** Columns of `--out` on data: one row an estimator. */
export const DATA_COLUMNS = ['method', 'measure', 'risk', 'low', 'high'] as const;

export function* dataRows(body: DataBody): Iterable<readonly Cell[]> {
  const rows: [string, EstimateReport][] = [
    ['pretrained', body.risk_pretrained],
    ['supervised', body.risk_supervised],
    ['trivial', body.risk_trivial],
    ['gain', body.gain],
  ];
  for (const [method, { value, low, high }] of rows) yield [method, body.measure, value, low, high];
}

export const STUDY_TABLES = ['crossover', 'rates', 'cells', 'sweep'] as const;
export type StudyTable = (typeof STUDY_TABLES)[number];

/** Columns of `--table`. */
export const STUDY_TABLE_COLUMNS: Readonly<Record<StudyTable, readonly string[]>> = {
  crossover: ['m', 'n', 'low', 'high'],
  rates: ['method', 'm', 'from_n', 'slope', 'low', 'high'],
  cells: ['method', 'm', 'n', 'risk', 'risk_se', 'excess_risk', 'excess_risk_se'],
  sweep: [
    'signal',
    'risk_pretrained',
    'risk_supervised',
    'risk_oracle',
    'risk_trivial',
    'gain',
    'gain_low',
    'gain_high',
  ],
};

export function* studyTableRows(kind: StudyTable, body: StudyBody): Iterable<readonly Cell[]> {
  if (kind === 'crossover') for (const { m, n } of body.crossover) yield [m, n.value, n.low, n.high];
  else if (kind === 'rates') {
    for (const { method, m, from_n, slope } of body.rates)
      yield [method, m, from_n, slope.value, slope.low, slope.high];
  } else if (kind === 'cells') {
    for (const cell of body.cells) {
      yield [cell.method, cell.m, cell.n, cell.risk, cell.risk_se, cell.excess_risk, cell.excess_risk_se];
    }
  } else {
    for (const point of body.signal_sweep) {
      yield [
        point.signal,
        point.risk_pretrained,
        point.risk_supervised,
        point.risk_oracle,
        point.risk_trivial,
        point.gain.value,
        point.gain.low,
        point.gain.high,
      ];
    }
  }
}
