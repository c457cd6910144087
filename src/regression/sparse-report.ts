import type { Cell } from '../report/csv.js';
import type { PathPoint } from './path.js';
import type { SparseResult, SparseSettings } from './sparse-job.js';

/** Name of the report's schema. */
export const REGRESS_SCHEMA = 'regress';

export interface CoefficientRow {
  readonly column: string;
  readonly index: number;
  /** In the units of the column. */
  readonly coefficient: number;
  /** Of the standardised column. */
  readonly coefficient_standardised: number;
}

export interface PathRow {
  readonly lambda: number;
  readonly support_size: number;
  readonly objective: number;
  readonly loss: number;
  readonly kkt_residual: number;
  readonly iterations: number;
  readonly gradient_evaluations: number;
  readonly converged: boolean;
  readonly strong_rule_kept: number;
  readonly strong_rule_returned: number;
  readonly cv_error: number | null;
  readonly cv_error_se: number | null;
}

export interface RegressBody {
  readonly rows: number;
  readonly columns: number;
  readonly family: string;
  readonly classes: readonly string[];
  readonly penalty: string;
  readonly penalty_shape: number | null;
  readonly solver: string;
  readonly line_search: string | null;
  readonly start: string;
  readonly standardised: boolean;
  readonly lambda_max: number;
  readonly lambda: number;
  readonly lambda_rule: string;
  readonly support_size: number;
  readonly intercept: number;
  readonly coefficients: readonly CoefficientRow[];
  readonly objective: number;
  readonly loss: number;
  /** R^2 of a linear, share of the log-loss of a logistic regression, on the rows it was fitted to. */
  readonly deviance_explained: number;
  readonly kkt_residual: number;
  readonly iterations: number;
  readonly gradient_evaluations: number;
  readonly converged: boolean;
  readonly cross_validation: {
    readonly folds: number;
    readonly measure: string;
    readonly error: number;
    readonly error_se: number;
    readonly lambda_min: number;
    readonly lambda_1se: number;
  } | null;
  readonly max_kkt_residual: number;
  readonly total_iterations: number;
  readonly total_gradient_evaluations: number;
  readonly path: readonly PathRow[];
  readonly solvers: readonly {
    readonly solver: string;
    readonly line_search: string | null;
    readonly iterations: number;
    readonly gradient_evaluations: number;
    readonly gap_after_50: number | null;
    readonly gap_after_200: number | null;
    readonly gap_least: number;
  }[];
  readonly warnings: readonly string[];
}

/** Coefficients of a point in the units of the columns, and its intercept. */
export function originalUnits(
  point: PathPoint,
  { names, centre, scale }: Pick<SparseResult, 'names' | 'centre' | 'scale'>,
): { intercept: number; rows: CoefficientRow[] } {
  let intercept = point.intercept;
  const { columns, values } = point.coefficients;
  const rows = Array.from(columns, (j, k) => {
    const coefficient = values[k] / scale[j];
    intercept -= coefficient * centre[j];
    return { column: names[j], index: j, coefficient, coefficient_standardised: values[k] };
  });
  rows.sort((a, b) => Math.abs(b.coefficient_standardised) - Math.abs(a.coefficient_standardised) || a.index - b.index);
  return { intercept, rows };
}

function warningsOf(result: SparseResult, settings: SparseSettings): string[] {
  const warnings: string[] = [];
  if (settings.penalty !== 'lasso' && result.columns > result.rows) {
    const start = settings.start === 'path' ? 'warm starts along the path from zeros' : 'zeros';
    warnings.push(
      `${settings.penalty} is not convex and there are more columns (${result.columns}) than rows (${result.rows}): several ` +
        `stationary points exist; this one was reached from ${start}`,
    );
  }
  const loose = result.points.filter(({ converged }) => !converged);
  if (loose.length > 0) {
    const worst = Math.max(...loose.map(({ kktResidual }) => kktResidual));
    warnings.push(
      `${loose.length} of ${result.points.length} solutions stopped at --max-iterations; the largest KKT residual is ${worst.toPrecision(3)}`,
    );
  }
  const { validation, chosen } = result;
  if (validation !== undefined && chosen === result.points.length - 1 && result.points.length > 1) {
    warnings.push('the least error is at the smallest lambda of the path; lower --lambda-ratio');
  }
  return warnings;
}

/** The body of the report. */
export function regressBody(result: SparseResult, settings: SparseSettings): RegressBody {
  const { points, chosen, validation, traces } = result;
  const point = points[chosen];
  const { intercept, rows } = originalUnits(point, result);
  return {
    rows: result.rows,
    columns: result.columns,
    family: result.family,
    classes: result.classes,
    penalty: settings.penalty,
    penalty_shape: settings.penalty === 'scad' ? settings.a : settings.penalty === 'mcp' ? settings.gamma : null,
    solver: settings.solver,
    line_search: settings.solver === 'ncg' ? settings.lineSearch : null,
    start: settings.start,
    standardised: settings.standardise,
    lambda_max: result.lambdaMax,
    lambda: point.lambda,
    lambda_rule: result.rule,
    support_size: rows.length,
    intercept,
    coefficients: rows,
    objective: point.objective,
    loss: point.loss,
    deviance_explained: 1 - point.loss / result.nullLoss,
    kkt_residual: point.kktResidual,
    iterations: point.iterations,
    gradient_evaluations: point.gradientEvaluations,
    converged: point.converged,
    cross_validation:
      validation === undefined
        ? null
        : {
            folds: validation.folds,
            measure: result.family === 'linear' ? 'mean squared error' : 'log-loss in nats',
            error: validation.meanError[chosen],
            error_se: validation.standardError[chosen],
            lambda_min: points[validation.best].lambda,
            lambda_1se: points[validation.oneStandardError].lambda,
          },
    max_kkt_residual: Math.max(...points.map(({ kktResidual }) => kktResidual)),
    total_iterations: points.reduce((sum, { iterations }) => sum + iterations, 0),
    total_gradient_evaluations: points.reduce((sum, { gradientEvaluations }) => sum + gradientEvaluations, 0),
    path: points.map((at, l) => ({
      lambda: at.lambda,
      support_size: at.coefficients.columns.length,
      objective: at.objective,
      loss: at.loss,
      kkt_residual: at.kktResidual,
      iterations: at.iterations,
      gradient_evaluations: at.gradientEvaluations,
      converged: at.converged,
      strong_rule_kept: at.screened,
      strong_rule_returned: at.returned,
      cv_error: validation?.meanError[l] ?? null,
      cv_error_se: validation?.standardError[l] ?? null,
    })),
    solvers: traces.map(({ solver, lineSearch, gap, gradients }) => ({
      solver,
      line_search: lineSearch,
      iterations: gap.length,
      gradient_evaluations: gradients[gradients.length - 1] ?? 0,
      gap_after_50: gap[Math.min(50, gap.length) - 1] ?? null,
      gap_after_200: gap[Math.min(200, gap.length) - 1] ?? null,
      gap_least: Math.min(...gap),
    })),
    warnings: warningsOf(result, settings),
  };
}

/** What `screen --then` keeps of the report. */
export function regressSummary(body: RegressBody) {
  const { family, penalty, penalty_shape, lambda, lambda_rule, support_size, intercept, coefficients } = body;
  const { deviance_explained, kkt_residual, iterations, gradient_evaluations, converged, cross_validation } = body;
  return {
    family,
    classes: body.classes,
    penalty,
    penalty_shape,
    columns: body.columns,
    lambda,
    lambda_rule,
    support_size,
    intercept,
    coefficients,
    deviance_explained,
    kkt_residual,
    iterations,
    gradient_evaluations,
    converged,
    cross_validation,
    warnings: body.warnings,
  };
}

export const COEFFICIENT_COLUMNS = ['column', 'index', 'coefficient', 'coefficient_standardised'] as const;

export function coefficientRows(body: RegressBody): Cell[][] {
  return body.coefficients.map((row) => COEFFICIENT_COLUMNS.map((key) => row[key]));
}

export const PATH_COLUMNS = [
  'lambda',
  'support_size',
  'objective',
  'loss',
  'kkt_residual',
  'iterations',
  'gradient_evaluations',
  'converged',
  'strong_rule_kept',
  'strong_rule_returned',
  'cv_error',
  'cv_error_se',
] as const;

export function pathRows(body: RegressBody): Cell[][] {
  return body.path.map((row) => PATH_COLUMNS.map((key) => row[key]));
}
